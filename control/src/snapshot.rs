//! One node at one moment, copied out of its control region.
//!
//! Everything in the region is somebody else's: whatever it holds, a snapshot takes bounded time and
//! memory, and only what makes sense is kept.

use nautilus_shm::attach::CACHES_MAX;
use nautilus_shm::cache_cell::{CacheIdentity, CacheState};
use nautilus_shm::cells::{INTERFACES_MAX, WorkerState};
use nautilus_shm::cells::{InterfaceState, SupervisorIdentity, WorkerIdentity, WorkerPulse};
use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::control_region::{
    CAPTURE_PROCESS, ControlReader, FRONT_PROCESS, HISTOGRAMS, HistogramId, SUPERVISOR_PROCESS,
    WORKERS_MAX,
};
use nautilus_shm::event_log::Event;
use nautilus_shm::histogram::HistogramSnapshot;
use nautilus_shm::life::{NodePhase, Release};
use nautilus_shm::metrics::{MetricSnapshot, Owner};

/// Events a snapshot keeps, the latest.
const EVENTS_KEPT: usize = 32;

/// A node.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When it was taken, `CLOCK_MONOTONIC`.
    pub now_ns: u64,
    /// The supervisor, as it last described itself.
    pub supervisor: SupervisorIdentity,
    /// Since the supervisor was last heard.
    pub supervisor_silence_ns: u64,
    /// Whether everything the node file asks for is set up.
    pub serving: bool,
    /// Where the node is in its life.
    pub phase: NodePhase,
    /// When a draining node closes its last connections; 0 for one that takes clients.
    pub drain_until_ns: u64,
    /// What it runs.
    pub release: Release,
    /// The last gap in service; 0 if none.
    pub last_gap_ns: u64,
    /// Worker slots that have had a process.
    pub workers: Vec<Worker>,
    /// Caches, by place; no id stands twice.
    pub caches: Vec<Cache>,
    /// Interfaces served.
    pub interfaces: Vec<InterfaceState>,
    /// The supervisor's numbers.
    pub metrics: MetricSnapshot,
    /// The front's numbers.
    pub front: MetricSnapshot,
    /// The capture process's numbers.
    pub capture: MetricSnapshot,
    /// The supervisor's histograms, in the order of [`HISTOGRAMS`].
    pub histograms: Vec<HistogramSnapshot>,
    /// The latest events, oldest first.
    pub events: Vec<Event>,
    /// Supervisors that have owned the region.
    pub generation: u64,
}

/// One cache.
#[derive(Clone, Debug)]
pub struct Cache {
    /// What the supervisor says about it.
    pub identity: CacheIdentity,
    /// What each worker slot counted of it.
    pub workers: Vec<(usize, MetricSnapshot)>,
    /// What front and supervisor counted of it, each in rows of its own.
    pub beside: MetricSnapshot,
}

impl Cache {
    /// The numbers of all workers together.
    pub fn worker_metrics(&self) -> MetricSnapshot {
        let mut total = MetricSnapshot::default();
        for (_, metrics) in &self.workers {
            total.merge(metrics);
        }
        total
    }
}

/// One worker process slot.
#[derive(Clone, Debug)]
pub struct Worker {
    /// Number of the slot.
    pub slot: usize,
    /// What the supervisor says about it.
    pub identity: WorkerIdentity,
    /// What it says about itself.
    pub pulse: WorkerPulse,
    /// Its numbers.
    pub metrics: MetricSnapshot,
    /// Its histograms, in the order of [`HISTOGRAMS`].
    pub histograms: Vec<HistogramSnapshot>,
}

impl Snapshot {
    /// Copies the region.
    pub fn take(region: &ControlReader) -> Self {
        let histograms = |process: usize| -> Vec<HistogramSnapshot> {
            HISTOGRAMS.iter().map(|spec| region.histogram(process, spec.id)).collect()
        };
        let workers = (0..WORKERS_MAX).filter_map(|slot| {
            let view = region.worker(slot);
            // A writer killed inside its cell leaves it unreadable until its successor writes it.
            let identity = view.identity().ok()?;
            (identity.state != WorkerState::Empty).then(|| Worker {
                slot,
                identity,
                pulse: view.pulse(),
                metrics: region.metrics(slot),
                histograms: histograms(slot),
            })
        });
        let workers: Vec<Worker> = workers.collect();
        let caches = caches(region, &workers);
        let supervisor = region.supervisor();
        let mut events = region.events(0).events;
        events.drain(..events.len().saturating_sub(EVENTS_KEPT));
        Self {
            now_ns: monotonic_ns(),
            supervisor: supervisor.identity().unwrap_or_default(),
            supervisor_silence_ns: crate::link::silence_ns(region),
            serving: supervisor.is_serving(),
            phase: supervisor.phase(),
            drain_until_ns: supervisor.drain_until_ns(),
            release: supervisor.release().unwrap_or_default(),
            last_gap_ns: supervisor.last_gap_ns(),
            workers,
            caches,
            interfaces: (0..INTERFACES_MAX)
                .filter_map(|index| supervisor.interface(index).ok().flatten())
                .collect(),
            metrics: region.metrics(SUPERVISOR_PROCESS),
            front: region.metrics(FRONT_PROCESS),
            capture: region.metrics(CAPTURE_PROCESS),
            histograms: histograms(SUPERVISOR_PROCESS),
            events,
            generation: region.generation(),
        }
    }

    /// The worker that serves.
    pub fn active(&self) -> Option<&Worker> {
        self.workers.iter().find(|worker| worker.identity.state == WorkerState::Active)
    }

    /// Whether it takes no clients, on purpose.
    pub fn is_draining(&self) -> bool {
        self.drain_until_ns > 0
    }

    /// Whether a standby is running.
    pub fn has_standby(&self) -> bool {
        let alive = |worker: &&Worker| worker.identity.state == WorkerState::Standby;
        self.workers.iter().any(|worker| alive(&worker))
    }

    /// All workers' numbers together.
    pub fn worker_metrics(&self) -> MetricSnapshot {
        let mut total = MetricSnapshot::default();
        for worker in &self.workers {
            total.merge(&worker.metrics);
        }
        total
    }

    /// One histogram of all its writers together.
    pub fn histogram(&self, id: HistogramId) -> HistogramSnapshot {
        let mut total = match HISTOGRAMS[id as usize].owner {
            Owner::Supervisor => return self.histograms[id as usize].clone(),
            _ => HistogramSnapshot::default(),
        };
        for worker in &self.workers {
            total.merge(&worker.histograms[id as usize]);
        }
        total
    }
}

fn caches(region: &ControlReader, workers: &[Worker]) -> Vec<Cache> {
    let mut caches: Vec<Cache> = Vec::new();
    for place in 0..CACHES_MAX {
        let Ok(identity) = region.cache(place) else { continue };
        let known = caches.iter().any(|cache| cache.identity.id == identity.id);
        if identity.state == CacheState::None || known {
            continue;
        }
        let of_worker = |worker: &Worker| (worker.slot, region.cache_metrics(worker.slot, place));
        let mut beside = region.cache_metrics(FRONT_PROCESS, place);
        beside.merge(&region.cache_metrics(SUPERVISOR_PROCESS, place));
        caches.push(Cache { identity, workers: workers.iter().map(of_worker).collect(), beside });
    }
    caches
}
