//! What a node orders of its host, held against recorded machines: each field by itself, and a machine that has all.

#[path = "support/trees.rs"]
mod trees;

use std::collections::BTreeMap;
use std::path::Path;

use nautilus_control::host::apply;
use nautilus_control::host::facts::Choice;
use nautilus_control::host::machine::Machine;
use nautilus_control::host::order::{Node, Order, Shortfall, Worker, lacking, memory_by_node};
use nautilus_control::host::plan::Plan;
use nautilus_control::host::state::State;
use nautilus_control::host::survey::Survey;
use nautilus_control::host::tier::Tier;
use nautilus_control::host::value::Cores;
use trees::{root, tree_named, write};

const LAB: Order = Order {
    tier: Tier::Lab,
    kernel_bypass: true,
    cpu_isolation: false,
    numa_optimization: false,
    cpu_cores: 1,
    memory_gb: 1,
};

/// What a machine lacks for a node on these worker cores and all of its interfaces.
fn lacks(root: &Path, workers: &[u32], order: &Order, node: &Node) -> Vec<Shortfall> {
    let machine = Machine::recorded(root);
    let choice = Choice { workers: Some(workers.iter().copied().collect()), ..Choice::default() };
    lacking(order, &Survey::of(&machine, &choice), &machine, node)
}

fn parked() -> Node {
    Node { bypasses: true, workers: Vec::new() }
}

fn running(cores: &[u32], memory: &[(u32, u64)]) -> Node {
    let (cores, memory) = (cores.iter().copied().collect(), memory.iter().copied().collect());
    Node { bypasses: true, workers: vec![Worker { pid: 7, cores: Ok(cores), memory: Ok(memory) }] }
}

fn fields(found: &[Shortfall]) -> Vec<&str> {
    found.iter().map(|one| one.field.as_str()).collect()
}

/// A machine of 1 GiB, less what its kernel keeps.
fn give_memory(root: &Path, kb: u64) {
    write(root, "proc/meminfo", &format!("MemTotal:       {kb} kB\nMemAvailable:   {kb} kB\n"));
}

#[test]
fn isolation_is_what_the_kernel_says_of_the_worker_cores() {
    let order = Order { cpu_isolation: true, ..LAB };
    let folder = tree_named("guest_virtio_queues");
    let root = root(&folder);
    give_memory(&root, 1 << 20);
    assert_eq!(lacks(&root, &[2, 3], &order, &parked()), [], "2-3 are isolated");
    let found = lacks(&root, &[1, 2], &order, &parked());
    assert_eq!(fields(&found), ["cpu_isolation"]);
    let said = &found[0].reason;
    assert!(said.contains("cores_isolated is 2-3, wanted all worker cores"), "{said}");
    assert!(said.contains("boot parameter isolcpus=managed_irq,domain,1-2; reboot"), "{said}");
    assert!(!found[0].by_init, "init writes no boot parameter");
    assert_eq!(lacks(&root, &[1, 2], &LAB, &parked()), [], "it is not ordered");

    // A partition of the cpuset controller is isolation too.
    write(&root, "sys/fs/cgroup/cpuset.cpus.isolated", "1\n");
    assert_eq!(lacks(&root, &[1, 2], &order, &parked()), []);

    // A worker that runs elsewhere, whatever the node file says.
    assert_eq!(lacks(&root, &[2], &order, &running(&[2], &[])), []);
    let found = lacks(&root, &[2], &order, &running(&[0, 2], &[]));
    assert_eq!(fields(&found), ["cpu_isolation"]);
    assert!(found[0].reason.contains("worker 7 may run on 0,2"), "{}", found[0].reason);
    let mut hidden = running(&[2], &[]);
    hidden.workers[0].cores = Err("no such process".into());
    let found = lacks(&root, &[2], &order, &hidden);
    assert!(found[0].reason.contains("cannot be told: no such process"), "{found:?}");

    // What cannot be read is not believed.
    std::fs::remove_file(root.join("sys/devices/system/cpu/isolated")).unwrap();
    let found = lacks(&root, &[2], &order, &parked());
    assert!(found[0].reason.contains("cores_isolated cannot be told"), "{found:?}");
}

