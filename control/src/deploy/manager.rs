//! The edge node manager: deployments as they are wanted, over planner and reconciler.
//!
//! | key | value |
//! | --- | --- |
//! | `deploy/deployments/{deployment_id}` | an [`EdgeDeploymentConfig`] whose plan came to its end |
//! | `deploy/pending` | what becomes of those once the plan under way is done |
//!
//! A plan that is turned back changes no deployment. What is pending is settled by whoever comes first after
//! the plan's end: the run that ended it, or the next call after a death in between.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::plan::{Inventory, Plan};
use super::planner::{Circumstances, PlanError, plan};
use super::reconciler::{Phase, PhaseRecord, Progress, ReconcileError, Reconciler};
use super::records::{PHASE, decode, encode, read};
use super::spec::{EdgeDeploymentConfig, SpecErrors};
use crate::catalogue::Catalogue;
use crate::store::{Compare, Transaction};

const DEPLOYMENTS: &str = "deploy/deployments/";
const PENDING: &str = "deploy/pending";

/// What becomes of the stored deployments once a plan is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Pending {
    put: Option<EdgeDeploymentConfig>,
    delete: Option<String>,
}

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
    /// No deployment has this node.
    #[error("no deployment has a node {0}")]
    NoNode(String),
    /// It cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// It cannot be carried out now.
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
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

    /// The plan under way, or the last one.
    pub fn progress(&self) -> Result<Option<Progress>, ManagerError> {
        Ok(self.reconciler.progress()?)
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
        if let Some(replaced) = &config.replaces {
            let place = desired.iter().position(|known| known.deployment_id == *replaced);
            let place = place.ok_or_else(|| ManagerError::NoDeployment(replaced.clone()))?;
            desired.remove(place);
        }
        desired.push(config.clone());
        Ok(Some(plan(&desired, &self.nodes()?, circumstances)?))
    }

    /// Takes a deployment; [`Self::run`] carries it out. None where it is deployed already.
    pub fn deploy(
        &self,
        config: &EdgeDeploymentConfig,
        circumstances: &Circumstances,
    ) -> Result<Option<Plan>, ManagerError> {
        self.settle()?;
        let Some(made) = self.plan(config, circumstances)? else { return Ok(None) };
        let pending = Pending { put: Some(config.clone()), delete: config.replaces.clone() };
        self.submit(&made, &pending)?;
        Ok(Some(made))
    }

    /// Takes the wish that a node goes; [`Self::run`] carries it out. Its deployment goes with its last.
    pub fn retire(
        &self,
        node_id: &str,
        circumstances: &Circumstances,
    ) -> Result<Plan, ManagerError> {
        self.settle()?;
        let mut desired = self.deployments()?;
        let has_it =
            |known: &EdgeDeploymentConfig| known.nodes.iter().any(|n| n.node_id == node_id);
        let place = desired.iter().position(has_it);
        let place = place.ok_or_else(|| ManagerError::NoNode(node_id.into()))?;
        desired[place].nodes.retain(|node| node.node_id != node_id);
        let mut pending = Pending::default();
        if desired[place].nodes.is_empty() {
            pending.delete = Some(desired.remove(place).deployment_id);
        } else {
            pending.put = Some(desired[place].clone());
        }
        let made = plan(&desired, &self.nodes()?, circumstances)?;
        self.submit(&made, &pending)?;
        Ok(made)
    }

    /// Turns the plan under way back.
    pub fn abort(&self, reason: &str) -> Result<(), ManagerError> {
        Ok(self.reconciler.abort(reason)?)
    }

    /// Carries the plan under way to its end, after a restart too; none where there never was one.
    pub fn run(&self) -> Result<Option<PhaseRecord>, ManagerError> {
        let end = self.reconciler.run()?;
        self.settle()?;
        Ok(end)
    }

    fn submit(&self, made: &Plan, pending: &Pending) -> Result<(), ManagerError> {
        let with = Transaction::new().put(PENDING, encode(pending));
        Ok(self.reconciler.submit_with(made, with)?)
    }

    /// Does what is pending if the plan has ended.
    fn settle(&self) -> Result<(), ManagerError> {
        let store = self.reconciler.store;
        let Some((pending, revision)) = read::<Pending>(store, PENDING)? else { return Ok(()) };
        let Some((record, _)) = read::<PhaseRecord>(store, PHASE)? else { return Ok(()) };
        if !record.phase.is_over() {
            return Ok(());
        }
        let mut transaction =
            Transaction::new().when(PENDING, Compare::ModifiedAt(revision)).delete(PENDING);
        if record.phase == Phase::Done {
            if let Some(id) = &pending.delete {
                transaction = transaction.delete(format!("{DEPLOYMENTS}{id}"));
            }
            if let Some(config) = &pending.put {
                let key = format!("{DEPLOYMENTS}{}", config.deployment_id);
                transaction = transaction.put(key, encode(config));
            }
        }
        self.reconciler.commit(transaction)?;
        Ok(())
    }
}
