//! Several caches of one real node: the same keys do not mix by any path, and stay what they are through
//! every death. Needs root.
#![allow(missing_docs)]

#[path = "support/run_time.rs"]
mod run_time;
#[path = "support/supervised.rs"]
mod supervised;
#[path = "support/tcp.rs"]
mod tcp;

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use nautilus_ebpf::PassProgram;
use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::control_region::{ControlReader, SUPERVISOR_PROCESS};
use nautilus_shm::metrics::labels::XdpVerdict;
use nautilus_shm::metrics::table;
use nautilus_shm::region::Access;
use nautilus_shm::table::{TableReader, TableRegion};

use run_time::{front_pid, item, over_kernel_udp, over_tcp, over_udp, replace_front};
use supervised::{Supervised, ask, ip, privileged, wait_until};
use tcp::inside;

/// Ids and ports; the second one takes values of at most 100 bytes.
const CACHES: [(&str, u16); 3] = [("quotes", 11_211), ("orders", 11_212), ("trades", 11_300)];
const READER_UID: u32 = 61_301;
const OTHER_READER_UID: u32 = 61_302;

fn sections() -> String {
    let section = |(index, (id, port)): (usize, &(&str, u16))| {
        let limits = ["", "max_value_bytes = 100\n", "max_memory_mb = 8\n"][index];
        let readers = [READER_UID.to_string(), OTHER_READER_UID.to_string(), String::new()];
        let readers =
            readers[index].parse::<u32>().map_or("[]".into(), |uid| format!("[\"{uid}\"]"));
        format!(
            "[[cache]]\nid = \"{id}\"\nport = {port}\nhot_set = true\nreaders = {readers}\n{limits}"
        )
    };
    CACHES.iter().enumerate().map(section).collect()
}

fn hot_hits(region: &ControlReader) -> u64 {
    region.metrics(SUPERVISOR_PROCESS).counter(table::XDP_PACKETS.of(XdpVerdict::HotHit))
}

