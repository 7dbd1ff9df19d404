//! Asking a control, as an operator's program does: over TLS 1.3 with a certificate, over the socket of this
//! host, or over its loopback.
//!
//! ```text
//!   Wishes -> Where -> Transport --hyper--> control
//!                        Call ------------>
//!                        Answer <---------- bounded in time and bytes, whatever answers
//!                        Events <---------- taken up again after the last one seen
//! ```
//!
//! A connection is made for each question: whoever restarts the control in between is not noticed.

mod answer;
mod call;
mod error;
mod events;
mod target;
mod transport;

use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};

pub use answer::Answer;
pub use call::Call;
pub use error::ClientError;
pub use events::Event;
pub use target::{DEFAULT_FILE, DEFAULT_SOCKET, TIMEOUT, Target, Where, Wishes};

use events::EventReader;
use transport::Transport;

/// Longest answer. Too low: the metrics of 256 nodes do not fit; too high: a liar fills our memory.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Asks one control.
pub struct Client {
    place: Where,
    transport: Transport,
    runtime: tokio::runtime::Runtime,
}

/// What a stream of events had.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// An event.
    Event(Event),
    /// Nothing within the time.
    Quiet,
    /// The stream is over.
    Ended,
}

/// A stream of events that is open.
pub struct Events<'a> {
    client: &'a Client,
    body: Incoming,
    reader: EventReader,
    waiting: std::collections::VecDeque<Event>,
}

impl Client {
    /// Nothing is asked yet; certificates are read.
    pub fn open(place: Where) -> Result<Self, ClientError> {
        let transport = Transport::open(&place)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| ClientError::Usage(format!("no runtime: {error}")))?;
        Ok(Self { place, transport, runtime })
    }

    /// Who is asked.
    pub fn target(&self) -> &Target {
        &self.place.target
    }

    /// Asks, and waits for the whole answer.
    pub fn ask(&self, call: &Call) -> Result<Answer, ClientError> {
        let end = Instant::now() + self.place.timeout;
        self.runtime.block_on(async {
            let (head, body) = self.begin(call, end).await?.into_parts();
            let body = within(end, whole(body)).await.map_err(|reason| self.silent(call, reason))?;
            Ok(Answer { status: head.status, headers: head.headers, body })
        })
    }

    /// Opens a stream of events, behind the one with this id. A refusal comes as its answer.
    pub fn events(
        &self,
        call: &Call,
        last_id: &str,
    ) -> Result<Result<Events<'_>, Answer>, ClientError> {
        let end = Instant::now() + self.place.timeout;
        let id = (!last_id.is_empty()).then(|| last_id.to_owned());
        let call = call.clone().header("accept", Some("text/event-stream".into()));
        let call = call.header("last-event-id", id);
        let (head, body) = self.runtime.block_on(self.begin(&call, end))?.into_parts();
        let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if head.status.is_success() && kind.is_some_and(|kind| kind.starts_with("text/event-stream"))
        {
            let reader = EventReader::after(last_id.into());
            return Ok(Ok(Events { client: self, body, reader, waiting: [].into() }));
        }
        let body = self.runtime.block_on(within(end, whole(body)));
        let body = body.map_err(|reason| self.silent(&call, reason))?;
        // Without content: there is nothing behind the event that was seen last.
        if head.status.is_success() && head.status.as_u16() != 204 {
            let reason = format!("a stream of events was expected, not {}", kind.unwrap_or("this"));
            return Err(self.silent(&call, reason));
        }
        Ok(Err(Answer { status: head.status, headers: head.headers, body }))
    }

    async fn begin(
        &self,
        call: &Call,
        end: Instant,
    ) -> Result<hyper::Response<Incoming>, ClientError> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(call.target())
            .header(HOST, self.transport.host())
            .header(USER_AGENT, concat!("nautilus/", env!("CARGO_PKG_VERSION")));
        if !call.headers.iter().any(|(name, _)| *name == "accept") {
            request = request.header(ACCEPT, "application/json, application/problem+json, */*");
        }
        if let Some((kind, _)) = &call.body {
            request = request.header(CONTENT_TYPE, *kind);
        }
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        let body = call.body.as_ref().map(|(_, body)| Bytes::from(body.clone()));
        let request = request
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|error| ClientError::Usage(format!("{}: {error}", call.target())))?;
        let mut sender = self.transport.connect().await?;
        let left = end.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, sender.try_send_request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(mut error)) => match error.take_message() {
                Some(_) => Err(ClientError::Unreachable {
                    target: self.place.target.to_string(),
                    reason: in_words(error.error()),
                }),
                None => Err(self.silent(call, in_words(error.error()))),
            },
            Err(_) => Err(self.silent(call, late(self.place.timeout))),
        }
    }

    /// No answer, or none that can be read: what that means depends on what was asked.
    pub fn silent(&self, call: &Call, reason: String) -> ClientError {
        let target = self.place.target.to_string();
        match call.changes() {
            true => ClientError::OutcomeUnknown { target, reason },
            false => ClientError::NoAnswer { target, reason },
        }
    }
}

impl Events<'_> {
    /// The next event, waited for this long. An error is what is wrong with the stream.
    pub fn next(&mut self, wait: Duration) -> Result<Next, String> {
        let end = Instant::now() + wait;
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(Next::Event(event));
            }
            let left = end.saturating_duration_since(Instant::now());
            let frame = async { tokio::time::timeout(left, self.body.frame()).await };
            let frame = match self.client.runtime.block_on(frame) {
                Err(_) => return Ok(Next::Quiet),
                Ok(None) => return Ok(Next::Ended),
                Ok(Some(frame)) => frame.map_err(|error| in_words(&error))?,
            };
            let mut events = Vec::new();
            self.reader.take(frame.data_ref().map_or(&[][..], |data| data), &mut events)?;
            self.waiting.extend(events);
        }
    }

    /// The id of the last event.
    pub fn last_id(&self) -> &str {
        self.reader.last_id()
    }
}

async fn within<T>(
    end: Instant,
    what: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let left = end.saturating_duration_since(Instant::now());
    match tokio::time::timeout(left, what).await {
        Ok(result) => result,
        Err(_) => Err("the answer did not end in time".into()),
    }
}

async fn whole(mut body: Incoming) -> Result<Bytes, String> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| in_words(&error))?;
        bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(format!("the answer is longer than {} MiB", ANSWER_BYTES_MAX >> 20));
        }
    }
    Ok(bytes.into())
}

fn late(timeout: Duration) -> String {
    format!("no answer within {} s", timeout.as_secs_f64())
}

/// An error of hyper with what lies below it.
fn in_words(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut below = std::error::Error::source(error);
    while let Some(error) = below {
        text += &format!(": {error}");
        below = error.source();
    }
    text
}
