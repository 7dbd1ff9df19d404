//! What a node orders of its host, against what that host is. Pure: everything was read before, from the kernel.
//!
//! | ordered | what has to be so |
//! | --- | --- |
//! | kernel bypass | the node file's port is `xdp`, and the kernel can serve it |
//! | isolated cores | the worker cores are isolated, and each worker that runs is kept to those |
//! | one NUMA node | worker cores and interfaces belong to one, and the memory of workers that run lies there |
//! | cores, memory | the host has as many |
//! | a tier | nothing the tier asks for is lost, as `nautilus host check` says |
//!
//! What cannot be read is no reason against a tier, which is measured before clients are let in. It is one against
//! isolation and NUMA, which are ordered by name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::address::Address;
use super::judge::{Judgement, judge};
use super::knob::{Change, Knob, Want, name_of};
use super::machine::Machine;
use super::plan::{Plan, named};
use super::promises::Level;
use super::reading::Reading;
use super::survey::{Survey, cost, nothing_to_read};
use super::table::change_text;
use super::value::{Cores, core_list_text, shortened, text};
use crate::tier::Tier;

/// Memory that the kernel keeps of a host, at most: a host sold with 16 GiB says that it has 15.6. Too low: it is
/// refused to a node that was made for it; too high: a smaller one is taken for it.
const KEPT_BY_KERNEL: u64 = 16;

/// Knobs that say what is left for a node. One that runs has taken its part.
const LEFT_FOR_A_NODE: [&str; 2] = ["huge_pages_free", "memory_available"];

/// What is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its tier.
    pub tier: Tier,
    /// AF_XDP rather than kernel sockets.
    pub kernel_bypass: bool,
    /// Workers on cores that the scheduler leaves alone.
    pub cpu_isolation: bool,
    /// Memory, cores and NIC of one NUMA node.
    pub numa_optimization: bool,
    /// Cores.
    pub cpu_cores: u32,
    /// Memory, GiB.
    pub memory_gb: u32,
}

/// The node as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its port is AF_XDP's.
    pub bypasses: bool,
    /// Its workers that serve; none of a parked node.
    pub workers: Vec<Worker>,
}

/// A worker that runs, as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// Its process.
    pub pid: u32,
    /// Cores it may run on; or why they cannot be read.
    pub cores: Result<Cores, String>,
    /// Bytes of the node's memory that it has mapped, by NUMA node; or why they cannot be read.
    pub memory: Result<BTreeMap<u32, u64>, String>,
}

/// One thing that is ordered and not so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shortfall {
    /// Which of the order's fields, as a node's spec calls it.
    pub field: String,
    /// What was found, what is lost by it, and what would change it.
    pub reason: String,
    /// Whether `nautilus host init` would change it.
    pub by_init: bool,
}

impl Shortfall {
    fn new(field: &str, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into(), by_init: false }
    }
}

/// Everything ordered that the host has not got.
pub fn lacking(order: &Order, survey: &Survey, machine: &Machine, node: &Node) -> Vec<Shortfall> {
    let plan = Plan::of(survey, machine, order.tier);
    let look = Look { order, survey, machine, node, plan };
    let mut found = look.bypass();
    found.extend(look.cores());
    found.extend(look.memory());
    if order.cpu_isolation {
        found.extend(look.isolation());
    }
    if order.numa_optimization {
        found.extend(look.numa());
    }
    found.extend(look.tier());
    found
}

struct Look<'a> {
    order: &'a Order,
    survey: &'a Survey,
    machine: &'a Machine,
    node: &'a Node,
    plan: Plan,
}

