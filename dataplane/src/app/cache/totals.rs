//! What all processes of the node have counted of a cache, from their banks: what `stats` shows.
//!
//! Banks outlast their processes, so the figures go on over the death of any. What they showed at the last
//! `stats reset` is remembered by the worker alone that was asked.

use nautilus_shm::control_region::{ControlRegion, PROCESSES_MAX};
use nautilus_shm::metrics::{Counter, MetricBank, MetricSlots, MetricSnapshot};

/// The banks of one cache.
#[derive(Debug)]
pub struct Banks {
    banks: Of,
    sums: MetricSnapshot,
    reset: MetricSnapshot,
}

#[derive(Debug)]
enum Of {
    /// A cache that nobody else counts.
    Alone(Box<MetricSlots>),
    Node {
        region: &'static ControlRegion,
        process: usize,
        place: usize,
    },
}

impl Banks {
    /// Of a cache without a node.
    pub(super) fn alone() -> Self {
        Self::of(Of::Alone(Box::default()))
    }

    /// Of the cache in this place, as the process of this number counts it; both below the bounds of
    /// [`ControlRegion::cache_metrics`].
    pub fn of_node(region: &'static ControlRegion, process: usize, place: usize) -> Self {
        Self::of(Of::Node { region, process, place })
    }

    fn of(banks: Of) -> Self {
        Self { banks, sums: MetricSnapshot::default(), reset: MetricSnapshot::default() }
    }

    /// This process's own.
    pub(super) fn own(&self) -> MetricBank<'_> {
        match &self.banks {
            Of::Alone(slots) => slots.bank(),
            Of::Node { region, process, place } => region.cache_metrics(*process, *place),
        }
    }

    /// Looks at all banks: what the others publish is up to 10 ms old, what the supervisor does (hits in
    /// XDP) up to a tenth of a second.
    pub(super) fn gather(&mut self) {
        self.sums.clear();
        match &self.banks {
            Of::Alone(slots) => slots.bank().add_to(&mut self.sums),
            Of::Node { region, place, .. } => (0..PROCESSES_MAX)
                .for_each(|process| region.cache_metrics(process, *place).add_to(&mut self.sums)),
        }
    }

    /// As of the last [`Self::gather`], since the last [`Self::reset`].
    pub(super) fn counted(&self, counter: Counter) -> u64 {
        // A bank that was read before another one was added to.
        self.sums.counter(counter).saturating_sub(self.reset.counter(counter))
    }

    /// Counts from here on.
    pub(super) fn reset(&mut self) {
        self.gather();
        self.reset.clone_from(&self.sums);
    }
}
