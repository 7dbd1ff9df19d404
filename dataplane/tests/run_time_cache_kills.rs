//! Deaths at chosen places of the creation and removal of a cache. Needs root and the feature `kill-points`.
#![allow(missing_docs)]

#[path = "support/supervised.rs"]
mod supervised;

use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use nautilus_shm::attach::{Code, cache_name, create_request, remove_request};

use supervised::{CACHE_PORT, CLIENT, SERVER, Supervised, ask, exchange, privileged, wait_until};

const PATIENCE: Duration = Duration::from_secs(20);
const NEW_PORT: u16 = 11_300;
const SECTION: &str = "id = \"orders\"\nport = 11300\nmax_memory_mb = 16\n";

fn kill_file(node: &Supervised) -> PathBuf {
    node.dir.path().join("kill/file")
}

/// A node whose processes die at `point` once for each kill file.
fn node(point: &str) -> Supervised {
    let mut node = Supervised::new("[[cache]]\nid = \"quotes\"\nmax_memory_mb = 16\n");
    let file = kill_file(&node);
    let dir = file.parent().unwrap();
    std::fs::create_dir(dir).unwrap();
    // Workers run as another user and remove the file.
    std::fs::set_permissions(dir, PermissionsExt::from_mode(0o777)).unwrap();
    node.environment = vec![
        ("NAUTILUS_KILL_POINT".into(), point.into()),
        ("NAUTILUS_KILL_FILE".into(), file.display().to_string()),
    ];
    node.start();
    settled(&node);
    node
}

fn settled(node: &Supervised) {
    wait_until("worker, standby and front", PATIENCE, || {
        node.status().is_some_and(|text| {
            text.contains("Serving") && text.contains("Ready") && !text.contains("front none")
        })
    });
}

fn over_udp(node: &Supervised, port: u16) -> UdpSocket {
    let socket = Supervised::udp(&node.client_ns, SocketAddr::new(CLIENT.parse().unwrap(), 0));
    socket.connect((SERVER, port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    socket
}

const GET: &str = "get key\r\n";
const ITEM: &str = "VALUE key 0 3\r\nold\r\nEND\r\n";

/// Asks for a change with a death in its middle; the code of the answer, if there is one.
fn ask_with_a_death(node: &mut Supervised, request: &[u8], of_supervisor: bool) -> Option<Code> {
    std::fs::write(kill_file(node), "0").unwrap();
    let answer = exchange(&node.run_dir(), request).map(|(header, ..)| header.code);
    assert!(!kill_file(node).exists(), "nobody died");
    if of_supervisor {
        assert_eq!(answer, None);
        let status = node.supervisor.take().unwrap().wait().unwrap();
        assert!(!status.success());
        node.start();
    }
    settled(node);
    answer
}

#[test]
fn a_change_that_is_cut_off_leaves_nothing_half_done() {
    if !privileged("a_change_that_is_cut_off_leaves_nothing_half_done") {
        return;
    }
    let create = create_request(SECTION);
    let remove = remove_request(&cache_name("orders"));
    for (point, removes) in [
        ("supervisor.made_cache", false),
        ("supervisor.told_of_cache", false),
        ("supervisor.added_cache", false),
        ("supervisor.told_to_forget", true),
        ("worker.built_cache", false),
        ("front.changed", false),
        ("front.changed", true),
    ] {
        println!("{point}");
        let of_supervisor = point.starts_with("supervisor");
        let mut node = node(point);
        assert_eq!(ask(&over_udp(&node, CACHE_PORT), "set key 0 0 3\r\nold\r\n"), "STORED\r\n");
        if removes {
            assert_eq!(node.request(&create).0, Code::Ok);
            assert_eq!(ask(&over_udp(&node, NEW_PORT), "set key 0 0 3\r\nnew\r\n"), "STORED\r\n");
        }
        let request = if removes { &remove } else { &create };
        let answer = ask_with_a_death(&mut node, request, of_supervisor);
        if !of_supervisor {
            assert_eq!(answer, Some(Code::Ok), "{point}");
        }
        if removes {
            assert_eq!(node.request(&remove).0, Code::NoCache, "{point}");
        }
        // Whoever had no answer asks again, and finds an empty cache.
        let (code, said) = node.request(&create);
        assert_eq!(code, Code::Ok, "{point}: {said}");
        let new = over_udp(&node, NEW_PORT);
        assert_eq!(ask(&new, GET), "END\r\n", "{point}");
        assert_eq!(ask(&new, "set key 0 0 3\r\nold\r\n"), "STORED\r\n");
        node.replace_worker();
        for port in [CACHE_PORT, NEW_PORT] {
            assert_eq!(ask(&over_udp(&node, port), GET), ITEM, "{point}: port {port}");
        }
        assert_eq!(node.request(&remove).0, Code::Ok, "{point}");
        assert_eq!(ask(&over_udp(&node, CACHE_PORT), GET), ITEM, "{point}");
        node.stop();
    }
}
