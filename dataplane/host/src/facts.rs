//! What is there to be looked at: cores, which of them are for workers, nodes, interfaces, interrupts.

use super::machine::Machine;
use super::value::{Cores, core_list};

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Cores that are on.
    pub online: Cores,
    /// Cores that the scheduler leaves alone, by boot parameter or by an isolated cpuset.
    pub isolated: Cores,
    /// Cores the workers are to run on.
    pub workers: Cores,
    /// How the workers' cores were chosen.
    pub workers_by: &'static str,
    /// Cores that workers can be pinned to, where that was tried.
    pub allowed: Option<Cores>,
    /// Memory nodes, with their cores.
    pub nodes: Vec<(u32, Cores)>,
    /// Interfaces, with their receive queues and interrupts.
    pub nics: Vec<Nic>,
    /// Interrupts that are no interface's.
    pub irqs: Vec<u32>,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nic {
    /// Name.
    pub name: String,
    /// Numbers of its receive queues.
    pub queues: Vec<u32>,
    /// Its interrupts.
    pub irqs: Vec<u32>,
}

/// What the operator said.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Interfaces; none for all that have a device.
    pub interfaces: Vec<String>,
    /// Worker cores; none for those that are isolated, else all but the first.
    pub workers: Option<Cores>,
    /// Cores that workers can be pinned to, where whoever asks has tried it; none: those of the asking process.
    pub allowed: Option<Cores>,
}

impl Facts {
    /// Looks. What is not there is left out: the knobs that need it say so.
    pub fn of(machine: &Machine, choice: &Choice) -> Self {
        let list =
            |path: &str| machine.text(path).and_then(|text| core_list(&text)).unwrap_or_default();
        let online = list("sys/devices/system/cpu/online");
        let isolated: Cores = list("sys/devices/system/cpu/isolated")
            .union(&list("sys/fs/cgroup/cpuset.cpus.isolated"))
            .filter(|core| online.contains(core))
            .copied()
            .collect();
        let (workers, workers_by) = match &choice.workers {
            Some(chosen) => (chosen.clone(), "chosen"),
            None if !isolated.is_empty() => (isolated.clone(), "isolated"),
            None if online.len() > 1 => {
                (online.iter().skip(1).copied().collect(), "all but the first")
            }
            None => (online.clone(), "the only one"),
        };
        let nodes = list("sys/devices/system/node/online")
            .into_iter()
            .map(|node| (node, list(&format!("sys/devices/system/node/node{node}/cpulist"))));
        let nics: Vec<Nic> =
            names(machine, choice).into_iter().map(|name| nic(machine, name)).collect();
        let irqs = numbers(&machine.names("proc/irq"), "");
        // The timer and the cascade of the old controllers, which the kernel never moves.
        let is_fixed = |irq: &u32| cfg!(target_arch = "x86_64") && [0, 2].contains(irq);
        let is_nic = |irq: &u32| nics.iter().any(|nic| nic.irqs.contains(irq));
        Self {
            nodes: nodes.collect(),
            allowed: choice.allowed.clone(),
            irqs: irqs.into_iter().filter(|irq| !is_nic(irq) && !is_fixed(irq)).collect(),
            online,
            isolated,
            workers,
            workers_by,
            nics,
        }
    }

    /// Nodes that worker cores belong to.
    pub fn worker_nodes(&self) -> Vec<u32> {
        let has = |cores: &Cores| !cores.is_disjoint(&self.workers);
        self.nodes.iter().filter(|(_, cores)| has(cores)).map(|(node, _)| *node).collect()
    }
}

fn names(machine: &Machine, choice: &Choice) -> Vec<String> {
    let safe = |name: &String| !name.is_empty() && !name.contains('/') && name != "..";
    if !choice.interfaces.is_empty() {
        return choice.interfaces.iter().filter(|name| safe(name)).cloned().collect();
    }
    let has_device = |name: &String| machine.exists(&format!("sys/class/net/{name}/device"));
    machine.names("sys/class/net").into_iter().filter(has_device).collect()
}

fn nic(machine: &Machine, name: String) -> Nic {
    let folder = format!("sys/class/net/{name}");
    let queues = numbers(&machine.names(&format!("{folder}/queues")), "rx-");
    // A virtio device's interrupts belong to the PCI function above it.
    let mut irqs = Vec::new();
    for place in ["device/msi_irqs", "device/../msi_irqs"] {
        for irq in numbers(&machine.names(&format!("{folder}/{place}")), "") {
            // Read so that a recorded tree has it: names alone leave nothing.
            if machine.read(&format!("{folder}/{place}/{irq}")).is_ok() && !irqs.contains(&irq) {
                irqs.push(irq);
            }
        }
    }
    Nic { name, queues, irqs }
}

/// The numbers behind a prefix, ascending.
pub fn numbers(names: &[String], front: &str) -> Vec<u32> {
    let mut numbers: Vec<u32> =
        names.iter().filter_map(|name| name.strip_prefix(front)?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}
