//! The document of `GET /api/v1/edge/nodes/{node_id}/health`: one node, judged.

use nautilus_shm::control_region::HistogramId;
use nautilus_shm::life::NodePhase;
use nautilus_shm::metrics::labels::FeedError;
use nautilus_shm::metrics::{MetricSnapshot, table};
use serde::Serialize;
use utoipa::ToSchema;

use crate::link::{Attachment, HEARTBEAT_MAX_NS};
use crate::status::{Lifecycle, NodeStatus, Percentiles};
use crate::view::NodeView;

/// The verdict, what it rests on, and what was read.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthDocument {
    /// The node's id.
    pub node_id: String,
    /// `healthy`: every check holds; `degraded`: it serves, a check does not hold; `unhealthy`: it
    /// does not serve, or nothing is known of it.
    pub health: Health,
    /// One entry a check.
    pub checks: Vec<Check>,
    /// The same node as `nodes/status` shows it.
    pub status: NodeStatus,
}

/// The verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Every check holds.
    Healthy,
    /// It serves, but a check does not hold.
    Degraded,
    /// It does not serve, or nothing is known.
    Unhealthy,
}

/// One thing looked at.
#[derive(Debug, Serialize, ToSchema)]
pub struct Check {
    /// Name, such as `standby_running`.
    pub name: &'static str,
    /// Whether it holds; null when it cannot be judged.
    pub holds: Option<bool>,
    /// What was seen, for an operator.
    pub detail: String,
}

impl Check {
    fn new(name: &'static str, holds: impl Into<Option<bool>>, detail: impl Into<String>) -> Self {
        Self { name, holds: holds.into(), detail: detail.into() }
    }
}

impl HealthDocument {
    /// Judges a node.
    pub fn of(node: &NodeView) -> Self {
        let checks = checks(node);
        let serves = matches!(Lifecycle::of(node), Lifecycle::Active | Lifecycle::Draining);
        let holds = checks.iter().all(|check| check.holds != Some(false));
        let health = match (serves, holds) {
            (false, _) => Health::Unhealthy,
            (true, false) => Health::Degraded,
            (true, true) => Health::Healthy,
        };
        Self { node_id: node.id.clone(), health, checks, status: NodeStatus::of(node) }
    }
}

fn checks(node: &NodeView) -> Vec<Check> {
    let attached = node.attachment == Attachment::Attached;
    let detail =
        if attached { "attached, heartbeat below 1 s".into() } else { node.reason.clone() };
    let mut checks = vec![Check::new("supervisor_alive", attached, detail)];
    let Some(snapshot) = &node.snapshot else { return checks };

    let phase = snapshot.phase;
    let detail = match phase {
        NodePhase::Running => "started",
        NodePhase::Parked => "parked: `nautilus node start` has it serve",
        NodePhase::Starting | NodePhase::Parking => phase.name(),
    };
    checks.push(Check::new("started", phase == NodePhase::Running, detail));
    let detail = match snapshot.is_draining() {
        true => "drains: no new TCP connection is taken; `nautilus node resume` ends that",
        false => "takes clients",
    };
    let takes = phase == NodePhase::Running && !snapshot.is_draining();
    checks.push(Check::new("takes_clients", takes, detail));
    let detail = if snapshot.serving { "set up" } else { "still being set up" };
    checks.push(Check::new("set_up", snapshot.serving, detail));
    let (alive, detail) = match snapshot.active() {
        None => (false, "no worker is active".into()),
        Some(worker) => {
            let silent_ns = worker.pulse.silent_ns(snapshot.now_ns);
            let detail = format!("worker {} silent for {} us", worker.slot, silent_ns / 1_000);
            (silent_ns <= HEARTBEAT_MAX_NS, detail)
        }
    };
    checks.push(Check::new("worker_alive", alive, detail));
    let standby = snapshot.has_standby();
    let detail = if standby { "a standby is running" } else { "a death would be a cold start" };
    checks.push(Check::new("standby_running", standby, detail));

    let down: Vec<&str> =
        snapshot.interfaces.iter().filter(|i| !i.up).map(|i| i.name.as_str()).collect();
    let up = snapshot.interfaces.len() - down.len();
    let detail = match down.as_slice() {
        [] => format!("{up} up"),
        names => format!("down: {}", names.join(", ")),
    };
    checks.push(Check::new("interfaces_up", down.is_empty() && up > 0, detail));

    let latency = Percentiles::of(&snapshot.histogram(HistogramId::XdpToTx));
    let check = match (node.tier.p99_budget_ns(), latency.p99_s) {
        (None, _) => Check::new("latency_in_budget", None, "this tier has no budget"),
        (_, None) => Check::new("latency_in_budget", None, "nothing has been answered"),
        (Some(budget_ns), Some(p99_s)) => {
            let budget_s = budget_ns as f64 / 1e9;
            let detail = format!(
                "p99 {:.1} us since the node was made, budget {:.0} us",
                p99_s * 1e6,
                budget_s * 1e6
            );
            Check::new("latency_in_budget", p99_s <= budget_s, detail)
        }
    };
    checks.push(check);
    checks.extend(feed_memory(&snapshot.worker_metrics()));
    checks
}

/// Whether the books of the node's feeds had room for their day; nothing for a node without feeds.
fn feed_memory(metrics: &MetricSnapshot) -> Option<Check> {
    if metrics.gauge(table::FEED_CHANNELS) == 0 {
        return None;
    }
    let refused = metrics.counter(table::FEED_ERRORS.of(FeedError::Capacity));
    let orders = metrics.gauge(table::FEED_ORDERS);
    // Books of another session may fit again.
    let holds = refused == 0 || metrics.gauge(table::FEED_SUSPECT_CHANNELS) == 0;
    let detail = match holds {
        true => format!("{orders} open orders"),
        false => format!(
            "{refused} messages found no room in the books, which are suspect since: give the feed more \
             max_orders in the node file, and start the node anew"
        ),
    };
    Some(Check::new("feed_memory", holds, detail))
}
