//! Following an operation: its events as they come, its document when it is over. A control that is started
//! anew meanwhile is waited for and asked again, behind the last event seen.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::connect::{Connect, document};
use super::exit::{Exit, Failure};
use super::output::print;
use super::progress::{Display, Progress};
use super::sheet::sheet;
use crate::client::{Call, Client, ClientError, Next};

/// Seconds a control may be away unless said. Too low: an upgrade looks like a failure; too high: a script
/// hangs on a control that does not come back.
pub const PATIENCE_S: u64 = 300;

/// Between two looks at a control that is away.
const PAUSE: Duration = Duration::from_millis(500);

/// A stream that says nothing for so long is asked for what it may have missed.
const QUIET: Duration = Duration::from_secs(5);

/// What is followed, and how.
pub struct Watch<'a> {
    /// The operation.
    pub operation_id: &'a str,
    /// How long the control may be away.
    pub patience: Duration,
    /// The phase in which it is to end.
    pub wanted: &'static str,
    /// Each event goes to stdout as it came, a line each, and nothing else.
    pub as_lines: bool,
}

impl Watch<'_> {
    /// Follows it to its end.
    pub fn follow(&self, connect: &Connect, client: &Client) -> Result<Exit, Failure> {
        let mut display = Display::new(self.operation_id, self.as_lines);
        let result = self.until_over(connect, client, &mut display);
        display.end();
        let (document, bytes) = result?;
        let progress = Progress::of(&document);
        match (self.as_lines, connect.json) {
            (true, _) => {}
            (false, true) => {
                print(bytes);
            }
            (false, false) => {
                print(sheet(&without_lists(document)));
            }
        }
        // Nobody reads on: it is not over, and nothing is said about it.
        if !progress.is_over || progress.phase == self.wanted {
            return Ok(Exit::Done);
        }
        let reason = if progress.reason.is_empty() { "" } else { ": " };
        let text = format!("{} {}{reason}{}", self.operation_id, progress.phase, progress.reason);
        Err(Failure::new(Exit::SaidNo, text))
    }

    fn until_over(
        &self,
        connect: &Connect,
        client: &Client,
        display: &mut Display,
    ) -> Result<(Value, hyper::body::Bytes), Failure> {
        let look = Call::get("operations/{}", &[self.operation_id]);
        let stream = Call::get("operations/{}/events", &[self.operation_id]);
        let mut last_id = String::new();
        let mut heard_at = Instant::now();
        let mut was_over = false;
        loop {
            // What it is now, then what comes: nothing in between is missed, since the stream goes on
            // behind the last event seen.
            match client.ask(&look) {
                Ok(answer) if answer.status.is_success() => {
                    heard_at = Instant::now();
                    let document = document(client, &look, &answer)?;
                    let mut progress = Progress::of(&document);
                    display.show(&progress);
                    if progress.is_over && !self.as_lines {
                        return Ok((document, answer.body));
                    }
                    let over = progress.is_over;
                    let asked = Instant::now();
                    let heard =
                        self.read_events(client, &stream, &mut last_id, &mut progress, display)?;
                    let ends = self.as_lines && heard == Heard::Over;
                    if heard == Heard::Closed || (over && heard != Heard::Some) || ends {
                        // What the stream ended with is what counts.
                        return self.last_look(client, &look, document, answer.body);
                    }
                    // A stream that ends again and again is not asked for without a pause; only its end
                    // is looked at once at once.
                    if heard != Heard::Over || was_over {
                        std::thread::sleep(PAUSE.saturating_sub(asked.elapsed()));
                    }
                    was_over = heard == Heard::Over;
                }
                // It is being started, or is full.
                Ok(answer) if answer.status.as_u16() == 503 => self.away(heard_at, display)?,
                Ok(answer) => return Err(Failure::refused(&answer, false, connect.json)),
                Err(ClientError::Unreachable { .. } | ClientError::NoAnswer { .. }) => {
                    self.away(heard_at, display)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn last_look(
        &self,
        client: &Client,
        look: &Call,
        document: Value,
        body: hyper::body::Bytes,
    ) -> Result<(Value, hyper::body::Bytes), Failure> {
        let Ok(answer) = client.ask(look) else { return Ok((document, body)) };
        match answer.document() {
            Ok(now) if answer.status.is_success() => Ok((now, answer.body)),
            _ => Ok((document, body)),
        }
    }

    /// Waits for a control that is away, unless it has been for too long.
    fn away(&self, heard_at: Instant, display: &mut Display) -> Result<(), Failure> {
        let id = self.operation_id;
        if heard_at.elapsed() >= self.patience {
            let text = format!(
                "{id}: the control has been away for {} s; the operation goes on when it is back \
                 (`nautilus operations watch {id}`)",
                self.patience.as_secs()
            );
            return Err(Failure::new(Exit::OutcomeUnknown, text));
        }
        display.say("the control is away; waiting for it".into());
        std::thread::sleep(PAUSE);
        Ok(())
    }

    /// Shows events until the stream ends, is quiet, or says that it is over.
    fn read_events(
        &self,
        client: &Client,
        call: &Call,
        last_id: &mut String,
        progress: &mut Progress,
        display: &mut Display,
    ) -> Result<Heard, Failure> {
        let mut events = match client.events(call, last_id) {
            Ok(Ok(events)) => events,
            // Without a stream the document is looked at again and again.
            Ok(Err(_)) | Err(ClientError::Unreachable { .. } | ClientError::NoAnswer { .. }) => {
                return Ok(Heard::Nothing);
            }
            Err(error) => return Err(error.into()),
        };
        let mut heard = Heard::Nothing;
        loop {
            match events.next(QUIET) {
                Ok(Next::Event(event)) => {
                    heard = Heard::Some;
                    *last_id = events.last_id().to_owned();
                    if self.as_lines && !print(&event.data) {
                        return Ok(Heard::Closed);
                    }
                    progress.hear(&event);
                    display.show(progress);
                    if progress.is_over {
                        return Ok(Heard::Over);
                    }
                }
                Ok(Next::Quiet | Next::Ended) | Err(_) => return Ok(heard),
            }
        }
    }
}

/// What a stream of events had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Nothing,
    Some,
    /// The operation is over.
    Over,
    /// Nobody reads our lines any more.
    Closed,
}

/// The document without its lists: the steps were shown while they were done.
fn without_lists(mut document: Value) -> Value {
    if let Some(object) = document.as_object_mut() {
        object.retain(|key, value| !value.is_array() && key != "plan");
    }
    document
}
