//! Carries out a plan, one durable mark before each step and one after it.
//!
//! ```text
//!   submit: plan, phase "forward"
//!   run:    each step, as soon as those before it are done
//!                      --> mark "started", node is provisioning, tuning, ...
//!                      --> actuator (idempotent)
//!                      --> mark "done" + what the node is now, in one transaction
//!           one failed --> node "failed" + phase "rolling_back", in one transaction
//!                      --> nodes begun on go back one by one, those that served first
//! ```
//!
//! Killed anywhere, [`Reconciler::run`] goes on from the marks: a step marked started and not done is done
//! again. The only writer of what it keeps ([`super::records`] has the keys); readers watch `deploy/`.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;
use std::time::Duration;

use super::actuator::{ActuatorError, NodeActuator, Order};
use super::lifecycle::{NodeState, TransitionError};
use super::plan::{Action, Inventory, NodeRecord, Plan, Step};
use super::records::{self, NODES, PHASE, PLAN, STEPS, decode, encode, read, step_key};
pub use super::records::{Phase, PhaseRecord, StepRecord, StepState};
use crate::store::{Compare, Condition, Outcome, Revision, Store, StoreError, Transaction};

/// Steps done side by side. Too low: ten nodes take turns; too high: a thread each.
pub(super) const PARALLEL_MAX: usize = 32;

/// Why a plan could not be taken or carried on. A step that fails is no error: it turns the plan back.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The store failed; run again when it is back.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record in the store cannot be read.
    #[error("store, {key}: {source}")]
    Record {
        /// Its key.
        key: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Another plan is under way.
    #[error("plan {plan_id} is under way ({phase}); wait for its end or abort it")]
    Busy {
        /// Which.
        plan_id: String,
        /// Where it is.
        phase: Phase,
    },
    /// Nodes have changed since the plan was made.
    #[error("node {0} is not what the plan was made for: plan again")]
    Stale(String),
    /// A plan whose steps do not fit the nodes' lives.
    #[error("step {step}: {source}")]
    Transition {
        /// Which step.
        step: String,
        /// What is not allowed.
        source: TransitionError,
    },
    /// A step that cannot be done to the node as it is.
    #[error("step {step} cannot be done to a node that is {state}")]
    Impossible {
        /// Which step.
        step: String,
        /// What the node is.
        state: NodeState,
    },
    /// Somebody else changed what only we change, or we are not the leader any more.
    #[error("another control has taken over")]
    Superseded,
}

/// Carries plans out.
pub struct Reconciler<'a> {
    /// Where progress is kept.
    pub store: &'a dyn Store,
    /// Who does it.
    pub actuator: &'a dyn NodeActuator,
    /// Tries of a step whose node is not there yet.
    pub attempts: u32,
    /// Pause between them.
    pub pause: Duration,
    /// What has to hold at every write: with several controls, that this one leads.
    pub fence: Vec<Condition>,
}

/// How far a plan is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Where it is, and why.
    pub phase: PhaseRecord,
    /// The plan.
    pub plan: Plan,
    /// Steps of the way forward and of the way back that were begun, by key.
    pub steps: BTreeMap<String, StepRecord>,
}

impl Progress {
    fn state(&self, is_rollback: bool, step: &str) -> Option<StepState> {
        self.steps.get(&step_key(is_rollback, step)).map(|record| record.state)
    }

    /// Steps done, of all.
    pub fn count(&self) -> (usize, usize) {
        let is_done = |step: &&Step| self.state(false, &step.id) == Some(StepState::Done);
        (self.plan.steps.iter().filter(is_done).count(), self.plan.steps.len())
    }
}

impl<'a> Reconciler<'a> {
    /// One with three tries a second apart.
    pub fn new(store: &'a dyn Store, actuator: &'a dyn NodeActuator) -> Self {
        Self { store, actuator, attempts: 3, pause: Duration::from_secs(1), fence: Vec::new() }
    }

    /// Every node the store knows: what plans are made from.
    pub fn inventory(&self) -> Result<Inventory, ReconcileError> {
        records::inventory(self.store)
    }

    /// The plan under way, or the last one.
    pub fn progress(&self) -> Result<Option<Progress>, ReconcileError> {
        let Some((phase, _)) = read(self.store, PHASE)? else { return Ok(None) };
        let Some(plan) = records::plan(self.store)? else { return Ok(None) };
        let mut steps = BTreeMap::new();
        for entry in self.store.list(STEPS)?.entries {
            let record = decode(&entry.key, &entry.value)?;
            steps.insert(entry.key, record);
        }
        Ok(Some(Progress { phase, plan, steps }))
    }

