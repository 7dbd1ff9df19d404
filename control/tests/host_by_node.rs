//! The host doctor by a node's supervisor: whoever may ask it needs not be root, names stages and a tier and
//! nothing else, and what was changed is undone byte for byte, whoever dies in between. On a recorded machine.
#![allow(missing_docs)]

#[path = "support/supervised.rs"]
mod supervised;
#[path = "support/trees.rs"]
mod trees;

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nautilus_control::attach::{ReachError, change_host};
use nautilus_control::host::knob::{STAGES, Stage};
use nautilus_control::host::recording;
use nautilus_shm::attach::{Code, HostRequest, Verb};
use supervised::{Node, program, started};

/// Who may ask, and who may not.
const CONTROL_UID: u32 = 65_530;
const STRANGER_UID: u32 = 65_531;

fn start(program: &Path, stages: &str) -> Node {
    let more = format!(
        "[control]\nuser = \"{CONTROL_UID}\"\n[host]\nstages = {stages}\nroot = \"{{at}}/tree\"\n\
         state = \"{{at}}/host.state\"\n"
    );
    Node::start(program, "tuned", Some("guest_virtio_queues"), &more)
}

fn has_state(node: &Node) -> bool {
    node.folder.path().join("host.state").exists()
}

fn files(node: &Node) -> BTreeMap<String, Vec<u8>> {
    recording::files(&node.tree()).unwrap()
}

/// `nautilus host ... --node`, by another user.
fn nautilus(node: &Node, uid: u32, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nautilus"));
    command.arg("host").args(arguments).arg("--node").arg(node.run_dir()).uid(uid).gid(uid);
    command.current_dir("/").stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[test]
fn a_user_that_may_has_the_host_changed_and_restored_byte_for_byte() {
    let Some(program) = program() else { return };
    let node = start(&program, "\"auto\"");
    let before = files(&node);

    let shown = nautilus(&node, CONTROL_UID, &["init", "--dry-run"]);
    assert!(shown.status.success(), "{}", said(&shown));
    assert!(said(&shown).contains("change   swappiness"), "{}", said(&shown));
    assert_eq!(files(&node), before, "what is only shown");

    let denied = nautilus(&node, STRANGER_UID, &["init", "--yes"]);
    assert_eq!(denied.status.code(), Some(1), "{}", said(&denied));
    assert!(said(&denied).contains("not in control.user"), "{}", said(&denied));
    let alone = nautilus(&node, CONTROL_UID, &["init"]);
    assert_eq!(alone.status.code(), Some(2), "nobody confirmed: {}", said(&alone));
    assert_eq!(files(&node), before);

    let done = nautilus(&node, CONTROL_UID, &["init", "--yes"]);
    assert!(said(&done).contains("changed    swappiness"), "{}", said(&done));
    assert_ne!(files(&node), before);
    assert!(has_state(&node));
    let again = nautilus(&node, CONTROL_UID, &["init", "--yes"]);
    assert!(said(&again).contains(": 0 to change"), "{}", said(&again));

    let undone = nautilus(&node, CONTROL_UID, &["fini"]);
    assert!(undone.status.success(), "{}", said(&undone));
    assert_eq!(files(&node), before);
    assert!(!has_state(&node));
}

#[test]
fn only_what_was_shown_and_is_approved_is_carried_out() {
    let Some(program) = program() else { return };
    let node = start(&program, "[\"sysctl\", \"thp\"]");
    let before = files(&node);
    let ask = |stages: &[Stage], digest| {
        let stages = Stage::bits(stages);
        let request = HostRequest { verb: Verb::HostApply, stages, tier: 0, force: false, digest };
        change_host(&node.run_dir(), &request)
    };
    let Err(ReachError::Refused { code: Code::Impossible, said, .. }) = ask(&STAGES, 0) else {
        panic!("every stage was allowed");
    };
    assert!(said.contains("huge_pages") && said.contains("host.stages"), "{said}");

    let (plan, text) = ask(&[Stage::Thp], 0).unwrap();
    assert!(plan.changes > 0 && text.contains("thp_enabled") && !text.contains("swappiness"));
    // A plan that nobody was shown.
    let Err(ReachError::Refused { said, .. }) = ask(&[Stage::Sysctl], plan.digest) else {
        panic!("another stage was changed than the one that was shown");
    };
    assert!(said.contains("not as it was when the plan was shown"), "{said}");
    assert_eq!(files(&node), before);

    // Somebody else was faster: the plan is stale.
    let path = node.folder.path().join("tree/sys/kernel/mm/transparent_hugepage/enabled");
    let old = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, "always madvise [never]\n").unwrap();
    assert!(ask(&[Stage::Thp], plan.digest).is_err());
    std::fs::write(&path, old).unwrap();

    let (done, _) = ask(&[Stage::Thp], plan.digest).unwrap();
    assert_eq!((done.changes, done.left), (plan.changes, 0));
    change_host(&node.run_dir(), &HostRequest::restore(false)).unwrap();
    assert_eq!(files(&node), before);
}

#[test]
fn a_supervisor_that_dies_in_between_leaves_nothing_that_cannot_be_undone() {
    let Some(program) = program() else { return };
    let mut node = start(&program, "\"auto\"");
    let before = files(&node);
    let (mut partly, rounds) = (0, 12);
    for round in 0..rounds {
        let run_dir = node.run_dir();
        let asking = std::thread::spawn(move || {
            let stages = Stage::bits(&STAGES);
            let ask = |digest| {
                let verb = Verb::HostApply;
                let request = HostRequest { verb, stages, tier: 0, force: false, digest };
                change_host(&run_dir, &request)
            };
            ask(0).and_then(|(plan, _)| ask(plan.digest)).is_ok()
        });
        std::thread::sleep(Duration::from_millis(10 + 12 * round));
        node.kill();
        let finished = asking.join().unwrap();
        partly += u32::from(!finished && files(&node) != before);
        node.supervisor = started(&program, node.folder.path());
        let (done, text) = change_host(&node.run_dir(), &HostRequest::restore(false)).unwrap();
        assert_eq!(done.left, 0, "{text}");
        assert_eq!(files(&node), before, "round {round}");
        assert!(!has_state(&node));
    }
    println!("{partly} of {rounds} deaths came after the first change and before the last");
}
