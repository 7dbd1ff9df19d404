//! `cache/{id}?key=K`: one item, read and changed.

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use nautilus_client::VALUE_BYTES_MAX;

use super::conditions::{not_so, of_change, put, tags, wrong};
use super::parameters::Parameters;
use crate::cache::command::{Condition, KEY_RULE};
use crate::cache::etag::of_version;
use crate::cache::{Item, ItemError, Items, Key, NoPlace, Place, ReadFailure, WriteFailure};
use crate::id;
use crate::problem::Problem;

/// Longest time to live: 100 years.
const TTL_MS_MAX: u64 = 100 * 365 * 86_400_000;

/// When to come again.
const RETRY_AFTER_S: u32 = 1;

/// One item that was asked for.
pub(super) struct Asked<'a> {
    pub items: &'a Items,
    pub cache_id: &'a str,
    pub parameters: &'a Parameters,
    pub headers: &'a HeaderMap,
}

impl Asked<'_> {
    fn key(&self) -> Result<Key, Problem> {
        let bytes = self.parameters.bytes("key").unwrap_or_default();
        let reason = || format!("a key has 1 to 250 bytes, not {}", bytes.len());
        Key::new(bytes).ok_or_else(|| wrong("key", &reason()))
    }

    fn place(&self) -> Result<Place, Problem> {
        Ok(self.items.place(self.cache_id, node(self.parameters)?.as_deref())?)
    }

    fn refuse(&self, names: &[&str]) -> Result<(), Problem> {
        let found = names.iter().find(|name| self.parameters.bytes(name).is_some());
        found.map_or(Ok(()), |name| Err(wrong(name, "has no meaning here")))
    }

    /// The item and what is known of it.
    pub async fn read(&self) -> Result<Response, Problem> {
        let key = self.key()?;
        let allows_suspect = match self.parameters.bytes("suspect") {
            None => false,
            Some(b"allow") => true,
            Some(_) => return Err(wrong("suspect", "allow is all it can be")),
        };
        let item = self.items.read(&self.place()?, &key).await.map_err(Problem::from)?;
        let tag = of_version(item.version);
        if let Some(tags) = tags(self.headers, header::IF_MATCH)?
            && !tags.holds(&tag)
        {
            return Err(not_so("the key has another version"));
        }
        if item.is_suspect && !allows_suspect {
            let detail = "the feed of this key has a gap, is silent, or its worker is dead: do not trade on \
                          what you have; suspect=allow gives the value all the same";
            let status = StatusCode::SERVICE_UNAVAILABLE;
            let problem = Problem::new(status, "suspect", "Suspect", detail);
            return Ok(with_facts(problem.into_response(), &item));
        }
        if let Some(tags) = tags(self.headers, header::IF_NONE_MATCH)?
            && tags.holds_weakly(&tag)
        {
            return Ok(with_facts(StatusCode::NOT_MODIFIED.into_response(), &item));
        }
        let kind = (header::CONTENT_TYPE, "application/octet-stream");
        let response = ([kind], item.bytes.clone()).into_response();
        Ok(with_facts(response, &item))
    }

    /// Stores a value.
    pub async fn store(&self, body: Body) -> Result<Response, Problem> {
        self.refuse(&["suspect"])?;
        let key = self.key()?;
        let ttl_ms = self.parameters.number("ttl_ms", 1, TTL_MS_MAX)?;
        let condition = of_change(self.headers)?;
        let place = self.place()?;
        let bytes_max = place.identity.max_value_bytes;
        let limit = (bytes_max as usize).min(VALUE_BYTES_MAX);
        let bytes = to_bytes(body, limit).await.map_err(|error| unread(&error, bytes_max))?;
        let Some(condition) = condition else {
            return Err(not_so("no version has such a tag"));
        };
        if self.parameters.flag("dry_run")? {
            self.would_hold(&place, &key, condition).await?;
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        let stored = self.items.store(&place, &key, &bytes, ttl_ms, condition).await;
        let version = stored.map_err(Problem::from)?;
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

    /// Deletes the item.
    pub async fn delete(&self) -> Result<Response, Problem> {
        let key = self.key()?;
        let condition = of_change(self.headers)?;
        if condition == Some(Condition::Absent) {
            return Err(wrong("if-none-match", "has no meaning where something is deleted"));
        }
        let place = self.place()?;
        let Some(condition) = condition else {
            return Err(not_so("no version has such a tag"));
        };
        if self.parameters.flag("dry_run")? {
            self.would_hold(&place, &key, condition).await?;
            self.items.read(&place, &key).await.map_err(Problem::from)?;
        } else {
            self.items.delete(&place, &key, condition).await.map_err(Problem::from)?;
        }
        Ok(StatusCode::NO_CONTENT.into_response())
    }

    /// Whether a change would be made at this moment.
    async fn would_hold(
        &self,
        place: &Place,
        key: &Key,
        condition: Condition,
    ) -> Result<(), Problem> {
        let version = match self.items.read(place, key).await {
            Ok(item) => Some(item.version),
            Err(ItemError::Read(ReadFailure::Miss)) => None,
            Err(error) => return Err(error.into()),
        };
        match (condition, version) {
            (Condition::Absent, Some(_)) => Err(not_so("the key is there")),
            (Condition::Present | Condition::Version(_), None) => {
                Err(not_so("the key is not there"))
            }
            (Condition::Version(wanted), Some(found)) if wanted != found => {
                Err(not_so("the key has another version"))
            }
            _ => Ok(()),
        }
    }
}

/// The parameter `node`.
pub(super) fn node(parameters: &Parameters) -> Result<Option<String>, Problem> {
    let Some(bytes) = parameters.bytes("node") else { return Ok(None) };
    let id = std::str::from_utf8(bytes).ok().filter(|id| id::is_valid(id));
    id.map(|id| Some(id.to_owned())).ok_or_else(|| wrong("node", id::RULE))
}

fn unread(error: &axum::Error, bytes_max: u32) -> Problem {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        if error.is::<http_body_util::LengthLimitError>() {
            let detail = format!("the cache takes values of at most {bytes_max} bytes");
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            return Problem::new(status, "too-large", "Content too large", detail);
        }
        source = error.source();
    }
    wrong("", &error.to_string())
}

