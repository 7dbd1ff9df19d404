//! Telling the worker of hits ([`nautilus_shm::sampled_hits`]), so that what only readers of this host read
//! is not evicted as unused.

use std::sync::atomic::{AtomicUsize, Ordering};

use nautilus_shm::sampled_hits::{HIT_RINGS, READER_HIT_RING, Sampler};
use nautilus_shm::table::{TableReader, TableRegion};

const OF_READERS: usize = HIT_RINGS - READER_HIT_RING;

/// Readers that this process has made. Relaxed: nothing else follows from it.
static MADE: AtomicUsize = AtomicUsize::new(0);

/// One reader's ring and choice of hits.
#[derive(Debug)]
pub(crate) struct Telling {
    ring: usize,
    sampler: Sampler,
}

impl Telling {
    /// The next ring of this process, which begins at one of its own as far as there are enough: two in one
    /// ring lose some of each other's entries, no more.
    pub fn new() -> Self {
        let begin = std::process::id() as usize;
        let number = begin.wrapping_add(MADE.fetch_add(1, Ordering::Relaxed));
        Self { ring: READER_HIT_RING + number % OF_READERS, sampler: Sampler::new(number as u64) }
    }

    /// A read at `now_ns` has found `key`.
    #[inline]
    pub fn found(&mut self, table: &TableReader<TableRegion>, key: &[u8], now_ns: u64) {
        if self.sampler.wants(now_ns) {
            table.tell(self.ring, key);
        }
    }
}

impl Clone for Telling {
    /// Another reader, with a ring of its own.
    fn clone(&self) -> Self {
        Self::new()
    }
}
