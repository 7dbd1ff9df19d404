//! What happened between two looks at a node: the figures of `nautilus top`.

use nautilus_shm::cells::WorkerState;
use nautilus_shm::control_region::HistogramId;
use nautilus_shm::metrics::table::{
    BUSY_NS, CACHE_ITEMS, CACHE_LIMIT_BYTES, CACHE_USED_BYTES, ECHOED_PACKETS, FEED_MESSAGES,
    IDLE_NS, RX_PACKETS, TX_PACKETS,
};
use nautilus_shm::metrics::{Counter, Kind, Owner};
use serde::Serialize;

use crate::link::Attachment;
use crate::snapshot::{Cache, Snapshot};
use crate::status::{Lifecycle, Percentiles, cache_lookups};
use crate::view::NodeView;

/// One node over one interval.
#[derive(Debug, Serialize)]
pub struct NodeRates {
    /// The node's id.
    pub node_id: String,
    /// How it is held.
    pub attachment: Attachment,
    /// Where it is in its life.
    pub state: Lifecycle,
    /// Why it is not attached.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Length of the interval.
    pub interval_s: f64,
    /// Packets received by the worker.
    pub rx_packets_per_s: f64,
    /// Packets sent by the worker.
    pub tx_packets_per_s: f64,
    /// Echoes answered.
    pub echoes_per_s: f64,
    /// Keys looked up.
    pub lookups_per_s: f64,
    /// Share of those that were found, 0 to 1; null without lookups.
    pub hit_share: Option<f64>,
    /// Feed messages applied.
    pub feed_messages_per_s: f64,
    /// From the receive stamp in XDP to the transmit ring, within the interval.
    pub xdp_to_tx: Percentiles,
    /// From the receive stamp in XDP to the published record, within the interval.
    pub xdp_to_book: Percentiles,
    /// The last gap in service, seconds; 0 if none.
    pub last_gap_s: f64,
    /// One entry a cache.
    pub caches: Vec<CacheLoad>,
    /// One entry a core with a running worker.
    pub cores: Vec<CoreLoad>,
    /// Packets dropped, by reason, where any were in the interval or ever.
    pub drops: Vec<Drop>,
}

/// A cache.
#[derive(Debug, Serialize)]
pub struct CacheLoad {
    /// Its id.
    pub cache_id: String,
    /// Keys looked up by workers and front.
    pub lookups_per_s: f64,
    /// Share of those that were found, 0 to 1; null without lookups.
    pub hit_share: Option<f64>,
    /// Items in it.
    pub items: u64,
    /// Share of its memory that is used, 0 to 1.
    pub used_share: f64,
}

/// A worker's core.
#[derive(Debug, Serialize)]
pub struct CoreLoad {
    /// Core.
    pub core: u32,
    /// Worker slot on it.
    pub worker: usize,
    /// `active` or `standby`.
    pub state: &'static str,
    /// How it polls.
    pub poll: &'static str,
    /// Share of the interval in turns that did something, 0 to 1.
    pub busy_share: f64,
}

/// One reason of dropping.
#[derive(Debug, Serialize)]
pub struct Drop {
    /// Metric that counts it.
    pub metric: &'static str,
    /// Reason; empty where the metric has none.
    pub reason: String,
    /// In the interval.
    pub per_s: f64,
    /// Since the node was made.
    pub total: u64,
}

impl NodeRates {
    /// What changed from `earlier` to `now`; rates are 0 when there is nothing earlier of the same
    /// region.
    pub fn between(earlier: Option<&NodeView>, now: &NodeView) -> Self {
        let mut rates = Self {
            node_id: now.id.clone(),
            attachment: now.attachment,
            state: Lifecycle::of(now),
            reason: now.reason.clone(),
            interval_s: 0.0,
            rx_packets_per_s: 0.0,
            tx_packets_per_s: 0.0,
            echoes_per_s: 0.0,
            lookups_per_s: 0.0,
            hit_share: None,
            feed_messages_per_s: 0.0,
            xdp_to_tx: Percentiles::default(),
            xdp_to_book: Percentiles::default(),
            last_gap_s: 0.0,
            caches: Vec::new(),
            cores: Vec::new(),
            drops: Vec::new(),
        };
        let Some(now) = &now.snapshot else { return rates };
        rates.last_gap_s = now.last_gap_ns as f64 / 1e9;
        let then = earlier.and_then(|view| view.snapshot.as_ref()).unwrap_or(now);
        rates.fill(then, now);
        rates
    }

