//! Makes plans. A pure function: the same input gives the same plan, and nothing is touched.
//!
//! | strategy | order | nodes out of service, at most |
//! | --- | --- | --- |
//! | rolling | new nodes, then changed ones in place | `max_unavailable` |
//! | canary | the first `canary_nodes` of the new (then the changed) nodes, then as rolling | `max_unavailable` |
//! | blue/green | all new nodes, then the old ones go; a changed node needs a new id | 0 |
//! | all at once | everything | all |
//!
//! Counted are nodes that ran and are wanted. Where more of them are out at the beginning, no more than those.
//! In each of them nodes that are no longer wanted go last.

use std::collections::BTreeMap;

use super::lifecycle::NodeState;
use super::plan::{Action, Inventory, NodeChange, NodeRecord, Plan, Step, Wanted};
use super::sessions::RegionSession;
use super::spec::{DeploymentStrategy, EdgeDeploymentConfig, EdgeNodeSpec};
use crate::spelling::spelled_enum;

spelled_enum! {
    /// Whether a region's markets are trading.
    pub enum SessionState {
        /// One of them is, auctions included.
        Open = "open",
        /// None is.
        Closed = "closed",
        /// It cannot be told; taken for open.
        Unknown = "unknown",
    }
}

/// What a plan is made with, besides what is wanted and what is there.
#[derive(Clone, Debug)]
pub struct Circumstances {
    /// By region id; a region that is missing is unknown.
    pub sessions: BTreeMap<String, RegionSession>,
    /// Plan although a session is open.
    pub is_forced: bool,
    /// How long a node is measured before clients are let in. Too low: a tail that shows once a minute is
    /// missed; too high: a rolling deployment takes that long for each node.
    pub judge_ms: u64,
    /// The same for a canary, on which all others wait.
    pub judge_canary_ms: u64,
}

impl Default for Circumstances {
    fn default() -> Self {
        let (judge_ms, judge_canary_ms) = (10_000, 60_000);
        Self { sessions: BTreeMap::new(), is_forced: false, judge_ms, judge_canary_ms }
    }
}

/// Why no plan was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Two deployments want one node.
    #[error("node {node_id} is wanted by {first} and by {second}")]
    TwoDeployments {
        /// Which node.
        node_id: String,
        /// One.
        first: String,
        /// The other.
        second: String,
    },
    /// Blue/green, but a serving node would have to change in place.
    #[error(
        "deployment {deployment_id}: blue_green changes no node in place, give new ids to: {nodes}"
    )]
    InPlace {
        /// Which deployment.
        deployment_id: String,
        /// Which nodes, separated by commas.
        nodes: String,
    },
    /// A market session is open where a node would change.
    #[error(
        "a market session is open, or may be, in {regions}: wait for its end and the margin after it \
         (control.deploy.session_margin_s), or force it"
    )]
    Session {
        /// Region ids, their states and the reasons, separated by semicolons.
        regions: String,
    },
}

/// Plans the way from `inventory` to `desired`, which is all deployments there should be.
pub fn plan(
    desired: &[EdgeDeploymentConfig],
    inventory: &Inventory,
    circumstances: &Circumstances,
) -> Result<Plan, PlanError> {
    let mut wanted: BTreeMap<&str, &str> = BTreeMap::new();
    for deployment in desired {
        for node in &deployment.nodes {
            if let Some(first) = wanted.insert(&node.node_id, &deployment.deployment_id) {
                return Err(PlanError::TwoDeployments {
                    node_id: node.node_id.clone(),
                    first: first.into(),
                    second: deployment.deployment_id.clone(),
                });
            }
        }
    }
    let mut draft = Draft { inventory, circumstances, steps: Vec::new(), nodes: BTreeMap::new() };
    let unwanted = || inventory.iter().filter(|(id, _)| !wanted.contains_key(id.as_str()));
    for deployment in desired {
        let last = draft.bring_up(deployment)?;
        for (id, record) in unwanted() {
            let is_replaced = deployment.replaces.as_ref() == Some(&record.deployment_id);
            if is_replaced || record.deployment_id == deployment.deployment_id {
                draft.retire(id, &last);
            }
        }
    }
    for (id, record) in unwanted() {
        let is_known = |known: &EdgeDeploymentConfig| {
            known.deployment_id == record.deployment_id
                || known.replaces.as_ref() == Some(&record.deployment_id)
        };
        if !desired.iter().any(is_known) {
            draft.retire(id, &[]);
        }
    }
    draft.check_sessions()?;
    Ok(draft.finish())
}

/// Plans leading clients away from a node that stays what it is.
pub fn plan_drain(
    node_id: &str,
    record: &NodeRecord,
    circumstances: &Circumstances,
) -> Result<Plan, PlanError> {
    one_node(node_id, record, circumstances, &[Action::Drain])
}

