//! Memory that a node's processes share lies on the NUMA node of the cores that use it: the supervisor reserves it,
//! and may run anywhere.
//!
//! ```text
//!   cores of the workers --sysfs--> their NUMA nodes   one: preferred      several: in turn, page by page
//!   policy of this thread <--set--'  reserve(memory)   --> policy as before
//! ```
//!
//! What nobody else touches needs none of this: a worker's own memory comes from where it runs. A policy that the
//! supervisor was started with (`NUMAPolicy=` of its unit) is the operator's and is left alone.

use std::cell::Cell;
use std::marker::PhantomData;

use nautilus_host::machine::Machine;
use nautilus_host::value::{Cores, core_list};

use super::sys::{MemoryPolicy, memory_policy, set_memory_policy};

/// NUMA nodes that a policy can name, which is more than any host has. One beyond them is left to the kernel.
const NODES_MAX: u32 = 64;

thread_local! {
    /// Guards of this thread that hold: a policy that it has meanwhile is ours.
    static HELD: Cell<u32> = const { Cell::new(0) };
}

/// While it lives, memory that this thread reserves, or a thread that it starts, comes from near some cores.
#[must_use = "memory reserved after it is dropped lies anywhere"]
pub struct Near {
    /// What comes back; none where nothing was changed.
    before: Option<MemoryPolicy>,
    // A policy is a thread's own.
    thread: PhantomData<*const ()>,
}

/// Prefers the NUMA nodes of these cores. Changes nothing on a host of one node, nor where the kernel has none or
/// refuses: memory lies somewhere then, as without it.
pub fn near(cores: &[u32]) -> Near {
    under(policy(&homes(&Machine::running(), cores)))
}

fn under(wanted: Option<MemoryPolicy>) -> Near {
    let before = wanted.and_then(|wanted| {
        let before = memory_policy().ok()?;
        let is_free = before == MemoryPolicy::LOCAL || HELD.get() > 0;
        (is_free && set_memory_policy(wanted).is_ok()).then_some(before)
    });
    if before.is_some() {
        HELD.set(HELD.get() + 1);
    }
    Near { before, thread: PhantomData }
}

impl Drop for Near {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            HELD.set(HELD.get() - 1);
            // What was in force can be again.
            let _ = set_memory_policy(before);
        }
    }
}

/// NUMA nodes that the cores belong to, in order; none where the host has but one, or says nothing.
fn homes(machine: &Machine, cores: &[u32]) -> Vec<u32> {
    let list =
        |path: &str| machine.text(path).and_then(|text| core_list(&text)).unwrap_or_default();
    // Of those with memory: a node may have cores only.
    let nodes: Cores = list("sys/devices/system/node/has_memory");
    if nodes.len() < 2 {
        return Vec::new();
    }
    let of = |node: &u32| list(&format!("sys/devices/system/node/node{node}/cpulist"));
    let has = |node: &u32| cores.iter().any(|core| of(node).contains(core));
    nodes.into_iter().filter(|node| *node < NODES_MAX && has(node)).collect()
}

/// One node is preferred, so that a full one is no reason to fail; of several each gives its part.
fn policy(homes: &[u32]) -> Option<MemoryPolicy> {
    let nodes = homes.iter().fold(0, |mask, node| mask | 1 << node);
    match homes.len() {
        0 => None,
        1 => Some(MemoryPolicy { mode: libc::MPOL_PREFERRED, nodes }),
        _ => Some(MemoryPolicy { mode: libc::MPOL_INTERLEAVE, nodes }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(nodes: &[(u32, &str)], with_memory: &str) -> (tempfile::TempDir, Machine) {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("sys/devices/system/node");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("has_memory"), with_memory).unwrap();
        for (node, cores) in nodes {
            let folder = folder.join(format!("node{node}"));
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("cpulist"), format!("{cores}\n")).unwrap();
        }
        let machine = Machine::recorded(root.path());
        (root, machine)
    }

    #[test]
    fn memory_is_wanted_where_the_cores_are() {
        let (_one, machine_of_one) = machine(&[(0, "0-7")], "0\n");
        assert_eq!(policy(&homes(&machine_of_one, &[1, 2])), None);
        let (_two, two) = machine(&[(0, "0-3,8-11"), (1, "4-7")], "0-1\n");
        let preferred = |nodes| Some(MemoryPolicy { mode: libc::MPOL_PREFERRED, nodes });
        let interleaved = |nodes| Some(MemoryPolicy { mode: libc::MPOL_INTERLEAVE, nodes });
        assert_eq!(policy(&homes(&two, &[1, 9])), preferred(0b01));
        assert_eq!(policy(&homes(&two, &[5])), preferred(0b10));
        assert_eq!(policy(&homes(&two, &[3, 5])), interleaved(0b11));
        assert_eq!(policy(&homes(&two, &[99])), None, "a core that is not there");
        // The cores' own node has no memory, so the kernel's nearest is as good as any of ours.
        let (_bare, bare) = machine(&[(0, "0-3"), (1, "4-7"), (2, "")], "0,2\n");
        assert_eq!(policy(&homes(&bare, &[4])), None);
        assert_eq!(policy(&homes(&bare, &[0])), preferred(0b01));
    }

    #[test]
    fn a_policy_ends_with_its_guard_and_an_operators_stays() {
        let ours = MemoryPolicy { mode: libc::MPOL_PREFERRED, nodes: 1 };
        let guarded = move |before: MemoryPolicy| {
            set_memory_policy(before).unwrap();
            let near = under(Some(ours));
            let during = memory_policy().unwrap();
            drop(near);
            (during, memory_policy().unwrap())
        };
        // Memory of all workers, and within that of one.
        let nested = move || {
            let all = MemoryPolicy { mode: libc::MPOL_INTERLEAVE, nodes: 1 };
            let outer = under(Some(all));
            let inner = under(Some(ours));
            let during = memory_policy().unwrap();
            drop(inner);
            assert_eq!((during, memory_policy().unwrap()), (ours, all));
            drop(outer);
            memory_policy().unwrap()
        };
        let (local, bound) =
            (MemoryPolicy::LOCAL, MemoryPolicy { mode: libc::MPOL_BIND, nodes: 1 });
        // A thread of its own, whose policy is nobody else's.
        let thread = std::thread::spawn(move || {
            assert_eq!(guarded(local), (ours, local));
            assert_eq!(nested(), local);
            assert_eq!(guarded(bound), (bound, bound));
        });
        thread.join().unwrap();
    }
}
