//! ETags: every JSON document that is looked at has one, and `If-None-Match` spares sending it again.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::audit::hex;
use crate::problem::Problem;

/// Longest document. All nodes of the largest site are far below it.
const DOCUMENT_BYTES_MAX: usize = 64 << 20;

/// Tags documents that are looked at, by their content unless their handler did.
pub async fn tagged(request: Request, next: Next) -> Response {
    let looks = matches!(*request.method(), Method::GET | Method::HEAD);
    let seen = request.headers().get(header::IF_NONE_MATCH).cloned();
    let response = next.run(request).await;
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_json = kind.is_some_and(|kind| kind.as_bytes() == b"application/json");
    if !looks || response.status() != StatusCode::OK || !is_json {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, DOCUMENT_BYTES_MAX).await else {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        return Problem::new(status, "internal", "Internal error", "the document cannot be read")
            .into_response();
    };
    let tag = parts.headers.entry(header::ETAG).or_insert_with(|| of(&bytes)).clone();
    let tag = tag.to_str().unwrap_or_default();
    if seen.is_some_and(|seen| lists(&seen, tag)) {
        parts.status = StatusCode::NOT_MODIFIED;
        parts.headers.remove(header::CONTENT_TYPE);
        parts.headers.remove(header::CONTENT_LENGTH);
        return Response::from_parts(parts, Body::empty());
    }
    Response::from_parts(parts, Body::from(bytes))
}

fn of(bytes: &[u8]) -> HeaderValue {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let text = format!("\"{}\"", hex(&digest.as_ref()[..12]));
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Whether `If-None-Match` lists a tag.
fn lists(header: &HeaderValue, tag: &str) -> bool {
    let listed = header.to_str().unwrap_or_default();
    listed.split(',').map(str::trim).any(|listed| {
        listed == "*" || listed == tag || listed.strip_prefix("W/").is_some_and(|weak| weak == tag)
    })
}
