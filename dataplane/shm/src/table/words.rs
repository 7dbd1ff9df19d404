//! The memory under a table: a slice of atomic words, wherever it lies.

use crate::sampled_hits::HitRegion;
use crate::sync::{AtomicU64, Ordering};

/// Memory that holds a table. Tables need nothing else of it, so tests run on the heap and loom on
/// its own words.
pub trait Words {
    /// All words of the table, the same slice on every call.
    fn words(&self) -> &[AtomicU64];

    /// When the owner of the memory was last seen alive, `CLOCK_MONOTONIC` nanoseconds; `None` where
    /// the memory has no owner but this process.
    fn heartbeat_ns(&self) -> Option<u64> {
        None
    }

    /// Whether a writer may use it.
    fn writable(&self) -> bool {
        true
    }

    /// Where readers tell of their hits; `None` where they cannot.
    fn sampled_hits(&self) -> Option<&HitRegion> {
        None
    }
}

impl Words for Box<[AtomicU64]> {
    fn words(&self) -> &[AtomicU64] {
        self
    }
}

impl Words for std::sync::Arc<[AtomicU64]> {
    fn words(&self) -> &[AtomicU64] {
        self
    }
}

impl<W: Words + ?Sized> Words for &W {
    fn words(&self) -> &[AtomicU64] {
        (**self).words()
    }

    fn heartbeat_ns(&self) -> Option<u64> {
        (**self).heartbeat_ns()
    }

    fn writable(&self) -> bool {
        (**self).writable()
    }

    fn sampled_hits(&self) -> Option<&HitRegion> {
        (**self).sampled_hits()
    }
}

/// Memory that several handles of one process share, a writer of some shards and a reader of the others.
/// Without the owner's heartbeat: whoever was handed the memory by its owner serves on when that is dead.
#[derive(Debug)]
pub struct SharedWords<W>(std::sync::Arc<W>);

impl<W> SharedWords<W> {
    /// The first handle.
    pub fn new(memory: W) -> Self {
        Self(std::sync::Arc::new(memory))
    }
}

impl<W> Clone for SharedWords<W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<W> std::ops::Deref for SharedWords<W> {
    type Target = W;

    fn deref(&self) -> &W {
        &self.0
    }
}

impl<W: Words> Words for SharedWords<W> {
    #[inline]
    fn words(&self) -> &[AtomicU64] {
        self.0.words()
    }

    fn writable(&self) -> bool {
        self.0.writable()
    }

    fn sampled_hits(&self) -> Option<&HitRegion> {
        self.0.sampled_hits()
    }
}

/// `bytes` bytes of zeroed words on the heap: a table without other processes.
pub fn heap_words(bytes: usize) -> Box<[AtomicU64]> {
    (0..bytes / 8).map(|_| AtomicU64::new(0)).collect()
}

#[inline(always)]
pub(super) fn load(words: &[AtomicU64], index: usize) -> u64 {
    words[index].load(Ordering::Relaxed)
}

#[inline(always)]
pub(super) fn store(words: &[AtomicU64], index: usize, value: u64) {
    words[index].store(value, Ordering::Relaxed);
}
