//! The host doctor on recorded machines (`host_trees/README.md`), and on this one as another user.

#[path = "support/trees.rs"]
mod trees;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Output};

use nautilus_control::host::apply::{self, Point};
use nautilus_control::host::facts::Choice;
use nautilus_control::host::machine::Machine;
use nautilus_control::host::plan::Plan;
use nautilus_control::host::recording;
use nautilus_control::host::report::Report;
use nautilus_control::host::state::{State, StateError};
use nautilus_control::host::survey::Survey;
use nautilus_control::host::table;
use nautilus_control::host::tier::Tier;
use serde_json::Value;
use tempfile::TempDir;
use trees::{root, tree_named, trees, unpacked};

/// Nobody, on every distribution.
const NOBODY: u32 = 65534;
/// Tells the victim where to die, and on what.
const DIE_AT: &str = "NAUTILUS_HOST_DIE_AT";
const DIE_TREE: &str = "NAUTILUS_HOST_DIE_TREE";

fn files(folder: &TempDir) -> BTreeMap<String, Vec<u8>> {
    recording::files(&root(folder)).unwrap()
}

fn plan_for(machine: &Machine) -> Plan {
    Plan::of(&Survey::of(machine, &Choice::default()), machine, Tier::Ultra)
}

fn state_of(folder: &Path) -> State {
    State::open(&folder.join("state"), "tree", "boot").unwrap()
}

/// What init does, up to the point with this number.
fn init(folder: &Path, reached: &mut dyn FnMut(Point)) -> Vec<apply::Result> {
    let machine = Machine::recorded(&folder.join("tree"));
    let plan = plan_for(&machine);
    apply::init(&machine, &mut state_of(folder), &plan, false, reached).unwrap()
}

fn fini(folder: &Path, force: bool, reached: &mut dyn FnMut(Point)) -> Vec<apply::Result> {
    let machine = Machine::recorded(&folder.join("tree"));
    apply::fini(&machine, &mut state_of(folder), force, reached).unwrap()
}

fn nautilus(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nautilus")).args(arguments).output().unwrap()
}

#[test]
fn every_recorded_machine_is_judged() {
    for (name, text) in trees() {
        let folder = unpacked(&text);
        let machine = Machine::recorded(&root(&folder));
        let survey = Survey::of(&machine, &Choice::default());
        let report = Report::of(&survey, Tier::Ultra);
        assert!(report.knob_count >= 60, "{name}: {}", report.knob_count);
        assert_eq!(report.verdict(), "lost", "{name}");
        assert!(!report.interfaces.is_empty(), "{name} has an interface");
        for knob in &report.knobs {
            for tier in &knob.tiers {
                let needs_words = ["lost", "unknown"].contains(&tier.outcome);
                assert_eq!(needs_words, !tier.reason.is_empty(), "{name}: {knob:?}");
            }
        }
        // Most can be judged: a table that reads nothing would pass everything else.
        let ultra = &report.verdicts[0];
        assert!(ultra.unknown.len() * 3 < report.knob_count, "{name}: {:?}", ultra.unknown);
        println!(
            "{name}: {} knobs at {} places in {:.1} ms, ultra {} lost, {} unknown",
            report.knob_count,
            report.place_count,
            report.read_ms,
            ultra.lost.len(),
            ultra.unknown.len()
        );
    }
}

fn outcome(report: &Report, knob: &str, tier: usize) -> &'static str {
    report.knobs.iter().find(|entry| entry.name == knob).unwrap().tiers[tier].outcome
}

fn report_of(name: &str) -> Report {
    let folder = tree_named(name);
    let machine = Machine::recorded(&root(&folder));
    Report::of(&Survey::of(&machine, &Choice::default()), Tier::Ultra)
}

