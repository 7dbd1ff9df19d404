//! `nautilus operations`, and verbs that begin one: a plan shown, work followed to its end.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::connect::{Connect, document};
use super::exit::{Exit, Failure};
use super::output::print;
use super::sheet::sheet;
use super::table::{Columns, list, rows_of};
use super::watch;
use crate::client::Call;

/// Long work that a control carries out
#[derive(Args, Debug)]
pub struct Operations {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Shows what there is and was
    List,
    /// Shows one
    Show {
        /// The operation
        operation_id: String,
    },
    /// Follows one to its end, through restarts of the control
    Watch {
        /// The operation
        operation_id: String,
        /// Seconds that the control may be away
        #[arg(long, value_name = "N", default_value_t = watch::PATIENCE_S)]
        patience_s: u64,
    },
    /// Turns one back: the nodes begun on become again what they were
    Abort {
        /// The operation
        operation_id: String,
        /// Ends as soon as it is on its way back
        #[arg(long)]
        no_wait: bool,
        /// Seconds that the control may be away while it is followed
        #[arg(long, value_name = "N", default_value_t = watch::PATIENCE_S)]
        patience_s: u64,
    },
}

/// Options of a verb that begins an operation.
#[derive(Args, Clone, Debug)]
pub struct Begin {
    /// Shows what would be done, and does nothing
    #[arg(long)]
    dry_run: bool,
    /// Goes on where a rule would refuse, such as an open market session
    #[arg(long)]
    force: bool,
    /// Ends as soon as it is begun
    #[arg(long, conflicts_with = "events")]
    no_wait: bool,
    /// Prints each event as a line of JSON while it is followed, as `operations watch --json` does
    #[arg(long)]
    events: bool,
    /// Seconds that the control may be away while it is followed
    #[arg(long, value_name = "N", default_value_t = watch::PATIENCE_S)]
    patience_s: u64,
}

const OPERATIONS: Columns<'_> = &[
    ("OPERATION", "/operation_id"),
    ("KIND", "/kind"),
    ("SUBJECT", "/subject"),
    ("PHASE", "/phase"),
    ("DONE", "/steps_done"),
    ("STEPS", "/steps_count"),
    ("WAITS FOR", "/waits_for"),
    ("REASON", "/reason"),
];

impl Operations {
    /// Does it.
    pub fn run(self) -> Result<Exit, Failure> {
        let connect = &self.connect;
        match self.verb {
            Verb::List => connect.perform(&Call::get("operations", &[]), |document| {
                list(rows_of(document, "operations"), OPERATIONS)
            }),
            Verb::Show { operation_id } => {
                connect.perform(&Call::get("operations/{}", &[&operation_id]), sheet)
            }
            Verb::Watch { operation_id, patience_s } => {
                let watch = watch::Watch {
                    operation_id: &operation_id,
                    patience: Duration::from_secs(patience_s),
                    wanted: "done",
                    as_lines: connect.json,
                };
                watch.follow(connect, &connect.client()?)
            }
            Verb::Abort { operation_id, no_wait, patience_s } => {
                let call = Call::post("operations/{}/abort", &[&operation_id]);
                let (dry_run, force, events) = (false, false, false);
                let begin = Begin { dry_run, force, no_wait, events, patience_s };
                begin.follow(connect, &call, "rolled_back", plan_text)
            }
        }
    }
}

impl Begin {
    /// Asks; shows the plan of a dry run, or follows what was begun.
    pub fn run(
        &self,
        connect: &Connect,
        call: Call,
        show_plan: impl Fn(&Value) -> String,
    ) -> Result<Exit, Failure> {
        self.run_with_force_in_body(connect, call.with_flag("force", self.force), show_plan)
    }

    /// Whether rules are to be passed over.
    pub fn is_forced(&self) -> bool {
        self.force
    }

    /// The same for paths that read it in their body.
    pub fn run_with_force_in_body(
        &self,
        connect: &Connect,
        call: Call,
        show_plan: impl Fn(&Value) -> String,
    ) -> Result<Exit, Failure> {
        let call = call.with_flag("dry_run", self.dry_run);
        self.follow(connect, &call, "done", show_plan)
    }

