//! `cache/...`: answered once the cache manager is built.

use utoipa_axum::router::OpenApiRouter;

use super::{Managers, not_built};

pub(super) fn routes() -> OpenApiRouter<Managers> {
    let manager = "the cache manager";
    not_built::routes(&[
        ("POST", "/api/v1/edge/cache/create", manager),
        ("GET", "/api/v1/edge/cache/status", manager),
        ("GET", "/api/v1/edge/cache/{cache_id}", manager),
        ("PUT", "/api/v1/edge/cache/{cache_id}", manager),
        ("DELETE", "/api/v1/edge/cache/{cache_id}", manager),
    ])
}
