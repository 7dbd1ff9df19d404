//! What a deployment spends its time with: its steps by their events, each stamped when it was read.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Steps that have ended.
#[derive(Clone, Debug, Default)]
pub struct Steps {
    /// By step and direction.
    begun: BTreeMap<(String, bool), Instant>,
    /// By direction and action, in the order in which the first of them ended.
    took: Vec<(String, Vec<Duration>)>,
}

impl Steps {
    /// Takes an event in; those that are about no step change nothing.
    pub fn hear(&mut self, event: &Value) {
        let (Some(step), Some(action)) = (event["step"].as_str(), event["action"].as_str()) else {
            return;
        };
        let is_back = event["is_rollback"] == true;
        let key = (step.to_owned(), is_back);
        if event["state"] == "started" {
            self.begun.insert(key, Instant::now());
            return;
        }
        let Some(begun) = self.begun.remove(&key) else { return };
        let name = if is_back { format!("{action} back") } else { action.to_owned() };
        let place = match self.took.iter().position(|(known, _)| *known == name) {
            Some(place) => place,
            None => {
                self.took.push((name, Vec::new()));
                self.took.len() - 1
            }
        };
        self.took[place].1.push(begun.elapsed());
    }
}

/// Mean and longest of each, in milliseconds.
impl fmt::Display for Steps {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, took)) in self.took.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            let mean_ms = took.iter().sum::<Duration>().as_millis() / took.len().max(1) as u128;
            let longest_ms = took.iter().max().map_or(0, Duration::as_millis);
            write!(formatter, "{separator}{name} {mean_ms} (to {longest_ms})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_step_takes_from_its_beginning_to_its_end_each_way() {
        let mut steps = Steps::default();
        let mut hear = |action: &str, state: &str, is_rollback: bool| {
            let step = format!("a.{action}");
            let event = json!({"step": step, "action": action, "state": state,
                "is_rollback": is_rollback, "node_id": "a"});
            steps.hear(&event);
        };
        hear("tune", "started", false);
        hear("tune", "failed", false);
        hear("tune", "started", true);
        hear("tune", "done", true);
        // Its beginning was not heard.
        hear("warm", "done", false);
        steps.hear(&json!({"phase": "rolling_back"}));
        let names: Vec<&str> = steps.took.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["tune", "tune back"]);
        assert!(steps.to_string().starts_with("tune 0 (to 0), tune back 0"), "{steps}");
    }
}
