//! `GET version` and `GET openapi.json`: which program answers, and what it answers to.

use std::sync::LazyLock;

use axum::Json;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Managers, document};

/// Which program answers.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct VersionDocument {
    /// Of the control daemon.
    pub version: &'static str,
    /// Of the API: the one in its paths.
    pub api: &'static str,
}

static DOCUMENT: LazyLock<String> = LazyLock::new(document::text);

pub(super) fn routes() -> OpenApiRouter<Managers> {
    OpenApiRouter::new().routes(routes!(version)).routes(routes!(openapi))
}

/// Which program answers
#[utoipa::path(
    get, path = "/api/v1/edge/version", tag = "control",
    responses((status = 200, description = "Versions", body = VersionDocument))
)]
async fn version() -> Json<VersionDocument> {
    Json(VersionDocument { version: env!("CARGO_PKG_VERSION"), api: "v1" })
}

/// This document
#[utoipa::path(
    get, path = "/api/v1/edge/openapi.json", tag = "control",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value))
)]
async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str()).into_response()
}
