//! What a tier makes of a reading. Pure.

use serde::Serialize;

use super::facts::Facts;
use super::knob::{Kind, Want};
use super::reading::Reading;
use super::value::{
    Cores, Value, core_list, core_list_text, core_mask_text, number, parse, shortened, text,
};

/// The judgement of one reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "judgement")]
pub enum Judgement {
    /// As wanted.
    Holds,
    /// Not as wanted.
    Lost {
        /// Below what is wanted; else above, or other.
        is_low: bool,
        /// What would be written to change it; `None` where no value is known that would do.
        #[serde(skip)]
        set: Option<String>,
    },
    /// Cannot be judged.
    Unknown {
        /// Why.
        why: String,
    },
}

fn unknown(why: impl Into<String>) -> Judgement {
    Judgement::Unknown { why: why.into() }
}

fn holds_or(holds: bool, is_low: bool, set: Option<String>) -> Judgement {
    if holds { Judgement::Holds } else { Judgement::Lost { is_low, set } }
}

/// Judges.
pub fn judge(reading: &Reading, want: Want, facts: &Facts) -> Judgement {
    let raw = match &reading.raw {
        Ok(raw) => raw,
        Err(why) => return unknown(why),
    };
    let kind = reading.knob.kind;
    match parse(kind, raw) {
        Err(why) => unknown(why),
        // A parameter that is not on the command line.
        Ok(Value::Word(word)) if want == Want::CoversWorkers => {
            match parse(Kind::CoreList, word.as_bytes()) {
                Ok(Value::Cores(cores)) => cores_judged(&cores, raw, reading, want, facts),
                _ => unknown(format!("{:?} is no list of cores", shortened(&word))),
            }
        }
        Ok(Value::Word(word)) => word_judged(&word, reading, want),
        Ok(Value::Number(number)) => number_judged(number, reading, want, facts),
        Ok(Value::Cores(cores)) => cores_judged(&cores, raw, reading, want, facts),
    }
}

fn word_judged(word: &str, reading: &Reading, want: Want) -> Judgement {
    match want {
        Want::Any => Judgement::Holds,
        Want::OneOf(words) if words.contains(&word) => Judgement::Holds,
        Want::OneOf(words) => {
            // What the host offers stands in the companion, or beside the chosen word.
            let offered = match (&reading.companion, reading.knob.kind, &reading.raw) {
                (Some(Ok(offered)), _, _) => Some(offered.clone()),
                (Some(Err(why)), _, _) => return unknown(why),
                (None, Kind::Selected, Ok(raw)) => text(raw).ok(),
                _ => None,
            };
            let has = |word: &&&str| match &offered {
                Some(offered) => {
                    offered.split_whitespace().any(|other| other.trim_matches(['[', ']']) == **word)
                }
                None => true,
            };
            let set = words.iter().find(has).map(|word| (*word).to_owned());
            Judgement::Lost { is_low: false, set }
        }
        Want::Words(words) => {
            let all = words.iter().all(|wanted| word.split_whitespace().any(|one| one == *wanted));
            holds_or(all, true, None)
        }
        _ => unknown("the knob's rule needs a number"),
    }
}

fn number_judged(now: i64, reading: &Reading, want: Want, facts: &Facts) -> Judgement {
    let beside = || -> Result<i64, String> {
        let missing = || Err("what it is compared with is not there".into());
        number(&reading.companion.clone().unwrap_or_else(missing)?)
    };
    let workers = facts.workers.len() as i64;
    let at_least = |least: i64| holds_or(now >= least, true, Some(least.to_string()));
    let at_most = |most: i64| holds_or(now <= most, false, Some(most.to_string()));
    match want {
        Want::Any => Judgement::Holds,
        Want::AtLeast(least) if now == -1 && least > 0 => unknown("the device does not say"),
        Want::AtLeast(least) => at_least(least),
        Want::AtMost(most) => at_most(most),
        Want::AtLeastOrAll(least) => match beside() {
            Ok(all) => at_least(least.min(all)),
            Err(why) if now < least => unknown(why),
            Err(_) => Judgement::Holds,
        },
        Want::AtLeastCompanion => match beside() {
            Ok(least) => at_least(least),
            Err(why) => unknown(why),
        },
        Want::AtLeastWorkers if workers > 0 => holds_or(now >= workers, true, None),
        Want::AtMostWorkers if workers > 0 => match now {
            0 => unknown("the driver counts no such queues"),
            _ => at_most(workers),
        },
        Want::AtLeastWorkers | Want::AtMostWorkers => unknown("no core is known"),
        Want::OneOf(words) => {
            let is = words.iter().any(|word| word.parse() == Ok(now));
            let is_low = words.iter().all(|word| word.parse::<i64>().is_ok_and(|word| now < word));
            holds_or(is, is_low, words.first().map(|word| (*word).to_owned()))
        }
        Want::OffAbove(exit_us) => match beside() {
            Ok(us) => holds_or(us <= exit_us || now == 1, true, Some("1".into())),
            Err(why) => unknown(why),
        },
        Want::WorkersNode => match (facts.worker_nodes().as_slice(), facts.nodes.len()) {
            ([], _) => unknown("the memory node of the worker cores is not known"),
            (_, 1) => Judgement::Holds,
            (_, _) if now < 0 => unknown("the device does not say which node it belongs to"),
            (nodes, _) => holds_or(nodes.iter().all(|node| i64::from(*node) == now), false, None),
        },
        _ => unknown("the knob's rule needs cores"),
    }
}

