//! The document of `GET /api/v1/edge/nodes/status` and `nautilus status --json`.

use nautilus_sandbox::Confinement;
use nautilus_shm::cells::{InterfaceState, WorkerState};
use nautilus_shm::control_region::HistogramId;
use nautilus_shm::histogram::HistogramSnapshot;
use nautilus_shm::life::NodePhase;
use nautilus_shm::metrics::table as metrics;
use serde::Serialize;
use utoipa::ToSchema;

use crate::config::Tier;
use crate::deploy::NodeState;
use crate::deploy::drift::{Drift, Hosts, drift};
use crate::deploy::plan::Inventory;
use crate::kill_switch::KillSwitchStatus;
use crate::link::{Attachment, HEARTBEAT_MAX_NS};
use crate::snapshot::{Cache, Snapshot, Worker};
use crate::view::NodeView;

/// Every node.
#[derive(Debug, Serialize, ToSchema)]
pub struct StatusDocument {
    /// In the order of the configuration.
    pub nodes: Vec<NodeStatus>,
    /// What is not as the store wants it; absent where no store was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub drift: Option<Vec<Drift>>,
    /// Why the store could not be asked.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    pub store_trouble: String,
}

/// Where a node is in its life, from what its region says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Lifecycle {
    /// Never reached: nothing is known.
    Unknown,
    /// A supervisor is there and is setting the node up.
    Provisioning,
    /// A worker serves.
    Active,
    /// A worker serves, and no new client is taken.
    Draining,
    /// Only a supervisor is there, on purpose.
    Parked,
    /// Nothing serves.
    Failed,
}

/// One node.
#[derive(Debug, Serialize, ToSchema)]
pub struct NodeStatus {
    /// The node's id.
    pub node_id: String,
    /// Region, as configured in control.
    pub region: Option<String>,
    /// Tier, as configured in control.
    pub tier: Tier,
    /// Where it is in its life.
    pub state: Lifecycle,
    /// The deployment that wants it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub deployment_id: Option<String>,
    /// Where plans have brought it, as the store has it; `state` is what it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub lifecycle: Option<NodeState>,
    /// How control holds it.
    pub attachment: Attachment,
    /// Why it is not attached.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    pub reason: String,
    /// Absent for a node never reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub supervisor: Option<SupervisorStatus>,
    /// The kill switch; absent for a node never reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kill_switch: Option<KillSwitchStatus>,
    /// Worker slots in use.
    pub workers: Vec<WorkerStatus>,
    /// Caches.
    pub caches: Vec<CacheStatus>,
    /// Interfaces served.
    pub interfaces: Vec<InterfaceStatus>,
    /// From the receive stamp in XDP to the transmit ring, since the node was made.
    pub xdp_to_tx: Percentiles,
    /// The latest events, oldest first.
    pub events: Vec<EventStatus>,
}

/// A supervisor.
#[derive(Debug, Serialize, ToSchema)]
pub struct SupervisorStatus {
    /// Process id.
    pub pid: u32,
    /// Supervisors this node has had.
    pub generation: u64,
    /// Seconds since it was last heard.
    pub silence_s: f64,
    /// Seconds since it was started.
    pub uptime_s: f64,
    /// The last gap in service, seconds; 0 if none.
    pub last_gap_s: f64,
    /// `running`, `starting`, `parked` or `parking`.
    pub phase: &'static str,
    /// Release that runs; empty for the programs it was started with.
    pub release: String,
    /// Version of the supervisor.
    pub version: String,
}

/// A worker.
#[derive(Debug, Serialize, ToSchema)]
pub struct WorkerStatus {
    /// Slot.
    pub worker: usize,
    /// Process id.
    pub pid: u32,
    /// `standby`, `active` or `dead`.
    pub state: &'static str,
    /// Core it is pinned to.
    pub core: u32,
    /// Promotions of the node up to its own.
    pub generation: u64,
    /// `busy`, `adaptive` or `interrupt`.
    pub poll: &'static str,
    /// Seconds it has been silent beyond the sleep it announced.
    pub silence_s: f64,
    /// Share of its time in turns that did something, since it started, 0 to 1.
    pub busy_share: f64,
    /// What of its confinement it lacks; empty: it is confined.
    pub unconfined: Vec<&'static str>,
}