    fn fill(&mut self, then: &Snapshot, now: &Snapshot) {
        let interval_s = now.now_ns.saturating_sub(then.now_ns) as f64 / 1e9;
        let per_s = |change: u64| if interval_s > 0.0 { change as f64 / interval_s } else { 0.0 };
        let (before, after) = (then.worker_metrics(), now.worker_metrics());
        let rate = |counter: Counter| {
            per_s(after.counter(counter).saturating_sub(before.counter(counter)))
        };
        self.interval_s = interval_s;
        self.rx_packets_per_s = rate(RX_PACKETS);
        self.tx_packets_per_s = rate(TX_PACKETS);
        self.echoes_per_s = rate(ECHOED_PACKETS);
        (self.lookups_per_s, self.hit_share, self.caches) = caches(then, now, per_s);
        self.feed_messages_per_s = rate(FEED_MESSAGES);
        let latency = |id| Percentiles::of(&now.histogram(id).since(&then.histogram(id)));
        self.xdp_to_tx = latency(HistogramId::XdpToTx);
        self.xdp_to_book = latency(HistogramId::XdpToBook);
        self.cores = cores(then, now);
        self.drops = drops(then, now, per_s);
    }
}

/// Look-ups a second and the share of hits, of all caches together, and each cache by itself.
fn caches(
    then: &Snapshot,
    now: &Snapshot,
    per_s: impl Fn(u64) -> f64,
) -> (f64, Option<f64>, Vec<CacheLoad>) {
    let share = |hits: u64, misses: u64| {
        let all = hits.saturating_add(misses);
        (all > 0).then(|| hits as f64 / all as f64)
    };
    let (mut all_hits, mut all_misses, mut loads) = (0_u64, 0_u64, Vec::new());
    for cache in &now.caches {
        let same = |other: &&Cache| other.identity.generation == cache.identity.generation;
        let before = then.caches.iter().find(same).map_or((0, 0), cache_lookups);
        let after = cache_lookups(cache);
        let (hits, misses) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
        (all_hits, all_misses) = (all_hits.saturating_add(hits), all_misses.saturating_add(misses));
        let active = now.active().map(|worker| worker.slot);
        let metrics = cache.workers.iter().find(|(slot, _)| Some(*slot) == active);
        let gauge = |gauge| metrics.map_or(0, |(_, metrics)| metrics.gauge(gauge));
        loads.push(CacheLoad {
            cache_id: cache.identity.id.clone(),
            lookups_per_s: per_s(hits.saturating_add(misses)),
            hit_share: share(hits, misses),
            items: gauge(CACHE_ITEMS),
            used_share: gauge(CACHE_USED_BYTES) as f64 / gauge(CACHE_LIMIT_BYTES).max(1) as f64,
        });
    }
    (per_s(all_hits.saturating_add(all_misses)), share(all_hits, all_misses), loads)
}

fn cores(then: &Snapshot, now: &Snapshot) -> Vec<CoreLoad> {
    let running = |state| matches!(state, WorkerState::Active | WorkerState::Standby);
    let workers = now.workers.iter().filter(|worker| running(worker.identity.state));
    let load = |worker: &crate::snapshot::Worker| {
        let earlier = then.workers.iter().find(|other| other.slot == worker.slot);
        let change = |counter| {
            let before = earlier.map_or(0, |worker| worker.metrics.counter(counter));
            worker.metrics.counter(counter).saturating_sub(before) as f64
        };
        let (busy, idle) = (change(BUSY_NS), change(IDLE_NS));
        CoreLoad {
            core: worker.identity.core,
            worker: worker.slot,
            state: worker.identity.state.name(),
            poll: worker.pulse.poll_policy.name(),
            busy_share: if busy + idle > 0.0 { busy / (busy + idle) } else { 0.0 },
        }
    };
    workers.map(load).collect()
}

/// Whether a metric counts something that was refused.
fn is_drop(name: &str) -> bool {
    name.contains("dropped") || name.contains("ring_empty") || name.contains("ring_full")
}

fn drops(then: &Snapshot, now: &Snapshot, per_s: impl Fn(u64) -> f64) -> Vec<Drop> {
    let mut drops = Vec::new();
    let mut add = |metric, reason: String, before: u64, total: u64| {
        if total > 0 {
            let per_s = per_s(total.saturating_sub(before));
            drops.push(Drop { metric, reason, per_s, total });
        }
    };
    let (before, after) = (then.worker_metrics(), now.worker_metrics());
    for (before, after) in before.samples(Owner::Worker).zip(after.samples(Owner::Worker)) {
        // The kernel finding the transmit ring empty is how an idle socket looks.
        let quiet = after.spec.name.contains("tx_ring_empty");
        if after.spec.kind == Kind::Counter && is_drop(after.spec.name) && !quiet {
            add(after.spec.name, after.labels.join("/"), before.value, after.value);
        }
    }
    let owner = Owner::Supervisor;
    for (before, after) in then.metrics.samples(owner).zip(now.metrics.samples(owner)) {
        if after.spec.name == "nautilus_xdp_packets_total" && after.labels.first() == Some(&"drop")
        {
            add(after.spec.name, after.labels.join("/"), before.value, after.value);
        }
    }
    drops
}
