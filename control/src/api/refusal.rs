//! What the edge node manager refuses, as problems.

use axum::http::StatusCode;

use crate::deploy::ManagerError;
use crate::deploy::fields::FieldProblem;
use crate::deploy::planner::PlanError;
use crate::deploy::reconciler::ReconcileError;
use crate::problem::Problem;
use crate::store::StoreError;

/// When to ask again for what another operation is in the way of.
const BUSY_S: u32 = 5;
/// When to ask again for what the store could not take.
const STORE_S: u32 = 1;

impl From<ManagerError> for Problem {
    fn from(error: ManagerError) -> Self {
        let detail = error.to_string();
        let conflict = |name, title| Self::new(StatusCode::CONFLICT, name, title, detail.clone());
        let missing = |name, title| Self::new(StatusCode::NOT_FOUND, name, title, detail.clone());
        let at = |path: &str, reason: String| vec![FieldProblem { path: path.into(), reason }];
        match error {
            ManagerError::Conflict(_) => conflict("deployment-exists", "Deployment exists")
                .with_fields(at("deployment_id", "is that of another deployment".into())),
            ManagerError::NoDeployment(_) => {
                missing("deployment-not-found", "Deployment not found")
                    .with_fields(at("replaces", detail.clone()))
            }
            ManagerError::Changed(_) => {
                Self::new(StatusCode::PRECONDITION_FAILED, "changed", "Changed", detail)
            }
            ManagerError::NoNode(_) => missing("node-not-found", "Node not found"),
            ManagerError::NoOperation(_) => missing("operation-not-found", "Operation not found"),
            ManagerError::Over(..) => conflict("operation-over", "Operation is over"),
            ManagerError::Held(_) => conflict("node-drained", "Node is drained"),
            ManagerError::WrongState { .. } => conflict("wrong-state", "Wrong state"),
            ManagerError::Plan(PlanError::Session { .. }) => {
                conflict("session-open", "Session open")
            }
            ManagerError::Plan(PlanError::TwoDeployments { .. }) => {
                conflict("node-taken", "Node is taken").with_fields(at("nodes", detail.clone()))
            }
            ManagerError::Plan(PlanError::InPlace { .. }) => {
                conflict("in-place", "Would change in place")
                    .with_fields(at("deployment_type", detail.clone()))
            }
            ManagerError::Unfit { lacking, .. } => {
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                Self::new(status, "host-unfit", "Host is not what is ordered", detail)
                    .with_fields(lacking)
            }
            ManagerError::Reconcile(error) => error.into(),
        }
    }
}

impl From<ReconcileError> for Problem {
    fn from(error: ReconcileError) -> Self {
        let detail = error.to_string();
        let conflict = |name, title| Self::new(StatusCode::CONFLICT, name, title, detail.clone());
        match error {
            ReconcileError::Busy { .. } => conflict("busy", "Busy").retry_after(BUSY_S),
            ReconcileError::Stale(_) => conflict("plan-stale", "Plan is stale"),
            ReconcileError::Transition { .. } | ReconcileError::Impossible { .. } => {
                conflict("wrong-state", "Wrong state")
            }
            ReconcileError::Store(error) => error.into(),
            ReconcileError::Record { .. } | ReconcileError::Superseded => unavailable(&detail),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Bytes(_) | StoreError::Operations(_) => {
                let status = StatusCode::PAYLOAD_TOO_LARGE;
                Self::new(status, "too-large", "Content too large", error.to_string())
            }
            _ => unavailable(&error.to_string()),
        }
    }
}

/// What was asked is done whole or not at all, and asking again finds out which.
fn unavailable(detail: &str) -> Problem {
    let detail = format!("{detail}; nothing is half done: ask again");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "store", "Store not available", detail)
        .retry_after(STORE_S)
}