/// A cache.
#[derive(Debug, Serialize, ToSchema)]
pub struct CacheStatus {
    /// Its id.
    pub cache_id: String,
    /// `creating`, `serving` or `removing`.
    pub state: &'static str,
    /// UDP and TCP port.
    pub port: u16,
    /// Memory reserved for it, MiB.
    pub max_memory_mb: u32,
    /// Longest value a client may store.
    pub max_value_bytes: u32,
    /// Whether its hot keys are answered in XDP.
    pub hot_set: bool,
    /// Items in it.
    pub items: u64,
    /// Memory that they occupy.
    pub used_bytes: u64,
    /// Memory that they may occupy.
    pub limit_bytes: u64,
    /// Items removed to make room, since it was made.
    pub evictions: u64,
    /// Keys found in XDP, by workers and by the front, since it was made.
    pub hits: u64,
    /// Keys not found by workers and front, since it was made.
    pub misses: u64,
}

/// An interface.
#[derive(Debug, Serialize, ToSchema)]
pub struct InterfaceStatus {
    /// Name.
    pub name: String,
    /// The kernel's index; 0 while it does not exist.
    pub ifindex: u32,
    /// Up with carrier.
    pub up: bool,
    /// `native`, `generic`, `socket` or `none`.
    pub xdp_mode: &'static str,
    /// Whether the sockets are in zero-copy mode.
    pub zero_copy: bool,
    /// Queues served.
    pub queues: u16,
    /// MTU.
    pub mtu_bytes: u32,
}

/// Latency, in seconds; values are null while nothing was counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Percentiles {
    /// Values counted.
    pub count: u64,
    /// Median.
    pub p50_s: Option<f64>,
    /// 99th percentile.
    pub p99_s: Option<f64>,
    /// 99.9th percentile.
    pub p999_s: Option<f64>,
    /// Largest.
    pub max_s: Option<f64>,
}

/// One thing that happened.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventStatus {
    /// Counts the node's events, from 1.
    pub sequence: u64,
    /// Seconds ago.
    pub age_s: f64,
    /// Kind in snake case, `unknown` for one this program does not know.
    pub kind: &'static str,
    /// Worker slot concerned.
    pub worker: Option<u16>,
    /// For an operator.
    pub text: String,
}

impl StatusDocument {
    /// The document of these nodes.
    pub fn of(nodes: &[NodeView]) -> Self {
        let nodes = nodes.iter().map(NodeStatus::of).collect();
        Self { nodes, drift: None, store_trouble: String::new() }
    }

    /// The same, held against what the store wants, and what hosts lack of it.
    pub fn with_wanted(mut self, wanted: &Inventory, hosts: &Hosts) -> Self {
        for node in &mut self.nodes {
            let Some(record) = wanted.get(&node.node_id) else { continue };
            node.lifecycle = Some(record.state);
            if record.state != NodeState::Retired {
                node.deployment_id = Some(record.deployment_id.clone());
            }
        }
        self.drift = Some(drift(&self.nodes, wanted, hosts));
        self
    }
}

impl Lifecycle {
    /// What the region says about a node.
    pub fn of(node: &NodeView) -> Self {
        let Some(snapshot) = &node.snapshot else { return Self::Unknown };
        let alive = |worker: &Worker| worker.pulse.silent_ns(snapshot.now_ns) <= HEARTBEAT_MAX_NS;
        match snapshot.active() {
            _ if snapshot.phase == NodePhase::Parked => Self::Parked,
            Some(worker) if alive(worker) && snapshot.is_draining() => Self::Draining,
            Some(worker) if alive(worker) => Self::Active,
            _ if node.attachment == Attachment::Attached && !snapshot.serving => Self::Provisioning,
            _ => Self::Failed,
        }
    }

    /// Name in documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Provisioning => "provisioning",
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Parked => "parked",
            Self::Failed => "failed",
        }
    }
}

impl NodeStatus {
    /// The document of one node.
    pub fn of(node: &NodeView) -> Self {
        let snapshot = node.snapshot.as_ref();
        let latency = snapshot.map(|snapshot| snapshot.histogram(HistogramId::XdpToTx));
        let workers = snapshot.map_or(Vec::new(), |snapshot| {
            let status = |worker| WorkerStatus::of(worker, snapshot.now_ns);
            snapshot.workers.iter().map(status).collect()
        });
        Self {
            node_id: node.id.clone(),
            region: node.region.clone(),
            tier: node.tier,
            state: Lifecycle::of(node),
            deployment_id: None,
            lifecycle: None,
            attachment: node.attachment,
            reason: node.reason.clone(),
            supervisor: snapshot.map(SupervisorStatus::of),
            kill_switch: snapshot.map(|snapshot| snapshot.kill_switch.clone()),
            workers,
            caches: snapshot.map_or(Vec::new(), |snapshot| {
                let active = snapshot.active().map(|worker| worker.slot);
                snapshot.caches.iter().map(|cache| CacheStatus::of(cache, active)).collect()
            }),
            interfaces: snapshot
                .map_or(Vec::new(), |s| s.interfaces.iter().map(InterfaceStatus::of).collect()),
            xdp_to_tx: latency.as_ref().map(Percentiles::of).unwrap_or_default(),
            events: snapshot.map_or(Vec::new(), events),
        }
    }
}

