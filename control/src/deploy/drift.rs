//! Drift: what the store wants of nodes against what they are.
//!
//! Held against each other are nodes that plans have brought to an end: one that a plan is changing is
//! expected to differ.

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

/// Everything that differs, node by node: those that are watched, then those that are not.
pub fn drift(nodes: &[NodeStatus], wanted: &Inventory) -> Vec<Drift> {
    let mut found = Vec::new();
    for node in nodes {
        match wanted.get(&node.node_id) {
            Some(record) if record.state == NodeState::Active => compare(node, record, &mut found),
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
