//! Caches themselves: created, shown, configured, removed.

use std::future::Future;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::body::{self, invalid};
use super::cache_item::node;
use super::conditions::{not_so, put, tags};
use super::parameters::Parameters;
use super::{Managers, ROOT};
use crate::cache::configuration::Refused;
use crate::cache::etag::{Tags, of_version};
use crate::cache::{CacheConfiguration, CacheError, CachesDocument, Created, NoPlace};
use crate::deploy::fields::FieldProblem;
use crate::problem::Problem;
use crate::store::Revision;

/// How long a node may take for a change before it is gone on with behind the answer. Too low: nobody hears how it
/// went; too high: clients give up first.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// When to come again.
const RETRY_AFTER_S: u32 = 1;

type Answer = Result<Response, Problem>;

/// Every cache.
pub(super) async fn status(managers: &Managers) -> Result<Json<CachesDocument>, Problem> {
    let managers = managers.clone();
    let read = move || managers.caches.states(&managers.watcher.views());
    Ok(Json(CachesDocument { caches: blocking(read).await?? }))
}

/// One of them.
pub(super) async fn show(managers: &Managers, id: &str, parameters: &Parameters) -> Answer {
    shown(managers, id, node(parameters)?, StatusCode::OK).await
}

async fn shown(managers: &Managers, id: &str, node: Option<String>, status: StatusCode) -> Answer {
    let (managers, own) = (managers.clone(), id.to_owned());
    let read = move || managers.caches.document(&managers.watcher.views(), &own, node.as_deref());
    let Some((document, revision)) = blocking(read).await?? else {
        let absent = NoPlace::Absent { id: id.into(), unreachable: Vec::new() };
        return Err(absent.into());
    };
    let mut response = (status, Json(document)).into_response();
    if let Some(Revision(revision)) = revision {
        put(&mut response, header::ETAG, &of_version(revision));
    }
    Ok(response)
}

/// Has one made.
pub(super) async fn create(managers: &Managers, parameters: &Parameters, body: &Value) -> Answer {
    let dry_run = parameters.flag("dry_run")?;
    let wanted = read(managers, body)?;
    let (id, caches) = (wanted.cache_id.clone(), managers.caches.clone());
    let own = wanted.clone();
    let made = answered(blocking(move || caches.create(&own, dry_run))).await;
    let status = match made {
        Some(made) => match made? {
            Ok(Created::Would) => return Ok(Json(wanted).into_response()),
            Ok(Created::New) => StatusCode::CREATED,
            Ok(Created::Already) => StatusCode::OK,
            Err(CacheError::Unknown(_)) => StatusCode::ACCEPTED,
            Err(error) => return Err(error.into()),
        },
        None => StatusCode::ACCEPTED,
    };
    let mut response = shown(managers, &id, None, status).await?;
    if status != StatusCode::OK {
        put(&mut response, header::LOCATION, &format!("{ROOT}/cache/{id}"));
    }
    Ok(response)
}

/// Gives one another configuration.
pub(super) async fn configure(
    managers: &Managers,
    id: &str,
    parameters: &Parameters,
    headers: &HeaderMap,
    request: Request,
) -> Answer {
    let dry_run = parameters.flag("dry_run")?;
    let Some(demanded) = tags(headers, header::IF_MATCH)? else {
        let detail = "say by If-Match which configuration is to be changed: the ETag of cache/{id}";
        let status = StatusCode::PRECONDITION_REQUIRED;
        return Err(Problem::new(status, "precondition-required", "Precondition required", detail));
    };
    let body::Json(value) = body::Json::from_request(request, &()).await?;
    let wanted = read(managers, &value)?;
    if wanted.cache_id != id {
        let reason = format!("is not {id}, which the path names");
        return Err(invalid(vec![FieldProblem { path: "cache_id".into(), reason }]));
    }
    let caches = managers.caches.clone();
    let holds = move |revision| judged(&demanded, Some(revision));
    blocking(move || caches.configure(&wanted, holds, dry_run)).await??;
    shown(managers, id, None, StatusCode::OK).await
}

