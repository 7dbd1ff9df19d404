//! Metric slots: one bank of relaxed words a process, all laid out by one declared table.
//!
//! ```text
//!   table.rs (names, kinds, units, help, labels)
//!      |-- slots: bank of process 0 | bank of process 1 | ...   single writer each
//!      |-- export: snapshot -> samples -> Prometheus text, `top`
//!      `-- layout hash: a reader of another table is refused
//! ```
//!
//! A bank's only writer is its process (worker by worker index, then supervisor and front), which has
//! further banks, one a cache, for what is counted by cache; a successor
//! goes on with the values it finds, so counters do not fall when a worker dies. Adding is a plain
//! load and store, without a lock prefix. Everybody reads.

use std::cell::Cell;
use std::marker::PhantomData;

use crate::region::layout_hash_bytes;
use crate::shared::Shared;
use crate::sync::{AtomicU64, Ordering};

pub mod labels;
pub mod table;

use labels::{Label, LabelSet};
pub use table::METRICS;

/// What a number means over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until its bank is made anew.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// What one step of the stored number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Unit {
    Packets,
    Bytes,
    Frames,
    Messages,
    Items,
    Channels,
    Connections,
    Books,
    Orders,
    Shares,
    /// Of money: stored in 1e-4 of the currency unit, exported in units.
    Money,
    Entries,
    Events,
    /// Stored in nanoseconds, exported in seconds.
    Nanoseconds,
}

impl Unit {
    /// How many stored steps make one exported unit.
    pub const fn per_exported(self) -> u64 {
        match self {
            Self::Nanoseconds => 1_000_000_000,
            Self::Money => 10_000,
            _ => 1,
        }
    }
}

/// Which processes write a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Each worker, in its own bank.
    Worker,
    /// The supervisor.
    Supervisor,
    /// The front.
    Front,
    /// The capture process.
    Capture,
    /// Each worker, in its bank of each cache.
    Cache,
    /// The front, in its bank of each cache.
    FrontCache,
    /// The supervisor, in its bank of each cache.
    SupervisorCache,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricSpec {
    /// Prometheus name.
    pub name: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// Unit of the stored number.
    pub unit: Unit,
    /// Who writes it.
    pub owner: Owner,
    /// What divides it, if anything.
    pub labels: Option<&'static LabelSet>,
    /// One line for an operator, without a full stop.
    pub help: &'static str,
}

impl MetricSpec {
    /// Slots the row takes in every bank.
    pub const fn slots(&self) -> usize {
        match self.labels {
            None => 1,
            Some(set) => set.values.len(),
        }
    }
}

/// Slots of one bank.
pub const METRIC_SLOTS: usize = slot_of(METRICS.len());

/// First slot of a row.
const fn slot_of(row: usize) -> usize {
    let mut slot = 0;
    let mut index = 0;
    while index < row {
        slot += METRICS[index].slots();
        index += 1;
    }
    slot
}

/// Changes with any name or label of the table.
pub(crate) const fn table_hash(mut hash: u64) -> u64 {
    let mut row = 0;
    while row < METRICS.len() {
        hash = layout_hash_bytes(hash, METRICS[row].name.as_bytes());
        if let Some(set) = METRICS[row].labels {
            let mut value = 0;
            while value < set.values.len() {
                let mut key = 0;
                while key < set.keys.len() {
                    hash = layout_hash_bytes(hash, set.values[value][key].as_bytes());
                    key += 1;
                }
                value += 1;
            }
        }
        row += 1;
    }
    hash
}

/// A counter without labels.
#[derive(Clone, Copy, Debug)]
pub struct Counter(usize);

/// A gauge without labels.
#[derive(Clone, Copy, Debug)]
pub struct Gauge(usize);

/// A counter divided by `L`.
#[derive(Debug)]
pub struct CounterBy<L>(usize, PhantomData<fn(L)>);

/// A gauge divided by `L`.
#[derive(Debug)]
pub struct GaugeBy<L>(usize, PhantomData<fn(L)>);

impl<L: Label> CounterBy<L> {
    const fn new(slot: usize) -> Self {
        Self(slot, PhantomData)
    }

