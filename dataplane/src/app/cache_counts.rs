//! What the cache application counts between two publications.

use nautilus_shm::metrics::labels::{CacheError, CacheVerb};
use nautilus_shm::metrics::{MetricBank, table};
use nautilus_shm::table::{Usage, WriterCounts};

/// Memory of one cell in use, index included: what [`table::CACHE_USED_BYTES`] counts.
const CELL_BYTES: u64 = 176;

/// Plain numbers, so that counting is one addition; see [`table`] for what each means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CacheCounts {
    pub plain_gets: u64,
    pub gets: u64,
    pub sets: u64,
    pub deletes: u64,
    pub versions: u64,
    pub hits: u64,
    pub misses: u64,
    pub split_replies: u64,
    pub unknown_commands: u64,
    pub bad_formats: u64,
    pub bad_keys: u64,
    pub values_too_large: u64,
    pub replies_too_large: u64,
    pub frame_headers: u64,
    published: WriterCounts,
}

impl CacheCounts {
    /// Adds everything to the bank and starts again at 0.
    pub(super) fn publish(&mut self, bank: &MetricBank<'_>, writer: WriterCounts, usage: &Usage) {
        let verbs = [
            (CacheVerb::Get, self.plain_gets),
            (CacheVerb::Gets, self.gets),
            (CacheVerb::Set, self.sets),
            (CacheVerb::Delete, self.deletes),
            (CacheVerb::Version, self.versions),
        ];
        for (verb, count) in verbs {
            bank.add(table::CACHE_REQUESTS.of(verb), count);
        }
        let errors = [
            (CacheError::UnknownCommand, self.unknown_commands),
            (CacheError::BadFormat, self.bad_formats),
            (CacheError::BadKey, self.bad_keys),
            (CacheError::ValueTooLarge, self.values_too_large),
            (CacheError::ReplyTooLarge, self.replies_too_large),
            (CacheError::FrameHeader, self.frame_headers),
        ];
        for (error, count) in errors {
            bank.add(table::CACHE_ERRORS.of(error), count);
        }
        bank.add(table::CACHE_HITS, self.hits);
        bank.add(table::CACHE_MISSES, self.misses);
        bank.add(table::CACHE_SPLIT_REPLIES, self.split_replies);
        let evictions = writer.evictions_count - self.published.evictions_count;
        bank.add(table::CACHE_EVICTIONS, evictions);
        let suspects = writer.suspects_count - self.published.suspects_count;
        bank.add(table::CACHE_SUSPECTS, suspects);
        bank.set(table::CACHE_ITEMS, usage.items_count);
        bank.set(table::CACHE_USED_BYTES, usage.used_cells_count * CELL_BYTES);
        bank.set(table::CACHE_LIMIT_BYTES, usage.cells_count * CELL_BYTES);
        *self = Self { published: writer, ..Self::default() };
    }
}
