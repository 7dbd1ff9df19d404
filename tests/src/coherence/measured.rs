//! The node's own counters of a run: who answered, and what was dropped.

use std::collections::BTreeMap;

use nautilus_shm::control_region::{ControlReader, FRONT_PROCESS, SUPERVISOR_PROCESS, WORKERS_MAX};
use nautilus_shm::metrics::labels::XdpVerdict;
use nautilus_shm::metrics::{MetricSnapshot, Owner, table};

/// Counters of datagrams that were not handled or not sent begin or go on like this.
const DROPS: [&str; 4] = ["_dropped_packets", "fill_ring_empty", "rx_ring_full", "tx_invalid"];

/// Place of the lab's one cache.
const CACHE: usize = 0;

/// What was counted from the beginning of a run to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Requests answered by the steering program.
    pub hot_hits: u64,
    /// Keys the front read.
    pub front_reads: u64,
    /// Keys the worker looked up.
    pub worker_reads: u64,
    /// Items evicted; with any, a miss says nothing.
    pub evictions: u64,
    /// Datagrams dropped, by counter; those at 0 are left out.
    pub dropped: Vec<String>,
}

/// The counters at one moment.
pub(super) struct Counted {
    hot_hits: u64,
    front_reads: u64,
    worker_reads: u64,
    evictions: u64,
    dropped: BTreeMap<String, u64>,
}

impl Counted {
    /// Reads them.
    pub fn of(region: &ControlReader) -> Self {
        let front = region.cache_metrics(FRONT_PROCESS, CACHE);
        let supervisor = region.metrics(SUPERVISOR_PROCESS);
        let (mut workers, mut cache) = (MetricSnapshot::default(), MetricSnapshot::default());
        for slot in 0..WORKERS_MAX {
            workers.merge(&region.metrics(slot));
            cache.merge(&region.cache_metrics(slot, CACHE));
        }
        let all = workers.samples(Owner::Worker).chain(supervisor.samples(Owner::Supervisor));
        let dropped = all.filter(|sample| DROPS.iter().any(|name| sample.spec.name.contains(name)));
        let named = dropped.map(|sample| {
            let name = sample.spec.name.trim_start_matches("nautilus_");
            ([&[name], sample.labels].concat().join(" "), sample.value)
        });
        Self {
            hot_hits: supervisor.counter(table::XDP_PACKETS.of(XdpVerdict::HotHit)),
            front_reads: front.counter(table::FRONT_HITS) + front.counter(table::FRONT_MISSES),
            worker_reads: cache.counter(table::CACHE_HITS) + cache.counter(table::CACHE_MISSES),
            evictions: cache.counter(table::CACHE_EVICTIONS),
            dropped: named.collect(),
        }
    }

    /// What came to it until `later`.
    pub fn until(&self, later: &Self) -> Measured {
        let more = |(name, count): (&String, &u64)| {
            let by = count - self.dropped.get(name).unwrap_or(&0);
            (by > 0).then(|| format!("{name} {by}"))
        };
        Measured {
            hot_hits: later.hot_hits - self.hot_hits,
            front_reads: later.front_reads - self.front_reads,
            worker_reads: later.worker_reads - self.worker_reads,
            evictions: later.evictions - self.evictions,
            dropped: later.dropped.iter().filter_map(more).collect(),
        }
    }
}
