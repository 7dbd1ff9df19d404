//! The Rust side of `fault.h`: the same structs, with the same sizes and offsets asserted.

use std::mem::{offset_of, size_of};

use crate::intf::{Address, Plain};

/// Lines of one wire, both ways together.
pub const FAULT_LINES_MAX: usize = 64;
/// Ways through a wire.
pub const FAULT_WAYS: usize = 2;
/// Receive queues of each of its interfaces that can have a socket.
pub const FAULT_QUEUES_MAX: u32 = 16;
/// [`FaultMeta::magic`].
pub const FAULT_META_MAGIC: u32 = u32::from_le_bytes(*b"NAUF");

/// [`FaultLineValue::flags`]: what is not lost goes to the user-space half.
pub const HOLDS: u32 = 1;
/// [`FaultLineValue::flags`]: a corrupted datagram gets the checksum that fits it.
pub const REPAIRS: u32 = 2;

/// Bits of [`FaultFateValue::flags`] and [`FaultMeta::flags`].
pub const LOST: u32 = 1;
/// One bit of the payload was turned.
pub const CORRUPTED: u32 = 2;
/// It is sent twice.
pub const DUPLICATED: u32 = 4;
/// It is held until others have overtaken it.
pub const REORDERED: u32 = 8;

/// Key of `fault_lines`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FaultKey {
    /// Where the line's packets go.
    pub address: Address,
    /// Their UDP port.
    pub port: u32,
    /// 0 forward, 1 back.
    pub way: u32,
}

/// One packet's fate.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultFateValue {
    /// The packet's on its line, from 1.
    pub number: u64,
    /// What became of it.
    pub flags: u32,
    /// Which of the payload's bits was turned, if one was.
    pub bit: u32,
}

/// Value of `fault_rules`. The fields in the header's words.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultLineValue {
    /// The kernel's; 0 as seen from here.
    pub lock: u32,
    /// [`HOLDS`], [`REPAIRS`].
    pub flags: u32,
    /// Of the draws.
    pub seed: u64,
    /// Packets that pass unharmed before the first fault.
    pub after: u64,
    /// Number of the last packet that may be harmed.
    pub until: u64,
    /// In a million, outside bursts.
    pub loss_ppm: u32,
    /// Of a good packet to be a burst's first.
    pub burst_enter_ppm: u32,
    /// Of a burst's packet to be the first good one.
    pub burst_leave_ppm: u32,
    /// In a million, inside bursts.
    pub burst_loss_ppm: u32,
    /// Of those not lost.
    pub corrupt_ppm: u32,
    /// Of those not lost.
    pub duplicate_ppm: u32,
    /// Of those not lost.
    pub reorder_ppm: u32,
    /// Whether the last packet was a burst's.
    pub in_burst: u32,
    /// Packets that came.
    pub received: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of them lost.
    pub lost: u64,
    /// Corrupted.
    pub corrupted: u64,
    /// Sent twice by the program itself.
    pub duplicated: u64,
    /// Given to the user-space half.
    pub handed: u64,
    /// Bursts begun.
    pub burst_count: u64,
    /// Of the last packet.
    pub last: FaultFateValue,
}

/// Value of `fault_others`, one per possible CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultOther {
    /// Packets of no line.
    pub packet_count: u64,
    /// Their bytes.
    pub byte_count: u64,
}

/// Directly before the first byte of every frame that is handed to the user-space half (XDP metadata).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultMeta {
    /// `CLOCK_MONOTONIC` when the program ran, nanoseconds.
    pub rx_ns: u64,
    /// Drawn for the delay's variable part.
    pub jitter: u64,
    /// The packet's on its line, from 1.
    pub number: u64,
    /// [`FAULT_META_MAGIC`].
    pub magic: u32,
    /// Index of the line.
    pub line: u16,
    /// [`CORRUPTED`], [`DUPLICATED`], [`REORDERED`].
    pub flags: u16,
}

impl FaultMeta {
    /// Bytes before the frame.
    pub const BYTES: usize = size_of::<Self>();

    /// From the bytes before a frame; None when the program did not write them.
    pub fn read(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|byte| bytes[at + byte]));
        let half = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let magic = u32::from_ne_bytes([bytes[24], bytes[25], bytes[26], bytes[27]]);
        (magic == FAULT_META_MAGIC).then(|| Self {
            rx_ns: word(0),
            jitter: word(8),
            number: word(16),
            magic,
            line: half(28),
            flags: half(30),
        })
    }
}

// SAFETY: repr(C), no padding (the sizes below are the sums of the fields), integers alone.
unsafe impl Plain for FaultKey {}
// SAFETY: as above.
unsafe impl Plain for FaultLineValue {}
// SAFETY: as above.
unsafe impl Plain for FaultOther {}

const _: () = {
    assert!(size_of::<FaultKey>() == 24 && offset_of!(FaultKey, port) == 16);
    assert!(size_of::<FaultFateValue>() == 16);
    assert!(size_of::<FaultLineValue>() == 136);
    assert!(offset_of!(FaultLineValue, seed) == 8);
    assert!(offset_of!(FaultLineValue, loss_ppm) == 32);
    assert!(offset_of!(FaultLineValue, received) == 64);
    assert!(offset_of!(FaultLineValue, last) == 120);
    assert!(size_of::<FaultOther>() == 16);
    assert!(size_of::<FaultMeta>() == 32);
    assert!(offset_of!(FaultMeta, magic) == 24 && offset_of!(FaultMeta, line) == 28);
};
