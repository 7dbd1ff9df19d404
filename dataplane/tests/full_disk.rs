//! A disk that is full under the run directory of a node that runs: what has to be remembered is refused with the
//! reason and not done, what has not goes on, and with room again everything does. Needs root.
#![allow(missing_docs)]

#[path = "support/mounts.rs"]
mod mounts;
#[path = "support/run_time.rs"]
mod run_time;
#[path = "support/supervised.rs"]
mod supervised;
#[path = "support/tcp.rs"]
mod tcp;

use std::path::Path;

use mounts::{SmallDisk, in_mounts_of_its_own};
use nautilus_shm::attach::{Code, Request, Verb, kill_switch_request, swap_request};
use run_time::{
    NEW, NODE, OLD, PATIENCE, assert_everywhere, create, log, over_tcp, remove, section, set,
};
use supervised::{Supervised, privileged, wait_until};

const FULL: &str = "No space left on device (os error 28)";

/// A node whose run directory is a disk of its own.
fn node() -> (Supervised, SmallDisk) {
    let mut node = Supervised::new(NODE);
    let disk = SmallDisk::mount(&node.run_dir(), 64);
    node.start();
    node.await_workers(1);
    node.await_echo();
    (node, disk)
}

fn verb(node: &Supervised, verb: Verb) -> (Code, String) {
    node.request(&Request { verb }.encode())
}

fn turn(node: &Supervised, on: bool) -> (Code, String) {
    node.request(&kill_switch_request(on, "a test"))
}

/// Names in the run directory that begin so.
fn names(node: &Supervised, front: &str) -> Vec<String> {
    let entries = std::fs::read_dir(node.run_dir()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.starts_with(front)).collect();
    names.sort();
    names
}

fn is_halted(node: &Supervised) -> bool {
    node.attach().unwrap().kill_switch().unwrap().is_on
}

fn phase(node: &Supervised) -> String {
    let status = node.status().unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("phase ")).unwrap_or_default().to_owned()
}

#[test]
#[ignore = "privileged: makes network namespaces, mounts and a node"]
fn the_kill_switch_is_on_whatever_the_disk_and_says_what_is_missing() {
    if !privileged("the_kill_switch_is_on_whatever_the_disk_and_says_what_is_missing") {
        return;
    }
    in_mounts_of_its_own(|| {
        let (mut node, disk) = node();
        disk.fill();
        for _ in 0..2 {
            let (code, said) = turn(&node, true);
            assert_eq!(code, Code::Impossible, "{said}");
            assert!(said.contains("the kill switch is on, but not all of this is done"), "{said}");
            assert!(said.contains("halted.toml") && said.contains(FULL), "{said}");
            assert!(is_halted(&node));
            assert_eq!(names(&node, "halted"), Vec::<String>::new(), "nothing half written");
        }
        // The next supervisor finds it on in the memory, and says the same.
        node.kill_supervisor();
        node.start();
        assert!(is_halted(&node));
        let said = log(&node);
        assert!(said.contains("the kill switch is on, by uid 0: a test"), "{said}");
        assert!(said.contains("kill switch: cannot write") && said.contains(FULL), "{said}");

        disk.free();
        let (code, said) = turn(&node, true);
        assert_eq!(
            (code, names(&node, "halted")),
            (Code::Ok, vec!["halted.toml".into()]),
            "{said}"
        );
        // A release needs no room.
        disk.fill();
        let (code, said) = turn(&node, false);
        assert_eq!((code, is_halted(&node)), (Code::Ok, false), "{said}");
        assert_eq!(names(&node, "halted"), Vec::<String>::new());
        disk.free();
        node.stop();
    });
}

#[test]
#[ignore = "privileged: makes network namespaces, mounts and a node"]
fn a_node_is_not_told_to_be_what_the_next_supervisor_would_not_know() {
    if !privileged("a_node_is_not_told_to_be_what_the_next_supervisor_would_not_know") {
        return;
    }
    in_mounts_of_its_own(|| {
        let (mut node, disk) = node();
        disk.fill();
        let (code, said) = verb(&node, Verb::Park);
        assert_eq!(code, Code::Impossible, "{said}");
        assert!(said.contains("remembered.toml") && said.contains(FULL), "{said}");
        assert_eq!((phase(&node), names(&node, "remembered")), ("running".into(), vec![]));
        node.await_echo();
        assert_everywhere(&node, OLD, "key", None);
        node.kill_supervisor();
        node.start();
        assert_eq!(phase(&node), "running");

        disk.free();
        assert_eq!(verb(&node, Verb::Park).0, Code::Ok);
        disk.fill();
        let (code, said) = verb(&node, Verb::Start);
        assert_eq!(code, Code::Impossible, "{said}");
        assert!(said.contains("was not started") && said.contains(FULL), "{said}");
        assert_eq!(phase(&node), "parked");
        assert!(!node.has_program(), "the interface is as it was");
        assert_eq!(names(&node, "remembered"), ["remembered.toml"]);
        node.kill_supervisor();
        let parked = std::fs::read_to_string(node.run_dir().join("remembered.toml")).unwrap();
        assert!(parked.contains("begin = \"parked\""), "{parked}");
        node.spawn();
        wait_until("a parked node", PATIENCE, || phase(&node) == "parked");
        disk.free();
        let (code, said) = verb(&node, Verb::Start);
        assert_eq!(code, Code::Ok, "{said}");
        node.await_echo();
        node.stop();
    });
}

