//! How often the program answered from each slot, and for each cache: a row of counters a CPU. Writer: the
//! program on that CPU; the supervisor, of a cache that is not served yet. Readers: workers and the
//! supervisor, by loads.

use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

use libbpf_rs::MapInfo;

use crate::intf::{HOT_CACHES, HOT_HITS_ROW_WORDS, HOT_SLOTS};
use crate::mapping::Mapping;
use crate::steering::{SteeringError, check_hot_map};

/// The `hot_hits` map, mapped.
#[derive(Debug)]
pub struct HotHits {
    mapping: Mapping,
}

impl HotHits {
    /// From the descriptor of `hot_hits`, which is no longer needed afterwards.
    pub fn map(hits: BorrowedFd<'_>) -> Result<Self, SteeringError> {
        check_hot_map(hits, 2)?;
        let info = MapInfo::new(hits)
            .map_err(|error| SteeringError::Descriptor(std::io::Error::other(error)))?;
        let words = info.info.max_entries as usize * HOT_HITS_ROW_WORDS;
        Ok(Self { mapping: Mapping::new(hits, words).map_err(SteeringError::Descriptor)? })
    }

    /// Answers from a slot below [`HOT_SLOTS`] since the program was loaded, whatever keys it held. One
    /// load a CPU; relaxed: a late figure is as good.
    #[inline]
    pub fn of(&self, slot: u32) -> u64 {
        debug_assert!(slot < HOT_SLOTS);
        self.sum(slot as usize)
    }

    /// Answers for a cache's index below [`HOT_CACHES`] since the last [`Self::begin_cache`].
    pub fn of_cache(&self, cache: u16) -> u64 {
        self.sum(word_of(cache))
    }

    /// Counts the answers for a cache's index below [`HOT_CACHES`] from 0 on. Only while no service of the
    /// program names that index: nobody else counts there then.
    pub fn begin_cache(&self, cache: u16) {
        let rows = self.mapping.words().chunks_exact(HOT_HITS_ROW_WORDS);
        rows.for_each(|row| row[word_of(cache)].store(0, Ordering::Relaxed));
    }

    #[inline]
    fn sum(&self, word: usize) -> u64 {
        let rows = self.mapping.words().chunks_exact(HOT_HITS_ROW_WORDS);
        rows.fold(0, |sum, row| sum.wrapping_add(row[word].load(Ordering::Relaxed)))
    }
}

/// Where a row counts for a cache.
fn word_of(cache: u16) -> usize {
    assert!(cache < HOT_CACHES, "cache {cache} has no hits");
    HOT_SLOTS as usize + usize::from(cache)
}