    /// Takes a plan; [`Self::run`] carries it out. The same plan again, while it is under way, is fine.
    pub fn submit(&self, plan: &Plan) -> Result<(), ReconcileError> {
        self.submit_with(plan, Transaction::new())
    }

    /// The same, together with these changes.
    pub(super) fn submit_with(
        &self,
        plan: &Plan,
        changes: Transaction,
    ) -> Result<(), ReconcileError> {
        let current = read::<PhaseRecord>(self.store, PHASE)?;
        let compare = match &current {
            None => Compare::Absent,
            Some((record, _)) if !record.phase.is_over() => {
                if record.plan_id == plan.plan_id {
                    return Ok(());
                }
                let PhaseRecord { plan_id, phase, .. } = record.clone();
                return Err(ReconcileError::Busy { plan_id, phase });
            }
            Some((_, revision)) => Compare::ModifiedAt(*revision),
        };
        // Only a plan under way changes nodes, and none begins before this one does: see the condition.
        let inventory = self.inventory()?;
        for (node_id, change) in &plan.nodes {
            if inventory.get(node_id) != change.before.as_ref() {
                return Err(ReconcileError::Stale(node_id.clone()));
            }
        }
        let phase = if plan.is_empty() { Phase::Done } else { Phase::Forward };
        let record = PhaseRecord { plan_id: plan.plan_id.clone(), phase, reason: String::new() };
        let transaction = changes
            .when(PHASE, compare)
            .delete_prefix(STEPS)
            .put(PLAN, encode(plan))
            .put(PHASE, encode(&record));
        self.commit(transaction).map(|_| ())
    }

    /// Turns the plan under way back.
    pub fn abort(&self, reason: &str) -> Result<(), ReconcileError> {
        let turned = self.turn_back(Transaction::new(), reason)?;
        if turned { Ok(()) } else { Err(ReconcileError::Superseded) }
    }

    /// Carries the plan under way to its end; none where there never was one.
    pub fn run(&self) -> Result<Option<PhaseRecord>, ReconcileError> {
        loop {
            let Some(progress) = self.progress()? else { return Ok(None) };
            match progress.phase.phase {
                Phase::Forward => self.forward(&progress)?,
                Phase::RollingBack => self.back(&progress)?,
                Phase::Done | Phase::RolledBack | Phase::RollbackIncomplete => {
                    return Ok(Some(progress.phase));
                }
            }
        }
    }

    /// Every step as soon as those before it are done, until all are, or one has turned the plan back.
    fn forward(&self, progress: &Progress) -> Result<(), ReconcileError> {
        let plan = &progress.plan;
        let is_done = |step: &&Step| progress.state(false, &step.id) == Some(StepState::Done);
        let mut done: BTreeSet<&str> =
            plan.steps.iter().filter(is_done).map(|step| step.id.as_str()).collect();
        if done.len() == plan.steps.len() {
            return match self.end(&progress.phase, Phase::Done) {
                // Somebody has turned it back meanwhile: the next look tells.
                Err(ReconcileError::Superseded) if self.leads()? => Ok(()),
                other => other,
            };
        }
        std::thread::scope(|scope| {
            let (say, said) = mpsc::channel();
            let mut begun = done.clone();
            let (mut under_way, mut goes_forward, mut result) = (0, true, Ok(()));
            loop {
                let waits = |step: &&Step| {
                    !begun.contains(step.id.as_str())
                        && step.after.iter().all(|before| done.contains(before.as_str()))
                };
                let room = if goes_forward { PARALLEL_MAX - under_way } else { 0 };
                let ready: Vec<&Step> = plan.steps.iter().filter(waits).take(room).collect();
                for step in ready {
                    begun.insert(&step.id);
                    under_way += 1;
                    let say = say.clone();
                    scope.spawn(move || {
                        let work = AssertUnwindSafe(|| self.step(plan, step, false));
                        let _ = say.send((step, catch_unwind(work)));
                    });
                }
                if under_way == 0 {
                    // What is left waits for what never comes: a plan that no planner makes, but a store may hold.
                    let mut left = plan.steps.iter().filter(|step| !begun.contains(&*step.id));
                    if goes_forward
                        && result.is_ok()
                        && let Some(step) = left.next()
                    {
                        let reason = format!("{}: it waits for a step that never ends", step.id);
                        self.turn_back(Transaction::new(), &reason)?;
                    }
                    return result;
                }
                // Each of them says something, and we hold a sender ourselves.
                let Ok((step, ended)) = said.recv() else { return result };
                under_way -= 1;
                // A panic of a step is one of ours: nothing can be said about the node.
                match ended.unwrap_or_else(|panic| resume_unwind(panic)) {
                    Ok(StepState::Done) => {
                        done.insert(&step.id);
                        goes_forward = goes_forward && self.goes_forward(&mut result);
                    }
                    Ok(_) => goes_forward = false,
                    Err(error) => (goes_forward, result) = (false, result.and(Err(error))),
                }
            }
        })
    }