#[test]
fn what_differs_between_the_machines_is_seen() {
    let one_core = report_of("guest_one_core");
    assert_eq!(one_core.workers, "0");
    assert_eq!(outcome(&one_core, "cores_online", 1), "lost");
    assert_eq!(outcome(&one_core, "cores_online", 3), "holds");
    assert_eq!(outcome(&one_core, "irq_default_affinity", 0), "unknown");
    let queues = report_of("guest_virtio_queues");
    assert_eq!((queues.workers.as_str(), queues.workers_by), ("2-3", "isolated"));
    assert_eq!(outcome(&queues, "cores_isolated", 0), "holds");
    assert_eq!(outcome(&queues, "nic_channels_most", 0), "holds");
    let nodes = report_of("guest_two_nodes");
    let pages = nodes.knobs.iter().find(|knob| knob.name == "huge_pages_node").unwrap();
    let places: Vec<&str> = pages.seen.iter().map(|seen| seen.place.as_str()).collect();
    assert_eq!(places, ["node 0", "node 1"]);
    let e1000e = report_of("guest_e1000e");
    assert_eq!(outcome(&e1000e, "nic_vlan_strip", 0), "lost");
    assert_eq!(outcome(&e1000e, "nic_clock", 0), "holds");
    let here = report_of("build_machine");
    assert_eq!(outcome(&here, "clock_source", 0), "holds");
}

#[test]
fn init_then_fini_leaves_the_same_bytes_and_a_second_init_changes_nothing() {
    for (name, text) in trees() {
        let folder = unpacked(&text);
        let before = files(&folder);
        let results = init(folder.path(), &mut |_| {});
        assert!(results.len() > 10, "{name}: {} changes", results.len());
        for result in &results {
            assert!(result.done, "{name}: {result:?}");
        }
        let tuned = files(&folder);
        assert_ne!(before, tuned, "{name}");
        let machine = Machine::recorded(&root(&folder));
        assert_eq!(plan_for(&machine).steps, [], "{name}: a second init would change something");
        assert!(init(folder.path(), &mut |_| {}).is_empty());
        assert_eq!(tuned, files(&folder), "{name}");
        for result in fini(folder.path(), false, &mut |_| {}) {
            assert!(result.done, "{name}: {result:?}");
        }
        assert_eq!(before, files(&folder), "{name}");
        assert!(fini(folder.path(), false, &mut |_| {}).is_empty(), "{name}: fini twice");
    }
}

/// Dies where it is told; does nothing when the other tests run it.
#[test]
fn victim() {
    let (Ok(at), Ok(tree)) = (std::env::var(DIE_AT), std::env::var(DIE_TREE)) else { return };
    let (what, at) = at.split_once(':').unwrap();
    let mut left: usize = at.parse().unwrap();
    let mut reached = |_| {
        if left == 0 {
            std::process::abort();
        }
        left -= 1;
    };
    match what {
        "init" => drop(init(Path::new(&tree), &mut reached)),
        _ => drop(fini(Path::new(&tree), false, &mut reached)),
    }
}

/// Whether the victim died where it was told.
fn kill(what: &str, at: usize, folder: &TempDir) -> bool {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["victim", "--exact"])
        .env(DIE_AT, format!("{what}:{at}"))
        .env(DIE_TREE, folder.path())
        .output()
        .unwrap();
    output.status.signal() == Some(nix::sys::signal::Signal::SIGABRT as i32)
}

#[test]
fn killed_at_every_step_fini_restores() {
    for (name, text) in trees() {
        let whole = unpacked(&text);
        let (mut init_points, mut fini_points) = (0, 0);
        init(whole.path(), &mut |_| init_points += 1);
        fini(whole.path(), false, &mut |_| fini_points += 1);
        // Every point on one machine, each seventh on the others: a child a point takes its time.
        let stride = if name == "guest_e1000e" { 1 } else { 7 };
        let before = files(&whole);
        for at in (0..init_points).step_by(stride) {
            let folder = unpacked(&text);
            assert!(kill("init", at, &folder), "{name}: point {at} was not reached");
            // Another init after the kill goes on where it ended, and fini undoes both.
            if at % 2 == 0 {
                init(folder.path(), &mut |_| {});
            }
            for result in fini(folder.path(), false, &mut |_| {}) {
                assert!(result.done, "{name} at {at}: {result:?}");
            }
            assert_eq!(before, files(&folder), "{name} killed at point {at} of init");
        }
        for at in (0..fini_points).step_by(stride) {
            let folder = unpacked(&text);
            init(folder.path(), &mut |_| {});
            assert!(kill("fini", at, &folder), "{name}: point {at} was not reached");
            fini(folder.path(), false, &mut |_| {});
            assert_eq!(before, files(&folder), "{name} killed at point {at} of fini");
        }
        println!("{name}: {init_points} points of init and {fini_points} of fini");
    }
}

