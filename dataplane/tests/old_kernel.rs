//! What kernels below Linux 6.4 make of a worker's death, shown on any kernel: with
//! `NAUTILUS_BOUND_RINGS=refused` no process maps a ring of a bound socket. Needs root and the feature
//! `kill-points`: `cargo test -p nautilus-dataplane --features kill-points --test old_kernel`.
#![allow(missing_docs)]

#[path = "support/load.rs"]
mod load;
#[path = "support/supervised.rs"]
mod supervised;

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::Duration;

use nautilus_dataplane::xsk::{BindingSpec, CopyMode, UmemSpec, Unbound};
use nautilus_shm::cells::WorkerState;
use nautilus_shm::control_region::{ControlReader, SUPERVISOR_PROCESS, WORKERS_MAX};
use nautilus_shm::event_log::EventKind;
use nautilus_shm::metrics::labels::{FrameOwner, Label, RxDrop};
use nautilus_shm::metrics::table;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use load::Load;
use supervised::{SERVER, Supervised, ip, privileged, wait_until};

const PATIENCE: Duration = Duration::from_secs(15);
const FRAMES: u32 = 1024;
const CACHE_PORT: u16 = 11211;

fn node() -> Supervised {
    let mut node = Supervised::new(&format!(
        "[port]\nframes = {FRAMES}\n[cache]\nid = \"quotes\"\nport = {CACHE_PORT}\nmax_memory_mb = 8\n[front]\nenabled = false\n"
    ));
    node.environment = vec![("NAUTILUS_BOUND_RINGS".into(), "refused".into())];
    node.start();
    node.await_echo();
    let log = std::fs::read_to_string(node.log()).unwrap();
    assert!(log.contains("every worker binds sockets of its own"), "not probed\n{log}");
    node
}

fn settled(node: &Supervised) {
    wait_until("active and standby", PATIENCE, || {
        node.status().is_some_and(|text| text.contains("Serving") && text.contains("Ready"))
    });
}

/// Kills the active worker and waits for the next.
fn replace_worker(node: &Supervised) {
    let victim = node.active().unwrap();
    kill(Pid::from_raw(victim as i32), Signal::SIGKILL).unwrap();
    wait_until("the next worker", PATIENCE, || node.active().is_some_and(|pid| pid != victim));
    settled(node);
}

fn workers(region: &ControlReader, state: WorkerState) -> Vec<u32> {
    let rows = (0..WORKERS_MAX).filter_map(|slot| region.worker(slot).identity().ok());
    rows.filter(|row| row.state == state).map(|row| row.pid).collect()
}

fn descriptor_count(node: &Supervised) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", node.supervisor_pid())).unwrap().count()
}

fn gaps(region: &ControlReader, into: &mut BTreeMap<u64, u64>) {
    for event in region.events(0).events {
        if event.kind == Some(EventKind::WorkerPromoted) && event.b > 0 {
            into.insert(event.sequence, event.b);
        }
    }
}

fn assert_frames(region: &ControlReader) {
    let active = |slot: &usize| {
        region.worker(*slot).identity().is_ok_and(|row| row.state == WorkerState::Active)
    };
    let metrics = region.metrics((0..WORKERS_MAX).find(active).expect("an active worker"));
    let all: u64 = FrameOwner::ALL.iter().map(|o| metrics.gauge(table::FRAMES.of(*o))).sum();
    assert_eq!(all, u64::from(FRAMES), "frames are conserved");
    for slot in 0..WORKERS_MAX {
        let metrics = region.metrics(slot);
        assert_eq!(metrics.counter(table::FRAMES_LOST), 0);
        assert_eq!(metrics.counter(table::RX_DROPPED_PACKETS.of(RxDrop::Descriptor)), 0);
    }
}

struct Cache(UdpSocket);

impl Cache {
    fn of(node: &Supervised) -> Self {
        let client = node.client();
        client.connect((SERVER, CACHE_PORT)).unwrap();
        Self(client)
    }

