//! The HTTP API: a file for each noun, put together here.
//!
//! ```text
//!   request -> guard (access.rs) -> limits -> parameters -> handler of a noun -> document | problem
//!                                                              |
//!                        #[utoipa::path] above each handler ---+--> document.rs --> control/openapi.json
//! ```
//!
//! Another noun: a file with `routes()`, a line in [`routes`], its rows in `roles.rs`, and
//! `NAUTILUS_WRITE=1 cargo test -p nautilus-control --test openapi`.

pub mod body;
pub mod cache;
pub mod deployments;
pub mod document;
mod events;
pub mod limits;
pub mod nodes;
pub mod not_built;
pub mod operations;
mod page;
pub mod parameters;
pub mod path;
pub mod probes;
mod refusal;
pub mod tag;
pub mod version;

use std::sync::Arc;

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use utoipa_axum::router::OpenApiRouter;

use crate::deploy::runner::Deployments;
use crate::problem::Problem;
use crate::tls::authority::Authority;
use crate::tls::enrolment;
use crate::watcher::Watcher;

/// Where every path of the API begins.
pub const ROOT: &str = "/api/v1/edge";

/// What the API answers from; every handler gets a clone.
#[derive(Clone)]
pub struct Managers {
    /// Nodes as they are.
    pub watcher: Watcher,
    /// Nodes as they are wanted; none without a store.
    pub deployments: Option<Arc<Deployments>>,
}

/// Every noun. Certificates stand apart: only a control with an authority answers those.
fn routes() -> OpenApiRouter<Managers> {
    OpenApiRouter::with_openapi(document::frame())
        .merge(probes::routes())
        .merge(version::routes())
        .merge(page::routes())
        .merge(nodes::routes())
        .merge(deployments::routes())
        .merge(operations::routes())
        .merge(cache::routes())
        .merge(not_built::routes(not_built::TABLE))
}

/// All routes, without the guard.
pub fn router(managers: Managers, authority: Option<Arc<Authority>>) -> Router {
    let mut routes = routes().with_state(managers);
    if let Some(authority) = authority {
        routes = routes.merge(enrolment::routes().with_state(authority));
    }
    let (router, _) = routes.split_for_parts();
    let known = Arc::new(parameters::Known::of(&document::document()));
    router
        .fallback(async |uri: Uri| {
            let detail = format!("there is no {}", uri.path());
            Problem::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
        })
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn(tag::tagged))
        .layer(from_fn_with_state(known, parameters::refuse_unknown))
        .layer(axum::extract::DefaultBodyLimit::max(limits::BODY_BYTES_MAX))
        .layer(from_fn_with_state(limits::Limits::default(), limits::limit))
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} does not answer {method}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "wrong-method", "Method not allowed", detail)
}
