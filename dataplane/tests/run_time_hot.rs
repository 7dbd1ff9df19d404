//! The hot set of caches that are created while a real node runs. Needs root.
#![allow(missing_docs)]

#[path = "support/run_time.rs"]
mod run_time;
#[path = "support/supervised.rs"]
mod supervised;
#[path = "support/tcp.rs"]
mod tcp;

use nautilus_ebpf::PassProgram;

use run_time::*;
use supervised::{Supervised, ask, privileged, wait_until};

/// The number behind a name in `stats`.
fn stat(node: &Supervised, port: u16, name: &str) -> u64 {
    let said = ask(&over_kernel_udp(node, port), "stats\r\n");
    let value = said.lines().find_map(|line| line.strip_prefix(&format!("STAT {name} ")));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {said}"))
}

/// Also after another cache had the place, which was answered from XDP as well: neither its values nor its
/// hits are the new one's.
#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn keys_of_a_created_cache_turn_hot() {
    if !privileged("keys_of_a_created_cache_turn_hot") {
        return;
    }
    let mut node = started(NODE);
    let _far_end = Supervised::inside(&node.client_ns, || {
        let ifindex = nix::net::if_::if_nametoindex("c0").unwrap();
        PassProgram::load().unwrap().attach(ifindex).unwrap()
    });
    for round in 0..3 {
        assert_created(&node, &section(NEW, "hot_set = true\n"));
        let (key, value) = (format!("key{}", round % 2), format!("of round {round}"));
        assert_everywhere(&node, NEW, &key, None);
        assert_eq!(stat(&node, NEW.1, "get_hits_xdp"), 0);
        let udp = over_udp(&node, NEW.1);
        assert_eq!(ask(&udp, &set(&key, &value)), "STORED\r\n");
        let mut asked = 0;
        wait_until("it is hot", PATIENCE, || {
            for _ in 0..50 {
                assert_eq!(ask(&udp, &format!("get {key}\r\n")), item(&key, &value));
            }
            asked += 50;
            stat(&node, NEW.1, "get_hits_xdp") >= 50
        });
        let mut before = stat(&node, NEW.1, "get_hits_xdp");
        assert!((50..=asked).contains(&before), "{before} of {asked}");
        // It survives whoever counts, and goes on.
        match round {
            0 => node.replace_worker(),
            1 => {
                node.kill_supervisor();
                for _ in 0..500 {
                    assert_eq!(ask(&udp, &format!("get {key}\r\n")), item(&key, &value));
                }
                asked += 500;
                node.start();
                // Also what was answered while nobody looked.
                before += 450;
            }
            _ => {}
        }
        // Many of the first one, so that they would show among the next one's.
        let more = if round == 0 { 2_000 } else { 50 };
        for _ in 0..more {
            assert_eq!(ask(&udp, &format!("get {key}\r\n")), item(&key, &value));
        }
        wait_until("more is counted", PATIENCE, || stat(&node, NEW.1, "get_hits_xdp") > before);
        let counted = stat(&node, NEW.1, "get_hits_xdp");
        assert!(counted <= asked + more, "{counted} of {asked} and {more}");
        let all = stat(&node, NEW.1, "get_hits");
        let parts = ["get_hits_xdp", "get_hits_worker", "get_hits_front"];
        let parts: u64 = parts.iter().map(|name| stat(&node, NEW.1, name)).sum();
        assert_eq!(all, parts);
        assert_eq!(ask(&udp, &set(&key, "new")), "STORED\r\n");
        assert_everywhere(&node, NEW, &key, Some("new"));
        assert_removed(&node, NEW.0);
    }
    node.stop();
}