    fn ask(&self, text: &str) -> String {
        for _ in 0..10 {
            let request = [&[0, 1, 0, 0, 0, 1, 0, 0][..], text.as_bytes()].concat();
            // Refused while nobody serves: the kernel has the port then.
            let _ = self.0.send(&request);
            let mut reply = [0; 1500];
            match self.0.recv(&mut reply) {
                Ok(length) => return String::from_utf8_lossy(&reply[8..length]).into_owned(),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        panic!("no answer to {text:?}");
    }

    fn set(&self, number: usize) {
        let answer = self.ask(&format!("set key{number} 0 0 7\r\nval{number:04}\r\n"));
        assert_eq!(answer, "STORED\r\n");
    }

    fn assert_all(&self, numbers: usize) {
        for number in 0..numbers {
            let answer = self.ask(&format!("get key{number}\r\n"));
            assert_eq!(answer, format!("VALUE key{number} 0 7\r\nval{number:04}\r\nEND\r\n"));
        }
    }
}

#[test]
fn a_dead_workers_successor_binds_new_sockets() {
    if !privileged("a_dead_workers_successor_binds_new_sockets") {
        return;
    }
    let asked = std::env::var("NAUTILUS_KILLS").ok().and_then(|text| text.parse().ok());
    let kills: usize = asked.unwrap_or(12);
    let mut node = node();
    settled(&node);
    let region = node.attach().unwrap();
    let cache = Cache::of(&node);
    let descriptors = descriptor_count(&node);
    let load = Load::start(node.client(), 10_000);
    let mut events = BTreeMap::new();
    for round in 0..kills {
        cache.set(round);
        let sockets = node.shared_sockets();
        assert_eq!(sockets.len(), 1, "{sockets:?}");
        replace_worker(&node);
        assert_ne!(node.shared_sockets(), sockets, "bound anew");
        cache.assert_all(round + 1);
        gaps(&region, &mut events);
        if round % 4 == 3 {
            // A standby's death costs nothing; the next one has sockets of its own again.
            let standby = workers(&region, WorkerState::Standby)[0];
            kill(Pid::from_raw(standby as i32), Signal::SIGKILL).unwrap();
            wait_until("its burial", PATIENCE, || {
                !workers(&region, WorkerState::Standby).contains(&standby)
            });
            settled(&node);
        }
    }
    std::thread::sleep(Duration::from_millis(300));
    let tally = load.stop();
    let mut sorted: Vec<u64> = events.into_values().collect();
    sorted.sort_unstable();
    println!(
        "{kills} kills: {tally:?}, lost {}; gap us p50 {} max {}",
        tally.sent - tally.answered,
        sorted[sorted.len() / 2] / 1000,
        sorted.last().unwrap() / 1000
    );
    assert_eq!((tally.wrong, tally.duplicates), (0, 0));
    assert!(tally.answered * 10 > tally.sent * 5, "{tally:?}");
    assert_eq!(sorted.len(), kills, "every death has its gap in the log");
    let log = std::fs::read_to_string(node.log()).unwrap();
    assert_eq!(log.matches("on new sockets").count(), kills, "{log}");
    let metrics = region.metrics(SUPERVISOR_PROCESS);
    assert_eq!(metrics.counter(table::REBINDS), kills as u64);
    assert_frames(&region);
    assert_eq!(descriptor_count(&node), descriptors, "nothing of the dead is kept");
    node.stop();
    assert!(!node.has_program() && !node.run_dir().exists());
}

#[test]
fn a_new_supervisor_takes_bound_sockets_back_unmapped() {
    if !privileged("a_new_supervisor_takes_bound_sockets_back_unmapped") {
        return;
    }
    let mut node = node();
    let cache = Cache::of(&node);
    cache.set(0);
    let (worker, sockets) = (node.active(), node.shared_sockets());
    let load = Load::start(node.client(), 5_000);
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(200));
        node.kill_supervisor();
        std::thread::sleep(Duration::from_millis(200));
        node.start();
        assert_eq!((node.active(), node.shared_sockets()), (worker, sockets.clone()));
    }
    let tally = load.stop();
    assert_eq!((tally.answered, tally.wrong, tally.duplicates), (tally.sent, 0, 0));
    replace_worker(&node);
    cache.assert_all(1);
    assert_ne!(node.shared_sockets(), sockets);
    assert_frames(&node.attach().unwrap());
    node.stop();
}