/// Removes one, with all that is in it.
pub(super) async fn remove(
    managers: &Managers,
    id: &str,
    parameters: &Parameters,
    headers: &HeaderMap,
) -> Answer {
    let dry_run = parameters.flag("dry_run")?;
    let node = node(parameters)?;
    let demanded = tags(headers, header::IF_MATCH)?;
    let (caches, items, own) = (managers.caches.clone(), managers.items.clone(), id.to_owned());
    let holds = move |revision| match &demanded {
        Some(demanded) => judged(demanded, revision),
        None => Ok(()),
    };
    let work = move || {
        // Connections to it end with it; they are not to be taken for those of the next one.
        let place = items.place(&own, node.as_deref());
        let removed = caches.remove(&own, node.as_deref(), holds, dry_run);
        if let (Ok(place), false) = (place, dry_run) {
            items.forget(&place);
        }
        removed
    };
    match answered(blocking(work)).await {
        Some(removed) => match removed? {
            Ok(()) => Ok(StatusCode::NO_CONTENT.into_response()),
            Err(CacheError::Unknown(_)) => Ok(StatusCode::ACCEPTED.into_response()),
            Err(error) => Err(error.into()),
        },
        None => Ok(StatusCode::ACCEPTED.into_response()),
    }
}

fn judged(demanded: &Tags, revision: Option<Revision>) -> Result<(), CacheError> {
    let tag = revision.map(|Revision(revision)| of_version(revision));
    match tag {
        Some(tag) if demanded.holds(&tag) => Ok(()),
        Some(tag) => Err(CacheError::Changed(tag)),
        None if *demanded == Tags::Any => Ok(()),
        None => Err(CacheError::Changed("none".into())),
    }
}

fn read(managers: &Managers, body: &Value) -> Result<CacheConfiguration, Problem> {
    let found = CacheConfiguration::from_json(body, &managers.caches.nodes());
    found.map_err(|Refused { invalid: wrong, not_available }| {
        if !wrong.is_empty() {
            return invalid(wrong);
        }
        let said = not_available.iter().map(|field| format!("{}: {}", field.path, field.reason));
        let detail = said.collect::<Vec<_>>().join("; ");
        Problem::new(StatusCode::NOT_IMPLEMENTED, "not-available", "Not available", detail)
            .with_fields(not_available)
    })
}

/// What comes within [`ANSWERED_WITHIN`]; the work goes on if nothing does.
async fn answered<T>(work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(ANSWERED_WITHIN, work).await.ok()
}

/// Runs what blocks on a thread that may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Problem::new(status, "outcome-unknown", "Outcome unknown", error.to_string())
    })
}

impl From<CacheError> for Problem {
    fn from(error: CacheError) -> Self {
        use StatusCode as S;
        let detail = error.to_string();
        let conflict = |name, title| Self::new(S::CONFLICT, name, title, detail.clone());
        let at = |path: &str| FieldProblem { path: path.into(), reason: detail.clone() };
        match error {
            CacheError::Conflict(_) => {
                conflict("cache-exists", "Cache exists").with_fields(vec![at("cache_id")])
            }
            CacheError::Port { .. } => {
                conflict("port-taken", "Port taken").with_fields(vec![at("port")])
            }
            CacheError::Place(place) => place.into(),
            CacheError::NotManaged(_) => conflict("not-managed", "Not managed"),
            CacheError::Changed(_) => not_so(&detail),
            CacheError::Fixed(ref fields) => conflict("cannot-change", "Cannot change")
                .with_fields(fields.iter().map(|field| at(field)).collect()),
            CacheError::Unreachable { .. } => {
                Self::new(S::SERVICE_UNAVAILABLE, "node-unreachable", "Node unreachable", detail)
                    .retry_after(RETRY_AFTER_S)
            }
            CacheError::NodeRefused(_) => conflict("node-refused", "The node refused"),
            CacheError::Unknown(_) => {
                Self::new(S::GATEWAY_TIMEOUT, "outcome-unknown", "Outcome unknown", detail)
            }
            CacheError::NotWritten { .. } => {
                Self::new(S::INTERNAL_SERVER_ERROR, "outcome-unknown", "Outcome unknown", detail)
            }
            CacheError::Store(error) => error.into(),
            CacheError::NoStore => {
                Self::new(S::NOT_IMPLEMENTED, "not-available", "Not available", detail)
            }
            CacheError::Record(..) => {
                Self::new(S::INTERNAL_SERVER_ERROR, "store", "Store not readable", detail)
            }
        }
    }
}
