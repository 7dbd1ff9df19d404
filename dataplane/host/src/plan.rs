//! What `init` would change: pure, shown before anything is done.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::address::Address;
use super::judge::{Judgement, judge};
use super::knob::{Change, Kind, Stage, Want, name_of};
use super::machine::Machine;
use super::survey::Survey;
use super::table::{change_text, knob};
use super::value::{core_list_text, text, token};
use crate::tier::Tier;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Knob.
    pub knob: String,
    /// Which of its places.
    pub label: String,
    /// What is written.
    pub address: Address,
    /// How it is written down.
    pub kind: Kind,
    /// What it reads now, byte for byte.
    pub old: Vec<u8>,
    /// What is written to have that again.
    pub restore: String,
    /// What is to be written.
    pub new: String,
}

/// Something that differs and is not changed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Knob and place.
    pub name: String,
    /// Its stage.
    pub stage: Stage,
    /// What to do, or why nothing can be done.
    pub what: String,
}

/// What differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What `init` writes, in this order.
    pub steps: Vec<Step>,
    /// What it leaves to others.
    pub left: Vec<Left>,
}

impl Plan {
    /// What a tier would have changed.
    pub fn of(survey: &Survey, machine: &Machine, tier: Tier) -> Self {
        let mut plan = Self::default();
        for (knob, readings) in &survey.knobs {
            let want = knob.wanted_by(tier);
            if want == Want::Any {
                continue;
            }
            for reading in readings {
                let Judgement::Lost { set, .. } = judge(reading, want, &survey.facts) else {
                    continue;
                };
                let left = |plan: &mut Self, what: String| {
                    let name = named(knob.name, &reading.label);
                    let entry = Left { name, stage: knob.stage, what };
                    if !plan.left.contains(&entry) {
                        plan.left.push(entry);
                    }
                };
                if knob.change != Change::Write {
                    let workers = core_list_text(&survey.facts.workers);
                    left(&mut plan, change_text(knob.change).replace("{workers}", &workers));
                    continue;
                }
                let Some(new) = set else {
                    left(&mut plan, format!("this host offers none of: {}", want.text()));
                    continue;
                };
                if let Err(why) = machine.changeable(&reading.address) {
                    left(&mut plan, why);
                    continue;
                }
                let Ok(old) = reading.raw.clone() else { continue };
                match token(knob.kind, &old) {
                    Ok(restore) => plan.steps.push(Step {
                        knob: knob.name.into(),
                        label: reading.label.clone(),
                        address: reading.address.clone(),
                        kind: knob.kind,
                        old,
                        restore,
                        new,
                    }),
                    Err(why) => left(&mut plan, why),
                }
            }
        }
        plan
    }

    /// A number that another plan does not have: who was shown this one can name it. Of this program's own,
    /// and never 0.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for step in &self.steps {
            (step.address.to_string(), &step.old, &step.new, &step.restore).hash(&mut hasher);
        }
        hasher.finish().max(1)
    }

    /// Drops what is of no such stage.
    pub fn keep(&mut self, stages: &[Stage]) {
        let wanted = |name: &str| knob(name).is_some_and(|knob| stages.contains(&knob.stage));
        self.steps.retain(|step| wanted(&step.knob));
        self.left.retain(|left| stages.contains(&left.stage));
    }

    /// For people.
    pub fn to_text(&self, tier: Tier) -> String {
        let mut out = String::new();
        for step in &self.steps {
            let old = text(&step.old).unwrap_or_default();
            let name = named(&step.knob, &step.label);
            out += &format!("change   {name:<34} {} -> {}\n", shown(&old), step.new);
        }
        for Left { name, what, .. } in &self.left {
            out += &format!("left     {name:<34} {what}\n");
        }
        let (changes, left) = (self.steps.len(), self.left.len());
        out += &format!("tier {}: {changes} to change, {left} left to others\n", name_of(&tier));
        out
    }
}

/// A knob with its place.
pub fn named(knob: &str, label: &str) -> String {
    if label.is_empty() { knob.into() } else { format!("{knob} ({label})") }
}

fn shown(text: &str) -> &str {
    if text.is_empty() { "nothing" } else { text }
}