#[test]
fn numa_is_one_node_for_cores_interface_and_memory() {
    let order = Order { numa_optimization: true, ..LAB };
    // Cores 0-1 on node 0, 2-3 on node 1, where the card is.
    let folder = tree_named("guest_two_nodes");
    let two = root(&folder);
    give_memory(&two, 1 << 20);
    assert_eq!(lacks(&two, &[2, 3], &order, &parked()), []);
    let found = lacks(&two, &[0], &order, &parked());
    assert_eq!(fields(&found), ["numa_optimization"]);
    assert!(found[0].reason.contains("nic_node (eth0) is 1"), "{}", found[0].reason);
    let found = lacks(&two, &[1, 2], &order, &parked());
    assert!(found[0].reason.contains("1-2 belong to memory nodes [0, 1]"), "{found:?}");

    let home = running(&[2], &[(1, 64 << 20)]);
    assert_eq!(lacks(&two, &[2], &order, &home), []);
    let found = lacks(&two, &[2], &order, &running(&[2], &[(0, 3 << 20), (1, 61 << 20)]));
    assert_eq!(fields(&found), ["numa_optimization"]);
    assert!(found[0].reason.contains("3 of 64 MiB"), "{}", found[0].reason);
    assert!(found[0].reason.contains("beside memory node 1"), "{}", found[0].reason);
    let mut hidden = home.clone();
    hidden.workers[0].memory = Err("permission denied".into());
    assert!(lacks(&two, &[2], &order, &hidden)[0].reason.contains("permission denied"));

    write(&two, "sys/class/net/eth0/device/numa_node", "-1\n");
    let found = lacks(&two, &[2], &order, &parked());
    assert!(found[0].reason.contains("nic_node cannot be told"), "{found:?}");

    // All of a machine with one node is of that node.
    let folder = tree_named("guest_e1000e");
    let one = root(&folder);
    give_memory(&one, 1 << 20);
    assert_eq!(lacks(&one, &[1], &order, &running(&[1], &[(0, 1)])), []);
    std::fs::remove_file(one.join("sys/devices/system/node/online")).unwrap();
    assert_eq!(fields(&lacks(&one, &[1], &order, &parked())), ["numa_optimization"]);
}

#[test]
fn cores_memory_and_port_are_counted() {
    let folder = tree_named("guest_virtio_queues");
    let root = root(&folder);
    give_memory(&root, (1 << 20) - (1 << 16));
    let lab = |cpu_cores, memory_gb| {
        lacks(&root, &[3], &Order { cpu_cores, memory_gb, ..LAB }, &parked())
    };
    assert_eq!(lab(4, 1), []);
    let found = lab(5, 2);
    assert_eq!(fields(&found), ["cpu_cores", "memory_gb"]);
    assert!(found[0].reason.contains("the node can use 4: 0-3"), "{}", found[0].reason);
    assert!(found[1].reason.contains("2 GiB are ordered, the host has 0.9"), "{}", found[1].reason);
    give_memory(&root, (1 << 20) - (1 << 16) - 1);
    assert_eq!(fields(&lab(4, 1)), ["memory_gb"], "a sixteenth is the kernel's, no more");
    write(&root, "proc/meminfo", "MemTotal: lots\n");
    assert_eq!(fields(&lab(4, 1)), ["memory_gb"]);
    give_memory(&root, 1 << 20);

    let socket = Node::default();
    assert_eq!(fields(&lacks(&root, &[3], &LAB, &socket)), ["kernel_bypass"]);
    let order = Order { kernel_bypass: false, ..LAB };
    assert_eq!(lacks(&root, &[3], &order, &socket), []);
    write(&root, "proc/sys/kernel/osrelease", "5.10.0\n");
    let found = lacks(&root, &[3], &LAB, &parked());
    assert!(found[0].reason.contains("kernels below 6.1 are refused"), "{found:?}");
    assert_eq!(lacks(&root, &[3], &order, &socket), [], "which is no matter to kernel sockets");
}

