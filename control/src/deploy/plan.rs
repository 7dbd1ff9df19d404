//! A plan: what will be done to which node, in which order, and the way back. Once made it is not changed.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::lifecycle::NodeState;
use super::spec::EdgeNodeSpec;
use crate::spelling::spelled_enum;

/// A node as the store has it: what it belongs to, what it was last given, where it is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeRecord {
    /// Its deployment.
    pub deployment_id: String,
    /// The settings it was last given.
    pub spec: EdgeNodeSpec,
    /// Where it is in its life.
    pub state: NodeState,
}

/// Every node, by id.
pub type Inventory = BTreeMap<String, NodeRecord>;

spelled_enum! {
    /// What is done to a node.
    pub enum Action {
        /// Its supervisor is found and checked.
        Provision = "provision",
        /// Clients are led away and those left are served to the end.
        Drain = "drain",
        /// Host and node get their settings and release.
        Tune = "tune",
        /// It is started and filled.
        Warm = "warm",
        /// Its latency is measured against its budget for a while.
        Judge = "judge",
        /// Clients are let in.
        Admit = "admit",
        /// It is put out of service for good.
        Retire = "retire",
    }
}

impl Action {
    /// The states a node goes through when this is done to it; empty where it is there already; none
    /// where it cannot be done.
    pub fn path(self, from: NodeState) -> Option<&'static [NodeState]> {
        use NodeState::{
            Active, Draining, Failed, Planned, Provisioning, Retired, Tuning, Warming,
        };
        let path: &[NodeState] = match (self, from) {
            (Self::Provision, Provisioning)
            | (Self::Drain, Draining)
            | (Self::Tune, Tuning)
            | (Self::Warm | Self::Judge, Warming)
            | (Self::Admit, Active)
            | (Self::Retire, Retired) => &[],
            (Self::Provision, Planned | Failed) => &[Provisioning],
            (Self::Provision, Retired) => &[Planned, Provisioning],
            (Self::Drain, Provisioning | Tuning | Warming | Active | Failed) => &[Draining],
            (Self::Tune, Provisioning | Draining) => &[Tuning],
            (Self::Warm, Tuning) => &[Warming],
            (Self::Admit, Warming) => &[Active],
            (Self::Retire, Planned | Draining | Failed) => &[Retired],
            _ => return None,
        };
        Some(path)
    }
}

/// One thing done to one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// Unique in its list: `{node_id}.{action}`.
    pub id: String,
    /// Which node.
    pub node_id: String,
    /// What.
    pub action: Action,
    /// Steps that have to be done before.
    pub after: Vec<String>,
    /// How long it is measured; 0 unless the action is [`Action::Judge`].
    #[serde(default)]
    pub judge_ms: u64,
}

/// What a node was and what it is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeChange {
    /// None for a node that was not known.
    pub before: Option<NodeRecord>,
    /// None for a node that goes.
    pub wanted: Option<Wanted>,
}

/// What a node is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Wanted {
    /// Its deployment.
    pub deployment_id: String,
    /// Its settings.
    pub spec: EdgeNodeSpec,
}

/// The whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// A digest of everything below: the same plan has the same id.
    pub plan_id: String,
    /// The nodes concerned.
    pub nodes: BTreeMap<String, NodeChange>,
    /// What is done. A step's predecessors stand before it.
    pub steps: Vec<Step>,
    /// The way back, node by node, for nodes that a step was begun on.
    pub rollback: Vec<Step>,
}

impl Plan {
    /// Whether nothing has to be done.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The record a node has when its life begins under this plan.
    pub fn first_record(&self, node_id: &str) -> Option<NodeRecord> {
        let change = self.nodes.get(node_id)?;
        change.before.clone().or_else(|| {
            let Wanted { deployment_id, spec } = change.wanted.clone()?;
            Some(NodeRecord { deployment_id, spec, state: NodeState::Planned })
        })
    }

    /// What the step's node is to be given: what is wanted, or what was before on the way back.
    pub fn target(&self, step: &Step, is_rollback: bool) -> Option<Wanted> {
        let change = self.nodes.get(&step.node_id)?;
        let before = || {
            change
                .before
                .clone()
                .map(|record| Wanted { deployment_id: record.deployment_id, spec: record.spec })
        };
        if is_rollback { before() } else { change.wanted.clone().or_else(before) }
    }

    /// The inventory once these steps are done to it; none where one of them cannot be.
    pub fn after<'a>(
        &self,
        inventory: &Inventory,
        steps: impl IntoIterator<Item = &'a Step>,
    ) -> Option<Inventory> {
        let mut inventory = inventory.clone();
        for step in steps {
            let mut record = match inventory.get(&step.node_id) {
                Some(record) => record.clone(),
                None => self.first_record(&step.node_id)?,
            };
            for state in step.action.path(record.state)? {
                record.state = record.state.to(*state).ok()?;
            }
            if step.action == Action::Tune {
                let Wanted { deployment_id, spec } = self.target(step, false)?;
                (record.deployment_id, record.spec) = (deployment_id, spec);
            }
            inventory.insert(step.node_id.clone(), record);
        }
        Some(inventory)
    }
}

/// The plan as a dry run prints it.
impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return writeln!(formatter, "nothing to do");
        }
        let (steps, nodes) = (self.steps.len(), self.nodes.len());
        writeln!(formatter, "plan {}: {steps} steps on {nodes} nodes", self.plan_id)?;
        for (index, step) in self.steps.iter().enumerate() {
            write!(formatter, "{:>5}  {:<9}  {}", index + 1, step.action, step.node_id)?;
            if step.judge_ms > 0 {
                write!(formatter, " for {} ms", step.judge_ms)?;
            }
            if !step.after.is_empty() {
                write!(formatter, "  after {}", step.after.join(", "))?;
            }
            writeln!(formatter)?;
        }
        writeln!(formatter, "should one fail, of the nodes begun on:")?;
        for step in &self.rollback {
            writeln!(formatter, "       {:<9}  {}", step.action, step.node_id)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_in_the_table_of_lifes() {
        let mut possible = 0;
        for action in Action::ALL {
            for from in NodeState::ALL {
                let Some(path) = action.path(*from) else { continue };
                let end = path.iter().try_fold(*from, |state, next| state.to(*next)).unwrap();
                assert_eq!(action.path(end), Some(&[][..]), "{action} twice from {from}");
                possible += 1;
            }
        }
        assert_eq!(possible, 22);
    }
}