/// Plans the way back of a node that was drained.
pub fn plan_resume(
    node_id: &str,
    record: &NodeRecord,
    circumstances: &Circumstances,
) -> Result<Plan, PlanError> {
    use Action::{Admit, Judge, Tune, Warm};
    one_node(node_id, record, circumstances, &[Tune, Warm, Judge, Admit])
}

fn one_node(
    node_id: &str,
    record: &NodeRecord,
    circumstances: &Circumstances,
    actions: &[Action],
) -> Result<Plan, PlanError> {
    let inventory = Inventory::from([(node_id.to_owned(), record.clone())]);
    let (steps, nodes) = (Vec::new(), BTreeMap::new());
    let mut draft = Draft { inventory: &inventory, circumstances, steps, nodes };
    draft.chain(node_id, actions.iter().copied(), circumstances.judge_ms, Vec::new());
    let NodeRecord { deployment_id, spec, .. } = record.clone();
    draft.concern(node_id, Some(Wanted { deployment_id, spec }));
    draft.check_sessions()?;
    Ok(draft.finish())
}

/// The sessions of the regions in which nodes change, by the region's id.
pub fn sessions_of(
    nodes: &BTreeMap<String, NodeChange>,
    circumstances: &Circumstances,
) -> BTreeMap<String, RegionSession> {
    let mut sessions = BTreeMap::new();
    for change in nodes.values() {
        let before = change.before.as_ref().map(|record| &record.spec);
        let wanted = change.wanted.as_ref().map(|wanted| &wanted.spec);
        for spec in before.into_iter().chain(wanted) {
            let session = circumstances.sessions.get(&spec.region).cloned();
            let session = session.unwrap_or_else(|| RegionSession {
                state: SessionState::Unknown,
                reason: "the catalogue has no such region".into(),
            });
            sessions.insert(spec.region.clone(), session);
        }
    }
    sessions
}

struct Draft<'a> {
    inventory: &'a Inventory,
    circumstances: &'a Circumstances,
    steps: Vec<Step>,
    nodes: BTreeMap<String, NodeChange>,
}

