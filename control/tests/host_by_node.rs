//! The host doctor by a node's supervisor: whoever may ask it needs not be root, names stages and a tier and
//! nothing else, and what was changed is undone byte for byte, whoever dies in between. On a recorded machine.
#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nautilus_control::attach::{ReachError, change_host, supervisor_status};
use nautilus_control::host::knob::{STAGES, Stage};
use nautilus_control::host::recording;
use nautilus_shm::attach::{Code, HostRequest, Verb};

/// Who may ask, and who may not.
const CONTROL_UID: u32 = 65_530;
const STRANGER_UID: u32 = 65_531;

/// A node on kernel sockets and the loopback, whose host is a recorded machine.
struct Node {
    folder: tempfile::TempDir,
    supervisor: Child,
}

/// The supervisor's program, if it has been built: it belongs to another package.
fn program() -> Option<PathBuf> {
    let program = Path::new(env!("CARGO_BIN_EXE_nautilus")).with_file_name("nautilus-supervisor");
    if !program.is_file() || !nix::unistd::geteuid().is_root() {
        println!(
            "SKIPPED host stages by a supervisor: needs root, and {} built",
            program.display()
        );
        return None;
    }
    Some(program)
}

fn started(program: &Path, folder: &Path) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    let mut command = Command::new(program);
    command.arg("--config").arg(folder.join("node.toml"));
    let supervisor = command.stderr(Stdio::from(log)).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    // Answered by this one, not by the socket of one that is dead.
    while supervisor_status(&folder.join("run")).is_err() {
        assert!(Instant::now() < end, "{}", std::fs::read_to_string(folder.join("log")).unwrap());
        std::thread::sleep(Duration::from_millis(20));
    }
    supervisor
}

impl Node {
    fn start(program: &Path, stages: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("nh").tempdir().unwrap();
        let trees = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/host_trees");
        let text = std::fs::read_to_string(trees.join("guest_virtio_queues.txt")).unwrap();
        recording::unpack(&text, &folder.path().join("tree")).unwrap();
        // Readable by the users that ask: they reach the socket through it.
        std::fs::set_permissions(
            folder.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        let at = folder.path().display();
        let text = format!(
            "[node]\nid = \"tuned\"\nrun_dir = \"{at}/run\"\n[port]\nkind = \"socket\"\n[access]\n\
             sources = [\"127.0.0.0/8\"]\n[control]\nuser = \"{CONTROL_UID}\"\n[host]\n\
             stages = {stages}\nroot = \"{at}/tree\"\nstate = \"{at}/host.state\"\n[[interface]]\n\
             name = \"lo\"\naddresses = [\"127.0.0.1\"]\n"
        );
        std::fs::write(folder.path().join("node.toml"), text).unwrap();
        let supervisor = started(program, folder.path());
        Self { folder, supervisor }
    }

    fn run_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    fn has_state(&self) -> bool {
        self.folder.path().join("host.state").exists()
    }

    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        recording::files(&self.folder.path().join("tree")).unwrap()
    }

    /// `nautilus host ... --node`, by another user.
    fn nautilus(&self, uid: u32, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nautilus"));
        command.arg("host").args(arguments).arg("--node").arg(self.run_dir()).uid(uid).gid(uid);
        command.current_dir("/").stdin(Stdio::null()).output().unwrap()
    }

    fn kill(&mut self) {
        self.supervisor.kill().unwrap();
        self.supervisor.wait().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.supervisor.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.supervisor.wait();
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[test]
fn a_user_that_may_has_the_host_changed_and_restored_byte_for_byte() {
    let Some(program) = program() else { return };
    let node = Node::start(&program, "\"auto\"");
    let before = node.files();

    let shown = node.nautilus(CONTROL_UID, &["init", "--dry-run"]);
    assert!(shown.status.success(), "{}", said(&shown));
    assert!(said(&shown).contains("change   swappiness"), "{}", said(&shown));
    assert_eq!(node.files(), before, "what is only shown");

    let denied = node.nautilus(STRANGER_UID, &["init", "--yes"]);
    assert_eq!(denied.status.code(), Some(1), "{}", said(&denied));
    assert!(said(&denied).contains("not in control.user"), "{}", said(&denied));
    let alone = node.nautilus(CONTROL_UID, &["init"]);
    assert_eq!(alone.status.code(), Some(2), "nobody confirmed: {}", said(&alone));
    assert_eq!(node.files(), before);

    let done = node.nautilus(CONTROL_UID, &["init", "--yes"]);
    assert!(said(&done).contains("changed    swappiness"), "{}", said(&done));
    assert_ne!(node.files(), before);
    assert!(node.has_state());
    let again = node.nautilus(CONTROL_UID, &["init", "--yes"]);
    assert!(said(&again).contains(": 0 to change"), "{}", said(&again));

    let undone = node.nautilus(CONTROL_UID, &["fini"]);
    assert!(undone.status.success(), "{}", said(&undone));
    assert_eq!(node.files(), before);
    assert!(!node.has_state());
}

#[test]
fn only_what_was_shown_and_is_approved_is_carried_out() {
    let Some(program) = program() else { return };
    let node = Node::start(&program, "[\"sysctl\", \"thp\"]");
    let before = node.files();
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
    assert_eq!(node.files(), before);

    // Somebody else was faster: the plan is stale.
    let path = node.folder.path().join("tree/sys/kernel/mm/transparent_hugepage/enabled");
    let old = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, "always madvise [never]\n").unwrap();
    assert!(ask(&[Stage::Thp], plan.digest).is_err());
    std::fs::write(&path, old).unwrap();

    let (done, _) = ask(&[Stage::Thp], plan.digest).unwrap();
    assert_eq!((done.changes, done.left), (plan.changes, 0));
    change_host(&node.run_dir(), &HostRequest::restore(false)).unwrap();
    assert_eq!(node.files(), before);
}

#[test]
fn a_supervisor_that_dies_in_between_leaves_nothing_that_cannot_be_undone() {
    let Some(program) = program() else { return };
    let mut node = Node::start(&program, "\"auto\"");
    let before = node.files();
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
        partly += u32::from(!finished && node.files() != before);
        node.supervisor = started(&program, node.folder.path());
        let (done, text) = change_host(&node.run_dir(), &HostRequest::restore(false)).unwrap();
        assert_eq!(done.left, 0, "{text}");
        assert_eq!(node.files(), before, "round {round}");
        assert!(!node.has_state());
    }
    println!("{partly} of {rounds} deaths came after the first change and before the last");
}
