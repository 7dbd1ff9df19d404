//! A node that knows none of its neighbours: the first answer is dropped and counted, the supervisor has
//! the kernel resolve the neighbour, and the next one leaves.
#![allow(missing_docs)]

#[path = "support/load.rs"]
mod load;
#[path = "support/supervised.rs"]
mod supervised;

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use nautilus_shm::control_region::{ControlReader, SUPERVISOR_PROCESS, WORKERS_MAX};
use nautilus_shm::metrics::labels::{NeighbourOutcome, TxDrop};
use nautilus_shm::metrics::{Counter, table};

use load::pattern;
use supervised::{Supervised, ip, wait_until};

const PATIENCE: Duration = Duration::from_secs(5);

fn of_workers(region: &ControlReader, counter: Counter) -> u64 {
    (0..WORKERS_MAX).map(|slot| region.metrics(slot).counter(counter)).sum()
}

/// Dropped for want of a neighbour, requests made for it, and requests that the supervisor passed on.
fn counts(region: &ControlReader) -> [u64; 3] {
    let asked = table::NEIGHBOURS_REQUESTED.of(NeighbourOutcome::Asked);
    [
        of_workers(region, table::TX_DROPPED_PACKETS.of(TxDrop::NoNeighbour)),
        of_workers(region, table::NEIGHBOUR_REQUESTS),
        region.metrics(SUPERVISOR_PROCESS).counter(asked),
    ]
}

fn output(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}");
    String::from_utf8(output.stdout).unwrap()
}

/// The client asks nobody for the server's MAC, so that the server's kernel learns nothing from it.
fn pin_the_server(node: &Supervised) {
    let mac = output(&format!("netns exec {} cat /sys/class/net/s0/address", node.server_ns));
    for address in ["198.18.0.1", "fd00:6e61::1"] {
        let entry = format!("{address} lladdr {} nud permanent dev c0", mac.trim());
        ip(&format!("-n {} neigh replace {entry}", node.client_ns));
    }
    // Until its link-local address may be used the kernel sends no neighbour solicitation.
    wait_until("IPv6 is ready", PATIENCE, || {
        [("s0", &node.server_ns), ("c0", &node.client_ns)].iter().all(|(name, namespace)| {
            let shown = output(&format!("-n {namespace} -6 addr show dev {name} scope link"));
            shown.contains("fe80") && !shown.contains("tentative")
        })
    });
}

fn echo(client: &UdpSocket, number: u64) -> bool {
    client.send(&pattern(number)).unwrap();
    let mut buffer = [0; 256];
    client.recv(&mut buffer).is_ok_and(|length| buffer[..length] == pattern(number))
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn an_unknown_neighbour_costs_one_answer() {
    let mut node = Supervised::new("[port]\nframes = 1024\n");
    pin_the_server(&node);
    node.start();
    let region = node.attach().unwrap();
    let mut before = [0; 3];
    // The second round is another worker's, with a ring of its own.
    for round in 0..2 {
        ip(&format!("-n {} neigh flush dev s0", node.server_ns));
        for v6 in [false, true] {
            let client = node.client_over(0, v6);
            let address = client.local_addr().unwrap().ip();
            let neighbour = format!("-n {} neigh show to {address} dev s0", node.server_ns);
            assert_eq!(output(&neighbour), "", "the kernel does not know it yet");
            assert!(!echo(&client, 1), "round {round}, v6 {v6}: there was no neighbour to answer");
            wait_until("the kernel resolved it", PATIENCE, || {
                output(&neighbour).contains("lladdr")
            });
            assert!(echo(&client, 2), "round {round}, v6 {v6}: it is known now");
            wait_until("the drop is published", PATIENCE, || {
                counts(&region) == before.map(|count| count + 1)
            });
            before = counts(&region);
        }
        node.replace_worker();
    }
    node.stop();
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_neighbour_that_does_not_exist_is_not_asked_for_with_every_packet() {
    let mut node = Supervised::new("[port]\nframes = 1024\n");
    pin_the_server(&node);
    node.start();
    let region = node.attach().unwrap();
    let client = node.client_over(0, false);
    let answers_arp = |ignore: u8| {
        Supervised::inside(&node.client_ns, || {
            std::fs::write("/proc/sys/net/ipv4/conf/c0/arp_ignore", ignore.to_string()).unwrap();
        });
    };
    // 8: for no address, so that nobody tells the node's kernel who the client is.
    answers_arp(8);
    const PACKETS: u64 = 300;
    for number in 0..PACKETS {
        client.send(&pattern(number)).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    let suppressed = table::NEIGHBOURS_REQUESTED.of(NeighbourOutcome::Suppressed);
    wait_until("every request was judged", PATIENCE, || {
        let [dropped, requests, asked] = counts(&region);
        let suppressed = region.metrics(SUPERVISOR_PROCESS).counter(suppressed);
        dropped == PACKETS && requests == PACKETS && asked + suppressed == PACKETS
    });
    let [_, _, asked] = counts(&region);
    // 300 ms and what a busy machine adds, at 200 ms a question.
    assert!((1..=20).contains(&asked), "asked {asked} times");
    answers_arp(0);
    wait_until("it answers, and is answered", PATIENCE, || echo(&client, 1));
    node.stop();
}
