//! `cache/...`: caches, and the items in them.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::cache_item::Asked;
use super::parameters::Parameters;
use super::path::Id;
use super::{Managers, not_built};
use crate::problem::Problem;

pub(super) fn routes() -> OpenApiRouter<Managers> {
    let manager = "the cache manager";
    OpenApiRouter::new().routes(routes!(read, store, delete)).merge(not_built::routes(&[
        ("POST", "/api/v1/edge/cache/create", manager),
        ("GET", "/api/v1/edge/cache/status", manager),
    ]))
}

/// The value of a key; without `key` the cache's configuration and state
#[utoipa::path(
    get, path = "/api/v1/edge/cache/{cache_id}", tag = "cache",
    params(
        ("cache_id" = String, Path, description = "A cache"),
        ("key" = Option<String>, Query, description = "1 to 250 bytes, percent-encoded"),
        ("node" = Option<String>, Query, description = "The node, where several have a cache of this id"),
        ("suspect" = Option<String>, Query, description = "`allow`: also a value whose feed has a gap or is silent"),
        ("If-None-Match" = Option<String>, Header, description = "304 if it is still this version"),
        ("If-Match" = Option<String>, Header, description = "412 if it is another"),
    ),
    responses(
        (status = 200, description = "The bytes, as they are", content_type = "application/octet-stream",
         headers(("ETag" = String, description = "Its version, in quotes"),
                 ("Age-Us" = u64, description = "Since its capture, or since it was stored"),
                 ("Expires-Ms" = u64, description = "Until it ends, if it does"),
                 ("Source-Sequence" = u64, description = "Of the exchange's message, of a feed's record"),
                 ("Suspect" = bool, description = "Not to be traded on"))),
        (status = 304, description = "It is still this version"),
        (status = 404, description = "`cache-not-found`, `key-not-found` or `node-not-found`",
         body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`ambiguous-cache`", body = Problem,
         content_type = "application/problem+json"),
        (status = 412, description = "`precondition-failed`", body = Problem,
         content_type = "application/problem+json"),
        (status = 421, description = "`not-leader`", body = Problem,
         content_type = "application/problem+json"),
        (status = 503, description = "`suspect`, `cache-detached`, `key-busy` or `overloaded`", body = Problem,
         content_type = "application/problem+json"),
    )
)]
async fn read(
    State(managers): State<Managers>,
    Id(cache_id): Id,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (items, has_key) = (&managers.items, parameters.bytes("key").is_some());
    let asked = Asked { items, cache_id: &cache_id, parameters: &parameters, headers: &headers };
    if !has_key {
        return Err(not_built());
    }
    asked.read().await
}

/// Stores the value of a key; without `key` gives the cache a new configuration
#[utoipa::path(
    put, path = "/api/v1/edge/cache/{cache_id}", tag = "cache",
    params(
        ("cache_id" = String, Path, description = "A cache"),
        ("key" = Option<String>, Query, description = "1 to 250 bytes, percent-encoded"),
        ("node" = Option<String>, Query, description = "The node, where several have a cache of this id"),
        ("ttl_ms" = Option<u64>, Query, description = "Milliseconds until the value ends"),
        ("dry_run" = Option<bool>, Query, description = "Only say what would happen"),
        ("If-Match" = Option<String>, Header, description = "Only in place of this version; `*`: of any"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is none"),
    ),
    request_body(content_type = "application/octet-stream", description = "The value"),
    responses(
        (status = 201, description = "Stored where nothing was",
         headers(("ETag" = String, description = "Its version, in quotes"))),
        (status = 204, description = "Stored",
         headers(("ETag" = String, description = "Its version, in quotes"))),
        (status = 404, description = "`cache-not-found` or `node-not-found`", body = Problem,
         content_type = "application/problem+json"),
        (status = 409, description = "`ambiguous-cache` or `feed-owned`", body = Problem,
         content_type = "application/problem+json"),
        (status = 412, description = "`precondition-failed`: nothing was changed", body = Problem,
         content_type = "application/problem+json"),
        (status = 413, description = "`too-large`: nothing was changed", body = Problem,
         content_type = "application/problem+json"),
        (status = 503, description = "`not-done`, `not-recorded` or `overloaded`: nothing was changed",
         body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "`outcome-unknown`: it may have been done", body = Problem,
         content_type = "application/problem+json"),
        (status = 507, description = "`no-memory`: what the key had is gone", body = Problem,
         content_type = "application/problem+json"),
    )
)]
async fn store(
    State(managers): State<Managers>,
    Id(cache_id): Id,
    parameters: Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (items, has_key) = (&managers.items, parameters.bytes("key").is_some());
    let asked = Asked { items, cache_id: &cache_id, parameters: &parameters, headers: &headers };
    if !has_key {
        return Err(not_built());
    }
    asked.store(body).await
}

/// Deletes a key; without `key` the cache with all that is in it
#[utoipa::path(
    delete, path = "/api/v1/edge/cache/{cache_id}", tag = "cache",
    params(
        ("cache_id" = String, Path, description = "A cache"),
        ("key" = Option<String>, Query, description = "1 to 250 bytes, percent-encoded"),
        ("node" = Option<String>, Query, description = "The node, where several have a cache of this id"),
        ("dry_run" = Option<bool>, Query, description = "Only say what would happen"),
        ("If-Match" = Option<String>, Header, description = "Only this version"),
    ),
    responses(
        (status = 204, description = "Deleted"),
        (status = 404, description = "`cache-not-found`, `key-not-found` or `node-not-found`",
         body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`ambiguous-cache` or `feed-owned`", body = Problem,
         content_type = "application/problem+json"),
        (status = 412, description = "`precondition-failed`: nothing was changed", body = Problem,
         content_type = "application/problem+json"),
        (status = 503, description = "`not-done`, `not-recorded` or `overloaded`: nothing was changed",
         body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "`outcome-unknown`: it may have been done", body = Problem,
         content_type = "application/problem+json"),
    )
)]
async fn delete(
    State(managers): State<Managers>,
    Id(cache_id): Id,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (items, has_key) = (&managers.items, parameters.bytes("key").is_some());
    let asked = Asked { items, cache_id: &cache_id, parameters: &parameters, headers: &headers };
    if !has_key {
        return Err(not_built());
    }
    asked.delete().await
}

fn not_built() -> Problem {
    let detail = "configurations of caches are not built in this version";
    Problem::new(StatusCode::NOT_IMPLEMENTED, "not-available", "Not available", detail)
}