/// What every path says of a key; `None` for a cache that has not got it.
fn assert_everywhere(node: &Supervised, key: &str, values: [Option<&str>; CACHES.len()]) {
    for (cache, value) in CACHES.iter().zip(values) {
        run_time::assert_everywhere(node, *cache, key, value);
    }
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn the_same_keys_do_not_mix_by_any_path() {
    if !privileged("the_same_keys_do_not_mix_by_any_path") {
        return;
    }
    let mut node = Supervised::new(&sections());
    let _far_end = Supervised::inside(&node.client_ns, || {
        let ifindex = nix::net::if_::if_nametoindex("c0").unwrap();
        PassProgram::load().unwrap().attach(ifindex).unwrap()
    });
    node.start();
    wait_until("a front", Duration::from_secs(10), || front_pid(&node).is_some());
    let region = node.attach().unwrap();

    // Each path writes each cache once, and all of them read it.
    for (index, (id, port)) in CACHES.iter().enumerate() {
        let value = format!("{id} {index}");
        let set = format!("set udp 0 0 {}\r\n{value}\r\n", value.len());
        assert_eq!(ask(&over_udp(&node, *port), &set), "STORED\r\n");
        let set = set.replace("udp", "tcp");
        over_tcp(&node, *port).ask(set.as_bytes(), b"STORED\r\n");
        let set = set.replace("tcp", "kernel");
        assert_eq!(ask(&over_kernel_udp(&node, *port), &set), "STORED\r\n");
    }
    let values = [Some("quotes 0"), Some("orders 1"), Some("trades 2")];
    for key in ["udp", "tcp", "kernel"] {
        assert_everywhere(&node, key, values);
    }

    // Hot in all of them at once, and still each its own.
    let sockets = CACHES.map(|(_, port)| over_udp(&node, port));
    wait_until("all three are hot", Duration::from_secs(20), || {
        let before = hot_hits(&region);
        for _ in 0..40 {
            // The second one twice, the third one three times as often.
            for (times, (socket, value)) in (1..).zip(sockets.iter().zip(values)) {
                for _ in 0..times {
                    assert_eq!(ask(socket, "get udp\r\n"), item("udp", value.unwrap()));
                }
            }
        }
        hot_hits(&region) >= before + 200
    });
    wait_until("hits in XDP are each cache's own", Duration::from_secs(5), || {
        let of_cache =
            |place| region.cache_metrics(SUPERVISOR_PROCESS, place).counter(table::CACHE_HOT_HITS);
        let of_caches: Vec<u64> = (0..CACHES.len()).map(of_cache).collect();
        of_caches[0] >= 25
            && of_caches.is_sorted_by(|one, next| one < next)
            && of_caches.iter().sum::<u64>() == hot_hits(&region)
    });
    assert_eq!(ask(&sockets[1], "set udp 0 0 3\r\nnew\r\n"), "STORED\r\n");
    assert_everywhere(&node, "udp", [values[0], Some("new"), values[2]]);
    assert_eq!(ask(&sockets[0], "delete udp\r\n"), "DELETED\r\n");
    assert_everywhere(&node, "udp", [None, Some("new"), values[2]]);
    assert_eq!(ask(&sockets[2], "flush_all\r\n"), "OK\r\n");
    assert_everywhere(&node, "udp", [None, Some("new"), None]);
    assert_everywhere(&node, "tcp", [values[0], values[1], None]);

    // Limits are each cache's own.
    let value = "v".repeat(101);
    let set = format!("set long 0 0 101\r\n{value}\r\n");
    let too_large = "SERVER_ERROR object too large for cache\r\n";
    assert_eq!(ask(&sockets[0], &set), "STORED\r\n");
    assert_eq!(ask(&sockets[1], &set), too_large);
    over_tcp(&node, CACHES[1].1).ask(set.as_bytes(), too_large.as_bytes());
    assert_everywhere(&node, "long", [Some(&value), None, None]);

    // What is counted, by cache.
    wait_until("all is counted", Duration::from_secs(5), || {
        (0..CACHES.len()).all(|place| {
            let identity = region.cache(place).unwrap();
            let counted: u64 = (0..2)
                .map(|worker| {
                    let metrics = region.cache_metrics(worker, place);
                    metrics.counter(table::CACHE_HITS)
                })
                .sum();
            identity.id == CACHES[place].0 && identity.port == CACHES[place].1 && counted > 0
        })
    });
    node.stop();
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn every_cache_outlives_every_death() {
    if !privileged("every_cache_outlives_every_death") {
        return;
    }
    let mut node = Supervised::new(&sections());
    node.start();
    wait_until("a front", Duration::from_secs(10), || front_pid(&node).is_some());
    let mut expected = CACHES.map(|_| String::new());
    for round in 0..6 {
        for ((id, port), value) in CACHES.iter().zip(&mut expected) {
            *value = format!("{id} of round {round}");
            let set = format!("set key 0 0 {}\r\n{value}\r\n", value.len());
            over_tcp(&node, *port).ask(set.as_bytes(), b"STORED\r\n");
        }
        match round % 3 {
            0 => node.replace_worker(),
            1 => replace_front(&node),
            _ => {
                node.kill_supervisor();
                node.start();
                let log = std::fs::read_to_string(node.log()).unwrap();
                assert!(log.contains("took the node over from worker"), "{log}");
            }
        }
        assert_everywhere(&node, "key", expected.each_ref().map(|value| Some(value.as_str())));
    }
    node.stop();
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_reader_is_given_its_own_cache_only() {
    if !privileged("a_reader_is_given_its_own_cache_only") {
        return;
    }
    let mut node = Supervised::new(&sections());
    node.start();
    for (id, port) in CACHES {
        let set = format!("set who 0 0 {}\r\n{id}\r\n", id.len());
        assert_eq!(ask(&over_udp(&node, port), &set), "STORED\r\n");
    }
    // This program, as another user, in a place where that user can run it.
    let program = node.dir.path().join("reader");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    for (uid, allowed) in [(READER_UID, "quotes"), (OTHER_READER_UID, "orders")] {
        for (id, _) in CACHES {
            let output = Command::new(&program)
                .args(["--ignored", "--exact", "--nocapture", "the_asking_process"])
                .env("NAUTILUS_TEST_RUN_DIR", node.run_dir())
                .env("NAUTILUS_TEST_CACHE", id)
                .current_dir("/")
                .uid(uid)
                .gid(uid)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let expected = match id == allowed {
                true => format!("@Ok {id}\n"),
                false => "@Refused -\n".into(),
            };
            assert!(said.contains(&expected), "uid {uid} asked for {id}: {said}");
        }
    }
    node.stop();
}

#[test]
#[ignore = "the process that the test above starts as another user"]
fn the_asking_process() {
    let Some(run_dir) = std::env::var_os("NAUTILUS_TEST_RUN_DIR") else { return };
    let id = std::env::var("NAUTILUS_TEST_CACHE").unwrap();
    let (code, fds) = supervised::ask_for_cache(run_dir.as_ref(), &id);
    assert!(fds.len() < 2);
    let Some(fd) = fds.into_iter().next() else { return println!("@{code:?} -") };
    let table = TableRegion::attach(fd, Access::ReadOnly).unwrap();
    let mut out = [0; 16];
    let hit = TableReader::attach(table).unwrap().get(b"who", monotonic_ns(), &mut out).unwrap();
    println!("@{code:?} {}", String::from_utf8_lossy(&out[..hit.value_bytes]));
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_port_that_is_taken_is_refused_with_its_address() {
    if !privileged("a_port_that_is_taken_is_refused_with_its_address") {
        return;
    }
    let node = Supervised::new(&sections());
    ip(&format!("-n {} link set lo up", node.server_ns));
    let _other = inside(&node.server_ns, || std::net::TcpListener::bind("0.0.0.0:11212").unwrap());
    let said = node.refused();
    assert!(said.contains("cannot bind to 0.0.0.0:11212"), "{said}");
    assert!(!node.has_program(), "the interface was left alone");
}