impl SupervisorStatus {
    fn of(snapshot: &Snapshot) -> Self {
        Self {
            pid: snapshot.supervisor.pid,
            generation: snapshot.generation,
            silence_s: seconds(snapshot.supervisor_silence_ns),
            uptime_s: seconds(snapshot.now_ns.saturating_sub(snapshot.supervisor.started_ns)),
            last_gap_s: seconds(snapshot.last_gap_ns),
            phase: snapshot.phase.name(),
            release: snapshot.release.name.clone(),
            version: snapshot.release.version.clone(),
        }
    }
}

impl WorkerStatus {
    fn of(worker: &Worker, now_ns: u64) -> Self {
        let (busy, idle) = (worker.pulse.busy_ns as f64, worker.pulse.idle_ns as f64);
        Self {
            worker: worker.slot,
            pid: worker.identity.pid,
            state: match worker.identity.state {
                WorkerState::Empty => "empty",
                state => state.name(),
            },
            core: worker.identity.core,
            generation: worker.identity.generation,
            poll: worker.pulse.poll_policy.name(),
            silence_s: seconds(worker.pulse.silent_ns(now_ns)),
            busy_share: if busy + idle > 0.0 { busy / (busy + idle) } else { 0.0 },
            unconfined: Confinement(worker.confinement).missing().collect(),
        }
    }
}

impl CacheStatus {
    /// Of a cache of a node whose active worker has this slot: counters of all slots together, gauges of
    /// that one.
    fn of(cache: &Cache, active: Option<usize>) -> Self {
        let (counted, identity) = (cache.worker_metrics(), &cache.identity);
        let now = cache.workers.iter().find(|(slot, _)| Some(*slot) == active);
        let gauge = |gauge| now.map_or(0, |(_, metrics)| metrics.gauge(gauge));
        let (hits, misses) = cache_lookups(cache);
        Self {
            cache_id: identity.id.clone(),
            state: identity.state.name(),
            port: identity.port,
            max_memory_mb: identity.max_memory_mb,
            max_value_bytes: identity.max_value_bytes,
            hot_set: identity.has_hot_set,
            items: gauge(metrics::CACHE_ITEMS),
            used_bytes: gauge(metrics::CACHE_USED_BYTES),
            limit_bytes: gauge(metrics::CACHE_LIMIT_BYTES),
            evictions: counted.counter(metrics::CACHE_EVICTIONS),
            hits,
            misses,
        }
    }
}

/// Keys of a cache that XDP, workers and front found and did not find, since it was made.
pub fn cache_lookups(cache: &Cache) -> (u64, u64) {
    let workers = cache.worker_metrics();
    let beside = |counter| cache.beside.counter(counter);
    let hits = workers
        .counter(metrics::CACHE_HITS)
        .saturating_add(beside(metrics::FRONT_HITS))
        .saturating_add(beside(metrics::CACHE_HOT_HITS));
    let misses = workers.counter(metrics::CACHE_MISSES);
    (hits, misses.saturating_add(beside(metrics::FRONT_MISSES)))
}

impl InterfaceStatus {
    fn of(interface: &InterfaceState) -> Self {
        Self {
            name: interface.name.clone(),
            ifindex: interface.ifindex,
            up: interface.up,
            xdp_mode: interface.xdp_mode.name(),
            zero_copy: interface.zero_copy,
            queues: interface.queues,
            mtu_bytes: interface.mtu_bytes,
        }
    }
}

impl Percentiles {
    /// The percentiles of a histogram of nanoseconds.
    pub fn of(values: &HistogramSnapshot) -> Self {
        if values.count() == 0 {
            return Self::default();
        }
        let at = |quantile| Some(seconds(values.quantile(quantile)));
        Self {
            count: values.count(),
            p50_s: at(0.5),
            p99_s: at(0.99),
            p999_s: at(0.999),
            max_s: Some(seconds(values.max())),
        }
    }
}

fn events(snapshot: &Snapshot) -> Vec<EventStatus> {
    let status = |event: &nautilus_shm::event_log::Event| EventStatus {
        sequence: event.sequence,
        age_s: seconds(snapshot.now_ns.saturating_sub(event.time_ns)),
        kind: event.kind.map_or("unknown", |kind| kind.name()),
        worker: event.worker,
        text: event.text.chars().filter(|c| !c.is_control()).collect(),
    };
    snapshot.events.iter().map(status).collect()
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
