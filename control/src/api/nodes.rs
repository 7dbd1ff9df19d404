//! `nodes/...`: nodes as they are.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Managers;
use super::deployments::blocking;
use super::path::Id;
use crate::health::HealthDocument;
use crate::problem::Problem;
use crate::status::StatusDocument;

pub(super) fn routes() -> OpenApiRouter<Managers> {
    OpenApiRouter::new().routes(routes!(status)).routes(routes!(health))
}

/// Every node
#[utoipa::path(
    get, path = "/api/v1/edge/nodes/status", tag = "nodes",
    responses((status = 200, description = "In the order of the configuration", body = StatusDocument))
)]
async fn status(State(managers): State<Managers>) -> Result<Json<StatusDocument>, Problem> {
    let mut document = StatusDocument::of(&managers.watcher.views());
    let Some(deployments) = managers.deployments else { return Ok(Json(document)) };
    let looked = blocking(move || {
        let wanted = deployments.look(|manager| manager.nodes());
        Ok(wanted.map(|wanted| (deployments.hosts(&wanted), wanted)))
    });
    match looked.await? {
        Ok((hosts, wanted)) => document = document.with_wanted(&wanted, &hosts),
        // What nodes are is known without it.
        Err(error) => document.store_trouble = error.to_string(),
    }
    Ok(Json(document))
}

/// One node, judged
#[utoipa::path(
    get, path = "/api/v1/edge/nodes/{node_id}/health", tag = "nodes",
    params(("node_id" = String, Path, description = "A node")),
    responses(
        (status = 200, description = "The verdict, and what it rests on", body = HealthDocument),
        (status = 404, description = "`node-not-found`", body = Problem,
         content_type = "application/problem+json"),
    )
)]
async fn health(
    State(managers): State<Managers>,
    Id(node_id): Id,
) -> Result<Json<HealthDocument>, Problem> {
    let views = managers.watcher.views();
    let Some(node) = views.iter().find(|node| node.id == node_id) else {
        let detail = format!("no configured node is called {node_id}");
        let status = StatusCode::NOT_FOUND;
        return Err(Problem::new(status, "node-not-found", "Node not found", detail));
    };
    Ok(Json(HealthDocument::of(node)))
}
