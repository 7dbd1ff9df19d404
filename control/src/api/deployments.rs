//! `nodes/deploy`, what is done to one node, and the deployments that are wanted.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::{IntoParams, IntoResponses, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::conditions::tags;
use super::operations::OperationDocument;
use super::parameters::Parameters;
use super::path::Id;
use super::{Managers, body};
use crate::access::AuditNote;
use crate::deploy::fields::{FieldProblem, Fields};
use crate::deploy::plan::Plan;
use crate::deploy::planner::{Circumstances, sessions_of};
use crate::deploy::runner::Deployments;
use crate::deploy::sessions::RegionSession;
use crate::deploy::{EdgeDeploymentConfig, EdgeNodeManager, ManagerError, OperationKind, Taken};
use crate::problem::Problem;
use crate::store::Revision;

/// What would be done.
#[derive(Serialize, ToSchema)]
pub struct DryRunDocument {
    /// Deploys exactly this, for as long as nothing else has changed the nodes; null where nothing would
    /// be done.
    pub plan_id: Option<String>,
    /// Every step; null where nothing would be done.
    pub plan: Option<Plan>,
    /// The same for people.
    pub text: String,
    /// Whether markets are trading, of each region in which nodes would change; by its id.
    pub sessions: BTreeMap<String, RegionSession>,
}

/// The plan of a dry run.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    /// As the dry run said.
    #[schema(pattern = "^plan-[0-9a-f]{16}$")]
    pub plan_id: String,
}

/// A deployment, or the plan of a dry run.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum DeployRequest {
    /// Nodes, and how they come about.
    Deployment(EdgeDeploymentConfig),
    /// What a dry run said.
    Plan(PlanRequest),
}

/// Every deployment that is wanted.
#[derive(Serialize, ToSchema)]
pub struct DeploymentsDocument {
    /// By id.
    pub deployments: Vec<EdgeDeploymentConfig>,
}

pub(super) fn routes() -> OpenApiRouter<Managers> {
    OpenApiRouter::new()
        .routes(routes!(deploy))
        .routes(routes!(drain))
        .routes(routes!(resume))
        .routes(routes!(retire))
        .routes(routes!(deployments))
        .routes(routes!(deployment))
}

/// The deployments of this control; 501 where it has no store.
pub(super) fn required(managers: &Managers) -> Result<Arc<Deployments>, Problem> {
    managers.deployments.clone().ok_or_else(|| {
        let detail = "this control has no [control.store]: it watches and deploys nothing";
        Problem::new(StatusCode::NOT_IMPLEMENTED, "not-available", "Not available", detail)
    })
}

/// The same, asked before anything is read of a body.
struct Required(Arc<Deployments>);

impl FromRequestParts<Managers> for Required {
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, managers: &Managers) -> Result<Self, Problem> {
        required(managers).map(Self)
    }
}

/// Runs what waits for a disk on a thread that may.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
        let (status, name) = (StatusCode::INTERNAL_SERVER_ERROR, "outcome-unknown");
        Err(Problem::new(status, name, "Outcome unknown", "it broke half way"))
    })
}

/// Makes the nodes of a deployment serve
///
/// The same again is fine and answers with the same operation; another deployment of this id is refused.
#[utoipa::path(
    post, path = "/api/v1/edge/nodes/deploy", tag = "nodes", request_body = DeployRequest,
    params(
        Change,
        ("If-Match" = Option<String>, Header,
         description = "The ETag of the deployment that this one replaces"),
    ),
    responses(
        (status = 200, description = "A dry run, or it is deployed already",
         body = inline(DeployAnswer)),
        (status = 202, description = "Taken", body = OperationDocument,
         headers(("Location" = String, description = "Its operation"))),
        (status = 404, description = "`plan-not-found` or `deployment-not-found`", body = Problem,
         content_type = "application/problem+json"),
        (status = 409, description = "`deployment-exists`, `busy`, `session-open`, `node-taken`, `in-place`, \
         `node-drained`, `plan-stale` or `wrong-state`", body = Problem,
         content_type = "application/problem+json"),
        (status = 412, description = "`changed`: what it replaces is not what If-Match says",
         body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`unknown-node`, `wrong-region`, or `host-unfit`: what hosts lack, by the field that orders it",
         body = Problem,
         content_type = "application/problem+json"),
    )
)]
async fn deploy(
    Required(deployments): Required,
    parameters: Parameters,
    headers: HeaderMap,
    body::Json(document): body::Json,
) -> Result<Response, Problem> {
    let (is_dry, is_forced) = (parameters.flag("dry_run")?, parameters.flag("force")?);
    let (config, plan_id) = match plan_in(&document)? {
        Some(plan_id) => {
            let config = deployments.planned(&plan_id).ok_or_else(|| {
                let detail = format!("no dry run of this control had {plan_id}: make it again");
                Problem::new(StatusCode::NOT_FOUND, "plan-not-found", "Plan not found", detail)
            })?;
            (config, Some(plan_id))
        }
        None => {
            let read = deployments.look(|manager| manager.read(&document));
            (read.map_err(|wrong| body::invalid(wrong.0))?, None)
        }
    };
    check_known(&deployments, &config)?;
    check_regions(&deployments, &config)?;
    let matches = tags(&headers, header::IF_MATCH)?;
    let taken = blocking(move || {
        let seen = matches.map(|tags| move |revision| tags.holds(&tag_of(revision)));
        let seen = seen.as_ref().map(|seen| seen as &dyn Fn(Revision) -> bool);
        if is_dry {
            deployments.look(|manager| manager.check_replaced(&config, seen))?;
            let circumstances = deployments.circumstances(is_forced);
            let plan = deployments.dry_run(&config, &circumstances)?;
            return Ok(Err(dry_run(plan, &circumstances)));
        }
        let taken = deployments.deploy(&config, plan_id.as_deref(), is_forced, seen)?;
        let taken = taken.ok_or_else(|| {
            let detail = "nodes have changed since the dry run: make another";
            Problem::new(StatusCode::CONFLICT, "plan-stale", "Plan is stale", detail)
        })?;
        Ok(Ok((OperationDocument::of(&taken.operation, &deployments)?, taken)))
    });
    Ok(match taken.await? {
        Err(dry_run) => dry_run,
        Ok((document, taken)) => answer(document, &taken),
    })
}

