//! `operations/...`: what was asked, how far it is, and turning it back.

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Managers;
use super::deployments::{blocking, required};
use super::events::{__path_events, events};
use super::parameters::Parameters;
use super::path::Id;
use crate::access::{AuditNote, RequestId};
use crate::deploy::operations::{OperationStep, steps};
use crate::deploy::reconciler::{Phase, StepState};
use crate::deploy::runner::Deployments;
use crate::deploy::{ManagerError, Operation, OperationKind};
use crate::problem::Problem;

/// Something that was asked for and takes a while.
#[derive(Serialize, ToSchema)]
pub struct OperationSummary {
    /// Its id.
    pub operation_id: String,
    /// What was asked.
    pub kind: OperationKind,
    /// Of which deployment or node.
    pub subject: String,
    /// The plan that carries it out.
    pub plan_id: String,
    /// How far that is.
    pub phase: Phase,
    /// Whether nothing more happens.
    pub is_over: bool,
    /// Why it does not go forward; empty otherwise.
    pub reason: String,
    /// Why it does not go on just now; empty otherwise.
    pub waits_for: String,
    /// When it was taken, seconds since 1970.
    pub begun_s: f64,
    /// When it ended; null while it has not.
    pub ended_s: Option<f64>,
    /// Steps forward that are done.
    pub steps_done: usize,
    /// All steps forward.
    pub steps_count: usize,
}

/// The same with every step.
#[derive(Serialize, ToSchema)]
pub struct OperationDocument {
    /// What it is.
    #[serde(flatten)]
    pub summary: OperationSummary,
    /// In the order of the plan; those of the way back follow once they are begun.
    pub steps: Vec<OperationStep>,
}

/// What was asked.
#[derive(Serialize, ToSchema)]
pub struct OperationsDocument {
    /// The latest first, without their steps.
    pub operations: Vec<OperationSummary>,
}

pub(super) fn routes() -> OpenApiRouter<Managers> {
    OpenApiRouter::new()
        .routes(routes!(operations))
        .routes(routes!(operation))
        .routes(routes!(events))
        .routes(routes!(abort))
}

impl OperationDocument {
    /// As it is now.
    pub fn of(operation: &Operation, deployments: &Deployments) -> Result<Self, Problem> {
        let waits_for = if operation.end.is_none() { deployments.trouble() } else { String::new() };
        let (phase, reason, steps) = match &operation.end {
            Some(end) => (end.phase.phase, end.phase.reason.clone(), end.steps.clone()),
            None => {
                let progress = deployments.look(|manager| manager.progress())?;
                match progress.filter(|progress| progress.plan.plan_id == operation.plan_id) {
                    Some(found) => (found.phase.phase, found.phase.reason.clone(), steps(&found)),
                    // It ended between two looks.
                    None => (Phase::Forward, String::new(), Vec::new()),
                }
            }
        };
        let forward = || steps.iter().filter(|step| !step.is_rollback);
        let summary = OperationSummary {
            operation_id: operation.operation_id.clone(),
            kind: operation.kind,
            subject: operation.subject.clone(),
            plan_id: operation.plan_id.clone(),
            phase,
            is_over: operation.end.is_some(),
            reason,
            waits_for,
            begun_s: operation.begun_ms as f64 / 1e3,
            ended_s: operation.end.as_ref().map(|end| end.at_ms as f64 / 1e3),
            steps_done: forward().filter(|step| step.state == Some(StepState::Done)).count(),
            steps_count: forward().count(),
        };
        Ok(Self { summary, steps })
    }

    /// The one of this id, as it is now.
    pub fn find(operation_id: &str, deployments: &Deployments) -> Result<Self, Problem> {
        let known = deployments.look(|manager| manager.operations())?;
        let found = known.iter().find(|known| known.operation_id == operation_id);
        let found = found.ok_or_else(|| ManagerError::NoOperation(operation_id.into()))?;
        Self::of(found, deployments)
    }
}

/// What was asked, the latest first
#[utoipa::path(
    get, path = "/api/v1/edge/operations", tag = "operations",
    responses((status = 200, description = "A hundred of them at most", body = OperationsDocument))
)]
async fn operations(State(managers): State<Managers>) -> Result<Response, Problem> {
    let deployments = required(&managers)?;
    blocking(move || {
        let known = deployments.look(|manager| manager.operations())?;
        let of = |operation| OperationDocument::of(operation, &deployments).map(|d| d.summary);
        let operations = known.iter().map(of).collect::<Result<_, Problem>>()?;
        Ok(axum::Json(OperationsDocument { operations }).into_response())
    })
    .await
}

/// How far one is
#[utoipa::path(
    get, path = "/api/v1/edge/operations/{operation_id}", tag = "operations",
    params(("operation_id" = String, Path, description = "An operation")),
    responses(
        (status = 200, description = "With every step", body = OperationDocument),
        (status = 404, description = "`operation-not-found`", body = Problem,
         content_type = "application/problem+json"),
    )
)]
async fn operation(State(managers): State<Managers>, Id(id): Id) -> Result<Response, Problem> {
    let deployments = required(&managers)?;
    let find = move || OperationDocument::find(&id, &deployments);
    Ok(axum::Json(blocking(find).await?).into_response())
}

/// Turns one back: the nodes begun on become again what they were
#[utoipa::path(
    post, path = "/api/v1/edge/operations/{operation_id}/abort", tag = "operations",
    params(
        ("operation_id" = String, Path, description = "An operation"),
        ("dry_run" = Option<bool>, Query, description = "Say what it is, and do nothing"),
        ("force" = Option<bool>, Query, description = "As of other paths; no rule is in the way here"),
    ),
    responses(
        (status = 200, description = "A dry run: the operation as it is", body = OperationDocument),
        (status = 202, description = "It is on its way back", body = OperationDocument),
        (status = 404, description = "`operation-not-found`", body = Problem,
         content_type = "application/problem+json"),
        (status = 409, description = "`operation-over`", body = Problem,
         content_type = "application/problem+json"),
    )
)]
async fn abort(
    State(managers): State<Managers>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    Id(id): Id,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let deployments = required(&managers)?;
    let is_dry = parameters.flag("dry_run")?;
    parameters.flag("force")?;
    blocking(move || {
        if is_dry {
            let document = OperationDocument::find(&id, &deployments)?;
            return Ok(axum::Json(document).into_response());
        }
        let reason = format!("aborted by request {request_id}");
        deployments.ask(|manager| manager.abort_operation(&id, &reason))?;
        let document = OperationDocument::find(&id, &deployments)?;
        let note = Extension(AuditNote(format!("{id} turned back")));
        Ok((StatusCode::ACCEPTED, note, axum::Json(document)).into_response())
    })
    .await
}
