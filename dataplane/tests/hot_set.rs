//! Hot keys of a real node: answered in XDP, never older than what was acknowledged, whatever is killed.
//! Needs root.
#![allow(missing_docs)]

#[path = "support/supervised.rs"]
mod supervised;

use std::net::UdpSocket;
use std::time::Duration;

use nautilus_ebpf::PassProgram;
use nautilus_shm::control_region::{ControlReader, SUPERVISOR_PROCESS};
use nautilus_shm::metrics::labels::XdpVerdict;
use nautilus_shm::metrics::table;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use supervised::{CACHE_PORT, CLIENT, SERVER, Supervised, ask, privileged, wait_until};

const CACHE: &str = "[cache]\nid = \"quotes\"\nmax_memory_mb = 8\nhot_set = ";

fn client(node: &Supervised) -> UdpSocket {
    Supervised::inside(&node.client_ns, || {
        let socket = UdpSocket::bind((CLIENT, 0)).unwrap();
        socket.connect((SERVER, CACHE_PORT)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket
    })
}

fn hot_hits(region: &ControlReader) -> u64 {
    region.metrics(SUPERVISOR_PROCESS).counter(table::XDP_PACKETS.of(XdpVerdict::HotHit))
}

fn value_of(number: u64) -> String {
    format!("VALUE key 0 8\r\n{number:08}\r\nEND\r\n")
}

/// Asks until the answers come from XDP.
fn warm(client: &UdpSocket, region: &ControlReader, expected: &str) {
    let before = hot_hits(region);
    wait_until("the key is hot", Duration::from_secs(10), || {
        for _ in 0..50 {
            assert_eq!(ask(client, "get key\r\n"), expected);
        }
        hot_hits(region) > before + 20
    });
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_hot_key_is_never_behind_its_acknowledged_value() {
    if !privileged("a_hot_key_is_never_behind_its_acknowledged_value") {
        return;
    }
    let mut node = Supervised::new(&format!("{CACHE}true\n"));
    // Without a program on this end too, what XDP sends to it vanishes.
    let _far_end = Supervised::inside(&node.client_ns, || {
        let ifindex = nix::net::if_::if_nametoindex("c0").unwrap();
        PassProgram::load().unwrap().attach(ifindex).unwrap()
    });
    node.start();
    let client = client(&node);
    let region = node.attach().unwrap();
    assert_eq!(ask(&client, "set key 0 0 8\r\n00000000\r\n"), "STORED\r\n");
    warm(&client, &region, &value_of(0));
    let mut number = 0;
    for round in 0..6 {
        let before = hot_hits(&region);
        for _ in 0..200 {
            number += 1;
            let set = format!("set key 0 0 8\r\n{number:08}\r\n");
            assert_eq!(ask(&client, &set), "STORED\r\n");
            assert_eq!(ask(&client, "get key\r\n"), value_of(number));
            assert_eq!(ask(&client, "mg key v f\r\n"), format!("VA 8 f0\r\n{number:08}\r\n"));
        }
        wait_until("changed values are shown", Duration::from_secs(5), || {
            hot_hits(&region) > before + 50
        });
        match round {
            0 => {
                assert_eq!(ask(&client, "delete key\r\n"), "DELETED\r\n");
                assert_eq!(ask(&client, "get key\r\n"), "END\r\n", "deleted");
                assert_eq!(ask(&client, "mg key v\r\n"), "EN\r\n", "deleted");
            }
            1 => {
                assert_eq!(ask(&client, "flush_all\r\n"), "OK\r\n");
                assert_eq!(ask(&client, "get key\r\n"), "END\r\n", "flushed");
            }
            2 => {
                assert_eq!(ask(&client, "touch key 1\r\n"), "TOUCHED\r\n");
                warm(&client, &region, &value_of(number));
                std::thread::sleep(Duration::from_millis(1_100));
                assert_eq!(ask(&client, "get key\r\n"), "END\r\n", "expired");
            }
            _ => {
                // The answers go on without a worker, and the next one keeps them true.
                node.signal_supervisor(Signal::SIGSTOP);
                let victim = node.active().unwrap();
                kill(Pid::from_raw(victim as i32), Signal::SIGKILL).unwrap();
                for _ in 0..200 {
                    assert_eq!(ask(&client, "get key\r\n"), value_of(number), "no worker");
                }
                node.signal_supervisor(Signal::SIGCONT);
                wait_until("the next worker", Duration::from_secs(10), || {
                    node.active().is_some_and(|pid| pid != victim)
                });
            }
        }
        assert_eq!(ask(&client, &format!("set key 0 0 8\r\n{number:08}\r\n")), "STORED\r\n");
        warm(&client, &region, &value_of(number));
    }
    println!("{number} changes of a hot key, {} answers from XDP", hot_hits(&region));
    node.stop();
}

/// `u` changes no answer and makes the request the worker's: both must say the same, byte for byte.
#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_hot_key_is_answered_by_mg_as_the_worker_does() {
    if !privileged("a_hot_key_is_answered_by_mg_as_the_worker_does") {
        return;
    }
    let mut node = Supervised::new(&format!("{CACHE}true\n"));
    let _far_end = Supervised::inside(&node.client_ns, || {
        let ifindex = nix::net::if_::if_nametoindex("c0").unwrap();
        PassProgram::load().unwrap().attach(ifindex).unwrap()
    });
    node.start();
    let client = client(&node);
    let region = node.attach().unwrap();
    // The supervisor copies the counters ten times a second.
    let settled = || {
        std::thread::sleep(Duration::from_millis(300));
        hot_hits(&region)
    };
    for (key, flags, value) in [
        ("k", 0_u32, ""),
        ("md:nasdaq:AAPL:bbo", 7, "an odd number of bytes!"),
        ("a-key-of-the-longest-length-32-b", u32::MAX, &"v".repeat(130)),
        ("three-digits", 65_536, &"w".repeat(171)),
    ] {
        let set = format!("set {key} {flags} 0 {}\r\n{value}\r\n", value.len());
        assert_eq!(ask(&client, &set), "STORED\r\n");
        // Made hot by `mg` alone.
        let before = hot_hits(&region);
        wait_until("the key is hot", Duration::from_secs(10), || {
            (0..50)
                .for_each(|_| assert!(ask(&client, &format!("mg {key} v\r\n")).starts_with("VA ")));
            hot_hits(&region) > before + 20
        });
        let sets = [
            "",
            " v",
            " f",
            " c",
            " s",
            " t",
            " k",
            " q",
            " O",
            " v f",
            " v c",
            " v f c",
            " f v",
            " v f k q",
            " v t f c s k",
            " k O0123456789abcdef v",
            " s c f t O1 v q",
            " Oan-opaque-of-thirty-one-bytes-! v f",
        ];
        let before = settled();
        for flags in sets {
            let hot = ask(&client, &format!("mg {key}{flags}\r\n"));
            let worker = ask(&client, &format!("mg {key}{flags} u\r\n"));
            assert_eq!(hot, worker, "mg {key}{flags}");
        }
        // A request beyond 96 bytes is the worker's.
        let fit = sets.iter().filter(|flags| 3 + key.len() + flags.len() + 2 <= 96).count() as u64;
        assert_eq!(settled() - before, fit, "answered by XDP, each once");
    }
    node.stop();
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_veth_has_no_hot_set_unless_it_is_asked_for() {
    if !privileged("a_veth_has_no_hot_set_unless_it_is_asked_for") {
        return;
    }
    let mut node = Supervised::new(&format!("{CACHE}\"auto\"\n"));
    node.start();
    let client = client(&node);
    assert_eq!(ask(&client, "set key 0 0 8\r\n00000000\r\n"), "STORED\r\n");
    for _ in 0..500 {
        assert_eq!(ask(&client, "get key\r\n"), value_of(0));
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(hot_hits(&node.attach().unwrap()), 0);
    node.stop();
}
