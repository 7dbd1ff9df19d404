//! Drift: what the store wants of nodes against what they are.
//!
//! Held against each other are nodes that plans have brought to an end: one that a plan is changing is
//! expected to differ.

use std::collections::BTreeMap;

use nautilus_host::order::Shortfall;
use serde::Serialize;
use utoipa::ToSchema;

use super::lifecycle::NodeState;
use super::plan::{Inventory, NodeRecord};
use crate::link::Attachment;
use crate::spelling::spelled_enum;
use crate::status::{Lifecycle, NodeStatus};

spelled_enum! {
    /// What differs.
    pub enum DriftKind {
        /// It is wanted and cannot be reached, or nobody has configured it.
        MissingNode = "missing_node",
        /// It serves and nobody wants it.
        UnexpectedNode = "unexpected_node",
        /// It is wanted and reached and does not serve.
        NotServing = "not_serving",
        /// It runs another release.
        Release = "release",
        /// Its health is judged by the budget of another tier.
        Tier = "tier",
        /// Its packets go another way.
        KernelBypass = "kernel_bypass",
        /// Its host is no longer what was ordered.
        Host = "host",
    }
}

/// One thing that is not as it is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Drift {
    /// The node.
    pub node_id: String,
    /// What differs.
    pub kind: DriftKind,
    /// What the store wants; empty for a node that nobody wants.
    pub wanted: String,
    /// What was found; empty where nothing is.
    pub found: String,
    /// What that means, and what to do.
    pub reason: String,
}

/// What hosts lack of what their nodes order, by node id; a host that could not be asked is not in it.
pub type Hosts = BTreeMap<String, Vec<Shortfall>>;

/// Everything that differs, node by node: those that are watched, then those that are not.
pub fn drift(nodes: &[NodeStatus], wanted: &Inventory, hosts: &Hosts) -> Vec<Drift> {
    let mut found = Vec::new();
    for node in nodes {
        match wanted.get(&node.node_id) {
            Some(record) if record.state == NodeState::Active => {
                compare(node, record, &mut found);
                if node.attachment == Attachment::Attached {
                    let lacking = hosts.get(&node.node_id).map_or(&[][..], Vec::as_slice);
                    of_host(node, lacking, &mut found);
                }
            }
            None => unexpected(node, "no deployment has it: deploy or stop it", &mut found),
            Some(record) if record.state == NodeState::Retired => {
                unexpected(node, "it was retired: stop it", &mut found);
            }
            Some(_) => {}
        }
    }
    for (node_id, record) in wanted {
        let is_watched = nodes.iter().any(|node| node.node_id == *node_id);
        if record.state == NodeState::Active && !is_watched {
            found.push(Drift {
                node_id: node_id.clone(),
                kind: DriftKind::MissingNode,
                wanted: record.deployment_id.clone(),
                found: String::new(),
                reason: "no [[node]] of the configuration has this id: add it, or retire it".into(),
            });
        }
    }
    found
}

fn unexpected(node: &NodeStatus, reason: &str, found: &mut Vec<Drift>) {
    if node.state == Lifecycle::Active {
        found.push(Drift {
            node_id: node.node_id.clone(),
            kind: DriftKind::UnexpectedNode,
            wanted: String::new(),
            found: node.state.name().into(),
            reason: format!("it serves, and {reason}"),
        });
    }
}

/// One drift for each field that orders what the host has not got.
fn of_host(node: &NodeStatus, lacking: &[Shortfall], found: &mut Vec<Drift>) {
    let mut fields: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for one in lacking {
        fields.entry(&one.field).or_default().push(&one.reason);
    }
    for (field, reasons) in fields {
        let more = match reasons.len() {
            1 => String::new(),
            count => format!("; and {} more, which `nautilus host check` tells", count - 1),
        };
        found.push(Drift {
            node_id: node.node_id.clone(),
            kind: DriftKind::Host,
            wanted: field.into(),
            found: format!("{} not so", reasons.len()),
            reason: format!("its host is no longer what was ordered: {}{more}", reasons[0]),
        });
    }
}

