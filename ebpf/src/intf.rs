//! The Rust side of `intf.h`: the same structs, with the same sizes and offsets asserted.
//!
//! Multi-byte fields are in host order unless the field says otherwise.

use std::mem::{offset_of, size_of};
use std::net::IpAddr;

/// Marks a struct that may cross to the kernel as its bytes.
///
/// # Safety
/// `repr(C)`, no padding, every bit pattern valid.
pub unsafe trait Plain: Copy {}

/// AF_XDP sockets of one node, over all its interfaces and queues; length of `xsks`.
pub const SOCKETS_MAX: u32 = 64;
/// Interfaces one program serves.
pub const INTERFACES_MAX: u32 = 16;
/// Whole addresses on the source list.
pub const SOURCES_EXACT_MAX: u32 = 16_384;
/// Prefixes on the source list.
pub const SOURCES_MAX: u32 = 16_384;
/// Addresses served.
pub const SERVED_MAX: u32 = 1_024;
/// Length of `ports`: every UDP and TCP port.
pub const PORTS_MAX: u32 = 65_536;
/// [`RxMeta::magic`].
pub const RX_META_MAGIC: u32 = u32::from_le_bytes(*b"NAUT");

/// Directly before the first byte of every redirected frame (XDP metadata).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxMeta {
    /// `CLOCK_MONOTONIC` when the steering program ran, nanoseconds.
    pub rx_ns: u64,
    /// [`RX_META_MAGIC`].
    pub magic: u32,
    /// 0.
    pub reserved: u32,
}

/// Key of `sources_exact` and `served`: sixteen bytes in network order, IPv4 as `::ffff:a.b.c.d`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Address(pub [u8; 16]);

/// Key of `sources`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SourcePrefixKey {
    /// Prefix length over the sixteen bytes, 0..=128.
    pub bits: u32,
    /// The prefix; bits beyond `bits` are 0.
    pub address: Address,
}

/// Value of `sources_exact` and `sources`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// [`Permissions`] bits; 0 denies.
    pub permissions: u32,
    /// 4 or 6: the family of the packets this entry speaks for.
    pub family: u32,
}

/// What a source may do, as bits of [`Source::permissions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions(pub u32);

impl Permissions {
    /// Listed only to be refused.
    pub const NONE: Self = Self(0);
    /// May read.
    pub const READ: Self = Self(1);
    /// May write.
    pub const WRITE: Self = Self(2);
    /// May administer.
    pub const ADMIN: Self = Self(4);
    /// Every permission.
    pub const ALL: Self = Self(7);
}

/// Value of `ports`. All zero is no service.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// For the reader of the map; the program does not look at it.
    pub id: u32,
    /// `UDP`, `TCP`, ... bits.
    pub flags: u32,
}

impl Service {
    /// UDP is redirected.
    pub const UDP: u32 = 1;
    /// TCP of listed sources goes to the kernel, of others nowhere.
    pub const TCP: u32 = 2;
    /// Reached at unicast addresses.
    pub const UNICAST: u32 = 4;
    /// Reached at multicast groups.
    pub const MULTICAST: u32 = 8;
    /// Sends a datagram back, so datagrams from port 0 or from another replying service's port are
    /// refused: two such services would answer each other for ever.
    pub const REPLIES: u32 = 16;

    /// A service that answers requests sent to a unicast address: echo, cache.
    pub const fn replying(id: u32) -> Self {
        Self { id, flags: Self::UDP | Self::TCP | Self::UNICAST | Self::REPLIES }
    }

    /// A service that only listens, to groups or unicast: a market data line.
    pub const fn listening(id: u32) -> Self {
        Self { id, flags: Self::UDP | Self::TCP | Self::UNICAST | Self::MULTICAST }
    }
}

/// Value of `interfaces`, keyed by ifindex.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// The interface's own MAC address.
    pub mac: [u8; 6],
    /// Receive queues that may have a socket.
    pub queue_count: u16,
    /// The socket of queue `q` is `xsks[first_socket + q]`.
    pub first_socket: u32,
}

/// Value of `served`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// 0.
    pub reserved: u32,
}

/// Value of `judged`, which only the program uses; here so that its shape is asserted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Who sent.
    pub source: Address,
    /// Which served address was meant.
    pub destination: Address,
    /// `list_epoch` before the lists were asked.
    pub epoch: u64,
    /// The source's; 0 is unlisted.
    pub permissions: u32,
    /// 0.
    pub reserved: u32,
}

/// Value of `verdicts`, one per possible CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets.
    pub packet_count: u64,
    /// Their bytes, whole frames from the Ethernet header on, as received.
    pub byte_count: u64,
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self(v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => Self(v6.octets()),
        }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        IpAddr::from(address.0).to_canonical()
    }
}

macro_rules! plain {
    ($($name:ty, $size:literal $(, $field:ident at $offset:literal)*;)*) => {$(
        // SAFETY: repr(C) integers and byte arrays; the sizes below leave no room for padding.
        unsafe impl Plain for $name {}
        const _: () = assert!(size_of::<$name>() == $size);
        $(const _: () = assert!(offset_of!($name, $field) == $offset);)*
    )*};
}

plain! {
    RxMeta, 16, magic at 8, reserved at 12;
    Address, 16;
    SourcePrefixKey, 20, address at 4;
    Source, 8, family at 4;
    Service, 8, flags at 4;
    Interface, 12, queue_count at 6, first_socket at 8;
    Served, 4;
    Judged, 48, destination at 16, epoch at 32, permissions at 40;
    Tally, 16, byte_count at 8;
    u32, 4;
    u64, 8;
}