#[test]
#[ignore = "privileged: makes network namespaces, mounts and a node"]
fn caches_come_and_go_and_deaths_are_survived_without_a_byte_of_disk() {
    if !privileged("caches_come_and_go_and_deaths_are_survived_without_a_byte_of_disk") {
        return;
    }
    in_mounts_of_its_own(|| {
        let (mut node, disk) = node();
        disk.fill();
        for round in 0..3 {
            let (code, said) = create(&node, &section(NEW, ""));
            assert_eq!(code, Code::Ok, "{said}");
            let value = format!("of round {round}");
            over_tcp(&node, NEW.1).ask(set("key", &value).as_bytes(), b"STORED\r\n");
            match round {
                0 => node.replace_worker(),
                1 => run_time::replace_front(&node),
                _ => {
                    node.kill_supervisor();
                    node.start();
                }
            }
            assert_everywhere(&node, NEW, "key", Some(&value));
            let (code, said) = remove(&node, NEW.0);
            assert_eq!(code, Code::Ok, "{said}");
            assert_everywhere(&node, OLD, "key", None);
        }
        disk.free();
        node.stop();
    });
}

/// A release of the programs that the node was started with: copies, so that it can be told which runs.
fn release(node: &Supervised, name: &str) {
    let folder = node.dir.path().join("releases").join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let from = Path::new(env!("CARGO_BIN_EXE_nautilus-supervisor")).parent().unwrap();
    for program in ["nautilus-supervisor", "nautilus-worker", "nautilus-front", "nautilus-capture"]
    {
        std::fs::copy(from.join(program), folder.join(program)).unwrap();
    }
    for path in [folder.parent().unwrap(), &folder] {
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path, open).unwrap();
    }
}

#[test]
#[ignore = "privileged: makes network namespaces, mounts and a node"]
fn a_swap_is_over_when_the_next_supervisor_would_know() {
    if !privileged("a_swap_is_over_when_the_next_supervisor_would_know") {
        return;
    }
    in_mounts_of_its_own(|| {
        let mut node = Supervised::new(NODE);
        release(&node, "r1");
        let text = std::fs::read_to_string(&node.config).unwrap();
        let releases = node.dir.path().join("releases");
        let text = format!("{text}[supervisor]\nreleases = {releases:?}\n");
        std::fs::write(&node.config, text).unwrap();
        let disk = SmallDisk::mount(&node.run_dir(), 64);
        node.start();
        node.await_workers(1);
        let swap = |node: &Supervised| node.request(&swap_request("r1"));
        let remembered =
            || std::fs::read_to_string(node.run_dir().join("remembered.toml")).unwrap();

        // Not begun.
        disk.fill();
        let (code, said) = swap(&node);
        assert_eq!(code, Code::Impossible, "{said}");
        assert!(said.contains("remembered.toml") && said.contains(FULL), "{said}");
        assert_eq!(names(&node, "remembered"), Vec::<String>::new());
        node.await_workers(1);
        disk.free();

        // The disk is full once the supervisor of the release is there: its workers and front are to come.
        let (code, said) = std::thread::scope(|scope| {
            let asked = scope.spawn(|| swap(&node));
            wait_until("another supervisor", PATIENCE, || {
                log(&node).contains("took the node over")
            });
            disk.fill();
            asked.join().unwrap()
        });
        assert_eq!(code, Code::NotReady, "{said}");
        assert!(said.contains("release r1 serves, but that cannot be remembered"), "{said}");
        assert!(said.contains(FULL), "{said}");
        assert!(remembered().contains("[swap]"), "{}", remembered());
        assert_eq!(swap(&node), (code, said), "whoever asks again hears the same");
        node.await_echo();
        disk.free();
        wait_until("it is over", PATIENCE, || !remembered().contains("[swap]"));
        assert!(remembered().contains("release = \"r1\""), "{}", remembered());
        let (code, said) = swap(&node);
        assert!(code == Code::Ok && said.contains("already"), "{said}");
        node.stop();
    });
}
