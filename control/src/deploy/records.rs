//! What the reconciler keeps in the store.
//!
//! | key | value | changed |
//! | --- | --- | --- |
//! | `deploy/nodes/{node_id}` | [`NodeRecord`] | with the step that changes it |
//! | `deploy/plan` | the [`Plan`] under way, or the last one | when a plan is submitted |
//! | `deploy/phase` | [`PhaseRecord`] | when it changes direction or ends |
//! | `deploy/steps/{forward,back}/{step}` | [`StepRecord`] | before the step is done, and after |

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::plan::{Inventory, NodeRecord, Plan};
use super::reconciler::ReconcileError;
use crate::spelling::spelled_enum;
use crate::store::{Revision, Store};

pub const PLAN: &str = "deploy/plan";
pub const PHASE: &str = "deploy/phase";
pub const STEPS: &str = "deploy/steps/";
pub const NODES: &str = "deploy/nodes/";

spelled_enum! {
    /// Where a plan is.
    pub enum Phase {
        /// Its steps are being done.
        Forward = "forward",
        /// A step failed, or somebody asked: the nodes begun on are taken back.
        RollingBack = "rolling_back",
        /// All steps are done.
        Done = "done",
        /// Every node begun on is back.
        RolledBack = "rolled_back",
        /// Some node could not be taken back: somebody has to look.
        RollbackIncomplete = "rollback_incomplete",
    }
}

impl Phase {
    /// Whether nothing more happens.
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Forward | Self::RollingBack)
    }
}

/// Where the plan is, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseRecord {
    /// Which plan.
    pub plan_id: String,
    /// Where it is.
    pub phase: Phase,
    /// Why it does not go forward; empty otherwise.
    pub reason: String,
}

spelled_enum! {
    /// How a step went.
    pub enum StepState {
        /// It may have been begun.
        Started = "started",
        /// It is done.
        Done = "done",
        /// On the way back, not needed where the node is.
        Skipped = "skipped",
        /// It did not succeed.
        Failed = "failed",
    }
}

/// A step's progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// How it went.
    pub state: StepState,
    /// Why it failed; empty otherwise.
    pub reason: String,
}

/// The key of a step's record.
pub fn step_key(is_rollback: bool, step_id: &str) -> String {
    format!("{STEPS}{}/{step_id}", if is_rollback { "back" } else { "forward" })
}

/// A value as the store holds it.
pub fn encode(value: &impl Serialize) -> Vec<u8> {
    // Records of text, numbers and maps with text keys always serialize.
    serde_json::to_vec(value).unwrap_or_default()
}

/// A value that was read under this key.
pub fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, ReconcileError> {
    serde_json::from_slice(bytes)
        .map_err(|source| ReconcileError::Record { key: key.into(), source })
}

/// The value under a key and when it was last put.
pub fn read<T: DeserializeOwned>(
    store: &dyn Store,
    key: &str,
) -> Result<Option<(T, Revision)>, ReconcileError> {
    let Some(entry) = store.get(key)? else { return Ok(None) };
    Ok(Some((decode(key, &entry.value)?, entry.modify_revision)))
}

/// Every node the store knows.
pub fn inventory(store: &dyn Store) -> Result<Inventory, ReconcileError> {
    let mut inventory = Inventory::new();
    for entry in store.list(NODES)?.entries {
        let record: NodeRecord = decode(&entry.key, &entry.value)?;
        inventory.insert(entry.key[NODES.len()..].to_owned(), record);
    }
    Ok(inventory)
}

/// The plan under way, or the last one.
pub fn plan(store: &dyn Store) -> Result<Option<Plan>, ReconcileError> {
    Ok(read(store, PLAN)?.map(|(plan, _)| plan))
}
