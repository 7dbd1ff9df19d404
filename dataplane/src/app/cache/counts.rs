//! What the cache application counts: by verb, by error, and what came of it. Published in the process's
//! bank of the cache, from where `stats` and everybody else has it ([`super::totals`]).

use nautilus_shm::metrics::labels::{CacheError, CacheOutcome, CacheVerb, HitPath, Label};
use nautilus_shm::metrics::{MetricBank, table};
use nautilus_shm::table::{Usage, WriterCounts};

/// Memory of one cell in use, index included: what [`table::CACHE_USED_BYTES`] counts.
pub(super) const CELL_BYTES: u64 = nautilus_shm::table::BYTES_PER_CELL;

/// What came of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Outcome {
    Hit,
    Miss,
    SplitReply,
    Stored,
    DeleteHit,
    DeleteMiss,
    IncrHit,
    IncrMiss,
    DecrHit,
    DecrMiss,
    CasHit,
    CasMiss,
    CasBadVersion,
    TouchHit,
    TouchMiss,
}

const OUTCOMES: usize = Outcome::TouchMiss as usize + 1;

const OF_CHANGES: [(Outcome, CacheOutcome); CacheOutcome::ALL.len()] = [
    (Outcome::Stored, CacheOutcome::Stored),
    (Outcome::DeleteHit, CacheOutcome::DeleteHit),
    (Outcome::DeleteMiss, CacheOutcome::DeleteMiss),
    (Outcome::IncrHit, CacheOutcome::IncrHit),
    (Outcome::IncrMiss, CacheOutcome::IncrMiss),
    (Outcome::DecrHit, CacheOutcome::DecrHit),
    (Outcome::DecrMiss, CacheOutcome::DecrMiss),
    (Outcome::CasHit, CacheOutcome::CasHit),
    (Outcome::CasMiss, CacheOutcome::CasMiss),
    (Outcome::CasBadVersion, CacheOutcome::CasBadVersion),
    (Outcome::TouchHit, CacheOutcome::TouchHit),
    (Outcome::TouchMiss, CacheOutcome::TouchMiss),
];

/// Plain numbers, so that counting is one addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sums {
    verbs: [u64; CacheVerb::ALL.len()],
    errors: [u64; CacheError::ALL.len()],
    outcomes: [u64; OUTCOMES],
    writer: WriterCounts,
}

impl Default for Sums {
    fn default() -> Self {
        Self {
            verbs: [0; CacheVerb::ALL.len()],
            errors: [0; CacheError::ALL.len()],
            outcomes: [0; OUTCOMES],
            writer: WriterCounts::default(),
        }
    }
}

/// The counts of one cache since its worker began to serve it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounts {
    sums: Sums,
    published: Sums,
}

impl CacheCounts {
    #[inline(always)]
    pub(super) fn verb(&mut self, verb: CacheVerb) {
        self.sums.verbs[verb as usize] += 1;
    }

    #[inline(always)]
    pub(super) fn error(&mut self, error: CacheError) {
        self.sums.errors[error as usize] += 1;
    }

    #[inline(always)]
    pub(super) fn outcome(&mut self, outcome: Outcome) {
        self.sums.outcomes[outcome as usize] += 1;
    }

    /// Requests of a verb; a `get` of several keys counts once a key.
    pub fn requests(&self, verb: CacheVerb) -> u64 {
        self.sums.verbs[verb as usize]
    }

    /// Refusals.
    pub fn errors(&self, error: CacheError) -> u64 {
        self.sums.errors[error as usize]
    }

    /// What came of requests.
    pub fn outcomes(&self, outcome: Outcome) -> u64 {
        self.sums.outcomes[outcome as usize]
    }

    /// Adds what is new to the bank.
    pub(super) fn publish(&mut self, bank: &MetricBank<'_>, writer: WriterCounts, usage: &Usage) {
        let (sums, published) = (&self.sums, &self.published);
        for &verb in CacheVerb::ALL {
            let count = sums.verbs[verb as usize] - published.verbs[verb as usize];
            bank.add(table::CACHE_REQUESTS.of(verb), count);
        }
        for &error in CacheError::ALL {
            let count = sums.errors[error as usize] - published.errors[error as usize];
            bank.add(table::CACHE_ERRORS.of(error), count);
        }
        let outcomes = [
            (table::CACHE_HITS, Outcome::Hit),
            (table::CACHE_MISSES, Outcome::Miss),
            (table::CACHE_SPLIT_REPLIES, Outcome::SplitReply),
        ];
        let of_changes =
            OF_CHANGES.map(|(outcome, label)| (table::CACHE_OUTCOMES.of(label), outcome));
        for (metric, outcome) in outcomes.into_iter().chain(of_changes) {
            let count = sums.outcomes[outcome as usize] - published.outcomes[outcome as usize];
            bank.add(metric, count);
        }
        let new = since(writer, published.writer);
        bank.add(table::CACHE_SAMPLED_HITS.of(HitPath::Front), new.sampled_front_count);
        bank.add(table::CACHE_SAMPLED_HITS.of(HitPath::Worker), new.sampled_workers_count);
        bank.add(table::CACHE_SAMPLED_HITS.of(HitPath::Reader), new.sampled_readers_count);
        bank.add(table::CACHE_SAMPLED_STRAY, new.sampled_stray_count);
        bank.add(table::CACHE_SAMPLED_OVERRUNS, new.sampled_overruns_count);
        bank.add(table::CACHE_EVICTIONS, new.evictions_count);
        bank.add(table::CACHE_SUSPECTS, new.suspects_count);
        bank.add(table::CACHE_EXPIRATIONS, new.expirations_count);
        bank.set(table::CACHE_ITEMS, usage.items_count);
        bank.set(table::CACHE_USED_BYTES, usage.used_cells_count * CELL_BYTES);
        bank.set(table::CACHE_LIMIT_BYTES, usage.cells_count * CELL_BYTES);
        self.published = Sums { writer, ..self.sums };
    }
}

fn since(now: WriterCounts, then: WriterCounts) -> WriterCounts {
    WriterCounts {
        evictions_count: now.evictions_count - then.evictions_count,
        slot_evictions_count: now.slot_evictions_count - then.slot_evictions_count,
        suspects_count: now.suspects_count - then.suspects_count,
        expirations_count: now.expirations_count - then.expirations_count,
        sampled_front_count: now.sampled_front_count - then.sampled_front_count,
        sampled_workers_count: now.sampled_workers_count - then.sampled_workers_count,
        sampled_readers_count: now.sampled_readers_count - then.sampled_readers_count,
        sampled_stray_count: now.sampled_stray_count - then.sampled_stray_count,
        sampled_overruns_count: now.sampled_overruns_count - then.sampled_overruns_count,
    }
}