    /// The counter of one label value.
    #[inline(always)]
    pub fn of(&self, label: L) -> Counter {
        Counter(self.0 + label.index())
    }
}

impl<L: Label> GaugeBy<L> {
    const fn new(slot: usize) -> Self {
        Self(slot, PhantomData)
    }

    /// The gauge of one label value.
    #[inline(always)]
    pub fn of(&self, label: L) -> Gauge {
        Gauge(self.0 + label.index())
    }
}

/// The words of one process.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct MetricSlots([AtomicU64; METRIC_SLOTS]);

// SAFETY: an array of shared words; the tail padding is never read.
unsafe impl Shared for MetricSlots {}

impl Default for MetricSlots {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl MetricSlots {
    /// The writer's handle. The caller is the process, and the thread, that owns the bank.
    pub fn bank(&self) -> MetricBank<'_> {
        MetricBank { slots: &self.0, one_thread: PhantomData }
    }

    /// Copies the bank.
    pub fn snapshot(&self) -> MetricSnapshot {
        MetricSnapshot(self.0.iter().map(|slot| slot.load(Ordering::Relaxed)).collect())
    }
}

/// A process's own bank. Not `Sync`: one thread counts.
#[derive(Clone, Copy, Debug)]
pub struct MetricBank<'a> {
    slots: &'a [AtomicU64; METRIC_SLOTS],
    one_thread: PhantomData<Cell<()>>,
}

impl MetricBank<'_> {
    /// Counts `by` more; wraps.
    #[inline(always)]
    pub fn add(&self, counter: Counter, by: u64) {
        let slot = &self.slots[counter.0];
        slot.store(slot.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
    }

    /// Replaces a counter that is mirrored from elsewhere (the kernel, a BPF map). The source must
    /// never fall.
    #[inline(always)]
    pub fn mirror(&self, counter: Counter, value: u64) {
        self.slots[counter.0].store(value, Ordering::Relaxed);
    }

    /// Sets a gauge.
    #[inline(always)]
    pub fn set(&self, gauge: Gauge, value: u64) {
        self.slots[gauge.0].store(value, Ordering::Relaxed);
    }

    /// Adds every value to a snapshot.
    pub fn add_to(&self, snapshot: &mut MetricSnapshot) {
        for (sum, slot) in snapshot.0.iter_mut().zip(self.slots) {
            *sum = sum.wrapping_add(slot.load(Ordering::Relaxed));
        }
    }

    /// Begins anew, for another cache in the same place: counters of one cache never fall, those of a place
    /// do. Only while nobody counts here.
    pub fn clear(&self) {
        self.slots.iter().for_each(|slot| slot.store(0, Ordering::Relaxed));
    }

    /// The writer's own reading of a counter.
    #[inline(always)]
    pub fn counter(&self, counter: Counter) -> u64 {
        self.slots[counter.0].load(Ordering::Relaxed)
    }

    /// The writer's own reading of a gauge.
    #[inline(always)]
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.slots[gauge.0].load(Ordering::Relaxed)
    }
}

/// The values of one bank at one moment; each value by itself, not all of one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricSnapshot(Vec<u64>);

impl Default for MetricSnapshot {
    fn default() -> Self {
        Self(vec![0; METRIC_SLOTS])
    }
}

/// One value with its row and its labels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// The row.
    pub spec: &'static MetricSpec,
    /// One value per key of the row's labels; empty without labels.
    pub labels: &'static [&'static str],
    /// In the stored unit.
    pub value: u64,
}

impl Sample {
    /// The value in the exported unit.
    pub fn exported(&self) -> f64 {
        self.value as f64 / self.spec.unit.per_exported() as f64
    }
}

