//! What the edge node manager refuses, and why.

use crate::deploy::fields::FieldProblem;
use crate::deploy::lifecycle::NodeState;
use crate::deploy::planner::PlanError;
use crate::deploy::reconciler::{Phase, ReconcileError};

/// Why something asked of the manager was not done.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// Another deployment of this id exists.
    #[error(
        "deployment {0} exists and is another: give the new one an id of its own and say `replaces`"
    )]
    Conflict(String),
    /// It replaces one that does not exist.
    #[error("there is no deployment {0}")]
    NoDeployment(String),
    /// What it replaces is not what was looked at.
    #[error("{0}")]
    Changed(String),
    /// No deployment has this node.
    #[error("no deployment has a node {0}")]
    NoNode(String),
    /// No such operation is remembered.
    #[error("there is no operation {0}")]
    NoOperation(String),
    /// It has come to its end.
    #[error("operation {0} is over ({1})")]
    Over(String, Phase),
    /// It was drained by hand.
    #[error("node {0} was drained by hand: resume or retire it first")]
    Held(String),
    /// A node that is in no state for it.
    #[error("node {node_id} is {state}: {reason}")]
    WrongState {
        /// Which.
        node_id: String,
        /// What it is.
        state: NodeState,
        /// What it would have to be.
        reason: &'static str,
    },
    /// Hosts of nodes are not what their settings order.
    #[error(
        "the hosts of {nodes} are not what is ordered: `nautilus host init` would change {by_init} of {}, an \
         operator the others; nothing was changed", lacking.len()
    )]
    Unfit {
        /// Ids, separated by commas.
        nodes: String,
        /// Everything that is lacking, by the field that orders it.
        lacking: Vec<FieldProblem>,
        /// How much of it `nautilus host init` would change.
        by_init: usize,
    },
    /// It cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// It cannot be carried out now.
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
}
