//! What machines ask: `/metrics`, `/livez`, `/readyz`.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Managers;
use crate::link::Attachment;
use crate::problem::Problem;
use crate::prometheus;

pub(super) fn routes() -> OpenApiRouter<Managers> {
    OpenApiRouter::new().routes(routes!(metrics)).routes(routes!(livez)).routes(routes!(readyz))
}

/// Prometheus text 0.0.4
#[utoipa::path(
    get, path = "/metrics", tag = "probes",
    responses((status = 200, description = "Every metric", body = String, content_type = "text/plain"))
)]
async fn metrics(State(managers): State<Managers>) -> Response {
    let text = prometheus::render(&managers.watcher.views());
    ([(header::CONTENT_TYPE, prometheus::CONTENT_TYPE)], text).into_response()
}

/// Whether the process runs
#[utoipa::path(
    get, path = "/livez", tag = "probes",
    responses((status = 200, description = "It does", body = String, content_type = "text/plain"))
)]
async fn livez() -> &'static str {
    "ok\n"
}

/// Whether every configured node is attached
#[utoipa::path(
    get, path = "/readyz", tag = "probes",
    responses(
        (status = 200, description = "All are", body = String, content_type = "text/plain"),
        (status = 503, description = "`not-ready`: those that are not, and why", body = Problem,
         content_type = "application/problem+json"),
    )
)]
async fn readyz(State(managers): State<Managers>) -> Response {
    let waiting: Vec<String> = managers
        .watcher
        .views()
        .into_iter()
        .filter(|node| node.attachment != Attachment::Attached)
        .map(|node| format!("{}: {}", node.id, node.reason))
        .collect();
    if waiting.is_empty() && managers.watcher.has_looked() {
        return "ok\n".into_response();
    }
    let status = StatusCode::SERVICE_UNAVAILABLE;
    Problem::new(status, "not-ready", "Not ready", waiting.join("; ")).into_response()
}