    /// Whether nobody has turned the plan back; an error goes into `result`.
    fn goes_forward(&self, result: &mut Result<(), ReconcileError>) -> bool {
        match read::<PhaseRecord>(self.store, PHASE) {
            Ok(found) => found.is_some_and(|(record, _)| record.phase == Phase::Forward),
            Err(error) => {
                *result = Err(error);
                false
            }
        }
    }

    /// Takes back, one node after the other, those a step was begun on.
    fn back(&self, progress: &Progress) -> Result<(), ReconcileError> {
        let plan = &progress.plan;
        let is_begun = |node_id: &str| {
            let mut of_it = plan.steps.iter().filter(|step| step.node_id == node_id);
            of_it.any(|step| progress.state(false, &step.id).is_some())
        };
        let inventory = self.inventory()?;
        let mut nodes: Vec<&String> = plan.nodes.keys().filter(|id| is_begun(id)).collect();
        // Those that served and do not come first, so that nothing that serves goes before them.
        nodes.sort_by_key(|id| {
            let before = plan.nodes[*id].before.as_ref();
            let has_served = before.is_some_and(|record| record.state == NodeState::Active);
            let serves = inventory.get(*id).is_some_and(|r| r.state == NodeState::Active);
            match (has_served, serves) {
                (true, false) => 0,
                (true, true) => 1,
                (false, _) => 2,
            }
        });
        let mut is_whole = true;
        for node_id in nodes {
            for step in plan.rollback.iter().filter(|step| step.node_id == *node_id) {
                let state = match progress.state(true, &step.id) {
                    None | Some(StepState::Started) => self.step(plan, step, true)?,
                    Some(state) => state,
                };
                if state == StepState::Failed {
                    is_whole = false;
                    break;
                }
            }
        }
        let end = if is_whole { Phase::RolledBack } else { Phase::RollbackIncomplete };
        self.end(&progress.phase, end)
    }

    /// One step, whatever of it has happened before.
    fn step(&self, plan: &Plan, step: &Step, is_back: bool) -> Result<StepState, ReconcileError> {
        let node_key = format!("{NODES}{}", step.node_id);
        let known = read::<NodeRecord>(self.store, &node_key)?.map(|(record, _)| record);
        let impossible = |state| ReconcileError::Impossible { step: step.id.clone(), state };
        let Some(mut record) = known.or_else(|| plan.first_record(&step.node_id)) else {
            return Err(impossible(NodeState::Planned));
        };
        let Some(path) = step.action.path(record.state) else {
            if is_back {
                self.mark(step, is_back, StepState::Skipped, None)?;
                return Ok(StepState::Skipped);
            }
            return Err(impossible(record.state));
        };
        let target = plan.target(step, is_back);
        // What is under way is said before it is; what is reached only when it is.
        let mut reached = record.state;
        for state in path {
            reached = reached
                .to(*state)
                .map_err(|source| ReconcileError::Transition { step: step.id.clone(), source })?;
        }
        if !matches!(reached, NodeState::Active | NodeState::Retired) {
            record.state = reached;
        }
        self.mark(step, is_back, StepState::Started, Some(&record))?;
        let spec = target.as_ref().map_or(&record.spec, |target| &target.spec);
        let name = format!("{}/{}", plan.plan_id, step_key(is_back, &step.id));
        if let Err(reason) = self.act(&name, step, spec, is_back) {
            record.state = NodeState::Failed;
            self.fail(step, is_back, &record, &reason)?;
            return Ok(StepState::Failed);
        }
        record.state = reached;
        if let (Action::Tune, Some(target)) = (step.action, target) {
            (record.deployment_id, record.spec) = (target.deployment_id, target.spec);
        }
        self.mark(step, is_back, StepState::Done, Some(&record))?;
        Ok(StepState::Done)
    }