fn compare(node: &NodeStatus, record: &NodeRecord, found: &mut Vec<Drift>) {
    let mut add = |kind, wanted: &str, is: &str, reason: String| {
        let (node_id, wanted, is) = (node.node_id.clone(), wanted.into(), is.into());
        found.push(Drift { node_id, kind, wanted, found: is, reason });
    };
    let spec = &record.spec;
    if node.attachment != Attachment::Attached {
        let is = match node.attachment {
            Attachment::Unreachable => "unreachable",
            _ => "detached",
        };
        add(DriftKind::MissingNode, &record.deployment_id, is, node.reason.clone());
    }
    if node.attachment == Attachment::Unreachable {
        return;
    }
    if node.state != Lifecycle::Active {
        let reason = "it was brought to serve and does not: its health says why";
        add(DriftKind::NotServing, "active", node.state.name(), reason.into());
    }
    if let (Some(wanted), Some(supervisor)) = (&spec.release, &node.supervisor)
        && *wanted != supervisor.release
    {
        let reason = "its supervisor runs another: deploy it anew, or swap it back";
        add(DriftKind::Release, wanted, &supervisor.release, reason.into());
    }
    if spec.node_type.tier() != node.tier {
        let is = serde_json::to_value(node.tier).unwrap_or_default();
        let reason = "its [[node]] names another tier, by whose budget its health is judged";
        add(DriftKind::Tier, spec.node_type.name(), is.as_str().unwrap_or_default(), reason.into());
    }
    let bypasses = |mode: &str| matches!(mode, "native" | "generic");
    let other = |mode: &str| bypasses(mode) != spec.kernel_bypass;
    if let Some(interface) = node.interfaces.iter().find(|interface| other(interface.xdp_mode)) {
        let wanted = if spec.kernel_bypass { "true" } else { "false" };
        let reason = format!("interface {} is in mode {}", interface.name, interface.xdp_mode);
        add(DriftKind::KernelBypass, wanted, interface.xdp_mode, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Tier;
    use crate::deploy::EdgeNodeSpec;
    use crate::deploy::EdgeNodeType;
    use crate::status::{InterfaceStatus, Percentiles, SupervisorStatus};

    fn node(node_id: &str) -> NodeStatus {
        let interface = InterfaceStatus {
            name: "eth0".into(),
            ifindex: 2,
            up: true,
            xdp_mode: "native",
            zero_copy: false,
            queues: 1,
            mtu_bytes: 1500,
        };
        NodeStatus {
            node_id: node_id.into(),
            region: None,
            tier: Tier::Lab,
            state: Lifecycle::Active,
            deployment_id: None,
            lifecycle: None,
            attachment: Attachment::Attached,
            reason: String::new(),
            supervisor: None,
            kill_switch: None,
            workers: Vec::new(),
            caches: Vec::new(),
            interfaces: vec![interface],
            xdp_to_tx: Percentiles::default(),
            events: Vec::new(),
        }
    }

    fn record(state: NodeState) -> NodeRecord {
        let spec = EdgeNodeSpec {
            node_id: "a".into(),
            region: "equinix_ny4".into(),
            node_type: EdgeNodeType::Lab,
            cpu_cores: 1,
            memory_gb: 1,
            target_latency_us: 100,
            max_orders_per_second: 1,
            kernel_bypass: true,
            cpu_isolation: false,
            numa_optimization: false,
            release: None,
        };
        NodeRecord { deployment_id: "d".into(), spec, state }
    }

    fn kinds(node: NodeStatus, record: NodeRecord) -> Vec<DriftKind> {
        let wanted = Inventory::from([("a".to_owned(), record)]);
        drift(&[node], &wanted, &Hosts::new()).into_iter().map(|drift| drift.kind).collect()
    }

    #[test]
    fn each_difference_is_told_by_itself() {
        let active = || record(NodeState::Active);
        assert_eq!(kinds(node("a"), active()), []);
        let other = NodeStatus { tier: Tier::Ultra, ..node("a") };
        assert_eq!(kinds(other, active()), [DriftKind::Tier]);
        let mut other = node("a");
        other.interfaces[0].xdp_mode = "socket";
        assert_eq!(kinds(other, active()), [DriftKind::KernelBypass]);
        let other = NodeStatus { state: Lifecycle::Failed, ..node("a") };
        assert_eq!(kinds(other, active()), [DriftKind::NotServing]);
        let other = NodeStatus { attachment: Attachment::Detached, ..node("a") };
        assert_eq!(kinds(other, active()), [DriftKind::MissingNode]);
        let runs = |release: &str| NodeStatus {
            supervisor: Some(SupervisorStatus {
                pid: 1,
                generation: 1,
                silence_s: 0.0,
                uptime_s: 1.0,
                last_gap_s: 0.0,
                phase: "running",
                release: release.into(),
                version: String::new(),
            }),
            ..node("a")
        };
        let mut released = active();
        released.spec.release = Some("r2".into());
        assert_eq!(kinds(runs("r2"), released.clone()), []);
        assert_eq!(kinds(runs("r1"), released.clone()), [DriftKind::Release]);
        assert_eq!(kinds(runs(""), released), [DriftKind::Release]);
        // One whose release nobody has named may run any.
        assert_eq!(kinds(runs("r1"), active()), []);
        let (attachment, state) = (Attachment::Unreachable, Lifecycle::Unknown);
        let other = NodeStatus { attachment, state, ..node("a") };
        assert_eq!(kinds(other, active()), [DriftKind::MissingNode]);
        assert_eq!(kinds(node("b"), active()), [DriftKind::UnexpectedNode, DriftKind::MissingNode]);
        assert_eq!(kinds(node("a"), record(NodeState::Retired)), [DriftKind::UnexpectedNode]);
        let other = NodeStatus { state: Lifecycle::Failed, ..node("a") };
        assert_eq!(kinds(other, record(NodeState::Tuning)), [], "a plan is at it");
    }

    #[test]
    fn a_host_that_is_no_longer_what_was_ordered_is_told_by_field() {
        let one = |field: &str, reason: &str| Shortfall {
            field: field.into(),
            reason: reason.into(),
            by_init: false,
        };
        let gone = vec![
            one("node_type", "swap"),
            one("cpu_isolation", "core 1 is shared"),
            one("node_type", "ksm"),
        ];
        let hosts = Hosts::from([("a".to_owned(), gone)]);
        let wanted = Inventory::from([("a".to_owned(), record(NodeState::Active))]);
        let found = drift(&[node("a")], &wanted, &hosts);
        let said: Vec<(DriftKind, &str)> =
            found.iter().map(|drift| (drift.kind, drift.wanted.as_str())).collect();
        assert_eq!(said, [(DriftKind::Host, "cpu_isolation"), (DriftKind::Host, "node_type")]);
        assert!(found[0].reason.contains("core 1 is shared"), "{}", found[0].reason);
        assert!(found[1].reason.contains("swap; and 1 more"), "{}", found[1].reason);
        let busy = Inventory::from([("a".to_owned(), record(NodeState::Warming))]);
        assert_eq!(drift(&[node("a")], &busy, &hosts), [], "a plan is at it");
        let gone = NodeStatus { attachment: Attachment::Unreachable, ..node("a") };
        let kinds: Vec<DriftKind> =
            drift(&[gone], &wanted, &hosts).into_iter().map(|drift| drift.kind).collect();
        assert_eq!(kinds, [DriftKind::MissingNode], "nobody can say how its host is");
    }
}