#[test]
fn a_record_cut_at_any_byte_was_never_followed_by_its_change() {
    let (_, text) = trees().remove(0);
    let folder = unpacked(&text);
    let before = files(&folder);
    assert!(kill("init", 0, &folder));
    let state = folder.path().join("state");
    let bytes = std::fs::read(&state).unwrap();
    let start = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    for end in start..bytes.len() {
        std::fs::write(&state, &bytes[..end]).unwrap();
        assert!(fini(folder.path(), false, &mut |_| {}).is_empty(), "cut at {end}");
        assert_eq!(std::fs::read(&state).unwrap(), &bytes[..start], "the torn line is cut off");
    }
    assert_eq!(before, files(&folder));
}

#[test]
fn what_another_program_changed_since_is_left_unless_forced() {
    let (_, text) = trees().remove(0);
    let folder = unpacked(&text);
    let before = files(&folder);
    init(folder.path(), &mut |_| {});
    let swappiness = root(&folder).join("proc/sys/vm/swappiness");
    std::fs::write(&swappiness, "33\n").unwrap();
    let changed: Vec<_> = init(folder.path(), &mut |_| {});
    assert!(changed.iter().any(|result| !result.done && result.what.contains("--force")));
    let results = fini(folder.path(), false, &mut |_| {});
    let left: Vec<_> = results.iter().filter(|result| !result.done).collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].what.contains("\"33\"") && left[0].what.contains("\"60\""), "{left:?}");
    assert_eq!(std::fs::read(&swappiness).unwrap(), b"33\n");
    for result in fini(folder.path(), true, &mut |_| {}) {
        assert!(result.done, "{result:?}");
    }
    assert_eq!(before, files(&folder));
}

#[test]
fn what_stood_before_the_first_of_several_changes_comes_back() {
    let (_, text) = trees().remove(0);
    let folder = unpacked(&text);
    let before = files(&folder);
    init(folder.path(), &mut |_| {});
    std::fs::write(root(&folder).join("proc/sys/vm/swappiness"), "33\n").unwrap();
    let machine = Machine::recorded(&root(&folder));
    let plan = plan_for(&machine);
    assert_eq!(plan.steps.len(), 1);
    let forced = apply::init(&machine, &mut state_of(folder.path()), &plan, true, &mut |_| {});
    assert!(forced.unwrap()[0].done);
    assert!(fini(folder.path(), false, &mut |_| {}).iter().all(|result| result.done));
    assert_eq!(before, files(&folder), "60, not 33");
}

#[test]
fn half_a_tree_and_garbage_are_no_panic() {
    for (name, text) in trees() {
        let folder = unpacked(&text);
        let paths: Vec<String> = files(&folder).into_keys().collect();
        let garbage: [&[u8]; 5] =
            [b"", b"\xff\x00\x1b", b"-1\n", b"99999999999999999999\n", b"[a] [b]"];
        for (index, path) in paths.iter().enumerate() {
            let file = root(&folder).join(path);
            let old = std::fs::read(&file).unwrap();
            std::fs::write(&file, garbage[index % garbage.len()]).unwrap();
            if index % 4 == 0 {
                let machine = Machine::recorded(&root(&folder));
                let survey = Survey::of(&machine, &Choice::default());
                Report::of(&survey, Tier::Ultra).to_text(true);
                Plan::of(&survey, &machine, Tier::Ultra);
            }
            // Half of it stays broken, so that garbage meets garbage.
            if index % 2 == 0 {
                std::fs::write(&file, old).unwrap();
            }
        }
        let machine = Machine::recorded(&root(&folder));
        let plan = plan_for(&machine);
        // Interfaces, and all else, vanish between the plan and the change.
        std::fs::remove_dir_all(root(&folder)).unwrap();
        let mut state = state_of(folder.path());
        let results = apply::init(&machine, &mut state, &plan, false, &mut |_| {}).unwrap();
        assert!(results.iter().all(|result| !result.done), "{name}: {results:?}");
        // Whether a write went through cannot be seen on what has gone: fini knows that it has.
        let undone = apply::fini(&machine, &mut state, false, &mut |_| {}).unwrap();
        assert!(undone.iter().all(|result| result.done), "{name}: {undone:?}");
        assert!(state.standing().is_empty(), "{name}");
        let empty = Machine::recorded(Path::new("/nonexistent"));
        let report = Report::of(&Survey::of(&empty, &Choice::default()), Tier::Ultra);
        let knobs = report.knobs.iter().filter(|knob| !knob.name.starts_with("irqbalance"));
        assert!(knobs.into_iter().all(|knob| knob.tiers[0].outcome == "unknown"), "{name}");
    }
}