impl MetricSnapshot {
    /// A counter.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.0[counter.0]
    }

    /// A gauge.
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.0[gauge.0]
    }

    /// All values of the rows of one owner, in table order: rows with labels give one sample per
    /// label value, one after the other.
    pub fn samples(&self, owner: Owner) -> impl Iterator<Item = Sample> + '_ {
        let mut slot = 0;
        let rows = METRICS.iter().flat_map(move |spec| {
            let first = slot;
            slot += spec.slots();
            (0..spec.slots()).map(move |offset| (spec, first, offset))
        });
        rows.filter(move |(spec, ..)| spec.owner == owner).map(|(spec, first, offset)| Sample {
            spec,
            labels: spec.labels.map_or(&[], |set| set.values[offset]),
            value: self.0[first + offset],
        })
    }

    /// Begins anew.
    pub fn clear(&mut self) {
        self.0.fill(0);
    }

    /// Adds the counters and gauges of another bank.
    pub fn merge(&mut self, other: &Self) {
        for (to, from) in self.0.iter_mut().zip(&other.0) {
            *to = to.wrapping_add(*from);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::labels::{RxDrop, XdpVerdict};
    use super::table::{BUSY_NS, FEED_BOOKS, RX_DROPPED_PACKETS, RX_PACKETS, XDP_PACKETS};
    use super::*;
    use crate::shared::zeroed_box;

    #[test]
    fn names_follow_the_law() {
        for (index, spec) in METRICS.iter().enumerate() {
            let name = spec.name;
            assert!(name.starts_with("nautilus_"), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), spec.kind == Kind::Counter, "{name}");
            let stem = name.trim_end_matches("_total");
            assert_eq!(stem.ends_with("_seconds"), spec.unit == Unit::Nanoseconds, "{name}");
            assert_eq!(stem.ends_with("_bytes"), spec.unit == Unit::Bytes, "{name}");
            assert!(!spec.help.is_empty() && !spec.help.ends_with('.'), "{name}");
            assert!(METRICS[..index].iter().all(|other| other.name != name), "{name} twice");
            if let Some(set) = spec.labels {
                assert!(set.values.iter().all(|row| row.len() == set.keys.len()), "{name}");
                let distinct: std::collections::HashSet<_> = set.values.iter().collect();
                assert_eq!(distinct.len(), set.values.len(), "{name}");
            }
        }
    }

    #[test]
    fn every_value_lands_in_its_own_slot_and_comes_out_under_its_name() {
        let slots = zeroed_box::<MetricSlots>();
        let bank = slots.bank();
        bank.add(RX_PACKETS, 3);
        bank.add(RX_PACKETS, 4);
        bank.add(RX_DROPPED_PACKETS.of(RxDrop::UdpChecksum), 2);
        bank.set(FEED_BOOKS, 11);
        bank.add(BUSY_NS, 1_500_000_000);
        bank.mirror(XDP_PACKETS.of(XdpVerdict::Redirected), 99);

        let snapshot = slots.snapshot();
        assert_eq!(snapshot.counter(RX_PACKETS), 7);
        assert_eq!(snapshot.gauge(FEED_BOOKS), 11);
        let filled: Vec<_> = [Owner::Worker, Owner::Supervisor, Owner::Front]
            .into_iter()
            .flat_map(|owner| snapshot.samples(owner))
            .filter(|sample| sample.value != 0)
            .map(|sample| (sample.spec.name, sample.labels.join("/"), sample.exported()))
            .collect();
        assert_eq!(
            filled,
            [
                ("nautilus_worker_rx_packets_total", String::new(), 7.0),
                ("nautilus_worker_rx_dropped_packets_total", "udp_checksum".into(), 2.0),
                ("nautilus_worker_busy_seconds_total", String::new(), 1.5),
                ("nautilus_feed_books", String::new(), 11.0),
                ("nautilus_xdp_packets_total", "redirect/redirected".into(), 99.0),
            ]
        );
        let owners = [
            Owner::Worker,
            Owner::Supervisor,
            Owner::Front,
            Owner::Capture,
            Owner::Cache,
            Owner::FrontCache,
            Owner::SupervisorCache,
        ];
        let samples: usize = owners.map(|owner| snapshot.samples(owner).count()).iter().sum();
        assert_eq!(samples, METRIC_SLOTS);
    }

    #[test]
    fn labels_are_numbered_as_they_are_listed() {
        for (index, verdict) in XdpVerdict::ALL.iter().enumerate() {
            assert_eq!(verdict.index(), index);
        }
        assert_eq!(XdpVerdict::ALL.len(), XdpVerdict::SET.values.len());
    }
}