/// Either of two answers.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "it stands for the document alone")]
enum DeployAnswer {
    DryRun(DryRunDocument),
    Operation(OperationDocument),
}

/// The node that something is done to.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "it stands for the document alone")]
struct NodePath {
    /// A node
    #[param(pattern = "^[a-z0-9][a-z0-9_.-]{0,62}$")]
    node_id: String,
}

/// How something is done to nodes.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "it stands for the document alone")]
struct Change {
    /// Say what would be done, and do nothing
    dry_run: Option<bool>,
    /// Although a market session is open, or may be
    force: Option<bool>,
}

/// What is answered to who has something done to one node.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "it stands for the document alone")]
enum NodeAnswer {
    #[response(status = 200, description = "A dry run, or it is so already")]
    Done(#[to_schema] DeployAnswer),
    #[response(
        status = 202,
        description = "Taken",
        headers(("Location" = String, description = "Its operation"))
    )]
    Taken(OperationDocument),
    #[response(
        status = 404,
        description = "`node-not-found`",
        content_type = "application/problem+json"
    )]
    Missing(Problem),
    #[response(
        status = 409,
        description = "`busy`, `session-open`, `wrong-state` or, of a node that goes, `in-place`",
        content_type = "application/problem+json"
    )]
    Conflict(Problem),
}

/// Leads clients away from a node, which stays so until it is resumed
#[utoipa::path(
    post,
    path = "/api/v1/edge/nodes/{node_id}/drain",
    tag = "nodes",
    params(NodePath, Change),
    responses(NodeAnswer)
)]
async fn drain(
    managers: State<Managers>,
    id: Id,
    parameters: Parameters,
) -> Result<Response, Problem> {
    node(OperationKind::Drain, managers, id, parameters).await
}

/// Has a drained node serve again
#[utoipa::path(
    post,
    path = "/api/v1/edge/nodes/{node_id}/resume",
    tag = "nodes",
    params(NodePath, Change),
    responses(NodeAnswer)
)]
async fn resume(
    managers: State<Managers>,
    id: Id,
    parameters: Parameters,
) -> Result<Response, Problem> {
    node(OperationKind::Resume, managers, id, parameters).await
}

/// Takes a node out of service for good; its deployment goes with its last
#[utoipa::path(
    post,
    path = "/api/v1/edge/nodes/{node_id}/retire",
    tag = "nodes",
    params(NodePath, Change),
    responses(NodeAnswer)
)]
async fn retire(
    managers: State<Managers>,
    id: Id,
    parameters: Parameters,
) -> Result<Response, Problem> {
    node(OperationKind::Retire, managers, id, parameters).await
}

async fn node(
    kind: OperationKind,
    State(managers): State<Managers>,
    Id(node_id): Id,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let deployments = required(&managers)?;
    let (is_dry, is_forced) = (parameters.flag("dry_run")?, parameters.flag("force")?);
    blocking(move || {
        if is_dry {
            let circumstances = deployments.circumstances(is_forced);
            let plan = deployments.look(|m| m.plan_node(kind, &node_id, &circumstances))?;
            return Ok(dry_run(Some(plan), &circumstances));
        }
        let take =
            |m: &EdgeNodeManager<'_>| m.take(kind, &node_id, &deployments.circumstances(is_forced));
        let taken = deployments.ask(take)?;
        Ok(answer(OperationDocument::of(&taken.operation, &deployments)?, &taken))
    })
    .await
}

