//! What an admin does with the authority through a control, so that it stands in the trail: tokens, the
//! list of certificates, revoking.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::TlsError;
use super::authority::{Authority, Issued};
use super::enrolment::{read, refused, with_note};
use super::identity::{Identity, Kind};
use super::token::TOKEN_LIFETIME;
use crate::api::body::JsonBytes;
use crate::roles::Role;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TokenRequest {
    kind: Kind,
    name: String,
    role: Role,
}

#[derive(Serialize, ToSchema)]
struct CertificatesDocument {
    certificates: Vec<Issued>,
}

#[derive(Serialize, ToSchema)]
struct TokenAnswer {
    token: String,
    lifetime_s: u64,
}

/// The paths.
pub fn routes() -> OpenApiRouter<Arc<Authority>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(token)).routes(routes!(revoke))
}

/// Every certificate that was issued
#[utoipa::path(
    get, path = "/api/v1/edge/certificates", tag = "certificates",
    responses((status = 200, description = "In the order of issue", body = CertificatesDocument))
)]
async fn list(State(authority): State<Arc<Authority>>) -> Response {
    match authority.issued() {
        Ok(certificates) => Json(CertificatesDocument { certificates }).into_response(),
        Err(error) => refused(&error).into_response(),
    }
}

/// A token to enrol with
#[utoipa::path(
    post, path = "/api/v1/edge/certificates/tokens", tag = "certificates",
    request_body = TokenRequest,
    responses((status = 200, description = "Shown once, never again", body = TokenAnswer))
)]
async fn token(State(authority): State<Arc<Authority>>, JsonBytes(body): JsonBytes) -> Response {
    let asked: TokenRequest = match read(&body) {
        Ok(asked) => asked,
        Err(problem) => return problem.into_response(),
    };
    let TokenRequest { kind, name, role } = asked;
    let identity = Identity { site: authority.site().to_owned(), role, kind, name };
    let made = match Identity::parse(&identity.to_string()) {
        Some(identity) if identity.kind != Kind::Control => {
            authority.token(&identity, TOKEN_LIFETIME)
        }
        Some(_) => {
            let reason = "a control's certificate is issued where its authority is";
            Err(TlsError::Refused(reason.into()))
        }
        None => Err(TlsError::Refused(format!("name: {}", crate::id::RULE))),
    };
    match made {
        Ok(token) => {
            let token = String::from_utf8_lossy(token.expose()).into_owned();
            let lifetime_s = TOKEN_LIFETIME.as_secs();
            with_note(format!("a token for {identity}"), Json(TokenAnswer { token, lifetime_s }))
        }
        Err(error) => with_note(error.to_string(), refused(&error)),
    }
}

/// Takes a certificate back
#[utoipa::path(
    post, path = "/api/v1/edge/certificates/{serial}/revoke", tag = "certificates",
    params(("serial" = String, Path, description = "Its serial number, hexadecimal")),
    responses((status = 200, description = "It is revoked", body = Issued))
)]
async fn revoke(State(authority): State<Arc<Authority>>, Path(serial): Path<String>) -> Response {
    match authority.revoke(&serial) {
        Ok(gone) => with_note(format!("revoked {}", gone.identity), Json(gone)),
        Err(error) => with_note(error.to_string(), refused(&error)),
    }
}