#[test]
fn cores_that_no_worker_can_be_pinned_to_do_not_count() {
    let folder = tree_named("guest_virtio_queues");
    let machine = Machine::recorded(&root(&folder));
    give_memory(&root(&folder), 1 << 20);
    let order = Order { tier: Tier::Standard, cpu_cores: 4, ..LAB };
    let lacks = |allowed: &[u32]| {
        let allowed: Cores = allowed.iter().copied().collect();
        let (workers, allowed) = (Some([3].into()), Some(allowed));
        let choice = Choice { workers, allowed, ..Choice::default() };
        let found = lacking(&order, &Survey::of(&machine, &choice), &machine, &parked());
        let said = |name: &str| found.iter().any(|one| one.reason.starts_with(name));
        (said("4 are ordered, the node can use"), said("cores_allowed is"))
    };
    assert_eq!(lacks(&[0, 1, 2, 3]), (false, false));
    assert_eq!(lacks(&[1, 2, 3]), (true, false));
    assert_eq!(lacks(&[0, 1, 2]), (true, true), "the tier's own knob says the same");
}

#[test]
fn a_tier_is_what_the_doctor_says_of_it_and_a_lab_asks_for_nothing() {
    for (name, _) in trees::trees() {
        let folder = tree_named(&name);
        let machine = Machine::recorded(&root(&folder));
        let choice = Choice::default();
        let survey = Survey::of(&machine, &choice);
        let report = nautilus_control::host::report::Report::of(&survey, Tier::Ultra);
        for (place, tier) in
            [Tier::Ultra, Tier::High, Tier::Standard, Tier::Lab].into_iter().enumerate()
        {
            let order = Order { tier, ..LAB };
            let found = lacking(&order, &survey, &machine, &parked());
            let of_tier: Vec<&Shortfall> =
                found.iter().filter(|one| one.field == "node_type").collect();
            let lost = report.knobs.iter().filter(|knob| knob.tiers[place].outcome == "lost");
            for knob in lost {
                let starts = |one: &&Shortfall| one.reason.starts_with(knob.name);
                assert_eq!(of_tier.iter().copied().any(|one| starts(&one)), tier != Tier::Lab);
            }
            assert_eq!(of_tier.is_empty(), tier == Tier::Lab, "{name}: no machine here has all");
        }
    }
}

#[test]
fn what_init_would_write_is_said_and_what_a_running_node_took_is_not_missing() {
    let folder = tree_named("guest_virtio_queues");
    let root = root(&folder);
    let order = Order { tier: Tier::Ultra, cpu_isolation: true, ..LAB };
    let found = lacks(&root, &[2, 3], &order, &parked());
    let of = |found: &[Shortfall], name: &str| {
        found.iter().find(|one| one.reason.starts_with(name)).cloned()
    };
    let swappiness = of(&found, "swappiness is 60").expect("it is lost");
    assert!(swappiness.by_init, "{swappiness:?}");
    let said = &swappiness.reason;
    assert!(said.contains("`nautilus host init --tier ultra` would write 1"), "{said}");
    assert!(of(&found, "cores_isolated").is_none(), "isolation holds");
    assert!(of(&found, "veth").is_none(), "only the lab needs it");
    assert!(of(&found, "huge_pages_free").is_some());
    let found = lacks(&root, &[2, 3], &order, &running(&[2], &[]));
    assert!(of(&found, "huge_pages_free").is_none(), "the node has taken them");
}