#[test]
fn an_interface_that_vanished_is_no_obstacle_to_fini() {
    let folder = tree_named("guest_e1000e");
    init(folder.path(), &mut |_| {});
    let tree = root(&folder);
    std::fs::remove_dir_all(tree.join("netlink")).unwrap();
    std::fs::remove_dir_all(tree.join("sys/class/net")).unwrap();
    let results = fini(folder.path(), false, &mut |_| {});
    assert!(results.iter().all(|result| result.done), "{results:?}");
    assert!(results.iter().any(|result| result.what == "it has gone"));
}

#[test]
fn a_state_file_that_cannot_be_trusted_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let first = State::open(&path, "tree", "boot").unwrap();
    assert!(matches!(State::open(&path, "tree", "boot"), Err(StateError::Busy(_))));
    drop(first);
    assert!(matches!(State::open(&path, "other", "boot"), Err(StateError::Root { .. })));
    assert!(!State::open(&path, "tree", "another").unwrap().is_of_boot("another"));
    let good = std::fs::read(&path).unwrap();
    let evil = r#"{"record":"intended","id":0,"knob":"k","label":"","address":"file:etc/passwd","kind":"word","old":"00","restore":"x","new":"y"}"#;
    for line in ["garbage", "{}", evil, r#"{"record":"refused","id":7}"#] {
        std::fs::write(&path, [&good[..], line.as_bytes(), b"\n"].concat()).unwrap();
        let refused = State::open(&path, "tree", "boot");
        assert!(matches!(refused, Err(StateError::Record { line: 2, .. })), "{line}: {refused:?}");
    }
    std::fs::write(&path, &good).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(matches!(State::open(&path, "tree", "boot"), Err(StateError::Unsafe(_))));
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(State::open(&link, "tree", "boot"), Err(StateError::File { .. })));
}

/// The command as a user without privileges: root becomes nobody, others are that already.
fn as_nobody(folder: &Path, arguments: &[&str]) -> Output {
    let program = folder.join("nautilus");
    std::fs::copy(env!("CARGO_BIN_EXE_nautilus"), &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(program);
    command.args(arguments).current_dir("/");
    if nix::unistd::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.output().unwrap()
}

#[test]
fn this_machine_is_checked_without_privilege() {
    let folder = tempfile::tempdir().unwrap();
    let output = as_nobody(folder.path(), &["host", "check", "--json"]);
    assert!([0, 1, 3].contains(&output.status.code().unwrap()), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["knob_count"].as_u64().unwrap() >= 60);
    assert!(report["place_count"].as_u64().unwrap() >= 40);
    println!(
        "{} knobs at {} places read in {} ms as nobody",
        report["knob_count"], report["place_count"], report["read_ms"]
    );
    let names: Vec<&str> = report["promises"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["kernel", "btf", "af_xdp", "veth", "capabilities"]);
}

#[test]
fn without_type_information_no_xdp_node_runs_and_that_is_said() {
    let folder = unpacked(&trees().remove(0).1);
    let tree = root(&folder);
    std::fs::remove_file(tree.join("sys/kernel/btf/vmlinux")).unwrap();
    let arguments = ["host", "check", "--root", tree.to_str().unwrap()];
    let output = as_nobody(folder.path(), &arguments);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("an xdp port is refused"), "{said}");
}

