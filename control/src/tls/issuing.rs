//! What an admin does with the authority through a control, so that it stands in the trail: tokens, the
//! list of certificates, revoking.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::TlsError;
use super::authority::Authority;
use super::enrolment::{read, refused, with_note};
use super::identity::{Identity, Kind};
use super::token::TOKEN_LIFETIME;
use crate::roles::Role;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenRequest {
    kind: Kind,
    name: String,
    role: Role,
}

#[derive(Serialize)]
struct TokenAnswer {
    token: String,
    lifetime_s: u64,
}

/// The paths, answered by this authority.
pub fn router(authority: Arc<Authority>) -> Router {
    Router::new()
        .route("/api/v1/edge/certificates", get(list))
        .route("/api/v1/edge/certificates/tokens", post(token))
        .route("/api/v1/edge/certificates/{serial}/revoke", post(revoke))
        .with_state(authority)
}

async fn list(State(authority): State<Arc<Authority>>) -> Response {
    match authority.issued() {
        Ok(certificates) => {
            Json(serde_json::json!({ "certificates": certificates })).into_response()
        }
        Err(error) => refused(&error).into_response(),
    }
}

async fn token(State(authority): State<Arc<Authority>>, body: Bytes) -> Response {
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

async fn revoke(State(authority): State<Arc<Authority>>, Path(serial): Path<String>) -> Response {
    match authority.revoke(&serial) {
        Ok(gone) => with_note(format!("revoked {}", gone.identity), Json(gone)),
        Err(error) => with_note(error.to_string(), refused(&error)),
    }
}