#[test]
fn an_ultra_node_can_be_had_of_a_host_that_is_tuned_and_keeps_what_init_cannot_give() {
    let folder = tree_named("guest_two_nodes");
    let root = root(&folder);
    let order = Order {
        tier: Tier::Ultra,
        cpu_isolation: true,
        numa_optimization: true,
        cpu_cores: 4,
        ..LAB
    };
    // What no program can give: kernel, boot parameters, hardware.
    write(&root, "proc/sys/kernel/osrelease", "6.12.0\n");
    write(&root, "sys/devices/system/cpu/isolated", "2-3\n");
    write(&root, "sys/devices/system/cpu/nohz_full", "2-3\n");
    write(&root, "proc/cmdline", "isolcpus=managed_irq,domain,2-3 rcu_nocbs=2-3 skew_tick=1\n");
    write(&root, "sys/class/net/eth0/speed", "25000\n");
    write(&root, "proc/cpuinfo", "flags\t\t: tsc constant_tsc nonstop_tsc\n");
    let clocks = "sys/devices/system/clocksource/clocksource0";
    write(&root, &format!("{clocks}/available_clocksource"), "tsc hpet\n");
    let pages =
        "MemTotal: 4194304 kB\nMemAvailable: 4194304 kB\nHugepagesize: 2048 kB\nSwapTotal: 0 kB\n";
    write(&root, "proc/meminfo", pages);
    // What a driver does not say is no reason against a tier.
    std::fs::remove_file(root.join("netlink/eth0/features")).unwrap();
    let before = lacks(&root, &[2, 3], &order, &parked());
    assert!(before.iter().all(|one| one.field == "node_type"), "{before:#?}");
    assert!(before.iter().filter(|one| one.by_init).count() > 20, "{before:#?}");

    let machine = Machine::recorded(&root);
    let choice = Choice { workers: Some([2, 3].into()), ..Choice::default() };
    let plan = Plan::of(&Survey::of(&machine, &choice), &machine, Tier::Ultra);
    let mut state = State::open(&folder.path().join("state"), "tree", "boot").unwrap();
    apply::init(&machine, &mut state, &plan, false, &mut |_| {}).unwrap();
    // What the kernel makes of the pages of each node, which a tree does not.
    let pages = "sys/kernel/mm/hugepages/hugepages-2048kB";
    write(&root, &format!("{pages}/nr_hugepages"), "256\n");
    write(&root, &format!("{pages}/free_hugepages"), "256\n");
    assert_eq!(lacks(&root, &[2, 3], &order, &parked()), []);
    // And each thing that is lost again is a reason.
    write(&root, "sys/devices/system/cpu/isolated", "2\n");
    assert_eq!(fields(&lacks(&root, &[2, 3], &order, &parked())), ["cpu_isolation"]);
    write(&root, "sys/devices/system/cpu/isolated", "2-3\n");
    write(&root, "proc/sys/vm/swappiness", "60\n");
    assert_eq!(fields(&lacks(&root, &[2, 3], &order, &parked())), ["node_type"]);
}

#[test]
fn memory_is_counted_where_the_kernel_says_it_lies() {
    let text = "7f00 default file=/memfd:nautilus-umem\\040(deleted) huge dirty=3 N0=1 N1=2 \
                kernelpagesize_kB=2048\n\
                7f01 bind:1 file=/memfd:nautilus-cache\\040(deleted) dirty=4 active=0 N1=4 \
                kernelpagesize_kB=4\n\
                7f02 default file=/usr/lib/libc.so.6 mapped=9 N0=9 kernelpagesize_kB=4\n\
                7f03 default heap anon=4 dirty=4 N0=4 kernelpagesize_kB=4\n\
                7f04 default file=/memfd:nautilus-x\\040(deleted) Nx=4 N2=nothing\n";
    let expected = BTreeMap::from([(0, 2 << 20), (1, (4 << 20) + (16 << 10))]);
    assert_eq!(memory_by_node(text), expected);
    assert_eq!(memory_by_node(""), BTreeMap::new());
}
