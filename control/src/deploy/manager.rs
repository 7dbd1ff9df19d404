//! The edge node manager: deployments as they are wanted, over planner and reconciler.
//!
//! | key | value |
//! | --- | --- |
//! | `deploy/deployments/{deployment_id}` | an [`EdgeDeploymentConfig`] whose plan came to its end |
//! | `deploy/held/{node_id}` | a node that was drained by hand: plans leave it alone until it is resumed |
//! | `deploy/pending` | what becomes of those once the plan under way is done |
//!
//! A plan that is turned back changes no deployment. What is pending is settled by whoever comes first after
//! the plan's end: the run that ended it, or the next call after a death in between.

mod error;

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::lifecycle::NodeState;
use super::operations::{self, End, Operation, OperationKind, steps};
use super::plan::{Inventory, Plan};
use super::planner::{Circumstances, plan, plan_drain, plan_resume};
use super::reconciler::{Phase, PhaseRecord, Progress, ReconcileError, Reconciler};
use super::records::{decode, encode, read};
use super::spec::{EdgeDeploymentConfig, SpecErrors};
use crate::catalogue::Catalogue;
use crate::store::{Compare, Revision, Transaction};

pub use error::ManagerError;

/// Where deployments that are wanted are kept.
pub const DEPLOYMENTS: &str = "deploy/deployments/";
const HELD: &str = "deploy/held/";
const PENDING: &str = "deploy/pending";

/// What becomes of the stored deployments once a plan is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Pending {
    operation_id: String,
    put: Option<EdgeDeploymentConfig>,
    delete: Option<String>,
    hold: Option<String>,
    release: Option<String>,
}

/// What was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// What carries it out, or has.
    pub operation: Operation,
    /// Its plan; none where the same was asked before.
    pub plan: Option<Plan>,
}

/// Deployments, from a document to nodes that serve.
pub struct EdgeNodeManager<'a> {
    /// Carries plans out.
    pub reconciler: Reconciler<'a>,
    /// Regions that nodes can stand in.
    pub catalogue: &'a Catalogue,
}

