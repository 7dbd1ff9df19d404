//! The HTTP server: metrics, probes, and the two node documents. Reads only.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get};
use axum::{Json, Router};

use crate::cache::{self, Items};
use crate::health::HealthDocument;
use crate::link::Attachment;
use crate::problem::Problem;
use crate::status::StatusDocument;
use crate::watcher::Watcher;
use crate::{id, prometheus};

/// Paths of the API whose manager is not built: method, path, what it needs.
const NOT_BUILT: [(&str, &str, &str); 16] = [
    ("POST", "/api/v1/edge/nodes/deploy", "deployments"),
    ("POST", "/api/v1/edge/placement/activities", "the placement optimizer"),
    ("POST", "/api/v1/edge/placement/optimize", "the placement optimizer"),
    ("GET", "/api/v1/edge/placement/recommendations", "the placement optimizer"),
    ("POST", "/api/v1/edge/cache/create", "the cache manager"),
    ("GET", "/api/v1/edge/cache/status", "the cache manager"),
    ("POST", "/api/v1/edge/performance/profiles", "the regional performance optimizer"),
    ("POST", "/api/v1/edge/performance/optimize/{region_id}", "the regional performance optimizer"),
    ("GET", "/api/v1/edge/performance/summary", "the regional performance optimizer"),
    ("POST", "/api/v1/edge/failover/configure", "the failover manager"),
    ("POST", "/api/v1/edge/failover/manual/{node_id}", "the failover manager"),
    ("GET", "/api/v1/edge/failover/status", "the failover manager"),
    ("POST", "/api/v1/edge/monitoring/alerts", "the monitoring system"),
    ("GET", "/api/v1/edge/monitoring/metrics/{name}", "the monitoring system"),
    ("GET", "/api/v1/edge/monitoring/dashboards/{id}", "the monitoring system"),
    ("GET", "/api/v1/edge/monitoring/status", "the monitoring system"),
];

/// All routes over these nodes.
pub fn router(watcher: Watcher) -> Router {
    let items = Arc::new(Items::new(watcher.clone()));
    let mut router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/api/v1/edge/nodes/status", get(status))
        .route("/api/v1/edge/nodes/{node_id}/health", get(health));
    let mut paths: Vec<&str> = NOT_BUILT.iter().map(|(_, path, _)| *path).collect();
    paths.dedup();
    for path in paths {
        router = router.route(path, not_built(path));
    }
    router
        .fallback(async |uri: Uri| {
            let detail = format!("there is no {}", uri.path());
            Problem::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
        })
        .method_not_allowed_fallback(wrong_method)
        .with_state(watcher)
        .merge(cache::http::router(items))
}

/// Answers 501 to the methods the path will have, 405 to others.
fn not_built(path: &'static str) -> MethodRouter<Watcher> {
    any(async move |method: Method, uri: Uri| {
        let entry = NOT_BUILT.iter().find(|(m, p, _)| *p == path && *m == method.as_str());
        let Some((.., manager)) = entry else { return wrong_method(method, uri).await };
        let detail = format!("{manager} is not built in this version");
        Problem::new(StatusCode::NOT_IMPLEMENTED, "not-available", "Not available", detail)
    })
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} does not answer {method}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "wrong-method", "Method not allowed", detail)
}

async fn metrics(State(watcher): State<Watcher>) -> Response {
    let text = prometheus::render(&watcher.views());
    ([(header::CONTENT_TYPE, prometheus::CONTENT_TYPE)], text).into_response()
}

/// Ready when every configured node is attached.
async fn readyz(State(watcher): State<Watcher>) -> Response {
    let waiting: Vec<String> = watcher
        .views()
        .into_iter()
        .filter(|node| node.attachment != Attachment::Attached)
        .map(|node| format!("{}: {}", node.id, node.reason))
        .collect();
    if waiting.is_empty() && watcher.has_looked() {
        return "ok\n".into_response();
    }
    let status = StatusCode::SERVICE_UNAVAILABLE;
    Problem::new(status, "not-ready", "Not ready", waiting.join("; ")).into_response()
}

async fn status(State(watcher): State<Watcher>) -> Json<StatusDocument> {
    Json(StatusDocument::of(&watcher.views()))
}

async fn health(
    State(watcher): State<Watcher>,
    Path(node_id): Path<String>,
) -> Result<Json<HealthDocument>, Problem> {
    if !id::is_valid(&node_id) {
        let status = StatusCode::BAD_REQUEST;
        return Err(Problem::new(status, "invalid-id", "Invalid id", id::RULE));
    }
    let views = watcher.views();
    let Some(node) = views.iter().find(|node| node.id == node_id) else {
        let detail = format!("no configured node is called {node_id}");
        let status = StatusCode::NOT_FOUND;
        return Err(Problem::new(status, "node-not-found", "Node not found", detail));
    };
    Ok(Json(HealthDocument::of(node)))
}
