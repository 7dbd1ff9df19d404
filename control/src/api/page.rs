//! `docs`: a page that shows the document and asks what somebody types in. All of it is in the binary; it
//! loads nothing from elsewhere, and its policy says so to the browser.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Managers;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn routes() -> OpenApiRouter<Managers> {
    OpenApiRouter::new().routes(routes!(page)).routes(routes!(script)).routes(routes!(style))
}

fn served(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}

/// This document as a page
#[utoipa::path(
    get, path = "/api/v1/edge/docs", tag = "control",
    responses((status = 200, description = "A page", body = String, content_type = "text/html"))
)]
async fn page() -> Response {
    served("text/html; charset=utf-8", include_str!("page/page.html"))
}

/// What the page does
#[utoipa::path(
    get, path = "/api/v1/edge/docs/page.js", tag = "control",
    responses((status = 200, description = "Its script", body = String, content_type = "text/javascript"))
)]
async fn script() -> Response {
    served("text/javascript; charset=utf-8", include_str!("page/page.js"))
}

/// What the page looks like
#[utoipa::path(
    get, path = "/api/v1/edge/docs/page.css", tag = "control",
    responses((status = 200, description = "Its style", body = String, content_type = "text/css"))
)]
async fn style() -> Response {
    served("text/css; charset=utf-8", include_str!("page/page.css"))
}
