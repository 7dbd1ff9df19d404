//! Who does to nodes what a plan says.

use std::time::Duration;

use nautilus_host::order::Shortfall;

use super::plan::Action;
use super::spec::EdgeNodeSpec;
use super::tier::Measurement;

/// One thing to do to one node.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// Same order, same name: plan, direction and step.
    pub name: &'a str,
    /// Which node.
    pub node_id: &'a str,
    /// What; [`Action::Judge`] is asked for by [`NodeActuator::measure`] instead.
    pub action: Action,
    /// The settings that the node is to have, or has where the action changes none.
    pub spec: &'a EdgeNodeSpec,
    /// The node goes back to what it was. Its host is not judged: it served there.
    pub is_rollback: bool,
}

/// Why an order was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActuatorError {
    /// The node could not be asked, or has not come so far yet: worth another try.
    #[error("{0}")]
    NotNow(String),
    /// The node said no, or cannot.
    #[error("{0}")]
    Refused(String),
    /// Nobody has a way to do this to a node.
    #[error("{action} is not possible: {reason}")]
    NotSupported {
        /// What.
        action: Action,
        /// What is missing.
        reason: String,
    },
}

impl ActuatorError {
    /// Whether another try may help.
    pub fn is_worth_a_try(&self) -> bool {
        matches!(self, Self::NotNow(_))
    }
}

/// Carries out orders. Whoever gives them may die at any moment and give the last ones again, so each has
/// to be one that changes nothing the second time, and that is whole or not begun when it returns.
pub trait NodeActuator: Send + Sync {
    /// Carries it out; returns when it is done.
    fn perform(&self, order: &Order<'_>) -> Result<(), ActuatorError>;

    /// What the node's host lacks of what these settings order; nothing is changed.
    fn lacks(&self, node_id: &str, spec: &EdgeNodeSpec) -> Result<Vec<Shortfall>, ActuatorError>;

    /// Measures the node's own prober or traffic for this long.
    fn measure(&self, node_id: &str, period: Duration) -> Result<Measurement, ActuatorError>;
}
