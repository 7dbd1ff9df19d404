//! One look at a machine: every knob read once, and timed.

use std::time::{Duration, Instant};

use super::facts::{Choice, Facts};
use super::judge::{Judgement, judge};
use super::knob::{Knob, Want};
use super::machine::Machine;
use super::promises::{self, Finding};
use super::reading::{self, Reading};
use super::table;
use super::value::core_list_text;
use crate::tier::Tier;

/// The knob that [`Choice::allowed`] answers.
const CORES_ALLOWED: &str = "cores_allowed";

/// What was read.
#[derive(Debug)]
pub struct Survey {
    /// What is there.
    pub facts: Facts,
    /// What must hold before anything else.
    pub promises: Vec<Finding>,
    /// Every knob with its places.
    pub knobs: Vec<(&'static Knob, Vec<Reading>)>,
    /// How long reading took.
    pub took: Duration,
}

/// What became of a knob for one tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The tier does not ask for it.
    NotAsked,
    /// As wanted everywhere.
    Holds,
    /// Not as wanted somewhere; what that costs.
    Lost(&'static str),
    /// Cannot be judged; why.
    Unknown(String),
}

impl Survey {
    /// Reads everything.
    pub fn of(machine: &Machine, choice: &Choice) -> Self {
        let begin = Instant::now();
        let promises = promises::check(machine);
        let facts = Facts::of(machine, choice);
        let read = |knob: &'static Knob| {
            let mut readings = reading::read(machine, &facts, knob);
            // The asking process keeps off the workers' cores: its own mask says nothing about them.
            if let (CORES_ALLOWED, Some(allowed)) = (knob.name, &facts.allowed) {
                for reading in &mut readings {
                    reading.raw = Ok(core_list_text(allowed).into_bytes());
                }
            }
            (knob, readings)
        };
        let knobs = table::all().into_iter().map(read).collect();
        Self { promises, knobs, facts, took: begin.elapsed() }
    }

    /// How many places were read.
    pub fn place_count(&self) -> usize {
        self.knobs.iter().map(|(_, readings)| readings.len()).sum()
    }

    /// What became of a knob.
    pub fn outcome(&self, knob: &'static Knob, readings: &[Reading], tier: Tier) -> Outcome {
        let want = knob.wanted_by(tier);
        if want == Want::Any {
            return Outcome::NotAsked;
        }
        let mut unknown = readings.is_empty().then(|| nothing_to_read(knob));
        let mut lost = None;
        for reading in readings {
            match judge(reading, want, &self.facts) {
                Judgement::Holds => {}
                Judgement::Lost { is_low, .. } => lost = lost.or(Some(cost(knob, is_low))),
                Judgement::Unknown { why } => unknown = unknown.or(Some(why)),
            }
        }
        match (lost, unknown) {
            (Some(cost), _) => Outcome::Lost(cost),
            (None, Some(why)) => Outcome::Unknown(why),
            (None, None) => Outcome::Holds,
        }
    }
}

/// What it costs. A word is neither low nor high: whichever side costs something is meant.
pub(crate) fn cost(knob: &Knob, is_low: bool) -> &'static str {
    let (near, far) =
        if is_low { (knob.too_low, knob.too_high) } else { (knob.too_high, knob.too_low) };
    if near.starts_with("nothing is lost") { far } else { near }
}

pub(crate) fn nothing_to_read(knob: &Knob) -> String {
    let place = table::place_text(knob.place);
    let of = [
        ("{queue}", "interface with queues"),
        ("{nic_irq}", "interface with interrupts of its own"),
        ("{nic}", "interface with a device"),
        ("netlink", "interface with a device"),
        ("{irq}", "interrupt"),
        ("{state}", "idle state"),
        ("{node}", "memory node"),
        ("{core}", "core"),
    ];
    let missing = of.iter().find(|(pattern, _)| place.contains(pattern));
    format!("there is no {}", missing.map_or("such place", |(_, name)| name))
}
