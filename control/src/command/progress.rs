//! How far an operation is, from its document and its events, and showing it: a bar on a terminal, elsewhere
//! a line whenever something changes.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::output::note;
use crate::client::Event;

/// What is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// `forward`, `rolling_back`, or how it ended.
    pub phase: String,
    /// Why it does not go forward; empty otherwise.
    pub reason: String,
    /// Whether nothing more happens.
    pub is_over: bool,
    done: u64,
    count: u64,
    /// The step that was last heard of.
    step: String,
}

impl Progress {
    /// Of an operation's document.
    pub fn of(document: &Value) -> Self {
        let number = |name: &str| document[name].as_u64().unwrap_or(0);
        Self {
            phase: text(document, "phase"),
            reason: text(document, "reason"),
            is_over: document["is_over"].as_bool().unwrap_or(false),
            done: number("steps_done"),
            count: number("steps_count"),
            step: String::new(),
        }
    }

    /// Takes an event in.
    pub fn hear(&mut self, event: &Event) {
        let document: Value = serde_json::from_str(&event.data).unwrap_or_default();
        match event.name.as_str() {
            "operation" => *self = Self::of(&document),
            "phase" => {
                self.phase = text(&document, "phase");
                self.reason = text(&document, "reason");
            }
            "step" => {
                let goes_forward = document["is_rollback"] != true;
                let state = text(&document, "state");
                if goes_forward && state == "done" {
                    self.done = (self.done + 1).min(self.count.max(self.done));
                }
                let (node_id, action) = (text(&document, "node_id"), text(&document, "action"));
                let back = if goes_forward { "" } else { " back" };
                let reason = match text(&document, "reason").as_str() {
                    "" => String::new(),
                    reason => format!(": {reason}"),
                };
                self.step = format!("{node_id} {action}{back} {state}{reason}");
            }
            _ => {}
        }
    }

    /// In one line.
    fn line(&self) -> String {
        let reason = match self.reason.as_str() {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        let step = if self.step.is_empty() { String::new() } else { format!(", {}", self.step) };
        format!("{} {}/{} steps{step}{reason}", self.phase, self.done, self.count)
    }
}

fn text(document: &Value, name: &str) -> String {
    let text = document[name].as_str().unwrap_or_default();
    text.chars().filter(|c| !c.is_control()).collect()
}

/// Where it is shown.
pub struct Display {
    bar: Option<ProgressBar>,
    last: String,
    is_silent: bool,
}

impl Display {
    /// On standard error, so that standard output has documents alone; nowhere if `is_silent`.
    pub fn new(operation_id: &str, is_silent: bool) -> Self {
        let is_terminal = std::io::stderr().is_terminal() && !is_silent;
        let bar = is_terminal.then(|| {
            let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{prefix} [{bar:24}] {pos}/{len} {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(operation_id.to_owned());
            bar
        });
        Self { bar, last: String::new(), is_silent }
    }

    /// Shows how far it is.
    pub fn show(&mut self, progress: &Progress) {
        if let Some(bar) = &self.bar {
            bar.set_length(progress.count.max(1));
            bar.set_position(progress.done.min(progress.count));
        }
        self.say(progress.line());
    }

    /// Says something else about it, once.
    pub fn say(&mut self, line: String) {
        if line == self.last || self.is_silent {
            return;
        }
        match &self.bar {
            Some(bar) => bar.set_message(line.clone()),
            None => note(&line),
        }
        self.last = line;
    }

    /// Takes the bar away.
    pub fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_move_it_on() {
        let document = json!({"phase": "forward", "is_over": false, "steps_done": 1, "steps_count": 3});
        let mut progress = Progress::of(&document);
        assert_eq!(progress.line(), "forward 1/3 steps");
        let mut hear = |name: &str, data: Value| {
            progress.hear(&Event { name: name.into(), data: data.to_string() });
            (progress.line(), progress.is_over)
        };
        let step = json!({"node_id": "a", "action": "warm", "is_rollback": false, "state": "started"});
        assert_eq!(hear("step", step).0, "forward 1/3 steps, a warm started");
        let step = json!({"node_id": "a", "action": "warm", "is_rollback": false, "state": "done"});
        assert_eq!(hear("step", step).0, "forward 2/3 steps, a warm done");
        let phase = json!({"phase": "rolling_back", "reason": "a.judge: late"});
        assert_eq!(hear("phase", phase).0, "rolling_back 2/3 steps, a warm done: a.judge: late");
        let step = json!({"node_id": "a", "action": "drain", "is_rollback": true, "state": "done"});
        assert_eq!(hear("step", step).0, "rolling_back 2/3 steps, a drain back done: a.judge: late");
        let end = json!({"phase": "rolled_back", "is_over": true, "steps_count": 3, "reason": "late"});
        assert_eq!(hear("operation", end), ("rolled_back 0/3 steps: late".into(), true));
        // What nobody knows, or is no document, moves nothing.
        assert!(hear("new", json!([])).1);
        assert!(hear("step", json!("\u{1b}")).1);
    }
}
