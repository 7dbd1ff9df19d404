//! `operations/{operation_id}/events`: every change of an operation, as it happens (server-sent events).
//!
//! | event | data | when |
//! | --- | --- | --- |
//! | `operation` | its document | first, where no id says what was seen; and last, when it is over |
//! | `step` | one step | it begins, is done or fails |
//! | `phase` | phase and reason | it turns back, or its plan ends |
//!
//! Ids are revisions of the store: a client that comes again with `Last-Event-ID` misses nothing. Where one
//! revision has several events the last of them has the id. Once the last event was seen, 204 tells a browser
//! not to come again.

use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use utoipa::ToSchema;

use super::Managers;
use super::deployments::{blocking, required};
use super::operations::OperationDocument;
use super::path::Id;
use crate::deploy::Operation;
use crate::deploy::runner::Deployments;
use crate::problem::Problem;
use crate::store::{Change, Changes, KeyValue, Revision, Store, Watched};

/// Streams at a time, each of which has a thread wait. Too low: dashboards are turned away; too high: the
/// threads are missing elsewhere.
pub const STREAMS_MAX: usize = 64;

/// How soon a stream whose client is gone is found.
const LOOK: Duration = Duration::from_millis(250);

/// One event of the stream.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "it stands for what is streamed in the document alone")]
pub struct SentEvent {
    /// `operation`, `step` or `phase`.
    event: String,
    /// Where to go on; absent where more of one revision follows.
    id: Option<String>,
    /// JSON.
    data: String,
}

static STREAMS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(STREAMS_MAX)));

/// Every change of an operation as it happens, to its end
#[utoipa::path(
    get, path = "/api/v1/edge/operations/{operation_id}/events", tag = "operations",
    params(
        ("operation_id" = String, Path, description = "An operation"),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event seen"),
    ),
    responses(
        (status = 200, description = "Events as they happen", body = SentEvent,
         content_type = "text/event-stream"),
        (status = 204, description = "It is over, and its last event was seen"),
        (status = 404, description = "`operation-not-found`", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(super) async fn events(
    State(managers): State<Managers>,
    headers: HeaderMap,
    Id(id): Id,
) -> Result<Response, Problem> {
    let deployments = required(&managers)?;
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let Ok(place) = Arc::clone(&STREAMS).try_acquire_owned() else {
        let detail = format!("{STREAMS_MAX} streams are open");
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return Err(Problem::new(status, "overloaded", "Overloaded", detail).retry_after(5));
    };
    let source = {
        let deployments = Arc::clone(&deployments);
        blocking(move || Source::open(&id, seen, deployments)).await?
    };
    let Some(source) = source else { return Ok(StatusCode::NO_CONTENT.into_response()) };
    // The client's pace is the stream's: nothing is read ahead of it but this.
    let (sender, receiver) = mpsc::channel(32);
    std::thread::Builder::new()
        .name("events".into())
        .spawn(move || source.run(&sender, place))
        .map_err(|error| {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            Problem::new(status, "overloaded", "Overloaded", error.to_string()).retry_after(5)
        })?;
    let alive = KeepAlive::new().interval(Duration::from_secs(10));
    Ok(Sse::new(Stream(receiver)).keep_alive(alive).into_response())
}

struct Stream(mpsc::Receiver<Event>);

impl futures_core::Stream for Stream {
    type Item = Result<Event, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|event| event.map(Ok))
    }
}

/// Where events come from.
struct Source {
    id: String,
    deployments: Arc<Deployments>,
    store: Arc<dyn Store>,
    /// Whether the first event is the whole document.
    is_whole: bool,
    from: Revision,
}

/// The client is gone, or the last event was sent.
struct Ended;

impl Source {
    /// None where the last event was seen.
    fn open(
        id: &str,
        seen: Option<u64>,
        deployments: Arc<Deployments>,
    ) -> Result<Option<Self>, Problem> {
        let store = deployments.store();
        let key = Operation::key(id);
        // Read before the document: what happens in between comes twice rather than never.
        let revision = store.list(&key)?.revision;
        OperationDocument::find(id, &deployments)?;
        let entry = store.get(&key)?;
        let is_over = entry.as_ref().and_then(ended).is_some();
        let modified = entry.map_or(Revision(0), |entry| entry.modify_revision);
        let seen = seen.map(Revision).filter(|seen| *seen <= revision);
        if is_over && seen.is_some_and(|seen| seen >= modified) {
            return Ok(None);
        }
        let (is_whole, from) = match seen {
            Some(seen) => (false, seen),
            None => (true, if is_over { modified } else { revision }),
        };
        Ok(Some(Self { id: id.into(), deployments, store, is_whole, from }))
    }

