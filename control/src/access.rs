//! Before every answer: who asks, whether that role may, and the record of it.
//!
//! ```text
//!   request -> peer -> role -> table (roles.rs) --no--> recorded, 401 or 403
//!                                 | yes
//!              looks ------------>+------------------------> handler -> answer
//!              changes -> recorded "begun" --no room--> 503, nothing done
//!                            '-> handler -> recorded how it went -> answer
//! ```

use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};

use crate::audit::{Actor, Auditor, Entry, Outcome, hex};
use crate::peer::{LocalRoles, Peer, Proof};
use crate::problem::Problem;
use crate::roles::{Needs, Role, needs};
use crate::tls::authority::now_s;
use crate::tls::server::ServerTls;

/// What access is judged by.
pub struct Access {
    /// Where it is recorded; nowhere if none.
    pub auditor: Option<Auditor>,
    /// What certificates are verified by, where there is TLS.
    pub tls: Option<Arc<ServerTls>>,
    /// Roles of this host's users.
    pub local: LocalRoles,
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Joins a request to its records; handlers find it among the request's extensions, clients in
/// `x-request-id`.
#[derive(Clone, Debug)]
pub struct RequestId(pub String);

/// More to say in the record of a request; a handler leaves it among the response's extensions.
#[derive(Clone, Debug)]
pub struct AuditNote(pub String);

/// These routes, behind the guard.
pub fn guarded(router: Router, access: Arc<Access>) -> Router {
    router.layer(from_fn_with_state(access, guard))
}

impl Access {
    /// The role of a peer at this moment, or why it has none.
    fn role_of(&self, peer: &Peer) -> Result<Role, String> {
        match &peer.proof {
            Proof::Uid(uid) => Ok(self.local.of(*uid)),
            Proof::Nothing(reason) => Err(reason.clone()),
            Proof::Certificate(subject) => {
                // Both may have come to be since the connection began.
                if subject.not_after_s <= i64::try_from(now_s()).unwrap_or(i64::MAX) {
                    return Err("the certificate has expired".into());
                }
                if self.tls.as_ref().is_some_and(|tls| tls.is_revoked(&subject.serial)) {
                    return Err("the certificate was revoked".into());
                }
                Ok(subject.identity.role)
            }
        }
    }

    async fn record(&self, entry: Entry) -> Result<(), String> {
        let Some(auditor) = &self.auditor else { return Ok(()) };
        auditor.record(entry).await.map(drop).map_err(|error| error.to_string())
    }
}

fn actor_of(peer: &Peer, role: Option<Role>) -> Actor {
    let (kind, name) = match &peer.proof {
        Proof::Certificate(subject) => {
            ("certificate", format!("{} serial {}", subject.identity, subject.serial))
        }
        Proof::Uid(uid) => ("local", format!("uid {uid}")),
        Proof::Nothing(_) => ("unknown", String::new()),
    };
    let role = role.map_or("", Role::name).into();
    Actor { kind, name, role, address: peer.address.clone() }
}

/// The id that the client gave the request, if it is one that may stand in records.
fn said_id(request: &Request) -> Option<String> {
    let said = request.headers().get(REQUEST_ID)?.to_str().ok()?;
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_valid = (8..=64).contains(&said.len()) && said.bytes().all(is_word);
    is_valid.then(|| said.to_owned())
}

fn made_id() -> Option<String> {
    let mut random = [0; 12];
    aws_lc_rs::rand::fill(&mut random).ok()?;
    Some(hex(&random))
}

async fn guard(State(access): State<Arc<Access>>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<Peer>>().map(|info| info.0.clone());
    let peer = peer.unwrap_or_else(|| Peer {
        address: String::new(),
        proof: Proof::Nothing("the connection does not say whose it is".into()),
    });
    let Some(request_id) = said_id(&request).or_else(made_id) else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "internal", "there are no random numbers");
    };
    request.extensions_mut().insert(RequestId(request_id.clone()));
    let role = access.role_of(&peer);
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let needed = needs(request.method().as_str(), path.as_deref());
    let object = request.uri().path_and_query().map_or("", |whole| whole.as_str());
    let entry = Entry {
        actor: actor_of(&peer, role.as_ref().ok().copied()),
        verb: request.method().to_string(),
        object: object.into(),
        outcome: Outcome::Begun,
        request_id: request_id.clone(),
        reason: String::new(),
    };
    let refusal = match (needed, role) {
        (Needs::Nothing, _) => None,
        (Needs::Role(needed), Ok(role)) if role >= needed => None,
        (Needs::Role(needed), Ok(role)) => {
            let reason = format!("this needs the role {}, not {}", needed.name(), role.name());
            Some((StatusCode::FORBIDDEN, reason))
        }
        (Needs::Role(_), Err(reason)) => Some((StatusCode::UNAUTHORIZED, reason)),
    };
    let looks = matches!(*request.method(), Method::GET | Method::HEAD);
    let mut response = if let Some((status, reason)) = refusal {
        let denied = Entry { outcome: Outcome::Denied, reason: reason.clone(), ..entry };
        // It stays refused either way; the trail says itself what it could not take.
        let _ = access.record(denied).await;
        problem(status, "not-allowed", &reason)
    } else if looks {
        next.run(request).await
    } else {
        // A client that leaves does not stop it half way, nor the record of how it went.
        let change = tokio::spawn(change(access, entry, request, next));
        change.await.unwrap_or_else(|_| {
            problem(StatusCode::INTERNAL_SERVER_ERROR, "outcome-unknown", "it broke half way")
        })
    };
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

async fn change(access: Arc<Access>, entry: Entry, request: Request, next: Next) -> Response {
    if let Err(reason) = access.record(entry.clone()).await {
        let detail = format!("nothing was done, since it could not be recorded: {reason}");
        return problem(StatusCode::SERVICE_UNAVAILABLE, "not-recorded", &detail);
    }
    let response = next.run(request).await;
    let status = response.status();
    let outcome = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Outcome::Denied,
        status if status.is_client_error() || status.is_server_error() => Outcome::Failed,
        _ => Outcome::Done,
    };
    let note = response.extensions().get::<AuditNote>().map_or("", |note| note.0.as_str());
    let reason = format!("status {} {note}", status.as_u16()).trim_end().to_owned();
    if let Err(reason) = access.record(Entry { outcome, reason, ..entry }).await {
        let detail =
            format!("it ended with status {status}, which could not be recorded: {reason}");
        return problem(StatusCode::INTERNAL_SERVER_ERROR, "outcome-unknown", &detail);
    }
    response
}

fn problem(status: StatusCode, name: &str, detail: &str) -> Response {
    let title = match name {
        "not-allowed" => "Not allowed",
        "not-recorded" => "Not recorded",
        "outcome-unknown" => "Outcome unknown",
        _ => "Internal error",
    };
    Problem::new(status, name, title, detail).into_response()
}
