//! Bodies: JSON, or a problem that says why it cannot be read.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use serde_json::Value;

use crate::deploy::fields::FieldProblem;
use crate::problem::Problem;

/// A body that says it is JSON, as it came.
pub struct JsonBytes(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for JsonBytes {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            let detail = "send it as Content-Type: application/json";
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Problem::new(status, "wrong-media-type", "Unsupported media type", detail));
        }
        Ok(Self(bytes(request, state).await?))
    }
}

/// A JSON body, for a reader that lists everything wrong with it (`deploy::fields`).
pub struct Json(pub Value);

impl<S: Send + Sync> FromRequest<S> for Json {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let JsonBytes(bytes) = JsonBytes::from_request(request, state).await?;
        let value = serde_json::from_slice(&bytes).map_err(|error| {
            invalid(vec![FieldProblem { path: String::new(), reason: error.to_string() }])
        })?;
        Ok(Self(value))
    }
}

/// The body as it came, within the limit of its route.
pub async fn bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
        status @ StatusCode::PAYLOAD_TOO_LARGE => {
            let detail = "the body is longer than this path takes";
            Problem::new(status, "too-large", "Content too large", detail)
        }
        _ => invalid(vec![FieldProblem { path: String::new(), reason: rejection.body_text() }]),
    })
}

/// 400 for a body, with everything that is wrong with it.
pub fn invalid(fields: Vec<FieldProblem>) -> Problem {
    let said: Vec<String> = fields
        .iter()
        .map(|field| match field.path.as_str() {
            "" => field.reason.clone(),
            path => format!("{path}: {}", field.reason),
        })
        .collect();
    Problem::new(StatusCode::BAD_REQUEST, "invalid-body", "Invalid body", said.join("; "))
        .with_fields(fields)
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}