    /// Has the actuator do it, with as many tries as are allowed.
    fn act(
        &self,
        name: &str,
        step: &Step,
        spec: &super::spec::EdgeNodeSpec,
        is_rollback: bool,
    ) -> Result<(), String> {
        let (node_id, action) = (step.node_id.as_str(), step.action);
        let order = Order { name, node_id, action, spec, is_rollback };
        let once = || -> Result<(), ActuatorError> {
            if step.action != Action::Judge {
                return self.actuator.perform(&order);
            }
            let period = Duration::from_millis(step.judge_ms);
            let measured = self.actuator.measure(&step.node_id, period)?;
            let verdict = spec.node_type.judge(spec.target_latency_us, measured);
            verdict.map_err(ActuatorError::Refused)
        };
        let mut tries = 1;
        loop {
            match once() {
                Ok(()) => return Ok(()),
                Err(error) if error.is_worth_a_try() && tries < self.attempts => tries += 1,
                Err(error) => return Err(error.to_string()),
            }
            std::thread::sleep(self.pause);
        }
    }

    fn mark(
        &self,
        step: &Step,
        is_back: bool,
        state: StepState,
        node: Option<&NodeRecord>,
    ) -> Result<(), ReconcileError> {
        let record = StepRecord { state, reason: String::new() };
        let mut transaction = Transaction::new().put(step_key(is_back, &step.id), encode(&record));
        if let Some(node) = node {
            transaction = transaction.put(format!("{NODES}{}", step.node_id), encode(node));
        }
        self.commit(transaction).map(|_| ())
    }

    /// Marks a step as failed and, on the way forward, turns the plan back: in one transaction.
    fn fail(
        &self,
        step: &Step,
        is_back: bool,
        node: &NodeRecord,
        reason: &str,
    ) -> Result<(), ReconcileError> {
        let record = StepRecord { state: StepState::Failed, reason: reason.into() };
        let transaction = Transaction::new()
            .put(step_key(is_back, &step.id), encode(&record))
            .put(format!("{NODES}{}", step.node_id), encode(node));
        if is_back {
            return self.commit(transaction).map(|_| ());
        }
        let told = format!("{}: {reason}", step.id);
        if !self.turn_back(transaction.clone(), &told)? {
            // A step beside it has turned it back already.
            self.commit(transaction)?;
        }
        Ok(())
    }

    /// Turns a plan that goes forward back, with these changes; false, and no changes, where none does.
    fn turn_back(&self, changes: Transaction, reason: &str) -> Result<bool, ReconcileError> {
        loop {
            let Some((mut record, revision)) = read::<PhaseRecord>(self.store, PHASE)? else {
                return Ok(false);
            };
            if record.phase != Phase::Forward {
                return Ok(false);
            }
            (record.phase, record.reason) = (Phase::RollingBack, reason.into());
            let transaction = changes
                .clone()
                .when(PHASE, Compare::ModifiedAt(revision))
                .put(PHASE, encode(&record));
            match self.commit(transaction) {
                Ok(_) => return Ok(true),
                // A step beside it was faster; or we are not in charge, which the next try tells.
                Err(ReconcileError::Superseded) if self.leads()? => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn leads(&self) -> Result<bool, ReconcileError> {
        let transaction = Transaction { conditions: self.fence.clone(), operations: Vec::new() };
        Ok(self.store.commit(&transaction)?.committed().is_some())
    }

    fn end(&self, record: &PhaseRecord, phase: Phase) -> Result<(), ReconcileError> {
        let ended = PhaseRecord { phase, ..record.clone() };
        let transaction = Transaction::new()
            .when(PHASE, Compare::Value(encode(record)))
            .put(PHASE, encode(&ended));
        self.commit(transaction).map(|_| ())
    }

    pub(super) fn commit(&self, mut transaction: Transaction) -> Result<Revision, ReconcileError> {
        transaction.conditions.extend(self.fence.iter().cloned());
        match self.store.commit(&transaction)? {
            Outcome::Committed { revision } => Ok(revision),
            Outcome::Refused { .. } => Err(ReconcileError::Superseded),
        }
    }
}
