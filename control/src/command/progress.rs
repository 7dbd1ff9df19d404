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
    pub state: String,
    /// Why it does not go forward; empty otherwise.
    pub reason: String,
    /// Whether nothing more happens.
    pub is_over: bool,
    done: u64,
    total: u64,
    /// The step that was last heard of.
    step: String,
}

impl Progress {
    /// Of an operation's document.
    pub fn of(document: &Value) -> Self {
        let number = |name: &str| document[name].as_u64().unwrap_or(0);
        Self {
            state: text(document, "state"),
            reason: [text(document, "reason"), text(document, "waits_for")].concat(),
            is_over: document["is_over"].as_bool().unwrap_or(false),
            done: number("steps_done"),
            total: number("steps_total"),
            step: step_text(&document["step"]),
        }
    }

    /// Takes an event in: each has all but the steps, and the step that it is about.
    pub fn hear(&mut self, event: &Event) {
        let document: Value = serde_json::from_str(&event.data).unwrap_or_default();
        if document["state"].is_string() {
            *self = Self::of(&document);
        }
    }

    /// In one line.
    fn line(&self) -> String {
        let reason = match self.reason.as_str() {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        let step = if self.step.is_empty() { String::new() } else { format!(", {}", self.step) };
        format!("{} {}/{} steps{step}{reason}", self.state, self.done, self.total)
    }
}

/// A step in words; empty where there is none.
fn step_text(step: &Value) -> String {
    if !step.is_object() {
        return String::new();
    }
    let (node_id, action) = (text(step, "node_id"), text(step, "action"));
    let back = if step["is_rollback"] == true { " back" } else { "" };
    let reason = match text(step, "reason").as_str() {
        "" => String::new(),
        reason => format!(": {reason}"),
    };
    format!("{node_id} {action}{back} {}{reason}", text(step, "state"))
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
            bar.set_length(progress.total.max(1));
            bar.set_position(progress.done.min(progress.total));
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
        let summary = |state: &str, done: u64, step: Value| {
            json!({
                "operation_id": "op-1", "state": state, "is_over": false, "reason": "", "waits_for": "",
                "steps_done": done, "steps_total": 3, "step": step,
            })
        };
        let mut progress = Progress::of(&summary("forward", 1, Value::Null));
        assert_eq!(progress.line(), "forward 1/3 steps");
        let mut hear = |name: &str, data: Value| {
            progress.hear(&Event { name: name.into(), data: data.to_string() });
            (progress.line(), progress.is_over)
        };
        let step = json!({"node_id": "a", "action": "warm", "is_rollback": false, "state": "done"});
        let line = hear("step", summary("forward", 2, step)).0;
        assert_eq!(line, "forward 2/3 steps, a warm done");
        let mut phase = summary("rolling_back", 2, Value::Null);
        phase["reason"] = "a.judge: late\u{1b}".into();
        assert_eq!(hear("phase", phase).0, "rolling_back 2/3 steps: a.judge: late");
        let step = json!({"node_id": "a", "action": "drain", "is_rollback": true, "state": "failed",
                          "reason": "no"});
        let line = hear("step", summary("rolling_back", 2, step)).0;
        assert_eq!(line, "rolling_back 2/3 steps, a drain back failed: no");
        let mut end = summary("rolled_back", 2, Value::Null);
        end["is_over"] = true.into();
        assert_eq!(hear("operation", end), ("rolled_back 2/3 steps".into(), true));
        // What nobody knows, or is no document, moves nothing.
        assert!(hear("new", json!([])).1);
        assert!(hear("step", json!("\u{1b}")).1);
    }
}