impl Look<'_> {
    fn bypass(&self) -> Vec<Shortfall> {
        let (ordered, field) = (self.order.kernel_bypass, "kernel_bypass");
        if ordered != self.node.bypasses {
            let kind = if self.node.bypasses { "xdp" } else { "socket" };
            let reason = format!("the node file says port.kind = {kind:?}: change it there");
            return vec![Shortfall::new(field, reason)];
        }
        let is_fatal = |level| level == Level::Fatal;
        let broken = self.survey.promises.iter().filter(|f| ordered && is_fatal(f.level));
        let said = |name: &str, seen: &str, lost: &str| format!("{name}: {seen}: {lost}");
        broken.map(|f| Shortfall::new(field, said(f.name, &f.seen, f.lost))).collect()
    }

    fn cores(&self) -> Option<Shortfall> {
        let (facts, ordered) = (&self.survey.facts, self.order.cpu_cores as usize);
        let usable: Cores = match &facts.allowed {
            Some(allowed) => facts.online.intersection(allowed).copied().collect(),
            None => facts.online.clone(),
        };
        let reason = format!(
            "{ordered} are ordered, the node can use {}: {}",
            usable.len(),
            listed(&usable)
        );
        (usable.len() < ordered).then(|| Shortfall::new("cpu_cores", reason))
    }

    fn memory(&self) -> Option<Shortfall> {
        let field = "memory_gb";
        let place = Address::Field("proc/meminfo".into(), "MemTotal".into());
        let read = self.machine.look(&place).and_then(|raw| text(&raw));
        let total_kb = read.and_then(|text| {
            let number = text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
            number.ok_or_else(|| format!("MemTotal is {:?}", shortened(&text)))
        });
        let ordered_kb = u64::from(self.order.memory_gb) << 20;
        match total_kb {
            Ok(kb) if kb >= ordered_kb - ordered_kb / KEPT_BY_KERNEL => None,
            Ok(kb) => {
                let has = kb as f64 / f64::from(1 << 20);
                let reason =
                    format!("{} GiB are ordered, the host has {has:.1}", self.order.memory_gb);
                Some(Shortfall::new(field, reason))
            }
            Err(why) => Some(Shortfall::new(field, format!("cannot be told: {why}"))),
        }
    }

    fn isolation(&self) -> Vec<Shortfall> {
        let field = "cpu_isolation";
        let mut found =
            Vec::from_iter(self.ordered_by_name(field, "cores_isolated", Want::CoversWorkers));
        let isolated = &self.survey.facts.isolated;
        for Worker { pid, cores, .. } in &self.node.workers {
            let reason = match cores {
                Ok(cores) if !cores.is_empty() && cores.is_subset(isolated) => continue,
                Ok(cores) => format!(
                    "worker {pid} may run on {}, isolated are {}: name isolated ones in worker.core of the \
                     node file",
                    listed(cores),
                    listed(isolated)
                ),
                Err(why) => format!("where worker {pid} runs cannot be told: {why}"),
            };
            found.push(Shortfall::new(field, reason));
        }
        found
    }

    fn numa(&self) -> Vec<Shortfall> {
        let (field, facts) = ("numa_optimization", &self.survey.facts);
        match facts.nodes.len() {
            0 => return vec![Shortfall::new(field, "the host's memory nodes cannot be read")],
            // Everything is of the only one.
            1 => return Vec::new(),
            _ => {}
        }
        let nodes = facts.worker_nodes();
        let [home] = nodes[..] else {
            let cores = listed(&facts.workers);
            let reason =
                format!("worker cores {cores} belong to memory nodes {nodes:?}, not to one");
            return vec![Shortfall::new(field, reason)];
        };
        let mut found = Vec::from_iter(self.ordered_by_name(field, "nic_node", Want::WorkersNode));
        for Worker { pid, memory, .. } in &self.node.workers {
            let reason = match memory {
                Ok(memory) => {
                    let away: u64 = memory
                        .iter()
                        .filter(|(node, _)| **node != home)
                        .map(|(_, bytes)| bytes)
                        .sum();
                    if away == 0 {
                        continue;
                    }
                    let (away_mb, all_mb) = (away >> 20, memory.values().sum::<u64>() >> 20);
                    format!(
                        "{away_mb} of {all_mb} MiB that worker {pid} uses lie beside memory node {home}: \
                         that node was full when it was reserved, or the supervisor's unit has a NUMAPolicy of its \
                         own: see to either and start the node anew"
                    )
                }
                Err(why) => format!("where the memory of worker {pid} lies cannot be told: {why}"),
            };
            found.push(Shortfall::new(field, reason));
        }
        found
    }

    /// What the doctor says of the tier, but for what another field has said.
    fn tier(&self) -> Vec<Shortfall> {
        let (field, order) = ("node_type", self.order);
        // It promises nothing.
        if order.tier == Tier::Lab {
            return Vec::new();
        }
        let needs = |name: &str| match name {
            // Which only the lab needs.
            "veth" => false,
            "kernel" => true,
            _ => order.kernel_bypass,
        };
        let warned = self.survey.promises.iter();
        let warned = warned.filter(|f| f.level == Level::Warning && needs(f.name));
        let mut found: Vec<Shortfall> = warned
            .map(|f| Shortfall::new(field, format!("{}: {}: {}", f.name, f.seen, f.lost)))
            .collect();
        let runs = !self.node.workers.is_empty();
        for (knob, readings) in &self.survey.knobs {
            let is_said = match knob.name {
                "cores_isolated" => order.cpu_isolation,
                "nic_node" => order.numa_optimization,
                name => runs && LEFT_FOR_A_NODE.contains(&name),
            };
            if !is_said {
                found.extend(self.lost(field, knob, readings, knob.wanted_by(order.tier)));
            }
        }
        found
    }

    /// Why a knob that is ordered by name does not hold; that it cannot be judged is one.
    fn ordered_by_name(&self, field: &str, name: &str, want: Want) -> Option<Shortfall> {
        let (knob, readings) = self.survey.knobs.iter().find(|(knob, _)| knob.name == name)?;
        if let Some(lost) = self.lost(field, knob, readings, want) {
            return Some(lost);
        }
        let unknown =
            readings.iter().find_map(|reading| match judge(reading, want, &self.survey.facts) {
                Judgement::Unknown { why } => Some(why),
                _ => None,
            });
        let unknown = unknown.or_else(|| readings.is_empty().then(|| nothing_to_read(knob)))?;
        Some(Shortfall::new(field, format!("{name} cannot be told: {unknown}")))
    }

    /// Why a knob is lost: its first place that is not as wanted, and what would change that.
    fn lost(
        &self,
        field: &str,
        knob: &'static Knob,
        readings: &[Reading],
        want: Want,
    ) -> Option<Shortfall> {
        let lost =
            readings.iter().find_map(|reading| match judge(reading, want, &self.survey.facts) {
                Judgement::Lost { is_low, .. } => Some((reading, is_low)),
                _ => None,
            });
        let (reading, is_low) = lost?;
        let seen = reading.raw.as_ref().ok().and_then(|raw| text(raw).ok()).unwrap_or_default();
        let seen = if seen.is_empty() { "nothing".into() } else { shortened(&seen) };
        let step = self.plan.steps.iter().find(|step| step.knob == knob.name);
        let change = match step {
            Some(step) => {
                let tier = name_of(&self.order.tier);
                format!("`nautilus host init --tier {tier}` would write {}", step.new)
            }
            None => self.change(knob, &reading.label),
        };
        let reason = format!(
            "{} is {seen}, wanted {}: {}; {change}",
            named(knob.name, &reading.label),
            want.text(),
            cost(knob, is_low)
        );
        Some(Shortfall { field: field.into(), reason, by_init: step.is_some() })
    }

    /// What somebody else has to do about a knob.
    fn change(&self, knob: &'static Knob, label: &str) -> String {
        let name = named(knob.name, label);
        let left = self.plan.left.iter().find(|left| left.name == name);
        let workers = listed(&self.survey.facts.workers);
        match (left, knob.change) {
            (Some(left), _) => left.what.clone(),
            (None, Change::With(other)) => format!("changes with {other}"),
            (None, change) => change_text(change).replace("{workers}", &workers),
        }
    }
}

