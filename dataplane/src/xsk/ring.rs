//! One of the four rings, mapped: its indices, its flags and its descriptors.

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use nautilus_shm::ledger::Ring;
use nautilus_shm::sync::{AtomicU32, AtomicU64, Ordering};

use super::XskError;
use super::mapping::Mapping;

/// A mapped ring. The kernel has the other end; each index has one writer, this process or it.
pub struct RingMap {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    /// Fill and completion: one word a descriptor, an address. Rx and tx: two, address and
    /// (options << 32 | length).
    words: NonNull<AtomicU64>,
    words_each: usize,
    entries: u32,
    /// Keeps the pointers above valid.
    _mapping: Mapping,
}

// SAFETY: the pointers lead into a mapping this struct owns, which is not bound to a thread.
unsafe impl Send for RingMap {}

/// A descriptor of the rx or tx ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Offset of the packet in the UMEM.
    pub address: u64,
    /// Its length in bytes.
    pub length: u32,
}

impl RingMap {
    /// Maps `ring` of `fd`, which has `entries`.
    pub fn map(
        fd: BorrowedFd<'_>,
        ring: Ring,
        offsets: &libc::xdp_mmap_offsets,
        entries: u32,
    ) -> Result<Self, XskError> {
        let (offset, place, words_each) = match ring {
            Ring::Rx => (libc::XDP_PGOFF_RX_RING as u64, &offsets.rx, 2),
            Ring::Tx => (libc::XDP_PGOFF_TX_RING as u64, &offsets.tx, 2),
            Ring::Fill => (libc::XDP_UMEM_PGOFF_FILL_RING, &offsets.fr, 1),
            Ring::Completion => (libc::XDP_UMEM_PGOFF_COMPLETION_RING, &offsets.cr, 1),
        };
        let words = words_each * entries as usize;
        let bytes = place.desc as usize + words * size_of::<u64>();
        let mapping = Mapping::new(fd, offset, bytes).map_err(|source| {
            if source.raw_os_error() == Some(libc::EBUSY) {
                XskError::RingsOfBoundSocket
            } else {
                XskError::System { step: "mapping a ring of the socket", source }
            }
        })?;
        let missing = || XskError::Header { problem: format!("does not match its {ring:?} ring") };
        let index = |offset: u64| -> Result<NonNull<AtomicU32>, XskError> {
            Ok(NonNull::from(mapping.atomic(offset as usize).ok_or_else(missing)?))
        };
        Ok(Self {
            producer: index(place.producer)?,
            consumer: index(place.consumer)?,
            flags: index(place.flags)?,
            words: NonNull::from(
                mapping.atomics::<AtomicU64>(place.desc as usize, words).ok_or_else(missing)?,
            )
            .cast(),
            words_each,
            entries,
            _mapping: mapping,
        })
    }

    #[inline]
    fn index(&self, at: NonNull<AtomicU32>) -> &AtomicU32 {
        // SAFETY: one of the three pointers made in `map` into the mapping `self` owns.
        unsafe { at.as_ref() }
    }

    /// Pairs with the kernel's release of its producer (`xskq_prod_submit`), or with our own.
    #[inline]
    pub fn producer(&self) -> u32 {
        self.index(self.producer).load(Ordering::Acquire)
    }

    /// Pairs with the kernel's release of its consumer (`__xskq_cons_release`), or with our own.
    #[inline]
    pub fn consumer(&self) -> u32 {
        self.index(self.consumer).load(Ordering::Acquire)
    }

    /// Gives the descriptors before `index` to the kernel: pairs with its acquire of the producer.
    #[inline]
    pub fn publish_producer(&self, index: u32) {
        self.index(self.producer).store(index, Ordering::Release);
    }

    /// Gives the slots before `index` back: pairs with the kernel's acquire of the consumer.
    #[inline]
    pub fn publish_consumer(&self, index: u32) {
        self.index(self.consumer).store(index, Ordering::Release);
    }

    /// Whether the kernel wants a system call before it looks at this ring again.
    #[inline]
    pub fn needs_wakeup(&self) -> bool {
        self.index(self.flags).load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    /// Number of entries.
    #[inline]
    pub fn entries(&self) -> u32 {
        self.entries
    }

    #[inline]
    fn word(&self, index: u32, word: usize) -> &AtomicU64 {
        let slot = (index & (self.entries - 1)) as usize;
        // SAFETY: slot < entries (a power of two, checked with the specification) and word <
        // words_each, so this is one of the words whose bounds `map` checked.
        unsafe { self.words.add(slot * self.words_each + word).as_ref() }
    }

    /// An address of the fill or completion ring. Ordered by the index loads and stores.
    #[inline]
    pub fn address(&self, index: u32) -> u64 {
        debug_assert_eq!(self.words_each, 1);
        self.word(index, 0).load(Ordering::Relaxed)
    }

    /// Writes an address of the fill ring.
    #[inline]
    pub fn write_address(&self, index: u32, address: u64) {
        debug_assert_eq!(self.words_each, 1);
        self.word(index, 0).store(address, Ordering::Relaxed);
    }

    /// A descriptor of the rx or tx ring.
    #[inline]
    pub fn descriptor(&self, index: u32) -> Descriptor {
        debug_assert_eq!(self.words_each, 2);
        let address = self.word(index, 0).load(Ordering::Relaxed);
        // `struct xdp_desc` is {u64 address, u32 length, u32 options}, native order.
        let halves = self.word(index, 1).load(Ordering::Relaxed).to_ne_bytes();
        let length = u32::from_ne_bytes([halves[0], halves[1], halves[2], halves[3]]);
        Descriptor { address, length }
    }

    /// Writes a descriptor of the tx ring, options 0.
    #[inline]
    pub fn write_descriptor(&self, index: u32, descriptor: Descriptor) {
        debug_assert_eq!(self.words_each, 2);
        self.word(index, 0).store(descriptor.address, Ordering::Relaxed);
        let mut halves = [0; 8];
        halves[..4].copy_from_slice(&descriptor.length.to_ne_bytes());
        self.word(index, 1).store(u64::from_ne_bytes(halves), Ordering::Relaxed);
    }
}
