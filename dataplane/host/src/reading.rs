//! A knob's place with its patterns filled in, and what is read there.

use super::address::Address;
use super::facts::{Facts, Nic, numbers};
use super::knob::{Companion, Knob, Place, Width};
use super::machine::Machine;
use super::value;

/// One thing read.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Its knob.
    pub knob: &'static Knob,
    /// Which of the knob's places it is: `core 1`, `eth0 queue 0`; empty where there is one.
    pub label: String,
    /// Where.
    pub address: Address,
    /// What was read, byte for byte; or why nothing was.
    pub raw: Result<Vec<u8>, String>,
    /// What the companion reads.
    pub companion: Option<Result<String, String>>,
    /// The worker core that a queue's interrupt belongs on: by its position.
    pub position: usize,
}

/// One way to fill a pattern in.
#[derive(Clone, Debug, Default)]
struct Filling {
    label: String,
    pairs: Vec<(&'static str, String)>,
}

impl Filling {
    fn with(&self, label: &str, name: &'static str, value: impl ToString) -> Self {
        let mut filling = self.clone();
        if !filling.label.is_empty() {
            filling.label.push(' ');
        }
        filling.label += &format!("{label}{}", value.to_string());
        filling.pairs.push((name, value.to_string()));
        filling
    }

    fn fill(&self, pattern: &str) -> String {
        self.pairs.iter().fold(pattern.to_owned(), |text, (name, value)| text.replace(name, value))
    }

    fn nic(&self) -> String {
        self.fill("{nic}")
    }
}

/// Reads every place of a knob. Empty where there is nothing it could be read of: no such core,
/// interface or state.
pub fn read(machine: &Machine, facts: &Facts, knob: &'static Knob) -> Vec<Reading> {
    let fillings = fillings(machine, facts, knob);
    let read_one = |(position, filling): (usize, Filling)| {
        let address = address(knob.place, &filling);
        let raw = machine.look(&address);
        let companion = match knob.companion {
            Companion::None => None,
            Companion::File(pattern) => Some(machine.text(&filling.fill(pattern))),
            Companion::Attribute(attribute) => match &address {
                Address::Ethtool(nic, group, _, _) => {
                    let sibling = Address::Ethtool(nic.clone(), *group, attribute, Width::Word);
                    Some(machine.look(&sibling).and_then(|bytes| value::text(&bytes)))
                }
                _ => None,
            },
        };
        Reading { knob, label: filling.label, address, raw, companion, position }
    };
    fillings.into_iter().enumerate().map(read_one).collect()
}

fn address(place: Place, filling: &Filling) -> Address {
    match place {
        Place::File(pattern) => Address::File(filling.fill(pattern)),
        Place::Field(path, key) => Address::Field(path.into(), key.into()),
        Place::Boot(parameter) => Address::Boot(parameter.into()),
        Place::Exists(pattern) => Address::Exists(filling.fill(pattern)),
        Place::Ethtool(group, attribute, width) => {
            Address::Ethtool(filling.nic(), group, attribute, width)
        }
        Place::Feature(name) => Address::Feature(filling.nic(), name.into()),
        Place::Link(attribute) => Address::Link(filling.nic(), attribute),
    }
}

fn fillings(machine: &Machine, facts: &Facts, knob: &'static Knob) -> Vec<Filling> {
    let start = Filling::default();
    let each_nic = |fill: &dyn Fn(&Nic, Filling) -> Vec<Filling>| -> Vec<Filling> {
        let one = |nic: &Nic| fill(nic, start.with("", "{nic}", &nic.name));
        facts.nics.iter().flat_map(one).collect()
    };
    let pattern = match knob.place {
        Place::File(pattern) | Place::Exists(pattern) => pattern,
        Place::Ethtool(..) | Place::Feature(_) | Place::Link(_) => "{nic}",
        Place::Field(..) | Place::Boot(_) => "",
    };
    if pattern.contains("{queue}") {
        return each_nic(&|nic, filling| {
            nic.queues.iter().map(|queue| filling.with("queue ", "{queue}", queue)).collect()
        });
    }
    if pattern.contains("{nic_irq}") {
        return each_nic(&|nic, filling| {
            nic.irqs.iter().map(|irq| filling.with("irq ", "{nic_irq}", irq)).collect()
        });
    }
    if pattern.contains("{nic}") {
        return each_nic(&|_, filling| vec![filling]);
    }
    if pattern.contains("{irq}") {
        return facts.irqs.iter().map(|irq| start.with("irq ", "{irq}", irq)).collect();
    }
    if pattern.contains("{node}") {
        let nodes = facts.worker_nodes();
        return nodes.iter().map(|node| start.with("node ", "{node}", node)).collect();
    }
    if pattern.contains("{core}") {
        let cores = facts.workers.iter().map(|core| start.with("core ", "{core}", core));
        if !pattern.contains("{state}") {
            return cores.collect();
        }
        let states = |core: Filling| {
            let folder = core.fill("sys/devices/system/cpu/cpu{core}/cpuidle");
            let states = numbers(&machine.names(&folder), "state");
            states.into_iter().map(move |state| core.with("state ", "{state}", state))
        };
        return cores.flat_map(states).collect();
    }
    vec![start]
}