fn listed(cores: &Cores) -> String {
    if cores.is_empty() { "none".into() } else { core_list_text(cores) }
}

/// What is lacking, as it travels.
pub fn to_text(lacking: &[Shortfall]) -> String {
    // Structs of strings always serialize.
    serde_json::to_string(lacking).unwrap_or_default()
}

/// Reads [`to_text`]'s; an error in words.
pub fn of_text(text: &str) -> Result<Vec<Shortfall>, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// Bytes by NUMA node of the regions of a node, in the text of a process's `numa_maps`: only what lies in a memfd of
/// ours. Programs and libraries lie where the page cache has them.
pub fn memory_by_node(numa_maps: &str) -> BTreeMap<u32, u64> {
    let mut bytes = BTreeMap::new();
    for line in numa_maps.lines() {
        if !line.contains(" file=/memfd:nautilus") {
            continue;
        }
        let words = || line.split_whitespace().filter_map(|word| word.split_once('='));
        let page_kb = words().find(|(key, _)| *key == "kernelpagesize_kB");
        let Some(page_kb) = page_kb.and_then(|(_, kb)| kb.parse::<u64>().ok()) else { continue };
        for (key, pages) in words() {
            let node = key.strip_prefix('N').and_then(|node| node.parse::<u32>().ok());
            if let (Some(node), Ok(pages)) = (node, pages.parse::<u64>()) {
                *bytes.entry(node).or_default() += pages.saturating_mul(page_kb) << 10;
            }
        }
    }
    bytes
}
