//! What `host check` says: a document for programs, a table for people.

use std::collections::BTreeMap;

use serde::Serialize;

use super::knob::{Knob, Stage, TIERS, name_of};
use super::promises::{Finding, Level};
use super::reading::Reading;
use super::survey::{Outcome, Survey};
use super::table::change_text;
use super::tier::Tier;
use super::value::{core_list_text, shortened, text};

/// Values shown of one knob in the table, and places of each.
const VALUES_SHOWN: usize = 3;
const PLACES_SHOWN: usize = 3;

/// The document of `nautilus host check --json`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The tier that the exit code is for.
    pub tier: Tier,
    /// Worker cores as a list, and how they were chosen.
    pub workers: String,
    /// How the worker cores were chosen.
    pub workers_by: &'static str,
    /// Interfaces looked at.
    pub interfaces: Vec<String>,
    /// What must hold before anything else.
    pub promises: Vec<Finding>,
    /// One entry a knob.
    pub knobs: Vec<KnobReport>,
    /// One entry a tier.
    pub verdicts: Vec<Verdict>,
    /// How many knobs were read.
    pub knob_count: usize,
    /// How many places they were read at.
    pub place_count: usize,
    /// How long that took, in milliseconds.
    pub read_ms: f64,
}

/// A knob.
#[derive(Clone, Debug, Serialize)]
pub struct KnobReport {
    /// Name.
    pub name: &'static str,
    /// Stage.
    pub stage: Stage,
    /// What was read, by place.
    pub seen: Vec<Seen>,
    /// What each tier makes of it.
    pub tiers: Vec<TierReport>,
    /// How it is changed.
    pub change: String,
    /// Whether a change takes a reboot.
    pub needs_reboot: bool,
}

/// One thing read.
#[derive(Clone, Debug, Serialize)]
pub struct Seen {
    /// Which place; empty where there is one.
    pub place: String,
    /// What was read; absent where nothing could be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// What a tier makes of a knob.
#[derive(Clone, Debug, Serialize)]
pub struct TierReport {
    /// The tier.
    pub tier: Tier,
    /// What it wants.
    pub wanted: String,
    /// `not_asked`, `holds`, `lost` or `unknown`.
    pub outcome: &'static str,
    /// What is lost, or why it cannot be judged.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Whether a host keeps what a tier asks for.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The tier.
    pub tier: Tier,
    /// `kept`, `lost`, `unsure` (nothing is lost as far as can be judged) or `cannot_run`.
    pub verdict: &'static str,
    /// Each promise and knob that is lost, with what that costs.
    pub lost: Vec<String>,
    /// Each knob that cannot be judged, with why.
    pub unknown: Vec<String>,
}

impl Report {
    /// What a survey says.
    pub fn of(survey: &Survey, tier: Tier) -> Self {
        let one =
            |(knob, readings): &(&'static Knob, Vec<Reading>)| knob_report(survey, knob, readings);
        let knobs: Vec<KnobReport> = survey.knobs.iter().map(one).collect();
        let verdicts = TIERS.iter().map(|tier| verdict(survey, &knobs, *tier)).collect();
        Self {
            tier,
            workers: core_list_text(&survey.facts.workers),
            workers_by: survey.facts.workers_by,
            interfaces: survey.facts.nics.iter().map(|nic| nic.name.clone()).collect(),
            promises: survey.promises.clone(),
            knob_count: knobs.len(),
            place_count: survey.place_count(),
            read_ms: survey.took.as_secs_f64() * 1e3,
            knobs,
            verdicts,
        }
    }

    /// The verdict of the tier that was asked for.
    pub fn verdict(&self) -> &'static str {
        let ours = self.verdicts.iter().find(|verdict| verdict.tier == self.tier);
        ours.map_or("unsure", |verdict| verdict.verdict)
    }

