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
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::authority::{Authority, request};
use super::client::{ClientIdentity, Connection, Trust, config};
use super::identity::Kind;
use super::token::Token;
use super::{TlsError, pem};
use crate::access::AuditNote;
use crate::api::body::{JsonBytes, invalid};
use crate::deploy::fields::FieldProblem;
use crate::peer::{Peer, Proof};
use crate::problem::Problem;
use crate::secret::Secret;

/// How long a certificate is valid unless said otherwise. Too low: a control that is away for that long
/// takes everyone's access with it; too high: what is stolen stays useful.
pub const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(30 * 86_400);

/// Longest request.
const BODY_BYTES_MAX: usize = 16 * 1024;

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EnrolRequest {
    /// As it was given, single use.
    token: String,
    /// `node` or `person`, as in the token.
    kind: String,
    /// As in the token.
    name: String,
    /// A certificate signing request, PEM.
    request: String,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RenewRequest {
    /// A certificate signing request, PEM.
    request: String,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = IssuedCertificate)]
struct Answer {
    /// The certificate and its authority, PEM.
    certificate: String,
}

/// These two paths and those of `issuing.rs`.
pub fn routes() -> OpenApiRouter<Arc<Authority>> {
    OpenApiRouter::new()
        .routes(routes!(enrol))
        .routes(routes!(renew))
        .merge(super::issuing::routes())
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

pub(super) fn read<T: serde::de::DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        // The text of the error names keys and places; values of ours are strings, which it does not show.
        invalid(vec![FieldProblem { path: String::new(), reason: error.to_string() }])
    })
}

pub(super) fn refused(error: &TlsError) -> Problem {
    match error {
        TlsError::Refused(reason) => {
            Problem::new(StatusCode::FORBIDDEN, "not-enrolled", "Not enrolled", reason.clone())
        }
        TlsError::Issue(reason) => {
            invalid(vec![FieldProblem { path: "request".into(), reason: reason.to_string() }])
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

/// A first certificate, for a token
#[utoipa::path(
    post, path = "/api/v1/edge/enrol", tag = "certificates", request_body = EnrolRequest,
    responses(
        (status = 200, description = "It is issued", body = Answer),
        (status = 403, description = "`not-enrolled`", body = Problem,
         content_type = "application/problem+json"),
    )
)]
async fn enrol(State(authority): State<Arc<Authority>>, JsonBytes(body): JsonBytes) -> Response {
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

/// Another certificate for the one that asks
#[utoipa::path(
    post, path = "/api/v1/edge/renew", tag = "certificates", request_body = RenewRequest,
    responses((status = 200, description = "It is issued", body = Answer))
)]
async fn renew(
    State(authority): State<Arc<Authority>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    JsonBytes(body): JsonBytes,
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
