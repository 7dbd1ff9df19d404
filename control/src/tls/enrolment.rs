//! `POST enrol` and `POST renew`: how nodes and people come by certificates, and our side of both.
//!
//! A key never travels: who enrols makes it and sends what it signed. What the certificate says is decided
//! by the token, and in a renewal by the certificate that asks.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};

use super::authority::{Authority, request};
use super::client::{ClientIdentity, Connection, Trust, config};
use super::identity::Kind;
use super::token::Token;
use super::{TlsError, pem};
use crate::access::AuditNote;
use crate::peer::{Peer, Proof};
use crate::problem::Problem;
use crate::secret::Secret;

/// How long a certificate is valid unless said otherwise. Too low: a control that is away for that long
/// takes everyone's access with it; too high: what is stolen stays useful.
pub const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(30 * 86_400);

/// Longest request.
const BODY_BYTES_MAX: usize = 16 * 1024;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnrolRequest {
    token: String,
    kind: String,
    name: String,
    request: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RenewRequest {
    request: String,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    certificate: String,
}

/// These two paths and those of `issuing.rs`, answered by this authority.
pub fn router(authority: Arc<Authority>) -> Router {
    Router::new()
        .route("/api/v1/edge/enrol", post(enrol))
        .route("/api/v1/edge/renew", post(renew))
        .with_state(Arc::clone(&authority))
        .merge(super::issuing::router(authority))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

pub(super) fn read<T: serde::de::DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        // The text of the error names keys and places; values of ours are strings, which it does not show.
        Problem::new(StatusCode::BAD_REQUEST, "invalid-body", "Invalid body", error.to_string())
    })
}

pub(super) fn refused(error: &TlsError) -> Problem {
    match error {
        TlsError::Refused(reason) => {
            Problem::new(StatusCode::FORBIDDEN, "not-enrolled", "Not enrolled", reason.clone())
        }
        TlsError::Issue(reason) => {
            let detail = format!("request: {reason}");
            Problem::new(StatusCode::BAD_REQUEST, "invalid-body", "Invalid body", detail)
        }
        _ => {
            let detail = "the authority cannot issue; its log says why";
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", detail)
        }
    }
}

pub(super) fn with_note(note: String, response: impl IntoResponse) -> Response {
    (Extension(AuditNote(note)), response).into_response()
}

async fn enrol(State(authority): State<Arc<Authority>>, body: Bytes) -> Response {
    let asked: EnrolRequest = match read(&body) {
        Ok(asked) => asked,
        Err(problem) => return problem.into_response(),
    };
    let token = Secret::new(asked.token.into_bytes());
    let issued = || -> Result<(String, String), TlsError> {
        // Before the token is used up.
        rcgen::CertificateSigningRequestParams::from_pem(&asked.request)?;
        let identity = authority.redeem(&Token::parse(&token)?, &asked.kind, &asked.name)?;
        let chain = authority.issue(&identity, &[], &asked.request, CERTIFICATE_LIFETIME)?;
        Ok((identity.to_string(), chain))
    };
    match issued() {
        Ok((identity, certificate)) => {
            with_note(format!("issued {identity}"), Json(Answer { certificate }))
        }
        Err(error) => {
            with_note(format!("{} {:?}: {error}", asked.kind, asked.name), refused(&error))
        }
    }
}

async fn renew(
    State(authority): State<Arc<Authority>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Bytes,
) -> Response {
    let asked: RenewRequest = match read(&body) {
        Ok(asked) => asked,
        Err(problem) => return problem.into_response(),
    };
    let identity = match peer.proof {
        Proof::Certificate(subject) if subject.identity.site == authority.site() => {
            subject.identity
        }
        _ => {
            let error = TlsError::Refused("only a certificate of this site can be renewed".into());
            return with_note(error.to_string(), refused(&error));
        }
    };
    if identity.kind == Kind::Control {
        let error =
            TlsError::Refused("a control's certificate is issued where its authority is".into());
        return with_note(error.to_string(), refused(&error));
    }
    match authority.issue(&identity, &[], &asked.request, CERTIFICATE_LIFETIME) {
        Ok(certificate) => with_note(format!("issued {identity}"), Json(Answer { certificate })),
        Err(error) => with_note(error.to_string(), refused(&error)),
    }
}

/// Enrols with the control at `HOST:PORT`; leaves `identity.pem` (key and certificate) and `ca.pem` in
/// `out`.
pub fn enrol_at(
    target: &str,
    token: &Secret,
    kind: Kind,
    name: &str,
    out: &Path,
) -> Result<(), TlsError> {
    let print = Token::parse(token)?.fingerprint;
    let (key, request) = request()?;
    let body = zeroize::Zeroizing::new(
        serde_json::to_vec(&EnrolRequest {
            token: String::from_utf8_lossy(token.expose()).trim().to_owned(),
            kind: serde_json::to_value(kind)
                .ok()
                .and_then(|kind| kind.as_str().map(str::to_owned))
                .unwrap_or_default(),
            name: name.into(),
            request,
        })
        .unwrap_or_default(),
    );
    let mut connection = Connection::open(target, config(Trust::Fingerprint(print), None)?)?;
    let chain = certificate_of(connection.ask("POST", "/api/v1/edge/enrol", &body)?)?;
    let certificates = pem::certificates_in(out, chain.as_bytes())?;
    let authority = certificates.iter().position(|der| super::authority::fingerprint(der) == print);
    let Some(authority) = authority else {
        return Err(TlsError::Refused(
            "the answer lacks the authority that the token names".into(),
        ));
    };
    std::fs::create_dir_all(out).map_err(|source| TlsError::Io { path: out.into(), source })?;
    let marker = "-----BEGIN CERTIFICATE-----";
    let part =
        chain.split_inclusive("-----END CERTIFICATE-----").nth(authority).unwrap_or_default();
    let part = part.find(marker).map_or(part, |at| &part[at..]);
    pem::replace(&out.join("ca.pem"), 0o644, format!("{part}\n").as_bytes())?;
    let both = zeroize::Zeroizing::new(format!("{}{chain}", *key));
    pem::replace(&out.join("identity.pem"), 0o600, both.as_bytes())
}

/// Puts a new key and certificate in the place of those in `dir`, where `enrol_at` left them.
pub fn renew_at(target: &str, dir: &Path) -> Result<(), TlsError> {
    let path = dir.join("identity.pem");
    let identity = Arc::new(ClientIdentity::open(&path)?);
    let (key, request) = request()?;
    let body = serde_json::to_vec(&RenewRequest { request }).unwrap_or_default();
    let ca = dir.join("ca.pem");
    let mut connection = Connection::open(target, config(Trust::Authority(&ca), Some(identity))?)?;
    let chain = certificate_of(connection.ask("POST", "/api/v1/edge/renew", &body)?)?;
    let both = zeroize::Zeroizing::new(format!("{}{chain}", *key));
    pem::replace(&path, 0o600, both.as_bytes())
}

fn certificate_of((status, body): (u16, Vec<u8>)) -> Result<String, TlsError> {
    if status == 200
        && let Ok(Answer { certificate }) = serde_json::from_slice(&body)
    {
        return Ok(certificate);
    }
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let detail = problem["detail"].as_str().unwrap_or("no reason was given");
    Err(TlsError::Refused(format!("refused with {status}: {detail}")))
}