    /// Asks, and follows what was begun until it is as wanted.
    fn follow(
        &self,
        connect: &Connect,
        call: &Call,
        wanted: &'static str,
        show_plan: impl Fn(&Value) -> String,
    ) -> Result<Exit, Failure> {
        let client = connect.client()?;
        let answer = connect.ask(&client, call)?;
        let location = answer.header("location").and_then(|path| path.rsplit('/').next());
        let location = location.map(str::to_owned);
        let begun = answer.status.as_u16() == 202 && !self.dry_run;
        if !begun {
            return connect.show(&client, call, &answer, show_plan);
        }
        let said = document(&client, call, &answer)?;
        let operation_id = location.or_else(|| said["operation_id"].as_str().map(str::to_owned));
        let Some(operation_id) = operation_id.filter(|id| !id.is_empty()) else {
            let reason = "it was accepted, and the answer names no operation".into();
            return Err(client.silent(call, reason).into());
        };
        if self.no_wait {
            match connect.json {
                true => print(&answer.body),
                false => print(&operation_id),
            };
            return Ok(Exit::Done);
        }
        let watch = watch::Watch {
            operation_id: &operation_id,
            patience: Duration::from_secs(self.patience_s),
            wanted,
            as_lines: self.events,
        };
        watch.follow(connect, &client)
    }
}

/// A plan, step by step.
pub fn plan_text(document: &Value) -> String {
    const STEPS: Columns<'_> = &[
        ("STEP", "/number"),
        ("NODE", "/node_id"),
        ("ACTION", "/action"),
        ("JUDGED s", "/judge_s"),
        ("AFTER", "/after"),
    ];
    // An operation's document has steps of its own.
    if document["operation_id"].is_string() {
        return sheet(document);
    }
    let plan = if document["plan"].is_object() { &document["plan"] } else { document };
    if !plan["steps"].is_array() {
        // A dry run of what is so already.
        if let Some(text) = document["text"].as_str().filter(|_| document["plan"].is_null()) {
            return text.chars().filter(|c| !c.is_control() || *c == '\n').collect();
        }
        return sheet(document);
    }
    let mut steps: Vec<Value> = rows_of(plan, "steps").to_vec();
    steps.retain(Value::is_object);
    for (index, step) in steps.iter_mut().enumerate() {
        step["number"] = (index + 1).into();
        let judge_ms = step["judge_ms"].as_f64().filter(|ms| *ms > 0.0);
        step["judge_s"] = judge_ms.map_or(Value::Null, |ms| (ms / 1e3).into());
    }
    let plain = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
    let plan_id = plain(plan["plan_id"].as_str().unwrap_or("-"));
    if steps.is_empty() {
        return format!("plan {plan_id}: nothing has to be done\n");
    }
    let mut text = format!("plan {plan_id}, {} steps\n{}", steps.len(), list(&steps, STEPS));
    for (region, session) in document["sessions"].as_object().into_iter().flatten() {
        let said = |key: &str| plain(session[key].as_str().unwrap_or("-"));
        let (region, state, reason) = (plain(region), said("state"), said("reason"));
        text += &format!("session of {region}: {state}, {reason}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plan_is_shown_step_by_step() {
        let document = json!({"plan": {"plan_id": "ab12", "steps": [
            {"id": "a.provision", "node_id": "a", "action": "provision", "after": [], "judge_ms": 0},
            {"id": "a.judge", "node_id": "a", "action": "judge", "after": ["a.provision"],
             "judge_ms": 10_000},
        ]}});
        assert_eq!(
            plan_text(&document),
            "plan ab12, 2 steps\n\
             STEP  NODE  ACTION     JUDGED s  AFTER\n\
             1     a     provision  -         -\n\
             2     a     judge      10        a.provision\n"
        );
        let reason = "xnys is closed until 2026-11-30T14:30:00Z";
        let mut with_sessions = document.clone();
        with_sessions["sessions"]["ny4"] = json!({"state": "closed", "reason": reason});
        let line = format!("session of ny4: closed, {reason}\n");
        assert_eq!(plan_text(&with_sessions), plan_text(&document) + &line);
        let empty = json!({"plan_id": "x", "steps": []});
        assert_eq!(plan_text(&empty), "plan x: nothing has to be done\n");
        assert_eq!(plan_text(&json!({"node_id": "a"})), "node_id  a\n");
    }
}
