//! One worker behind several interfaces, and behind several queues of one. The clients are kernel
//! sockets: on veth an answer leaves by the queue its request came by, and a kernel takes it from any.
#![allow(missing_docs)]

#[path = "support/load.rs"]
mod load;
#[path = "support/supervised.rs"]
mod supervised;

use std::net::UdpSocket;
use std::time::Duration;

use nautilus_shm::cells::WorkerState;
use nautilus_shm::control_region::{ControlReader, WORKERS_MAX};
use nautilus_shm::metrics::labels::{FrameOwner, Label};
use nautilus_shm::metrics::table;

use load::pattern;
use supervised::{Supervised, ip, wait_until};

const FRAMES: u64 = 1024;
const PATIENCE: Duration = Duration::from_secs(10);

/// Frames of the active worker, whoever owns them.
fn frames(region: &ControlReader) -> u64 {
    let active = |slot: &usize| {
        region.worker(*slot).identity().map(|row| row.state) == Ok(WorkerState::Active)
    };
    let slot = (0..WORKERS_MAX).find(active).expect("an active worker");
    let metrics = region.metrics(slot);
    FrameOwner::ALL.iter().map(|owner| metrics.gauge(table::FRAMES.of(*owner))).sum()
}

/// The first answer may take a neighbour; the 200 that follow come at once, each its own.
fn echoes(what: &str, client: &UdpSocket) {
    let mut buffer = [0; 2048];
    wait_until(&format!("{what} is answered"), PATIENCE, || {
        let _ = client.send(&pattern(u64::MAX));
        client.recv(&mut buffer).is_ok()
    });
    while client.set_nonblocking(true).is_ok() && client.recv(&mut buffer).is_ok() {}
    client.set_nonblocking(false).unwrap();
    // A thread without a core for a while has lost nothing.
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    for number in 0..200 {
        client.send(&pattern(number)).unwrap();
        let length = client.recv(&mut buffer).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(buffer[..length], pattern(number), "{what}");
    }
}

fn every_link_echoes(node: &Supervised, links: &[u8]) {
    for &link in links {
        for v6 in [false, true] {
            echoes(&format!("link {link}, v6 {v6}"), &node.client_over(link, v6));
        }
    }
}

/// Packets that the program saw on each queue of `s0`.
fn by_queue(node: &Supervised, queues: usize) -> Vec<u64> {
    let arguments = ["netns", "exec", &node.server_ns, "ethtool", "-S", "s0"];
    let output = std::process::Command::new("ip").args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let count = |queue: usize| {
        let name = format!("rx_queue_{queue}_xdp_packets:");
        let line = text.lines().find_map(|line| line.trim().strip_prefix(&name));
        line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).trim().parse().unwrap()
    };
    (0..queues).map(count).collect()
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn one_worker_serves_two_interfaces() {
    let mut node = Supervised::new("[[interface]]\nname = \"s1\"\n[port]\nframes = 1024\n");
    node.make_link(1, 1);
    node.start();
    every_link_echoes(&node, &[0, 1]);
    let sockets = node.shared_sockets();
    assert_eq!(sockets.len(), 2, "{sockets:?}");
    assert_eq!(frames(&node.attach().unwrap()), 2 * FRAMES);

    node.replace_worker();
    every_link_echoes(&node, &[0, 1]);
    assert_eq!(node.shared_sockets(), sockets, "no rebind");
    assert_eq!(frames(&node.attach().unwrap()), 2 * FRAMES, "frames are conserved");

    node.kill_supervisor();
    every_link_echoes(&node, &[0, 1]);
    node.start();
    every_link_echoes(&node, &[0, 1]);
    node.replace_worker();
    every_link_echoes(&node, &[1, 0]);
    assert_eq!(node.shared_sockets(), sockets, "taken back, both of them");
    node.stop();
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn one_interface_is_served_on_two_queues() {
    let mut node = Supervised::new("queues = [0, 1]\n[port]\nframes = 1024\n");
    ip(&format!("-n {} link del s0", node.server_ns));
    node.make_link(0, 2);
    node.start();
    // The client's kernel chooses the queue by the hash of the flow.
    let all_flows = |node: &Supervised| {
        let before = by_queue(node, 2);
        for flow in 0..16 {
            echoes(&format!("flow {flow}"), &node.client_over(0, flow % 2 == 0));
        }
        let after = by_queue(node, 2);
        let arrived = [after[0] - before[0], after[1] - before[1]];
        assert!(arrived.iter().all(|count| *count >= 200), "by queue: {arrived:?}");
        arrived
    };
    println!("packets by queue: {:?}", all_flows(&node));
    let sockets = node.shared_sockets();
    assert_eq!(sockets.len(), 2, "{sockets:?}");
    assert_eq!(frames(&node.attach().unwrap()), 2 * FRAMES);

    node.replace_worker();
    all_flows(&node);
    assert_eq!(node.shared_sockets(), sockets, "no rebind");
    assert_eq!(frames(&node.attach().unwrap()), 2 * FRAMES, "frames are conserved");
    node.stop();
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn an_interface_that_comes_back_with_other_queues_leaves_the_next_alone() {
    let mut node = Supervised::new("[[interface]]\nname = \"s1\"\n[port]\nframes = 1024\n");
    let server = node.server_ns.clone();
    let remake = |node: &Supervised, queues: u32| {
        ip(&format!("-n {server} link del s0"));
        node.make_link(0, queues);
    };
    let told = |node: &Supervised, what: &str| {
        wait_until(what, PATIENCE, || std::fs::read_to_string(node.log()).unwrap().contains(what));
    };
    remake(&node, 2);
    node.make_link(1, 1);
    node.start();
    every_link_echoes(&node, &[0, 1]);

    remake(&node, 1);
    told(&node, "s0 is served again");
    every_link_echoes(&node, &[0, 1]);

    // The next supervisor learns where the sockets are, not where they would be in a new node.
    node.kill_supervisor();
    node.start();
    ip(&format!("-n {server} link set s1 address 02:00:00:00:77:01"));
    ip(&format!("-n {} neigh flush dev c1", node.client_ns));
    told(&node, "s1 has a new MAC");
    every_link_echoes(&node, &[0, 1]);

    remake(&node, 3);
    told(&node, "s0: has more queues than before");
    every_link_echoes(&node, &[1]);
    let log = std::fs::read_to_string(node.log()).unwrap();
    assert_eq!(log.matches("more queues than before").count(), 1, "told once\n{log}");

    remake(&node, 1);
    wait_until("s0 is served", PATIENCE, || node.client_over(0, false).send(b"?").is_ok());
    every_link_echoes(&node, &[0, 1]);
    node.stop();
}
