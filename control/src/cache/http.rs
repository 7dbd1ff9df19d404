//! `cache/{id}?key=K`: one item, read and changed.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use nautilus_client::VALUE_BYTES_MAX;

use super::command::Condition;
use super::etag::{Tags, of_version};
use super::item::Item;
use super::items::{ItemError, Items};
use super::query::{Key, Query};
use super::readers::ReadFailure;
use super::whereabouts::NoPlace;
use super::writers::WriteFailure;
use crate::id;
use crate::problem::Problem;

/// Path of one cache.
const PATH: &str = "/api/v1/edge/cache/{cache_id}";

/// Routes of items.
pub fn router(items: Arc<Items>) -> Router {
    Router::new().route(PATH, get(read).put(store).delete(delete)).with_state(items)
}

type Answer = Result<Response, Problem>;

async fn read(
    State(items): State<Arc<Items>>,
    Path(cache_id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let (query, key) = asked(&cache_id, query, &["suspect"])?;
    let place = items.place(&cache_id, query.node.as_deref()).map_err(ItemError::from)?;
    let item = items.read(&place, &key).await?;
    let tag = of_version(item.version);
    if let Some(tags) = condition(&headers, header::IF_MATCH)?
        && !tags.holds(&tag)
    {
        return Err(ItemError::Condition("the key has another version").into());
    }
    if item.is_suspect && !query.allows_suspect {
        let detail = "the feed of this key has a gap, is silent, or its worker is dead: do not trade on what \
                      you have; suspect=allow gives the value all the same";
        let problem = problem(StatusCode::SERVICE_UNAVAILABLE, "suspect", "Suspect", detail);
        return Ok(with_facts(problem.into_response(), &item));
    }
    if let Some(tags) = condition(&headers, header::IF_NONE_MATCH)?
        && tags.holds_weakly(&tag)
    {
        return Ok(with_facts(StatusCode::NOT_MODIFIED.into_response(), &item));
    }
    let kind = (header::CONTENT_TYPE, "application/octet-stream");
    let response = ([kind], item.bytes.clone()).into_response();
    Ok(with_facts(response, &item))
}

async fn store(
    State(items): State<Arc<Items>>,
    Path(cache_id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let (query, key) = asked(&cache_id, query, &["ttl_ms"])?;
    let condition = write_condition(&headers)?;
    let place = items.place(&cache_id, query.node.as_deref()).map_err(ItemError::from)?;
    let bytes_max = place.identity.max_value_bytes;
    let bytes =
        to_bytes(body, (bytes_max as usize).min(VALUE_BYTES_MAX)).await.map_err(|error| {
            if is_too_long(&error) {
                let detail = format!("the cache takes values of at most {bytes_max} bytes");
                return problem(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too large", &detail);
            }
            problem(StatusCode::BAD_REQUEST, "invalid-body", "Invalid body", &error.to_string())
        })?;
    let Some(condition) = condition else {
        return Err(ItemError::Condition("no version has such a tag").into());
    };
    let version = items.store(&place, &key, &bytes, query.ttl_ms, condition).await?;
    let status = match condition {
        Condition::Absent => StatusCode::CREATED,
        _ => StatusCode::NO_CONTENT,
    };
    let mut response = status.into_response();
    if let Some(version) = version {
        put(&mut response, header::ETAG, &of_version(version));
    }
    Ok(response)
}

async fn delete(
    State(items): State<Arc<Items>>,
    Path(cache_id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let (query, key) = asked(&cache_id, query, &[])?;
    let condition = write_condition(&headers)?;
    if condition == Some(Condition::Absent) {
        return Err(invalid("If-None-Match", "has no meaning where something is deleted"));
    }
    let place = items.place(&cache_id, query.node.as_deref()).map_err(ItemError::from)?;
    let Some(condition) = condition else {
        return Err(ItemError::Condition("no version has such a tag").into());
    };
    items.delete(&place, &key, condition).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The query with its key; `allowed` are the parameters that mean something here beside `key` and `node`.
fn asked(cache_id: &str, query: Option<String>, allowed: &[&str]) -> Result<(Query, Key), Problem> {
    if !id::is_valid(cache_id) {
        return Err(problem(StatusCode::BAD_REQUEST, "invalid-id", "Invalid id", id::RULE));
    }
    let query = Query::parse(&query.unwrap_or_default())
        .map_err(|error| invalid(&error.parameter, &error.reason))?;
    for (name, is_there) in [
        ("ttl_ms", query.ttl_ms.is_some()),
        ("suspect", query.allows_suspect),
        ("dry_run", query.dry_run),
    ] {
        if is_there && !allowed.contains(&name) {
            return Err(invalid(name, "has no meaning here"));
        }
    }
    let Some(key) = query.key.clone() else {
        let detail = "configurations of caches are not built in this version";
        return Err(problem(StatusCode::NOT_IMPLEMENTED, "not-available", "Not available", detail));
    };
    Ok((query, key))
}

/// What the headers of a change demand; `None`: what cannot be, for no version has such a tag.
fn write_condition(headers: &HeaderMap) -> Result<Option<Condition>, Problem> {
    let if_match = condition(headers, header::IF_MATCH)?;
    match (if_match, condition(headers, header::IF_NONE_MATCH)?) {
        (None, None) => Ok(Some(Condition::Always)),
        (Some(Tags::Any), None) => Ok(Some(Condition::Present)),
        (Some(tags), None) => match tags.versions().as_slice() {
            [] => Ok(None),
            [version] => Ok(Some(Condition::Version(*version))),
            _ => Err(invalid("If-Match", "a change depends on one version")),
        },
        (None, Some(Tags::Any)) => Ok(Some(Condition::Absent)),
        (None, Some(_)) => Err(invalid("If-None-Match", "only * has a meaning for a change")),
        (Some(_), Some(_)) => Err(invalid("If-None-Match", "excludes If-Match")),
    }
}

fn condition(headers: &HeaderMap, name: HeaderName) -> Result<Option<Tags>, Problem> {
    let mut values = headers.get_all(&name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let tags = value.to_str().ok().and_then(Tags::parse).filter(|_| values.next().is_none());
    let reason = "* or a list of tags in quotes is needed, such as \"17\"";
    tags.map(Some).ok_or_else(|| invalid(name.as_str(), reason))
}

fn with_facts(mut response: Response, item: &Item) -> Response {
    put(&mut response, header::ETAG, &of_version(item.version));
    put(&mut response, HeaderName::from_static("age-us"), &item.age_us.to_string());
    if let Some(expires_ms) = item.expires_ms {
        put(&mut response, HeaderName::from_static("expires-ms"), &expires_ms.to_string());
    }
    if let Some(sequence) = item.source_sequence {
        put(&mut response, HeaderName::from_static("source-sequence"), &sequence.to_string());
    }
    put(&mut response, HeaderName::from_static("suspect"), &item.is_suspect.to_string());
    // Whoever keeps it would have a stale copy.
    put(&mut response, header::CACHE_CONTROL, "no-store");
    response
}

fn put(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn is_too_long(error: &axum::Error) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        if error.to_string().contains("length limit exceeded") {
            return true;
        }
        source = error.source();
    }
    false
}

fn invalid(parameter: &str, reason: &str) -> Problem {
    let detail = format!("{parameter}: {reason}");
    problem(StatusCode::BAD_REQUEST, "invalid-parameter", "Invalid parameter", &detail)
}

fn problem(status: StatusCode, name: &str, title: &'static str, detail: &str) -> Problem {
    Problem::new(status, name, title, detail)
}

impl From<ItemError> for Problem {
    fn from(error: ItemError) -> Self {
        use StatusCode as S;
        let (status, name, title) = match &error {
            ItemError::Place(NoPlace::Absent { .. })
            | ItemError::Read(ReadFailure::NoCache)
            | ItemError::Write(WriteFailure::NoCache) => {
                (S::NOT_FOUND, "cache-not-found", "Cache not found")
            }
            ItemError::Place(NoPlace::NoNode(_)) => {
                (S::NOT_FOUND, "node-not-found", "Node not found")
            }
            ItemError::Place(NoPlace::Several(_)) => {
                (S::CONFLICT, "ambiguous-cache", "Several caches of this id")
            }
            ItemError::Read(ReadFailure::Miss) => (S::NOT_FOUND, "key-not-found", "Key not found"),
            ItemError::Read(ReadFailure::Detached(_)) => {
                (S::SERVICE_UNAVAILABLE, "cache-detached", "Cache detached")
            }
            ItemError::Read(ReadFailure::LeaseExpired) => {
                (S::MISDIRECTED_REQUEST, "not-leader", "Not the leader")
            }
            ItemError::Read(ReadFailure::Busy) => {
                (S::SERVICE_UNAVAILABLE, "key-busy", "Key is being written")
            }
            ItemError::Write(WriteFailure::NotDone(_)) => {
                (S::SERVICE_UNAVAILABLE, "not-done", "Not done")
            }
            ItemError::Write(WriteFailure::Unknown(_)) => {
                (S::GATEWAY_TIMEOUT, "outcome-unknown", "Outcome unknown")
            }
            ItemError::Write(WriteFailure::NotAvailable(_)) => {
                (S::NOT_IMPLEMENTED, "not-available", "Not available")
            }
            ItemError::Condition(_) => {
                (S::PRECONDITION_FAILED, "precondition-failed", "Precondition failed")
            }
            ItemError::Key => (S::BAD_REQUEST, "invalid-parameter", "Invalid parameter"),
            ItemError::TooLarge { .. } => (S::PAYLOAD_TOO_LARGE, "too-large", "Too large"),
            ItemError::NoMemory(_) => (S::INSUFFICIENT_STORAGE, "no-memory", "No memory"),
            ItemError::FeedOwned => (S::CONFLICT, "feed-owned", "Owned by a feed"),
        };
        problem(status, name, title, &error.to_string())
    }
}
