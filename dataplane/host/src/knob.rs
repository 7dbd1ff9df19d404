//! What a knob is: one setting of a host that latency depends on, declared once in `table/`.

use serde::{Deserialize, Serialize};

use crate::tier::Tier;

/// Tiers in the order of [`Knob::wanted`].
pub const TIERS: [Tier; 4] = [Tier::Ultra, Tier::High, Tier::Standard, Tier::Lab];

/// A group of knobs, in the order in which `init` changes them; `fini` goes the other way.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Stage {
    /// Pages of 2 MiB for packet memory and caches.
    HugePages,
    /// Who may run on a worker's core.
    Isolation,
    /// Queues of an interface. Before IRQ affinity: another count makes other interrupts.
    Channels,
    /// Descriptors of a queue.
    Rings,
    /// When an interface interrupts.
    Coalescing,
    /// What an interface does to packets by itself.
    Offloads,
    /// Which queue a packet arrives on, and what may stand in its way.
    FlowRules,
    /// Polling in place of interrupts.
    BusyPoll,
    /// Which core an interrupt arrives on.
    IrqAffinity,
    /// How deep a core, or a link to a device, sleeps.
    CStates,
    /// How fast a core runs.
    Frequency,
    /// What a look at the clock costs.
    Clock,
    /// Transparent huge pages.
    Thp,
    /// Which memory is near.
    Numa,
    /// Settings of kernel and network stack.
    Sysctl,
}

/// Every stage, in order.
pub const STAGES: [Stage; 15] = [
    Stage::HugePages,
    Stage::Isolation,
    Stage::Channels,
    Stage::Rings,
    Stage::Coalescing,
    Stage::Offloads,
    Stage::FlowRules,
    Stage::BusyPoll,
    Stage::IrqAffinity,
    Stage::CStates,
    Stage::Frequency,
    Stage::Clock,
    Stage::Thp,
    Stage::Numa,
    Stage::Sysctl,
];

impl Stage {
    /// These stages as one number, a bit for each in the order of [`STAGES`].
    pub fn bits(stages: &[Self]) -> u32 {
        let bit =
            |stage: &Self| STAGES.iter().position(|known| known == stage).map_or(0, |at| 1 << at);
        stages.iter().fold(0, |bits, stage| bits | bit(stage))
    }

    /// The stages of such a number; bits beyond the last one name nothing.
    pub fn of_bits(bits: u32) -> Vec<Self> {
        let named = STAGES.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1);
        named.map(|(_, stage)| *stage).collect()
    }
}

/// Where a knob is read. `{core}` stands for each worker core, `{state}` for each idle state,
/// `{node}` for each memory node, `{nic}` for each interface, `{queue}` for each of its receive
/// queues, `{irq}` for each interrupt that is no interface's, `{nic_irq}` for those of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file below the root.
    File(&'static str),
    /// What follows a key in a file of `key: value` lines; the first such line.
    Field(&'static str, &'static str),
    /// A parameter on the kernel's command line.
    Boot(&'static str),
    /// Whether a path is there; reads `there` or `absent`.
    Exists(&'static str),
    /// A number of an ethtool answer, by genetlink.
    Ethtool(Group, u16, Width),
    /// A feature of an interface, by genetlink; reads `on` or `off`.
    Feature(&'static str),
    /// A u32 of the interface's link message, by rtnetlink; 0 where it is absent.
    Link(u16),
}

/// An answer of ethtool's netlink family (`linux/ethtool_netlink.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// `ETHTOOL_MSG_CHANNELS_*`.
    Channels,
    /// `ETHTOOL_MSG_RINGS_*`.
    Rings,
    /// `ETHTOOL_MSG_COALESCE_*`.
    Coalesce,
    /// `ETHTOOL_MSG_FEATURES_*`.
    Features,
    /// `ETHTOOL_MSG_PAUSE_*`.
    Pause,
    /// `ETHTOOL_MSG_EEE_*`.
    Eee,
    /// `RTM_GETLINK`: not ethtool's, but one answer an interface as well.
    Link,
}

/// Bytes of a netlink number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// u8: a switch.
    Byte,
    /// u32 in host order.
    Word,
}

/// How a value is written down, and so what the kernel makes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One number, perhaps followed by a unit.
    Number,
    /// Several numbers of which the first counts; a write of one leaves the others.
    FirstNumber,
    /// One word or line.
    Word,
    /// All words, the chosen one in brackets.
    Selected,
    /// Cores as `0-3,8`.
    CoreList,
    /// Cores as groups of 32 bits in hexadecimal.
    CoreMask,
}

