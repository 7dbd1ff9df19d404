//! How often each slot was answered from, as the worker may look at it: reading the kernel's counts is
//! a system call, which the run loop does not make. The worker's helper thread reads them.

use std::sync::Arc;

use nautilus_ebpf::HotHits;
use nautilus_ebpf::intf::HOT_SLOTS;
use nautilus_shm::sync::{AtomicU64, Ordering};

/// Answers from each slot since the program was loaded. Writer: the helper thread. Reader: the run
/// loop. Relaxed: a late figure is as good.
#[derive(Clone, Debug)]
pub struct HitCounts(Arc<[AtomicU64]>);

impl Default for HitCounts {
    fn default() -> Self {
        Self((0..HOT_SLOTS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl HitCounts {
    /// Of a slot below [`HOT_SLOTS`].
    #[inline]
    pub fn of(&self, slot: u32) -> u64 {
        self.0[slot as usize].load(Ordering::Relaxed)
    }

    /// Sets what is known of a slot.
    pub fn set(&self, slot: u32, hits: u64) {
        self.0[slot as usize].store(hits, Ordering::Relaxed);
    }

    /// Reads all of them from the kernel. Not for the run loop.
    pub fn read(&self, hits: &mut HotHits, scratch: &mut [u64; HOT_SLOTS as usize]) {
        // A failure leaves the figures of the time before.
        if hits.read_all(scratch).is_ok() {
            for (slot, hits) in scratch.iter().enumerate() {
                self.set(slot as u32, *hits);
            }
        }
    }
}