#[test]
fn an_interface_that_was_down_or_gone_is_served_again() {
    if !privileged("an_interface_that_was_down_or_gone_is_served_again") {
        return;
    }
    let mut node = node();
    let cache = Cache::of(&node);
    cache.set(0);
    settled(&node);
    ip(&format!("-n {} link set s0 down", node.server_ns));
    replace_worker(&node);
    ip(&format!("-n {} link set s0 up", node.server_ns));
    node.await_echo();
    // Now there is nothing to bind to when the worker dies.
    ip(&format!("-n {} link del s0", node.server_ns));
    std::thread::sleep(Duration::from_millis(100));
    kill(Pid::from_raw(node.active().unwrap() as i32), Signal::SIGKILL).unwrap();
    wait_until("that is told", PATIENCE, || {
        std::fs::read_to_string(node.log()).unwrap().contains("No such device")
    });
    node.make_veth();
    wait_until("the rebind is told", PATIENCE, || {
        std::fs::read_to_string(node.log()).unwrap().contains("s0 is served again, gap")
    });
    node.await_echo();
    // The link it was made on is gone.
    let cache = Cache::of(&node);
    cache.assert_all(1);
    let region = node.attach().unwrap();
    assert_eq!(region.metrics(SUPERVISOR_PROCESS).counter(table::REBINDS), 2);
    node.stop();
}

#[test]
fn a_queue_that_another_program_has_is_waited_for() {
    if !privileged("a_queue_that_another_program_has_is_waited_for") {
        return;
    }
    let mut node = node();
    settled(&node);
    std::thread::scope(|scope| {
        let (has_it, wait) = std::sync::mpsc::channel();
        let (give_back, until) = std::sync::mpsc::channel::<()>();
        let node = &node;
        scope.spawn(move || {
            let socket = take_queue(node);
            has_it.send(()).unwrap();
            let _ = until.recv();
            drop(socket);
        });
        wait.recv_timeout(PATIENCE).expect("a stranger with the queue");
        wait_until("that is told", PATIENCE, || {
            let log = std::fs::read_to_string(node.log()).unwrap();
            log.contains("its sockets could not be bound within 3s")
        });
        drop(give_back);
    });
    settled(&node);
    node.await_echo();
    assert_frames(&node.attach().unwrap());
    node.stop();
}

/// Kills workers until one of our own sockets gets the queue before the successor's does.
fn take_queue(node: &Supervised) -> Unbound {
    let file = std::fs::File::open(format!("/run/netns/{}", node.server_ns)).unwrap();
    nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    let spec = BindingSpec {
        ifindex: nix::net::if_::if_nametoindex("s0").unwrap(),
        queue: 0,
        mode: CopyMode::Copy,
        umem: UmemSpec::new(64, 2048, false),
        busy_poll_budget: None,
    };
    let made = Unbound::create(&spec).unwrap();
    for _ in 0..10 {
        let victim = node.active().unwrap();
        kill(Pid::from_raw(victim as i32), Signal::SIGKILL).unwrap();
        // The successor has a socket file from its promotion on.
        while node.active().is_none_or(|pid| pid == victim) {
            match spec.bind(made.fds.socket.as_fd()) {
                Ok(()) => return made,
                Err(error) => assert!(error.is_busy(), "{error}"),
            }
        }
        settled(node);
    }
    panic!("the supervisor was faster ten times");
}
