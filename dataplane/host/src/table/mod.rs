//! Every knob, declared once: what `check` reads, what `init` may change, what `explain` and the
//! README say.

mod cores;
mod memory;
mod network;
mod nic;
mod power;

use super::knob::{Change, Kind, Knob, Place, TIERS, Want, name_of};

/// Every knob, by stage.
pub fn all() -> Vec<&'static Knob> {
    let tables =
        [memory::KNOBS, cores::KNOBS, nic::KNOBS, network::KNOBS, power::KNOBS].into_iter();
    let mut all: Vec<&Knob> = tables.flatten().collect();
    all.sort_by_key(|knob| knob.stage);
    all
}

/// The knob of a name.
pub fn knob(name: &str) -> Option<&'static Knob> {
    all().into_iter().find(|knob| knob.name == name)
}

/// Where a knob is read, as text.
pub fn place_text(place: Place) -> String {
    match place {
        Place::File(path) => format!("/{path}"),
        Place::Field(path, key) => format!("/{path}, {key}"),
        Place::Boot(parameter) => format!("boot parameter {parameter}"),
        Place::Exists(path) => format!("whether /{path} is there"),
        Place::Ethtool(group, attribute, _) => {
            format!("ethtool netlink, {}, attribute {attribute}", super::netlink::file_of(group))
        }
        Place::Feature(name) => format!("ethtool netlink, feature {name}"),
        Place::Link(attribute) => format!("rtnetlink link, attribute {attribute}"),
    }
}

/// How a knob is changed, as text.
pub fn change_text(change: Change) -> String {
    match change {
        Change::Write => "init".into(),
        Change::Boot(parameter) => format!("boot parameter {parameter}; reboot"),
        Change::Operator(what) => what.into(),
        Change::Hardware(what) => format!("{what}; reboot"),
        Change::With(other) => format!("with {other}"),
    }
}

/// All that is known of a knob.
pub fn explanation(knob: &Knob) -> String {
    let wanted: Vec<String> = TIERS
        .iter()
        .map(|tier| format!("{} {}", name_of(tier), knob.wanted_by(*tier).text()))
        .collect();
    format!(
        "{} ({})\n  what      {}\n  why       {}\n  too low   {}\n  too high  {}\n  wanted    {}\n  \
         read at   {}\n  changed   {}\n  source    {}\n",
        knob.name,
        name_of(&knob.stage),
        knob.what,
        knob.why,
        knob.too_low,
        knob.too_high,
        wanted.join("; "),
        place_text(knob.place),
        change_text(knob.change),
        knob.source
    )
}

/// The table of the README.
pub fn markdown() -> String {
    let mut text = String::from(
        "| knob | stage | read at | ultra | high | standard | lab | changed by |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for knob in all() {
        let wanted: Vec<String> = knob.wanted.iter().map(|want| want.text()).collect();
        text += &format!(
            "| {} | {} | {} | {} | {} |\n",
            knob.name,
            name_of(&knob.stage),
            place_text(knob.place).replace('|', "\\|"),
            wanted.join(" | "),
            change_text(knob.change)
        );
    }
    text
}

/// Whether a rule can be applied to a value of this kind.
pub fn fits(kind: Kind, place: Place, want: Want) -> bool {
    match want {
        Want::Any => true,
        Want::OneOf(words) => match kind {
            Kind::Number => words.iter().all(|word| word.parse::<i64>().is_ok()),
            kind => matches!(kind, Kind::Word | Kind::Selected),
        },
        Want::Words(_) => kind == Kind::Word,
        Want::CoversWorkers if matches!(place, Place::Boot(_)) => kind == Kind::Word,
        Want::CoreCount(_) | Want::CoversWorkers | Want::AvoidsWorkers | Want::OneCore => {
            matches!(kind, Kind::CoreList | Kind::CoreMask)
        }
        _ => matches!(kind, Kind::Number | Kind::FirstNumber),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::knob::{Companion, Stage};

    #[test]
    fn every_entry_is_complete() {
        let all = all();
        assert!(all.len() >= 60, "{} knobs", all.len());
        let names: BTreeSet<&str> = all.iter().map(|knob| knob.name).collect();
        assert_eq!(names.len(), all.len(), "a name stands twice");
        for knob in &all {
            for text in [knob.what, knob.why, knob.too_low, knob.too_high, knob.source] {
                assert!(text.len() >= 4 && text.trim() == text, "{}: {text:?}", knob.name);
            }
            let is_snake = knob.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            assert!(is_snake, "{}", knob.name);
            for want in knob.wanted {
                assert!(fits(knob.kind, knob.place, want), "{}: {want:?}", knob.name);
                let compares = matches!(
                    want,
                    Want::AtLeastOrAll(_) | Want::AtLeastCompanion | Want::OffAbove(_)
                );
                assert!(!compares || knob.companion != Companion::None, "{}", knob.name);
            }
            match (knob.change, knob.place) {
                (Change::With(other), _) => assert!(names.contains(other), "{}", knob.name),
                (Change::Write, place) => assert!(
                    matches!(place, Place::File(_) | Place::Ethtool(..) | Place::Feature(_)),
                    "{} cannot be written",
                    knob.name
                ),
                _ => {}
            }
        }
    }

    #[test]
    fn every_stage_has_a_knob_and_each_address_stands_once() {
        let all = all();
        let stages: BTreeSet<Stage> = all.iter().map(|knob| knob.stage).collect();
        assert_eq!(stages.len(), 15);
        let places: BTreeSet<String> = all.iter().map(|knob| place_text(knob.place)).collect();
        assert_eq!(places.len(), all.len(), "two knobs read the same");
    }

    #[test]
    fn a_tier_never_wants_less_than_the_one_below() {
        let asks = |want: Want| want != Want::Any;
        for knob in all() {
            let asked: Vec<bool> = knob.wanted.iter().map(|want| asks(*want)).collect();
            assert!(asked.is_sorted_by(|a, b| a >= b), "{}", knob.name);
        }
    }
}
