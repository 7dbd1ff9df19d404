//! Following an operation: its events as they come, its document when it is over. A control that is started
//! anew meanwhile is waited for and asked again, behind the last event seen.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::connect::{Connect, document};
use super::exit::{Exit, Failure};
use super::output::{note, print};
use super::sheet::sheet;
use crate::client::{Call, Client, ClientError, Next};

/// Seconds a control may be away unless said. Too low: an upgrade looks like a failure; too high: a script
/// hangs on a control that does not come back.
pub const PATIENCE_S: u64 = 300;

/// Between two looks at a control that is away.
const PAUSE: Duration = Duration::from_millis(500);

/// A stream that says nothing for so long is asked for what it may have missed.
const QUIET: Duration = Duration::from_secs(5);

/// Where an operation is, as far as it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Progress {
    state: String,
    reason: String,
    done: u64,
    total: u64,
}

/// How an operation stands to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    NotYet,
    Done,
    NotDone,
}

impl Progress {
    fn of(document: &Value) -> Self {
        let text = |names: [&str; 2]| {
            let found = names.iter().find_map(|name| document[name].as_str());
            found.unwrap_or_default().chars().filter(|c| !c.is_control()).collect()
        };
        let number = |name: &str| document[name].as_u64().unwrap_or(0);
        Self {
            state: text(["state", "phase"]),
            reason: text(["reason", "detail"]),
            done: number("steps_done"),
            total: number("steps_total"),
        }
    }

    fn end(&self) -> End {
        match self.state.as_str() {
            "done" | "succeeded" => End::Done,
            "failed" | "aborted" | "rolled_back" | "rollback_incomplete" => End::NotDone,
            _ => End::NotYet,
        }
    }
}

/// Shows how far it is: a bar on a terminal, else a line whenever something changes.
struct Display {
    bar: Option<ProgressBar>,
    last: String,
    is_silent: bool,
}

impl Display {
    fn new(operation_id: &str, is_silent: bool) -> Self {
        let is_terminal = std::io::stderr().is_terminal() && !is_silent;
        let bar = is_terminal.then(|| {
            let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(operation_id.to_owned());
            bar
        });
        Self { bar, last: String::new(), is_silent }
    }

    fn show(&mut self, progress: &Progress) {
        if let Some(bar) = &self.bar {
            bar.set_length(progress.total.max(1));
            bar.set_position(progress.done.min(progress.total));
        }
        let reason = match progress.reason.as_str() {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        let steps = match progress.total {
            0 => String::new(),
            total => format!(" {}/{total} steps", progress.done),
        };
        self.line(format!("{}{steps}{reason}", progress.state));
    }

    fn line(&mut self, text: String) {
        if text == self.last || text.is_empty() || self.is_silent {
            return;
        }
        match &self.bar {
            Some(bar) => bar.set_message(text.clone()),
            None => note(&text),
        }
        self.last = text;
    }

    fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Follows it to its end. `as_lines`: each event goes to stdout as it came, a line each.
pub fn follow(
    connect: &Connect,
    client: &Client,
    operation_id: &str,
    patience_s: u64,
    as_lines: bool,
) -> Result<Exit, Failure> {
    let mut display = Display::new(operation_id, as_lines);
    let patience = Duration::from_secs(patience_s);
    let result = until_over(connect, client, operation_id, patience, as_lines, &mut display);
    display.end();
    let document = result?;
    let progress = Progress::of(&document.0);
    if connect.json && !as_lines {
        print(document.1);
    } else if !as_lines {
        print(sheet(&without_lists(document.0)));
    }
    match progress.end() {
        End::NotDone => {
            let reason =
                if progress.reason.is_empty() { "no reason was given" } else { &progress.reason };
            Err(Failure::new(Exit::SaidNo, format!("{operation_id} {}: {reason}", progress.state)))
        }
        _ => Ok(Exit::Done),
    }
}

type Whole = (Value, hyper::body::Bytes);

fn until_over(
    connect: &Connect,
    client: &Client,
    operation_id: &str,
    patience: Duration,
    as_lines: bool,
    display: &mut Display,
) -> Result<Whole, Failure> {
    let look = Call::get("operations/{}", &[operation_id]);
    let stream = Call::get("operations/{}/events", &[operation_id]);
    let mut last_id = String::new();
    let mut heard = Instant::now();
    let mut was_over = false;
    loop {
        // What it is now, then what comes: nothing in between is missed, since the stream goes on behind
        // the last event seen.
        match client.ask(&look) {
            Ok(answer) if answer.status.is_success() => {
                heard = Instant::now();
                let document = document(client, &look, &answer)?;
                let progress = Progress::of(&document);
                display.show(&progress);
                if progress.end() != End::NotYet && !as_lines {
                    return Ok((document, answer.body));
                }
                let over = progress.end() != End::NotYet;
                let asked = Instant::now();
                let heard = read_events(client, &stream, &mut last_id, as_lines, display)?;
                if heard == Heard::Closed || (over && heard != Heard::Some) {
                    return Ok((document, answer.body));
                }
                // Whatever the stream does, it is not asked for without a pause; only its end is looked at
                // once at once.
                if heard != Heard::Over || was_over {
                    std::thread::sleep(PAUSE.saturating_sub(asked.elapsed()));
                }
                was_over = heard == Heard::Over;
            }
            // It is being started, or is full; what is not there is no longer there.
            Ok(answer) if answer.status.as_u16() == 503 => {
                away(operation_id, heard, patience, display)?
            }
            Ok(answer) => return Err(Failure::refused(&answer, false, connect.json)),
            Err(ClientError::Unreachable { .. } | ClientError::NoAnswer { .. }) => {
                away(operation_id, heard, patience, display)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits for a control that is away, unless it has been for too long.
fn away(
    operation_id: &str,
    heard: Instant,
    patience: Duration,
    display: &mut Display,
) -> Result<(), Failure> {
    if heard.elapsed() >= patience {
        let text = format!(
            "{operation_id}: the control has been away for {} s; the operation goes on when it is back \
             (`nautilus operations watch {operation_id}`)",
            patience.as_secs()
        );
        return Err(Failure::new(Exit::OutcomeUnknown, text));
    }
    display.line("the control is away; waiting for it".into());
    std::thread::sleep(PAUSE);
    Ok(())
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

/// Shows events until the stream ends, is quiet, or says that it is over.
fn read_events(
    client: &Client,
    call: &Call,
    last_id: &mut String,
    as_lines: bool,
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
                if as_lines && !print(&event.data) {
                    return Ok(Heard::Closed);
                }
                let document = serde_json::from_str(&event.data).unwrap_or(Value::Null);
                let progress = Progress::of(&document);
                display.show(&progress);
                if progress.end() != End::NotYet {
                    return Ok(Heard::Over);
                }
            }
            Ok(Next::Quiet | Next::Ended) | Err(_) => return Ok(heard),
        }
    }
}

/// The document without its lists: the steps were shown while they were done.
fn without_lists(mut document: Value) -> Value {
    if let Some(object) = document.as_object_mut() {
        object.retain(|key, value| !value.is_array() && key != "plan");
    }
    document
}