    fn run(mut self, sender: &mpsc::Sender<Event>, _place: OwnedSemaphorePermit) {
        while !sender.is_closed() {
            match self.watch(sender) {
                Ok(()) => {}
                Err(None) => return,
                // It is said by what is answered to everything else; here it is waited for.
                Err(Some(_)) => std::thread::sleep(LOOK),
            }
        }
    }

    /// Follows the store until it loses the thread; then the whole document comes first again.
    fn watch(&mut self, sender: &mpsc::Sender<Event>) -> Result<(), Option<Problem>> {
        if self.is_whole {
            self.whole(sender)?;
            self.is_whole = false;
        }
        let watch = self.store.watch("deploy/", self.from.next());
        let mut watch = watch.map_err(|error| Some(error.into()))?;
        loop {
            match watch.next(LOOK).map_err(|error| Some(error.into()))? {
                Watched::Changes(changes) => {
                    self.from = changes.revision;
                    self.changes(&changes, sender).map_err(|Ended| None)?;
                }
                Watched::Idle if sender.is_closed() => return Err(None),
                Watched::Idle => {}
                Watched::Compacted { .. } => {
                    let key = Operation::key(&self.id);
                    let listing = self.store.list(&key).map_err(|error| Some(error.into()))?;
                    (self.is_whole, self.from) = (true, listing.revision);
                    return Ok(());
                }
            }
        }
    }

    /// The document as it is; the end of the stream where it is over.
    fn whole(&self, sender: &mpsc::Sender<Event>) -> Result<(), Option<Problem>> {
        let document = OperationDocument::find(&self.id, &self.deployments).map_err(Some)?;
        let is_over = document.summary.is_over;
        let event = event("operation", &json!(document)).id(self.from.0.to_string());
        send(sender, event).map_err(|Ended| None)?;
        if is_over { Err(None) } else { Ok(()) }
    }

    fn changes(&self, changes: &Changes, sender: &mpsc::Sender<Event>) -> Result<(), Ended> {
        let own = Operation::key(&self.id);
        let mut events = Vec::new();
        let mut is_over = false;
        for change in &changes.changes {
            let Change::Put(entry) = change else { continue };
            if entry.key == own && ended(entry).is_some() {
                let Ok(document) = OperationDocument::find(&self.id, &self.deployments) else {
                    continue;
                };
                events.push(event("operation", &json!(document)));
                is_over = true;
            } else if let Some(data) = step(entry) {
                events.push(event("step", &data));
            } else if entry.key == "deploy/phase"
                && let Ok(phase) = serde_json::from_slice::<Value>(&entry.value)
            {
                events.push(event("phase", &phase));
            }
        }
        let last = events.len().saturating_sub(1);
        for (index, event) in events.into_iter().enumerate() {
            let id = changes.revision.0.to_string();
            send(sender, if index == last { event.id(id) } else { event })?;
        }
        if is_over { Err(Ended) } else { Ok(()) }
    }
}

fn ended(entry: &KeyValue) -> Option<Operation> {
    let operation: Operation = serde_json::from_slice(&entry.value).ok()?;
    operation.end.is_some().then_some(operation)
}

/// A step's record as an event.
fn step(entry: &KeyValue) -> Option<Value> {
    let rest = entry.key.strip_prefix("deploy/steps/")?;
    let (direction, step) = rest.split_once('/')?;
    let record: Value = serde_json::from_slice(&entry.value).ok()?;
    let (node_id, action) = step.rsplit_once('.')?;
    Some(json!({
        "step": step,
        "node_id": node_id,
        "action": action,
        "is_rollback": direction == "back",
        "state": record["state"],
        "reason": record["reason"],
    }))
}

fn event(name: &str, data: &Value) -> Event {
    Event::default().event(name).data(data.to_string())
}

fn send(sender: &mpsc::Sender<Event>, event: Event) -> Result<(), Ended> {
    sender.blocking_send(event).map_err(|_| Ended)
}