impl EdgeNodeManager<'_> {
    /// Reads a document.
    pub fn read(&self, document: &Value) -> Result<EdgeDeploymentConfig, SpecErrors> {
        EdgeDeploymentConfig::from_json(document, self.catalogue)
    }

    /// Every deployment whose plan came to its end, by id.
    pub fn deployments(&self) -> Result<Vec<EdgeDeploymentConfig>, ManagerError> {
        let listing = self.reconciler.store.list(DEPLOYMENTS).map_err(ReconcileError::from)?;
        let read = listing.entries.iter().map(|entry| decode(&entry.key, &entry.value));
        Ok(read.collect::<Result<_, ReconcileError>>()?)
    }

    /// Every node, as far as plans have come.
    pub fn nodes(&self) -> Result<Inventory, ManagerError> {
        Ok(self.reconciler.inventory()?)
    }

    /// Nodes that were drained by hand.
    pub fn held(&self) -> Result<BTreeSet<String>, ManagerError> {
        let listing = self.reconciler.store.list(HELD).map_err(ReconcileError::from)?;
        Ok(listing.entries.into_iter().map(|entry| entry.key[HELD.len()..].to_owned()).collect())
    }

    /// The plan under way, or the last one.
    pub fn progress(&self) -> Result<Option<Progress>, ManagerError> {
        Ok(self.reconciler.progress()?)
    }

    /// What was asked, the latest first.
    pub fn operations(&self) -> Result<Vec<Operation>, ManagerError> {
        let found = operations::list(self.reconciler.store)?;
        Ok(found.into_iter().map(|(operation, _)| operation).collect())
    }

    /// What deploying this would do: a dry run. None where it is deployed already.
    pub fn plan(
        &self,
        config: &EdgeDeploymentConfig,
        circumstances: &Circumstances,
    ) -> Result<Option<Plan>, ManagerError> {
        let mut desired = self.deployments()?;
        if let Some(known) = desired.iter().find(|d| d.deployment_id == config.deployment_id) {
            if known == config {
                return Ok(None);
            }
            return Err(ManagerError::Conflict(config.deployment_id.clone()));
        }
        let held = self.held()?;
        let mut concerned: Vec<String> = config.nodes.iter().map(|n| n.node_id.clone()).collect();
        if let Some(replaced) = &config.replaces {
            let place = desired.iter().position(|known| known.deployment_id == *replaced);
            let place = place.ok_or_else(|| ManagerError::NoDeployment(replaced.clone()))?;
            concerned.extend(desired.remove(place).nodes.into_iter().map(|node| node.node_id));
        }
        if let Some(node_id) = concerned.into_iter().find(|node_id| held.contains(node_id)) {
            return Err(ManagerError::Held(node_id));
        }
        desired.push(config.clone());
        Ok(Some(self.plan_all(desired, &held, circumstances)?))
    }

    /// Takes a deployment; [`Self::run`] carries it out.
    pub fn deploy(
        &self,
        config: &EdgeDeploymentConfig,
        circumstances: &Circumstances,
    ) -> Result<Taken, ManagerError> {
        self.deploy_in_place_of(config, circumstances, None)
    }

    /// The same, if what it replaces is still as `seen` has it.
    pub fn deploy_in_place_of(
        &self,
        config: &EdgeDeploymentConfig,
        circumstances: &Circumstances,
        seen: Option<&dyn Fn(Revision) -> bool>,
    ) -> Result<Taken, ManagerError> {
        let subject = &config.deployment_id;
        self.settle()?;
        self.check_replaced(config, seen)?;
        let known = self.operations()?;
        let last = known.iter().find(|last| last.is_about(OperationKind::Deploy, subject));
        if let Some(last) = last.filter(|last| last.end.is_none()) {
            if last.config.as_ref() == Some(config) {
                return Ok(Taken { operation: last.clone(), plan: None });
            }
            return Err(ManagerError::Conflict(subject.clone()));
        }
        self.check_idle(&known)?;
        let Some(made) = self.plan(config, circumstances)? else {
            let same = |last: &&Operation| last.config.as_ref() == Some(config) && last.is_done();
            return match known.iter().find(same) {
                Some(last) => Ok(Taken { operation: last.clone(), plan: None }),
                // Made before operations were remembered: an empty plan stands for it.
                None => {
                    let nothing =
                        self.plan_all(self.deployments()?, &self.held()?, circumstances)?;
                    self.submit(OperationKind::Deploy, subject, nothing, Pending::default())
                }
            };
        };
        self.check_hosts(config, &made)?;
        let (put, delete) = (Some(config.clone()), config.replaces.clone());
        let pending = Pending { put, delete, ..Pending::default() };
        self.submit(OperationKind::Deploy, subject, made, pending)
    }

    /// When the deployment of this id was put last; none where there is none.
    pub fn revision_of(&self, deployment_id: &str) -> Result<Option<Revision>, ManagerError> {
        let key = format!("{DEPLOYMENTS}{deployment_id}");
        let entry = self.reconciler.store.get(&key).map_err(ReconcileError::from)?;
        Ok(entry.map(|entry| entry.modify_revision))
    }

    /// Refuses what replaces something else than `seen` holds for.
    pub fn check_replaced(
        &self,
        config: &EdgeDeploymentConfig,
        seen: Option<&dyn Fn(Revision) -> bool>,
    ) -> Result<(), ManagerError> {
        let Some(seen) = seen else { return Ok(()) };
        let changed = |detail: String| Err(ManagerError::Changed(detail));
        let Some(replaced) = &config.replaces else {
            return changed("If-Match is about the deployment in `replaces`: there is none".into());
        };
        match self.revision_of(replaced)? {
            Some(revision) if seen(revision) => Ok(()),
            Some(Revision(now)) => changed(format!("deployment {replaced} is \"r{now}\"")),
            None => changed(format!("there is no deployment {replaced}")),
        }
    }

    /// What becomes of a node, and of the books, when this is done to it: a dry run of [`Self::take`].
    pub fn plan_node(
        &self,
        kind: OperationKind,
        node_id: &str,
        circumstances: &Circumstances,
    ) -> Result<Plan, ManagerError> {
        Ok(self.wish(kind, node_id, circumstances)?.0)
    }

    /// Takes the wish that this is done to a node; [`Self::run`] carries it out.
    pub fn take(
        &self,
        kind: OperationKind,
        node_id: &str,
        circumstances: &Circumstances,
    ) -> Result<Taken, ManagerError> {
        if let Some(same) = self.asked(kind, node_id)? {
            return Ok(same);
        }
        let (made, pending) = self.wish(kind, node_id, circumstances)?;
        self.submit(kind, node_id, made, pending)
    }

    /// That a node goes for good. Its deployment goes with its last.
    pub fn retire(&self, node_id: &str, how: &Circumstances) -> Result<Taken, ManagerError> {
        self.take(OperationKind::Retire, node_id, how)
    }

    /// That clients are led away from a node, which stays so until it is resumed.
    pub fn drain(&self, node_id: &str, how: &Circumstances) -> Result<Taken, ManagerError> {
        self.take(OperationKind::Drain, node_id, how)
    }

    /// That a drained node serves again.
    pub fn resume(&self, node_id: &str, how: &Circumstances) -> Result<Taken, ManagerError> {
        self.take(OperationKind::Resume, node_id, how)
    }

    /// Turns the plan under way back.
    pub fn abort(&self, reason: &str) -> Result<(), ManagerError> {
        Ok(self.reconciler.abort(reason)?)
    }

    /// Turns an operation back; again is fine.
    pub fn abort_operation(
        &self,
        operation_id: &str,
        reason: &str,
    ) -> Result<Operation, ManagerError> {
        self.settle()?;
        let known = self.operations()?;
        let found = known.into_iter().find(|known| known.operation_id == operation_id);
        let found = found.ok_or_else(|| ManagerError::NoOperation(operation_id.into()))?;
        if let Some(end) = &found.end {
            return Err(ManagerError::Over(operation_id.into(), end.phase.phase));
        }
        match self.reconciler.abort(reason) {
            // It was turned back before, or has ended this moment: its document says which.
            Ok(()) | Err(ReconcileError::Superseded) => Ok(found),
            Err(error) => Err(error.into()),
        }
    }

    /// Carries the plan under way to its end, after a restart too; none where there never was one.
    pub fn run(&self) -> Result<Option<PhaseRecord>, ManagerError> {
        let end = self.reconciler.run()?;
        self.settle()?;
        Ok(end)
    }

    fn wish(
        &self,
        kind: OperationKind,
        node_id: &str,
        circumstances: &Circumstances,
    ) -> Result<(Plan, Pending), ManagerError> {
        let wrong = |state, reason| {
            Err(ManagerError::WrongState { node_id: node_id.into(), state, reason })
        };
        let record = self.nodes()?.remove(node_id);
        let record = record.ok_or_else(|| ManagerError::NoNode(node_id.into()))?;
        let mut pending = Pending::default();
        let made = match kind {
            OperationKind::Drain if record.state != NodeState::Active => {
                return wrong(record.state, "only one that serves can be drained");
            }
            OperationKind::Resume if record.state != NodeState::Draining => {
                return wrong(record.state, "only one that was drained can be resumed");
            }
            OperationKind::Drain => {
                pending.hold = Some(node_id.into());
                plan_drain(node_id, &record, circumstances)?
            }
            OperationKind::Resume => {
                pending.release = Some(node_id.into());
                plan_resume(node_id, &record, circumstances)?
            }
            OperationKind::Deploy | OperationKind::Retire => {
                let mut desired = self.deployments()?;
                let has_it =
                    |known: &EdgeDeploymentConfig| known.nodes.iter().any(|n| n.node_id == node_id);
                let place = desired.iter().position(has_it);
                let place = place.ok_or_else(|| ManagerError::NoNode(node_id.into()))?;
                desired[place].nodes.retain(|node| node.node_id != node_id);
                pending.release = Some(node_id.into());
                if desired[place].nodes.is_empty() {
                    pending.delete = Some(desired.remove(place).deployment_id);
                } else {
                    pending.put = Some(desired[place].clone());
                }
                let mut held = self.held()?;
                held.remove(node_id);
                self.plan_all(desired, &held, circumstances)?
            }
        };
        Ok((made, pending))
    }

    /// The operation that this was asked by before: under way, or done and still so.
    fn asked(&self, kind: OperationKind, node_id: &str) -> Result<Option<Taken>, ManagerError> {
        self.settle()?;
        let known = self.operations()?;
        let of_node = |last: &&Operation| {
            let is_turned_back = last.end.is_some() && !last.is_done();
            last.kind != OperationKind::Deploy && last.subject == node_id && !is_turned_back
        };
        let last = known.iter().find(of_node).filter(|last| last.kind == kind);
        if let Some(last) = last
            && (last.end.is_none() || self.is_so(kind, node_id)?)
        {
            return Ok(Some(Taken { operation: last.clone(), plan: None }));
        }
        self.check_idle(&known)?;
        Ok(None)
    }

    /// Whether a node is what this makes of it.
    fn is_so(&self, kind: OperationKind, node_id: &str) -> Result<bool, ManagerError> {
        let Some(state) = self.nodes()?.get(node_id).map(|record| record.state) else {
            return Ok(false);
        };
        Ok(match kind {
            OperationKind::Deploy | OperationKind::Resume => state == NodeState::Active,
            OperationKind::Retire => state == NodeState::Retired,
            OperationKind::Drain => state == NodeState::Draining && self.held()?.contains(node_id),
        })
    }

    /// Plans are made for nodes that nothing else changes.
    fn check_idle(&self, known: &[Operation]) -> Result<(), ManagerError> {
        let Some(busy) = known.iter().find(|operation| operation.end.is_none()) else {
            return Ok(());
        };
        let phase = self.progress()?.map_or(Phase::Forward, |progress| progress.phase.phase);
        Err(ReconcileError::Busy { plan_id: busy.plan_id.clone(), phase }.into())
    }

    /// Plans for all nodes but those that are held.
    fn plan_all(
        &self,
        mut desired: Vec<EdgeDeploymentConfig>,
        held: &BTreeSet<String>,
        circumstances: &Circumstances,
    ) -> Result<Plan, ManagerError> {
        let mut inventory = self.nodes()?;
        inventory.retain(|node_id, _| !held.contains(node_id));
        for deployment in &mut desired {
            deployment.nodes.retain(|node| !held.contains(&node.node_id));
        }
        Ok(plan(&desired, &inventory, circumstances)?)
    }

    fn submit(
        &self,
        kind: OperationKind,
        subject: &str,
        made: Plan,
        mut pending: Pending,
    ) -> Result<Taken, ManagerError> {
        let operation = Operation {
            operation_id: String::new(),
            kind,
            subject: subject.into(),
            config: if kind == OperationKind::Deploy { pending.put.clone() } else { None },
            plan_id: made.plan_id.clone(),
            begun_ms: now_ms(),
            end: None,
        };
        let known = operations::list(self.reconciler.store)?;
        let wanted = self.deployments()?;
        let (operation, with) = operations::begin(&known, &wanted, operation, Transaction::new());
        pending.operation_id.clone_from(&operation.operation_id);
        let with = with.when(PENDING, Compare::Absent).put(PENDING, encode(&pending));
        self.reconciler.submit_with(&made, with)?;
        Ok(Taken { operation, plan: Some(made) })
    }

    /// Does what is pending if the plan has ended.
    fn settle(&self) -> Result<(), ManagerError> {
        let store = self.reconciler.store;
        loop {
            let Some((pending, revision)) = read::<Pending>(store, PENDING)? else { return Ok(()) };
            let Some(progress) = self.progress()? else { return Ok(()) };
            if !progress.phase.phase.is_over() {
                return Ok(());
            }
            let transaction = settled(&pending, &progress);
            let key = Operation::key(&pending.operation_id);
            let transaction = match read::<Operation>(store, &key)? {
                Some((mut operation, _)) => {
                    let (phase, steps) = (progress.phase.clone(), steps(&progress));
                    operation.end = Some(End { at_ms: now_ms(), phase, steps });
                    transaction.put(key, encode(&operation))
                }
                None => transaction,
            };
            let transaction = transaction.when(PENDING, Compare::ModifiedAt(revision));
            match self.reconciler.commit(transaction) {
                Ok(_) => return Ok(()),
                // Settled beside us: the next look finds nothing pending.
                Err(ReconcileError::Superseded) if self.reconciler.leads()? => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// What becomes of deployments and held nodes at the end of a plan.
fn settled(pending: &Pending, progress: &Progress) -> Transaction {
    let mut transaction = Transaction::new().delete(PENDING);
    if progress.phase.phase != Phase::Done {
        return transaction;
    }
    if let Some(id) = &pending.delete {
        transaction = transaction.delete(format!("{DEPLOYMENTS}{id}"));
    }
    if let Some(config) = &pending.put {
        let key = format!("{DEPLOYMENTS}{}", config.deployment_id);
        transaction = transaction.put(key, encode(config));
    }
    if let Some(node_id) = &pending.hold {
        transaction = transaction.put(format!("{HELD}{node_id}"), b"true".to_vec());
    }
    if let Some(node_id) = &pending.release {
        transaction = transaction.delete(format!("{HELD}{node_id}"));
    }
    transaction
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
