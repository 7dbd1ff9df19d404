//! What was asked of the edge node manager, and how it went: one record for each thing asked.
//!
//! | key | value | changed |
//! | --- | --- | --- |
//! | `deploy/operations/{operation_id}` | an [`Operation`] | with its plan, and once more when that is over |
//!
//! One is under way at a time, so everything that changes below `deploy/` between the revision that made a
//! record and the one that ended it belongs to that operation.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::plan::{Action, Step};
use super::reconciler::{Phase, PhaseRecord, Progress, ReconcileError, StepRecord, StepState};
use super::records::{decode, encode, step_key};
use super::spec::EdgeDeploymentConfig;
use crate::spelling::spelled_enum;
use crate::store::{Revision, Store, Transaction};

/// Where they are kept.
pub const OPERATIONS: &str = "deploy/operations/";

/// Operations that are remembered after their end. Too low: who asks again after a while finds nothing;
/// too high: every list of them is long.
pub const KEPT_MAX: usize = 100;

spelled_enum! {
    /// What was asked.
    pub enum OperationKind {
        /// Nodes of a deployment.
        Deploy = "deploy",
        /// That a node goes for good.
        Retire = "retire",
        /// That clients are led away from a node.
        Drain = "drain",
        /// That a drained node serves again.
        Resume = "resume",
    }
}

/// Something that was asked for and takes a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its id.
    pub operation_id: String,
    /// What was asked.
    pub kind: OperationKind,
    /// Of which deployment or node.
    pub subject: String,
    /// The deployment as it was asked for.
    pub config: Option<EdgeDeploymentConfig>,
    /// The plan that carries it out.
    pub plan_id: String,
    /// When it was taken, milliseconds since 1970.
    pub begun_ms: u64,
    /// How it ended; none while it is under way.
    pub end: Option<End>,
}

/// The end of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// When, milliseconds since 1970.
    pub at_ms: u64,
    /// How.
    pub phase: PhaseRecord,
    /// Every step.
    pub steps: Vec<OperationStep>,
}

/// One step of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationStep {
    /// `{node_id}.{action}`.
    pub step: String,
    /// The node.
    pub node_id: String,
    /// What is done to it.
    pub action: Action,
    /// Whether it takes something back.
    pub is_rollback: bool,
    /// How far it is; null before it begins.
    pub state: Option<StepState>,
    /// Why it failed; empty otherwise.
    pub reason: String,
}

impl OperationStep {
    fn of(step: &Step, is_rollback: bool, record: Option<&StepRecord>) -> Self {
        Self {
            step: step.id.clone(),
            node_id: step.node_id.clone(),
            action: step.action,
            is_rollback,
            state: record.map(|record| record.state),
            reason: record.map_or_else(String::new, |record| record.reason.clone()),
        }
    }
}

/// The steps of a plan as far as it is: those of the way back only where they were begun.
pub fn steps(progress: &Progress) -> Vec<OperationStep> {
    let record = |is_back, step: &Step| progress.steps.get(&step_key(is_back, &step.id));
    let forward = progress.plan.steps.iter();
    let forward = forward.map(|step| OperationStep::of(step, false, record(false, step)));
    let back = progress.plan.rollback.iter().filter_map(|step| {
        let record = record(true, step)?;
        Some(OperationStep::of(step, true, Some(record)))
    });
    forward.chain(back).collect()
}

impl Operation {
    /// Whether this asks for the same.
    pub fn is_about(&self, kind: OperationKind, subject: &str) -> bool {
        self.kind == kind && self.subject == subject
    }

    /// Whether it came to what was asked for.
    pub fn is_done(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.phase.phase == Phase::Done)
    }

    /// Its key.
    pub fn key(operation_id: &str) -> String {
        format!("{OPERATIONS}{operation_id}")
    }

    fn number(&self) -> u64 {
        self.operation_id.trim_start_matches("op-").parse().unwrap_or(0)
    }
}

/// All that are remembered, the latest first, each with the revision of its last change.
pub fn list(store: &dyn Store) -> Result<Vec<(Operation, Revision)>, ReconcileError> {
    let mut found: Vec<(Operation, Revision)> = Vec::new();
    for entry in store.list(OPERATIONS)?.entries {
        found.push((decode(&entry.key, &entry.value)?, entry.modify_revision));
    }
    found.sort_by_key(|(operation, _)| std::cmp::Reverse(operation.number()));
    Ok(found)
}

/// Adds a new record to a transaction, and the removal of what is remembered for too long: the latest
/// that made a deployment which is still wanted stays.
pub fn begin(
    known: &[(Operation, Revision)],
    wanted: &[EdgeDeploymentConfig],
    mut operation: Operation,
    transaction: Transaction,
) -> (Operation, Transaction) {
    let last = known.first().map_or(0, |(operation, _)| operation.number());
    operation.operation_id = format!("op-{}", last + 1);
    let stays = |operation: &Operation| {
        operation
            .config
            .as_ref()
            .is_some_and(|config| operation.is_done() && wanted.contains(config))
    };
    let old = known.iter().skip(KEPT_MAX - 1).map(|(operation, _)| operation);
    // A transaction has room for so many, and one more comes at a time.
    let old = old.filter(|operation| !stays(operation)).take(8);
    let mut transaction = transaction;
    for operation in old {
        transaction = transaction.delete(Operation::key(&operation.operation_id));
    }
    let transaction = transaction.put(Operation::key(&operation.operation_id), encode(&operation));
    (operation, transaction)
}