fn with_facts(mut response: Response, item: &Item) -> Response {
    let mut say = |name, value: &str| put(&mut response, name, value);
    say(header::ETAG, &of_version(item.version));
    say(HeaderName::from_static("age-us"), &item.age_us.to_string());
    if let Some(expires_ms) = item.expires_ms {
        say(HeaderName::from_static("expires-ms"), &expires_ms.to_string());
    }
    if let Some(sequence) = item.source_sequence {
        say(HeaderName::from_static("source-sequence"), &sequence.to_string());
    }
    say(HeaderName::from_static("suspect"), &item.is_suspect.to_string());
    // Whoever keeps it would have a stale copy.
    say(header::CACHE_CONTROL, "no-store");
    response
}

impl From<NoPlace> for Problem {
    fn from(error: NoPlace) -> Self {
        let (status, name, title) = match &error {
            NoPlace::Absent { .. } => (StatusCode::NOT_FOUND, "cache-not-found", "Cache not found"),
            NoPlace::NoNode(_) => (StatusCode::NOT_FOUND, "node-not-found", "Node not found"),
            NoPlace::Several(_) => {
                (StatusCode::CONFLICT, "ambiguous-cache", "Several caches of this id")
            }
        };
        Self::new(status, name, title, error.to_string())
    }
}

impl From<ItemError> for Problem {
    fn from(error: ItemError) -> Self {
        use StatusCode as S;
        let (status, name, title) = match &error {
            ItemError::Place(place) => return place.clone().into(),
            ItemError::Condition(detail) => return not_so(detail),
            ItemError::Key => return wrong("key", KEY_RULE),
            ItemError::Read(ReadFailure::NoCache) | ItemError::Write(WriteFailure::NoCache) => {
                (S::NOT_FOUND, "cache-not-found", "Cache not found")
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
            ItemError::TooLarge { .. } => (S::PAYLOAD_TOO_LARGE, "too-large", "Content too large"),
            ItemError::NoMemory(_) => (S::INSUFFICIENT_STORAGE, "no-memory", "No memory"),
            ItemError::FeedOwned => (S::CONFLICT, "feed-owned", "Owned by a feed"),
        };
        let problem = Self::new(status, name, title, error.to_string());
        match status {
            S::SERVICE_UNAVAILABLE => problem.retry_after(RETRY_AFTER_S),
            _ => problem,
        }
    }
}