impl Draft<'_> {
    /// Everything that makes a deployment's nodes serve; says the last step of each node.
    fn bring_up(&mut self, deployment: &EdgeDeploymentConfig) -> Result<Vec<String>, PlanError> {
        let (mut new, mut changed) = (Vec::new(), Vec::new());
        for spec in &deployment.nodes {
            match self.inventory.get(&spec.node_id) {
                Some(record) if record.state == NodeState::Active => {
                    let is_same = record.deployment_id == deployment.deployment_id;
                    if !is_same || record.spec != *spec {
                        changed.push(spec);
                    }
                }
                _ => new.push(spec),
            }
        }
        let judge_ms = self.circumstances.judge_ms;
        let window = usize::try_from(deployment.max_unavailable).unwrap_or(usize::MAX);
        Ok(match deployment.deployment_type {
            DeploymentStrategy::AllAtOnce => {
                new.extend(changed);
                self.wave(deployment, &new, usize::MAX, judge_ms, &[])
            }
            DeploymentStrategy::BlueGreen if !changed.is_empty() => {
                let ids: Vec<&str> = changed.iter().map(|spec| spec.node_id.as_str()).collect();
                return Err(PlanError::InPlace {
                    deployment_id: deployment.deployment_id.clone(),
                    nodes: ids.join(", "),
                });
            }
            DeploymentStrategy::BlueGreen => self.wave(deployment, &new, usize::MAX, judge_ms, &[]),
            DeploymentStrategy::Rolling => {
                self.roll(deployment, &new, &changed, window, Vec::new())
            }
            DeploymentStrategy::Canary => {
                let count = usize::try_from(deployment.canary_nodes).unwrap_or(usize::MAX);
                // Those that do not serve come first: a canary that fails then costs no capacity.
                let canaries: Vec<&EdgeNodeSpec> =
                    new.iter().chain(&changed).take(count).copied().collect();
                let is_other = |spec: &&EdgeNodeSpec| !canaries.contains(spec);
                new.retain(is_other);
                changed.retain(is_other);
                let judge_ms = self.circumstances.judge_canary_ms;
                let first = self.wave(deployment, &canaries, window, judge_ms, &[]);
                self.roll(deployment, &new, &changed, window, first)
            }
        })
    }

    /// New nodes, then changed ones in a window, all after `before`.
    fn roll(
        &mut self,
        deployment: &EdgeDeploymentConfig,
        new: &[&EdgeNodeSpec],
        changed: &[&EdgeNodeSpec],
        window: usize,
        before: Vec<String>,
    ) -> Vec<String> {
        let judge_ms = self.circumstances.judge_ms;
        let made = self.wave(deployment, new, usize::MAX, judge_ms, &before);
        let after = if made.is_empty() { &before } else { &made };
        let moved = self.wave(deployment, changed, window, judge_ms, after);
        [before, made, moved].into_iter().rfind(|last| !last.is_empty()).unwrap_or_default()
    }

    /// Chains of steps for these nodes, at most `window` of them under way at a time.
    fn wave(
        &mut self,
        deployment: &EdgeDeploymentConfig,
        specs: &[&EdgeNodeSpec],
        window: usize,
        judge_ms: u64,
        after: &[String],
    ) -> Vec<String> {
        let mut last: Vec<String> = Vec::new();
        for (index, spec) in specs.iter().enumerate() {
            let state = self.inventory.get(&spec.node_id).map(|record| record.state);
            use NodeState::{Active, Draining, Tuning, Warming};
            let first = match state {
                Some(Tuning | Warming | Active | Draining) => Action::Drain,
                _ => Action::Provision,
            };
            let rest = [Action::Tune, Action::Warm, Action::Judge, Action::Admit];
            // A place of the window is free when the node that had it serves.
            let after = match index.checked_sub(window) {
                Some(earlier) => vec![last[earlier].clone()],
                None => after.to_vec(),
            };
            let wanted =
                Wanted { deployment_id: deployment.deployment_id.clone(), spec: (*spec).clone() };
            let actions = std::iter::once(first).chain(rest);
            last.push(self.chain(&spec.node_id, actions, judge_ms, after));
            self.concern(&spec.node_id, Some(wanted));
        }
        last
    }

    fn retire(&mut self, node_id: &str, after: &[String]) {
        let Some(record) = self.inventory.get(node_id) else { return };
        let actions: &[Action] = match record.state {
            NodeState::Retired => return,
            NodeState::Planned => &[Action::Retire],
            _ => &[Action::Drain, Action::Retire],
        };
        self.chain(node_id, actions.iter().copied(), 0, after.to_vec());
        self.concern(node_id, None);
    }

    fn chain(
        &mut self,
        node_id: &str,
        actions: impl Iterator<Item = Action>,
        judge_ms: u64,
        mut after: Vec<String>,
    ) -> String {
        for action in actions {
            let step = step(node_id, action, judge_ms, after);
            after = vec![step.id.clone()];
            self.steps.push(step);
        }
        after.pop().unwrap_or_default()
    }

    fn concern(&mut self, node_id: &str, wanted: Option<Wanted>) {
        let before = self.inventory.get(node_id).cloned();
        self.nodes.insert(node_id.into(), NodeChange { before, wanted });
    }

    fn check_sessions(&self) -> Result<(), PlanError> {
        if self.circumstances.is_forced {
            return Ok(());
        }
        let sessions = sessions_of(&self.nodes, self.circumstances).into_iter();
        let open = sessions.filter(|(_, session)| session.state != SessionState::Closed);
        let regions: Vec<String> = open
            .map(|(id, RegionSession { state, reason })| format!("{id} ({state}: {reason})"))
            .collect();
        if regions.is_empty() {
            return Ok(());
        }
        Err(PlanError::Session { regions: regions.join("; ") })
    }

    fn finish(self) -> Plan {
        let mut rollback = Vec::new();
        for (node_id, change) in self.nodes.iter().rev() {
            use Action::{Admit, Drain, Provision, Retire, Tune, Warm};
            let actions: &[Action] = match change.before.as_ref().map(|record| record.state) {
                None | Some(NodeState::Planned | NodeState::Retired) => &[Drain, Retire],
                // Which of the first two applies depends on how far the node has come. It is not judged:
                // it served before, and out of service it serves nobody.
                Some(NodeState::Active) => &[Drain, Provision, Tune, Warm, Admit],
                // It did not serve before either: left aside, for the next plan.
                Some(_) => &[Drain],
            };
            let mut after = Vec::new();
            for action in actions {
                let step = step(node_id, *action, 0, after);
                after = vec![step.id.clone()];
                rollback.push(step);
            }
        }
        let mut plan =
            Plan { plan_id: String::new(), nodes: self.nodes, steps: self.steps, rollback };
        plan.plan_id = format!("plan-{:016x}", digest(&plan));
        plan
    }
}

fn step(node_id: &str, action: Action, judge_ms: u64, after: Vec<String>) -> Step {
    let judge_ms = if action == Action::Judge { judge_ms } else { 0 };
    Step { id: format!("{node_id}.{action}"), node_id: node_id.into(), action, after, judge_ms }
}

/// FNV-1a over the plan's JSON: tells plans apart, guards against nothing.
fn digest(plan: &Plan) -> u64 {
    // Maps with text keys and plain values always serialize.
    let text = serde_json::to_string(plan).unwrap_or_default();
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The record of a node that serves as `spec` has it.
pub fn serving(deployment_id: &str, spec: &EdgeNodeSpec) -> NodeRecord {
    NodeRecord { deployment_id: deployment_id.into(), spec: spec.clone(), state: NodeState::Active }
}

#[cfg(test)]
mod tests;
