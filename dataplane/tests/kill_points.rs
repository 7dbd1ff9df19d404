//! Deaths at chosen places, where a signal from outside would hardly ever hit. Needs root and the
//! feature `kill-points`: `cargo test -p nautilus-dataplane --features kill-points --test kill_points`.
#![allow(missing_docs)]

#[path = "support/load.rs"]
mod load;
#[path = "support/supervised.rs"]
mod supervised;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use nautilus_shm::cells::WorkerState;
use nautilus_shm::control_region::{ControlReader, WORKERS_MAX};
use nautilus_shm::metrics::labels::{FrameOwner, Label, RxDrop};
use nautilus_shm::metrics::table;

use load::Load;
use supervised::{Supervised, privileged, wait_until};

const PATIENCE: Duration = Duration::from_secs(15);

/// A node whose processes die at `point` once for each file made by [`arm`].
fn node(point: &str) -> Supervised {
    let mut node = Supervised::new("[port]\nframes = 1024\n");
    let file = kill_file(&node);
    let dir = file.parent().unwrap();
    std::fs::create_dir(dir).unwrap();
    // Workers run as another user and remove the file.
    std::fs::set_permissions(dir, PermissionsExt::from_mode(0o777)).unwrap();
    node.environment = vec![
        ("NAUTILUS_KILL_POINT".into(), point.into()),
        ("NAUTILUS_KILL_FILE".into(), file.display().to_string()),
    ];
    node
}

fn kill_file(node: &Supervised) -> PathBuf {
    node.dir.path().join("kill/file")
}

fn arm(node: &Supervised, stores: u64) {
    let file = kill_file(node);
    let made = file.with_extension("new");
    std::fs::write(&made, stores.to_string()).unwrap();
    std::fs::rename(&made, &file).unwrap();
}

fn settled(node: &Supervised) {
    wait_until("active and standby", PATIENCE, || {
        node.status().is_some_and(|text| text.contains("Serving") && text.contains("Ready"))
    });
}

fn assert_frames(region: &ControlReader, frames: u64) {
    let active = |slot: &usize| {
        region.worker(*slot).identity().is_ok_and(|row| row.state == WorkerState::Active)
    };
    let metrics = region.metrics((0..WORKERS_MAX).find(active).expect("an active worker"));
    let all: u64 = FrameOwner::ALL.iter().map(|o| metrics.gauge(table::FRAMES.of(*o))).sum();
    assert_eq!(all, frames);
    for slot in 0..WORKERS_MAX {
        let metrics = region.metrics(slot);
        assert_eq!(metrics.counter(table::FRAMES_LOST), 0);
        assert_eq!(metrics.counter(table::RX_DROPPED_PACKETS.of(RxDrop::Descriptor)), 0);
    }
}

#[test]
fn a_worker_dies_between_two_stores_of_its_ledger() {
    if !privileged("a_worker_dies_between_two_stores_of_its_ledger") {
        return;
    }
    let mut node = node("worker.store");
    node.start();
    node.await_echo();
    let region = node.attach().unwrap();
    let sockets = node.shared_sockets();
    let load = Load::start(node.client(), 10_000);
    let rounds = 40;
    for stores in 0..rounds {
        settled(&node);
        let victim = node.active();
        arm(&node, stores);
        wait_until("the death", PATIENCE, || node.active().is_some_and(|pid| Some(pid) != victim));
    }
    settled(&node);
    std::thread::sleep(Duration::from_millis(300));
    let tally = load.stop();
    let log = std::fs::read_to_string(node.log()).unwrap();
    let interrupted = log.matches("interrupted: Some((").count();
    let rings = ["Fill", "Rx", "Tx", "Completion"]
        .map(|ring| (ring, log.matches(&format!("interrupted: Some(({ring},")).count()));
    println!("{rounds} deaths, {interrupted} between intent and publish {rings:?}: {tally:?}");
    assert!(interrupted > 0, "no death cut an operation short\n{log}");
    assert_eq!((tally.wrong, tally.duplicates), (0, 0));
    assert_eq!(node.shared_sockets(), sockets, "no rebind");
    assert_frames(&region, 1024);
    node.stop();
}

#[test]
fn a_worker_dies_when_promoted() {
    if !privileged("a_worker_dies_when_promoted") {
        return;
    }
    let mut node = node("worker.promoted");
    node.start();
    node.await_echo();
    let (region, sockets) = (node.attach().unwrap(), node.shared_sockets());
    for _ in 0..3 {
        settled(&node);
        let victim = node.active().unwrap();
        arm(&node, 0);
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(victim as i32),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
        wait_until("the successor's death", PATIENCE, || !kill_file(&node).exists());
        node.await_echo();
    }
    settled(&node);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(node.shared_sockets(), sockets, "no rebind");
    assert_frames(&region, 1024);
    node.stop();
}

/// Kills the active worker, so that the supervisor comes to its kill point, and reaps it.
fn supervisor_dies(node: &mut Supervised) {
    let victim = node.active().unwrap();
    arm(node, 0);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(victim as i32),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    let status = node.supervisor.take().unwrap().wait().unwrap();
    assert!(!status.success() && !kill_file(node).exists(), "{status}");
}

#[test]
fn the_supervisor_dies_between_burial_and_promotion() {
    if !privileged("the_supervisor_dies_between_burial_and_promotion") {
        return;
    }
    let mut node = node("supervisor.before_promote");
    node.start();
    node.await_echo();
    supervisor_dies(&mut node);
    // Nobody serves and nobody holds a link: the kernel has the interface back.
    wait_until("the program is gone", PATIENCE, || !node.has_program());
    node.start();
    node.await_echo();
    assert_frames(&node.attach().unwrap(), 1024);
    assert_eq!(node.attach().unwrap().supervisor().identity().unwrap().generation, 1, "afresh");
    node.stop();
    assert!(!node.has_program() && !node.run_dir().exists());
}

#[test]
fn the_supervisor_dies_right_after_a_promotion() {
    if !privileged("the_supervisor_dies_right_after_a_promotion") {
        return;
    }
    let mut node = node("supervisor.after_promote");
    node.start();
    node.await_echo();
    let sockets = node.shared_sockets();
    supervisor_dies(&mut node);
    node.await_echo();
    let heir = node.active();
    node.start();
    assert_eq!((node.active(), node.shared_sockets()), (heir, sockets), "taken back");
    node.await_echo();
    assert_frames(&node.attach().unwrap(), 1024);
    node.stop();
}