/// Every deployment that is wanted
#[utoipa::path(
    get, path = "/api/v1/edge/deployments", tag = "nodes",
    responses((status = 200, description = "By id", body = DeploymentsDocument))
)]
async fn deployments(State(managers): State<Managers>) -> Result<Response, Problem> {
    let deployments = required(&managers)?;
    blocking(move || {
        let deployments = deployments.look(|manager| manager.deployments())?;
        Ok(axum::Json(DeploymentsDocument { deployments }).into_response())
    })
    .await
}

/// One deployment that is wanted
#[utoipa::path(
    get, path = "/api/v1/edge/deployments/{deployment_id}", tag = "nodes",
    params(("deployment_id" = String, Path, description = "A deployment")),
    responses(
        (status = 200, description = "As it was asked for", body = EdgeDeploymentConfig,
         headers(("ETag" = String, description = "For the If-Match of one that replaces it"))),
        (status = 404, description = "`deployment-not-found`", body = Problem,
         content_type = "application/problem+json"),
    )
)]
async fn deployment(State(managers): State<Managers>, Id(id): Id) -> Result<Response, Problem> {
    let deployments = required(&managers)?;
    blocking(move || {
        let all = deployments.look(|manager| manager.deployments())?;
        let found = all.into_iter().find(|deployment| deployment.deployment_id == id);
        let found = found.ok_or(ManagerError::NoDeployment(id.clone()))?;
        let revision = deployments.look(|manager| manager.revision_of(&id))?;
        let etag = revision.map_or_else(String::new, tag_of);
        Ok(([(header::ETAG, etag)], axum::Json(found)).into_response())
    })
    .await
}

/// The id of a plan, where the body is one.
fn plan_in(document: &serde_json::Value) -> Result<Option<String>, Problem> {
    let mut wrong = Vec::new();
    let is_plan = document.get("plan_id").is_some() && document.get("deployment_id").is_none();
    if !is_plan {
        return Ok(None);
    }
    let plan_id = Fields::of(document, "", &mut wrong).and_then(|mut fields| {
        let plan_id = fields.text("plan_id").map(str::to_owned);
        fields.finish();
        plan_id
    });
    match plan_id {
        Some(plan_id) if wrong.is_empty() => Ok(Some(plan_id)),
        _ => Err(body::invalid(wrong)),
    }
}

fn check_known(deployments: &Deployments, config: &EdgeDeploymentConfig) -> Result<(), Problem> {
    let strangers = config.nodes.iter().enumerate();
    let strangers = strangers.filter(|(_, node)| !deployments.is_known(&node.node_id));
    let wrong: Vec<FieldProblem> = strangers
        .map(|(index, node)| FieldProblem {
            path: format!("nodes[{index}].node_id"),
            reason: format!("no [[node]] of the configuration has the id {}", node.node_id),
        })
        .collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let detail = "some nodes are not configured in this control";
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    Err(Problem::new(status, "unknown-node", "Unknown node", detail).with_fields(wrong))
}

/// A node is where it is: another region's sessions and floors would be taken for its own.
fn check_regions(deployments: &Deployments, config: &EdgeDeploymentConfig) -> Result<(), Problem> {
    let elsewhere = config.nodes.iter().enumerate().filter_map(|(index, node)| {
        let region =
            deployments.region_of(&node.node_id).filter(|region| *region != node.region)?;
        Some(FieldProblem {
            path: format!("nodes[{index}].region"),
            reason: format!("the configuration has {} in {region}", node.node_id),
        })
    });
    let wrong: Vec<FieldProblem> = elsewhere.collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let detail = "some nodes are in another region";
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    Err(Problem::new(status, "wrong-region", "Wrong region", detail).with_fields(wrong))
}

/// The ETag of a stored deployment: the revision that put it.
fn tag_of(Revision(revision): Revision) -> String {
    format!("\"r{revision}\"")
}

fn dry_run(plan: Option<Plan>, circumstances: &Circumstances) -> Response {
    let plan = plan.filter(|plan| !plan.is_empty());
    let mut text = plan.as_ref().map_or_else(|| "nothing to do\n".into(), Plan::to_string);
    let plan_id = plan.as_ref().map(|plan| plan.plan_id.clone());
    let sessions = plan.as_ref().map(|plan| sessions_of(&plan.nodes, circumstances));
    let sessions = sessions.unwrap_or_default();
    for (region, RegionSession { state, reason }) in &sessions {
        text += &format!("session of {region}: {state}, {reason}\n");
    }
    axum::Json(DryRunDocument { plan_id, plan, text, sessions }).into_response()
}

/// 202 with its place while it is under way, 200 after.
fn answer(document: OperationDocument, taken: &Taken) -> Response {
    let id = &taken.operation.operation_id;
    let status = match taken.operation.end {
        None => StatusCode::ACCEPTED,
        Some(_) => StatusCode::OK,
    };
    let (kind, subject) = (taken.operation.kind, &taken.operation.subject);
    let note = Extension(AuditNote(format!("{id}: {kind} {subject}")));
    let place = format!("{}/operations/{id}", super::ROOT);
    (status, note, [(header::LOCATION, place)], axum::Json(document)).into_response()
}