    /// For people: what is lost first in each stage is what to look at.
    pub fn to_text(&self, all: bool) -> String {
        let mut out = String::new();
        for finding in &self.promises {
            let level = match finding.level {
                Level::Ok => "holds",
                Level::Warning => "lost",
                Level::Fatal => "FATAL",
            };
            out += &format!("{level:<8} {:<22} {}\n", finding.name, finding.seen);
            if !finding.lost.is_empty() {
                out += &format!("{:32}{}\n", "", finding.lost);
            }
        }
        let mut stage = None;
        for knob in &self.knobs {
            let Some(ours) = knob.tiers.iter().find(|entry| entry.tier == self.tier) else {
                continue;
            };
            if !all && ours.outcome == "not_asked" {
                continue;
            }
            if stage != Some(knob.stage) {
                out += &format!("-- {}\n", name_of(&knob.stage));
                stage = Some(knob.stage);
            }
            let seen = seen_text(&knob.seen);
            match ours.outcome {
                "lost" => {
                    out += &format!("lost     {:<22} {seen}; wanted {}\n", knob.name, ours.wanted);
                    out += &format!("{:32}{}\n", "", ours.reason);
                    out += &format!("{:32}change: {}\n", "", knob.change);
                }
                "unknown" => {
                    out +=
                        &format!("unknown  {:<22} cannot be judged: {}\n", knob.name, ours.reason);
                }
                "holds" => out += &format!("holds    {:<22} {seen}\n", knob.name),
                _ => out += &format!("         {:<22} {seen}\n", knob.name),
            }
        }
        out += "-- verdicts\n";
        for verdict in &self.verdicts {
            let names = |list: &[String]| -> String {
                let names = list.iter().map(|entry| entry.split(':').next().unwrap_or(entry));
                names.collect::<Vec<_>>().join(", ")
            };
            out += &format!("{:<8} {}", name_of(&verdict.tier), verdict.verdict.replace('_', " "));
            if !verdict.lost.is_empty() {
                out += &format!("; {} lost: {}", verdict.lost.len(), names(&verdict.lost));
            }
            if !verdict.unknown.is_empty() {
                let list = &verdict.unknown;
                out += &format!("; {} cannot be judged: {}", list.len(), names(list));
            }
            out.push('\n');
        }
        out += &format!(
            "{} knobs at {} places read in {:.1} ms; worker cores {} ({}); interfaces {}\n",
            self.knob_count,
            self.place_count,
            self.read_ms,
            if self.workers.is_empty() { "none" } else { &self.workers },
            self.workers_by,
            if self.interfaces.is_empty() { "none".into() } else { self.interfaces.join(", ") },
        );
        out
    }
}

fn knob_report(survey: &Survey, knob: &'static Knob, readings: &[Reading]) -> KnobReport {
    let seen = readings.iter().map(|reading| Seen {
        place: reading.label.clone(),
        value: reading.raw.as_ref().ok().and_then(|raw| text(raw).ok()),
    });
    let tiers = TIERS.iter().map(|tier| {
        let (outcome, reason) = match survey.outcome(knob, readings, *tier) {
            Outcome::NotAsked => ("not_asked", String::new()),
            Outcome::Holds => ("holds", String::new()),
            Outcome::Lost(cost) => ("lost", cost.to_owned()),
            Outcome::Unknown(why) => ("unknown", why),
        };
        TierReport { tier: *tier, wanted: knob.wanted_by(*tier).text(), outcome, reason }
    });
    KnobReport {
        name: knob.name,
        stage: knob.stage,
        seen: seen.collect(),
        tiers: tiers.collect(),
        change: change_text(knob.change)
            .replace("{workers}", &core_list_text(&survey.facts.workers)),
        needs_reboot: knob.change.needs_reboot(),
    }
}

fn verdict(survey: &Survey, knobs: &[KnobReport], tier: Tier) -> Verdict {
    let with = |outcome: &str| -> Vec<String> {
        let entries = knobs.iter().filter_map(|knob| {
            let entry = knob.tiers.iter().find(|entry| entry.tier == tier)?;
            (entry.outcome == outcome).then(|| format!("{}: {}", knob.name, entry.reason))
        });
        entries.collect()
    };
    let broken = survey.promises.iter().filter(|finding| finding.level != Level::Ok);
    let mut lost: Vec<String> =
        broken.map(|finding| format!("{}: {}", finding.name, finding.lost)).collect();
    lost.append(&mut with("lost"));
    let unknown = with("unknown");
    let fatal = survey.promises.iter().any(|finding| finding.level == Level::Fatal);
    let verdict = match (fatal, lost.is_empty(), unknown.is_empty()) {
        (true, ..) => "cannot_run",
        (_, false, _) => "lost",
        (_, true, false) => "unsure",
        (_, true, true) => "kept",
    };
    Verdict { tier, verdict, lost, unknown }
}

/// Values with their places, equal ones together.
fn seen_text(seen: &[Seen]) -> String {
    let mut by_value: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for one in seen {
        by_value.entry(one.value.as_deref().unwrap_or("unreadable")).or_default().push(&one.place);
    }
    let some = by_value.iter().take(VALUES_SHOWN).map(|(value, places)| {
        let words: Vec<&str> = value.split_whitespace().collect();
        let value = if words.is_empty() { "none".into() } else { shortened(&words.join(" ")) };
        let shown: Vec<&str> = places.iter().take(PLACES_SHOWN).copied().collect();
        let more = places.len().saturating_sub(shown.len());
        match (shown.join(", "), more) {
            (shown, _) if shown.is_empty() => value,
            (shown, 0) => format!("{value} ({shown})"),
            (shown, more) => format!("{value} ({shown} and {more} more)"),
        }
    });
    let mut text = some.collect::<Vec<_>>().join("; ");
    if by_value.len() > VALUES_SHOWN {
        text += &format!("; {} other values", by_value.len() - VALUES_SHOWN);
    }
    text
}
