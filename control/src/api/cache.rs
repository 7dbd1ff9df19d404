//! `cache/...`: caches, and the items in them.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::cache_item::Asked;
use super::parameters::Parameters;
use super::path::Id;
use super::{Managers, body, cache_configuration};
use crate::cache::{CacheConfiguration, CacheDocument, CachesDocument};
use crate::problem::Problem;

pub(super) fn routes() -> OpenApiRouter<Managers> {
    let one = OpenApiRouter::new().routes(routes!(read, store, cache_delete));
    one.routes(routes!(cache_create)).routes(routes!(cache_status))
}

/// The cache.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "it stands for the document alone")]
struct CachePath {
    /// A cache
    cache_id: String,
}

/// What of it.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "it stands for the document alone")]
struct Of {
    /// 1 to 250 bytes, percent-encoded
    key: Option<String>,
    /// The node, where several have a cache of this id
    node: Option<String>,
}

/// Whether it is meant.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "it stands for the document alone")]
struct Tried {
    /// Only say what would happen
    dry_run: Option<bool>,
}

/// Every cache of every node, and those that are wanted and not there
#[utoipa::path(
    get, path = "/api/v1/edge/cache/status", tag = "cache",
    responses((status = 200, description = "By id, then node", body = CachesDocument))
)]
async fn cache_status(State(managers): State<Managers>) -> Result<Json<CachesDocument>, Problem> {
    cache_configuration::status(&managers).await
}

/// Has a cache made, and kept: a node that starts anew is given it again, empty
#[utoipa::path(
    post, path = "/api/v1/edge/cache/create", tag = "cache",
    params(Tried),
    request_body = CacheConfiguration,
    responses(
        (status = 200, description = "It is there already; of a dry run: what would be made", body = CacheDocument),
        (status = 201, description = "Its node has it", body = CacheDocument),
        (status = 202, description = "Its node is at it; `state` of `cache/{cache_id}` says how it goes",
         body = CacheDocument),
        (status = 409, description = "`cache-exists`, `port-taken` or `node-refused`", body = Problem,
         content_type = "application/problem+json"),
        (status = 501, description = "`not-available`: what this version has not got, by field",
         body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`node-unreachable`, `store`, `not-recorded` or `overloaded`: nothing was done",
         body = Problem, content_type = "application/problem+json"),
    )
)]
async fn cache_create(
    State(managers): State<Managers>,
    parameters: Parameters,
    body::Json(body): body::Json,
) -> Result<Response, Problem> {
    cache_configuration::create(&managers, &parameters, &body).await
}

/// The value of a key; without `key` the cache's configuration and state
#[utoipa::path(
    get, path = "/api/v1/edge/cache/{cache_id}", tag = "cache",
    params(
        CachePath,
        Of,
        ("suspect" = Option<String>, Query, description = "`allow`: also a value whose feed has a gap or is silent"),
        ("If-None-Match" = Option<String>, Header, description = "304 if it is still this version"),
        ("If-Match" = Option<String>, Header, description = "412 if it is another"),
    ),
    responses(
        (status = 200, description = "The bytes, as they are; without `key` a document",
         content(("application/octet-stream"), (CacheDocument = "application/json")),
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
        return cache_configuration::show(&managers, &cache_id, &parameters).await;
    }
    asked.read().await
}

/// Stores the value of a key; without `key` gives the cache a new configuration
#[utoipa::path(
    put, path = "/api/v1/edge/cache/{cache_id}", tag = "cache",
    params(
        CachePath,
        Of,
        ("ttl_ms" = Option<u64>, Query, description = "Milliseconds until the value ends"),
        Tried,
        ("If-Match" = Option<String>, Header, description = "Only in place of this version; `*`: of any"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is none"),
    ),
    request_body(content(("application/octet-stream"), (CacheConfiguration = "application/json")),
                 description = "The value; without `key` the whole configuration"),
    responses(
        (status = 200, description = "Without `key`: configured", body = CacheDocument),
        (status = 201, description = "Stored where nothing was",
         headers(("ETag" = String, description = "Its version, in quotes"))),
        (status = 204, description = "Stored",
         headers(("ETag" = String, description = "Its version, in quotes"))),
        (status = 404, description = "`cache-not-found` or `node-not-found`", body = Problem,
         content_type = "application/problem+json"),
        (status = 409, description = "`ambiguous-cache`, `feed-owned`, `cannot-change` or `not-managed`",
         body = Problem, content_type = "application/problem+json"),
        (status = 428, description = "`precondition-required`: a configuration without `If-Match`",
         body = Problem, content_type = "application/problem+json"),
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
    request: Request,
) -> Result<Response, Problem> {
    let (items, has_key) = (&managers.items, parameters.bytes("key").is_some());
    let asked = Asked { items, cache_id: &cache_id, parameters: &parameters, headers: &headers };
    if !has_key {
        let (id, parameters) = (&cache_id, &parameters);
        return cache_configuration::configure(&managers, id, parameters, &headers, request).await;
    }
    asked.store(request.into_body()).await
}

/// Deletes a key; without `key` the cache with all that is in it
#[utoipa::path(
    delete, path = "/api/v1/edge/cache/{cache_id}", tag = "cache",
    params(
        CachePath,
        Of,
        Tried,
        ("If-Match" = Option<String>, Header, description = "Only this version"),
    ),
    responses(
        (status = 202, description = "The node is at it (a cache)"),
        (status = 204, description = "Deleted"),
        (status = 404, description = "`cache-not-found`, `key-not-found` or `node-not-found`",
         body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`ambiguous-cache`, `feed-owned` or `node-refused`", body = Problem,
         content_type = "application/problem+json"),
        (status = 412, description = "`precondition-failed`: nothing was changed", body = Problem,
         content_type = "application/problem+json"),
        (status = 503, description = "`not-done`, `not-recorded` or `overloaded`: nothing was changed",
         body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "`outcome-unknown`: it may have been done", body = Problem,
         content_type = "application/problem+json"),
    )
)]
async fn cache_delete(
    State(managers): State<Managers>,
    Id(cache_id): Id,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (items, has_key) = (&managers.items, parameters.bytes("key").is_some());
    let asked = Asked { items, cache_id: &cache_id, parameters: &parameters, headers: &headers };
    if !has_key {
        return cache_configuration::remove(&managers, &cache_id, &parameters, &headers).await;
    }
    asked.delete().await
}