/// What a tier wants of a knob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Nothing.
    Any,
    /// One of these words; `init` writes the first that the host offers.
    OneOf(&'static [&'static str]),
    /// Every one of these words.
    Words(&'static [&'static str]),
    /// At least this number.
    AtLeast(i64),
    /// At most this number.
    AtMost(i64),
    /// At least this number, or all the device has (the companion).
    AtLeastOrAll(i64),
    /// At least what the companion reads.
    AtLeastCompanion,
    /// At least one for each worker core.
    AtLeastWorkers,
    /// At most one for each worker core.
    AtMostWorkers,
    /// At least this many cores.
    CoreCount(u32),
    /// Every worker core is among them.
    CoversWorkers,
    /// No worker core is among them.
    AvoidsWorkers,
    /// One core alone.
    OneCore,
    /// The memory node of the worker cores.
    WorkersNode,
    /// 1 where the companion (an exit latency in microseconds) is more than this.
    OffAbove(i64),
}

/// A second value that the judgement of the first needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Companion {
    /// None.
    None,
    /// A file below the root, with the same patterns.
    File(&'static str),
    /// An attribute of the same answer.
    Attribute(u16),
}

/// How a knob is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// `init` writes where it is read.
    Write,
    /// By the kernel's command line, then a reboot; `{workers}` is the list of worker cores.
    Boot(&'static str),
    /// By the operator, with this.
    Operator(&'static str),
    /// By hardware, firmware or the host above, then a reboot.
    Hardware(&'static str),
    /// With another knob.
    With(&'static str),
}

impl Change {
    /// Whether a change takes effect only after a reboot.
    pub fn needs_reboot(self) -> bool {
        matches!(self, Self::Boot(_) | Self::Hardware(_))
    }
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Knob {
    /// Name in snake case, unique.
    pub name: &'static str,
    /// Group.
    pub stage: Stage,
    /// Where it is read.
    pub place: Place,
    /// What else the judgement needs.
    pub companion: Companion,
    /// How it is written down.
    pub kind: Kind,
    /// What it is.
    pub what: &'static str,
    /// Why it matters here.
    pub why: &'static str,
    /// What happens below what is wanted (or: without it).
    pub too_low: &'static str,
    /// What happens above what is wanted (or: with too much of it).
    pub too_high: &'static str,
    /// Who says so.
    pub source: &'static str,
    /// What each of [`TIERS`] wants.
    pub wanted: [Want; 4],
    /// How it is changed.
    pub change: Change,
}

impl Knob {
    /// What a tier wants of it.
    pub fn wanted_by(&self, tier: Tier) -> Want {
        let index = TIERS.iter().position(|known| *known == tier).unwrap_or(0);
        self.wanted[index]
    }
}

impl Want {
    /// In words.
    pub fn text(self) -> String {
        match self {
            Self::Any => "-".into(),
            Self::OneOf(words) => words.join(" or "),
            Self::Words(words) => words.join(" and "),
            Self::AtLeast(number) => format!(">= {number}"),
            Self::AtMost(number) => format!("<= {number}"),
            Self::AtLeastOrAll(number) => format!(">= {number}, or all there are"),
            Self::AtLeastCompanion => "not below the maximum".into(),
            Self::AtLeastWorkers => ">= worker cores".into(),
            Self::AtMostWorkers => "<= worker cores".into(),
            Self::CoreCount(number) => format!(">= {number} cores"),
            Self::CoversWorkers => "all worker cores".into(),
            Self::AvoidsWorkers => "no worker core".into(),
            Self::OneCore => "one core".into(),
            Self::WorkersNode => "the workers' node".into(),
            Self::OffAbove(us) => format!("off where the exit takes > {us} us"),
        }
    }
}

/// The snake case name of a unit variant, as documents have it.
pub fn name_of(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_bits_in_their_order_and_there_is_none_beside_them() {
        let all = <Stage as clap::ValueEnum>::value_variants();
        assert_eq!(all, STAGES);
        assert_eq!(Stage::of_bits(u32::MAX), STAGES);
        for (at, stage) in STAGES.iter().enumerate() {
            assert_eq!(Stage::bits(&[*stage]), 1 << at);
            assert_eq!(Stage::of_bits(1 << at), [*stage]);
        }
        assert_eq!(Stage::of_bits(1 << STAGES.len()), []);
    }
}