fn cores_judged(
    cores: &Cores,
    raw: &[u8],
    reading: &Reading,
    want: Want,
    facts: &Facts,
) -> Judgement {
    let written = |cores: &Cores| match reading.knob.kind {
        Kind::CoreMask => core_mask_text(cores, &text(raw).unwrap_or_default()),
        _ => core_list_text(cores),
    };
    if want == Want::Any {
        return Judgement::Holds;
    }
    if let Want::CoreCount(count) = want {
        return holds_or(cores.len() >= count as usize, true, None);
    }
    if facts.workers.is_empty() {
        return unknown("no core is known");
    }
    match want {
        Want::CoversWorkers => {
            // Another way to the same end; where it is not there, it covers nobody.
            let beside = match &reading.companion {
                Some(Ok(text)) => core_list(text).unwrap_or_default(),
                _ => Cores::new(),
            };
            let covers = facts.workers.iter().all(|c| cores.contains(c) || beside.contains(c));
            holds_or(covers, true, None)
        }
        Want::AvoidsWorkers => {
            let rest = facts.online.difference(&facts.workers).copied().collect();
            if cores.is_disjoint(&facts.workers) {
                Judgement::Holds
            } else if facts.online.is_subset(&facts.workers) {
                unknown("every core is a worker's: no other could take it")
            } else {
                Judgement::Lost { is_low: false, set: Some(written(&rest)) }
            }
        }
        Want::OneCore => {
            let workers: Vec<u32> = facts.workers.iter().copied().collect();
            let one = workers[reading.position % workers.len()];
            holds_or(cores.len() == 1, false, Some(written(&[one].into())))
        }
        _ => unknown("the knob's rule needs a number"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use crate::table;

    fn reading(name: &str, raw: &str, companion: Option<&str>) -> Reading {
        Reading {
            knob: table::knob(name).unwrap(),
            label: String::new(),
            address: Address::File("proc/x".into()),
            raw: Ok(raw.into()),
            companion: companion.map(|text| Ok(text.to_owned())),
            position: 1,
        }
    }

    fn facts() -> Facts {
        let online = (0..4).collect();
        let nodes = vec![(0, [0, 1].into()), (1, [2, 3].into())];
        Facts { online, workers: [2, 3].into(), nodes, ..Facts::default() }
    }

    #[test]
    fn each_rule_says_what_to_write() {
        let lost = |is_low, set: &str| Judgement::Lost { is_low, set: Some(set.into()) };
        let judged =
            |name, raw, companion, want| judge(&reading(name, raw, companion), want, &facts());
        let words = Want::OneOf(&["tsc", "kvm-clock"]);
        let offered = Some("kvm-clock acpi_pm");
        assert_eq!(judged("clock_source", "acpi_pm", offered, words), lost(false, "kvm-clock"));
        assert_eq!(judged("clock_source", "tsc", offered, words), Judgement::Holds);
        let none = Judgement::Lost { is_low: false, set: None };
        assert_eq!(judged("clock_source", "hpet", Some("hpet"), words), none);
        let thp = "[always] madvise never";
        let want = Want::OneOf(&["madvise", "never"]);
        assert_eq!(judged("thp_enabled", thp, None, want), lost(false, "madvise"));
        assert_eq!(judged("swappiness", "60", None, Want::AtMost(1)), lost(false, "1"));
        assert_eq!(judged("swappiness", "0", None, Want::AtLeast(1)), lost(true, "1"));
        let want = Want::AtLeastOrAll(1024);
        assert_eq!(judged("nic_ring_rx", "256", Some("512"), want), lost(true, "512"));
        assert_eq!(judged("nic_ring_rx", "512", Some("512"), want), Judgement::Holds);
        assert_eq!(judged("idle_states", "0", Some("200"), Want::OffAbove(2)), lost(true, "1"));
        assert_eq!(judged("idle_states", "0", Some("1"), Want::OffAbove(2)), Judgement::Holds);
        assert_eq!(judged("idle_states", "1", Some("200"), Want::OffAbove(2)), Judgement::Holds);
        assert_eq!(judged("irq_affinity", "0-3", None, Want::AvoidsWorkers), lost(false, "0-1"));
        let mask = judged("irq_default_affinity", "f", None, Want::AvoidsWorkers);
        assert_eq!(mask, lost(false, "3"));
        assert_eq!(judged("nic_irq_affinity", "0-3", None, Want::OneCore), lost(false, "3"));
        assert_eq!(judged("nic_node", "1", None, Want::WorkersNode), Judgement::Holds);
        assert!(matches!(judged("nic_node", "0", None, Want::WorkersNode), Judgement::Lost { .. }));
        let covers = |raw, beside| judged("cores_isolated", raw, beside, Want::CoversWorkers);
        let none = || Judgement::Lost { is_low: true, set: None };
        assert_eq!(covers("2-3", None), Judgement::Holds);
        assert_eq!(covers("2", Some("3")), Judgement::Holds, "a partition beside");
        assert_eq!((covers("", Some("3")), covers("2", None)), (none(), none()));
        assert_eq!(judged("nic_channels", "8", None, Want::AtMostWorkers), lost(false, "2"));
    }

    #[test]
    fn garbage_is_not_judged() {
        for knob in table::all() {
            for raw in ["", "\u{7}", "lots of odd words [a] [b]", "99999999999999999999999", "-"] {
                for want in knob.wanted {
                    let judged =
                        judge(&reading(knob.name, raw, Some("?")), want, &Facts::default());
                    let cannot = matches!(judged, Judgement::Unknown { .. });
                    assert!(
                        cannot || matches!(knob.kind, Kind::Word | Kind::CoreList),
                        "{}",
                        knob.name
                    );
                }
            }
        }
    }
}
