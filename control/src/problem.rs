//! Errors of the HTTP server as `application/problem+json` (RFC 9457).

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// One error document.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    /// Stable name of the error, such as `node-not-found`, as a URI reference.
    #[serde(rename = "type")]
    pub kind: String,
    /// The name in words.
    pub title: &'static str,
    /// HTTP status, again.
    pub status: u16,
    /// What happened here, and what to do.
    pub detail: String,
}

impl Problem {
    /// An error called `name`; its type is `urn:nautilus:problem:<name>`.
    pub fn new(
        status: StatusCode,
        name: &str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        let kind = format!("urn:nautilus:problem:{name}");
        Self { kind, title, status: status.as_u16(), detail: detail.into() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // A struct of strings and a number always serializes.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}