#[test]
fn what_may_not_be_written_is_left_and_said() {
    let (_, text) = trees().remove(0);
    let folder = unpacked(&text);
    let before = files(&folder);
    let state = folder.path().join("states");
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o777)).unwrap();
    let (tree, file) = (root(&folder), state.join("state"));
    // The owner, too, may only read.
    for name in before.keys() {
        std::fs::set_permissions(tree.join(name), std::fs::Permissions::from_mode(0o444)).unwrap();
    }
    let (tree, file) = (tree.to_str().unwrap(), file.to_str().unwrap());
    let arguments = ["host", "init", "--root", tree, "--state", file, "--yes"];
    let output = as_nobody(folder.path(), &arguments);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said.contains("LEFT") && said.contains("Permission denied"), "{said}");
    assert!(said.contains("0 changed"), "{said}");
    assert_eq!(before, files(&folder));
    assert!(!Path::new(file).exists(), "nothing to undo, no state file");
}

#[test]
fn the_command_plans_changes_and_undoes() {
    let folder = tree_named("guest_virtio_queues");
    let before = files(&folder);
    let (tree, state) = (root(&folder), folder.path().join("state"));
    let (tree, state) = (tree.to_str().unwrap(), state.to_str().unwrap());
    let run = |arguments: &[&str]| {
        let output = nautilus(&[&["host"], arguments].concat());
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(run(&["check", "--root", tree]).0, 1);
    assert_eq!(run(&["check", "--root", "/nonexistent"]).0, 2);
    assert_eq!(run(&["check", "--root", tree, "--cores", "3-1"]).0, 2);
    let (code, said) = run(&["check", "--root", tree, "--interface", "gone0", "--json"]);
    let report: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &report["interfaces"][0]), (1, &Value::from("gone0")));
    assert_eq!(run(&["init", "--root", tree, "--yes"]).0, 2, "a tree needs a state file");
    let (code, said) = run(&["init", "--root", tree, "--dry-run"]);
    assert_eq!(code, 0);
    assert!(said.contains("swappiness") && said.contains("60 -> 1"), "{said}");
    let (_, said) = run(&["init", "--root", tree, "--dry-run", "--stage", "rings"]);
    assert!(said.lines().all(|line| line.contains("nic_ring") || line.contains("tier")), "{said}");
    assert_eq!(run(&["init", "--root", tree, "--stage", "odd"]).0, 2);
    assert_eq!(run(&["init", "--root", tree, "--state", state]).0, 2, "nobody confirmed");
    assert_eq!(before, files(&folder));
    let (code, said) = run(&["init", "--root", tree, "--state", state, "--yes"]);
    assert_eq!(code, 0, "{said}");
    assert_ne!(before, files(&folder));
    let (_, said) = run(&["init", "--root", tree, "--state", state, "--yes"]);
    assert!(said.contains(": 0 to change"), "{said}");
    let (code, said) = run(&["fini", "--root", tree, "--state", state]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(before, files(&folder));
    assert!(!Path::new(state).exists());
    assert_eq!(run(&["fini", "--root", tree, "--state", state]).0, 0);
    let (code, said) = run(&["explain", "swappiness"]);
    assert!(code == 0 && said.contains("too low") && said.contains("vm.rst"), "{said}");
    assert_eq!(run(&["explain", "no_such"]).0, 2);
    // A tree recorded from a tree is the same tree.
    let again = folder.path().join("again");
    assert_eq!(run(&["record", again.to_str().unwrap(), "--root", tree]).0, 0);
    let copied = recording::files(&again).unwrap();
    for (path, bytes) in &copied {
        assert_eq!(before.get(path), Some(bytes), "{path}");
    }
    assert_eq!(copied.len(), before.len());
}

#[test]
fn the_readme_has_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/host/README.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let table = table::markdown();
    let start = text.find("| knob |").expect("the table begins");
    let length = text[start..].find("\n\n").map_or(text.len() - start, |end| end + 1);
    if std::env::var_os("NAUTILUS_WRITE_README").is_some() {
        let new = text[..start].to_owned() + &table + &text[start + length..];
        std::fs::write(&path, new).unwrap();
        return;
    }
    assert_eq!(&text[start..start + length], table, "write it with NAUTILUS_WRITE_README=1");
}
