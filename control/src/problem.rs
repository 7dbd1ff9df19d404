//! Errors of the HTTP server as `application/problem+json` (RFC 9457).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::deploy::fields::FieldProblem;

/// One error document.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// Stable name of the error, such as `node-not-found`, as a URI reference.
    #[serde(rename = "type")]
    #[schema(example = "urn:nautilus:problem:node-not-found")]
    pub kind: String,
    /// The name in words.
    pub title: &'static str,
    /// HTTP status, again.
    pub status: u16,
    /// What happened here, and what to do.
    pub detail: String,
    /// Everything wrong with a body or a query, where that is what happened.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub fields: Vec<FieldProblem>,
    /// Seconds after which it may go well; in the header `Retry-After`.
    #[serde(skip)]
    pub retry_after_s: Option<u32>,
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
        let (status, detail) = (status.as_u16(), detail.into());
        Self { kind, title, status, detail, fields: Vec::new(), retry_after_s: None }
    }

    /// The same, with everything that is wrong.
    pub fn with_fields(self, fields: Vec<FieldProblem>) -> Self {
        Self { fields, ..self }
    }

    /// The same, worth another try.
    pub fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // A struct of strings and numbers always serializes.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (status, kind, body).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
