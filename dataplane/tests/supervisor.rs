//! The real supervisor and workers over a veth pair, killed in every way. Needs root.
#![allow(missing_docs)]

#[path = "support/load.rs"]
mod load;
#[path = "support/monitor.rs"]
mod monitor;
#[path = "support/supervised.rs"]
mod supervised;

use std::collections::{BTreeMap, HashSet};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nautilus_shm::attach::Code;
use nautilus_shm::cells::WorkerState;
use nautilus_shm::control_region::{ControlReader, SUPERVISOR_PROCESS, WORKERS_MAX};
use nautilus_shm::event_log::EventKind;
use nautilus_shm::metrics::labels::{FrameOwner, Label, RxDrop};
use nautilus_shm::metrics::{Counter, table};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use load::{Load, pattern};
use monitor::{Monitor, children, threads};
use supervised::{CACHE_PORT, ECHO_PORT, SERVER, Supervised, ip, privileged, wait_until};

/// Slot of the active worker.
fn active_slot(region: &ControlReader) -> usize {
    let active = |index: &usize| {
        region.worker(*index).identity().is_ok_and(|row| row.state == WorkerState::Active)
    };
    (0..WORKERS_MAX).find(active).expect("an active worker")
}

fn frames(region: &ControlReader) -> u64 {
    let metrics = region.metrics(active_slot(region));
    FrameOwner::ALL.iter().map(|owner| metrics.gauge(table::FRAMES.of(*owner))).sum()
}

/// A counter of the supervisor's.
fn counted(region: &ControlReader, counter: Counter) -> u64 {
    region.metrics(SUPERVISOR_PROCESS).counter(counter)
}

/// A counter of all workers, dead ones included.
fn of_workers(region: &ControlReader, counter: Counter) -> u64 {
    (0..WORKERS_MAX).map(|slot| region.metrics(slot).counter(counter)).sum()
}

/// `NAUTILUS_KILLS`, else 1,000 with `NAUTILUS_LONG`, else `usual`.
fn kills(usual: usize) -> usize {
    let asked = std::env::var("NAUTILUS_KILLS").ok().and_then(|text| text.parse().ok());
    let long = std::env::var_os("NAUTILUS_LONG").is_some();
    asked.unwrap_or(if long { 1000 } else { usual })
}

fn percentile(sorted: &[u64], percent: usize) -> u64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

#[test]
fn a_worker_is_killed_again_and_again_under_load() {
    if !privileged("a_worker_is_killed_again_and_again_under_load") {
        return;
    }
    let kills = kills(50);
    let mut node = Supervised::new("[port]\nframes = 1024\n");
    node.start();
    node.await_echo();
    let sockets = node.shared_sockets();
    assert_eq!(sockets.len(), 1, "{sockets:?}");
    let region = node.attach().unwrap();
    let mut flood = Flood::new(node.client());
    let (mut full, mut full_rounds) = (0, 0);
    let load = Load::start(node.client(), 10_000);
    let monitor = Monitor::start(node.supervisor_pid());
    let mut gaps: BTreeMap<u64, u64> = BTreeMap::new();
    for round in 0..kills {
        wait_until("a standby is ready", Duration::from_secs(20), || {
            node.status().is_some_and(|text| text.contains("Serving") && text.contains("Ready"))
        });
        std::thread::sleep(Duration::from_millis(60));
        let victim = node.active().unwrap();
        // Every tenth time the RX ring runs over while nobody serves.
        let overflow = round % 10 == 9;
        if overflow {
            node.signal_supervisor(Signal::SIGSTOP);
        }
        kill(Pid::from_raw(victim as i32), Signal::SIGKILL).unwrap();
        if overflow {
            flood.send(4000);
            node.signal_supervisor(Signal::SIGCONT);
        }
        wait_until("the next worker", Duration::from_secs(20), || {
            node.active().is_some_and(|pid| pid != victim)
        });
        if overflow {
            wait_until("the overflow is told", Duration::from_secs(5), || {
                counted(&region, table::RX_RING_FULL) > full
            });
            full_rounds += 1;
            full = counted(&region, table::RX_RING_FULL);
            flood.collect();
        }
        for event in region.events(0).events {
            if event.kind == Some(EventKind::WorkerPromoted) && event.b > 0 {
                gaps.insert(event.sequence, event.b);
            }
        }
    }
    wait_until("service", Duration::from_secs(20), || {
        node.status().is_some_and(|text| text.contains("Serving"))
    });
    std::thread::sleep(Duration::from_millis(300));
    let tally = load.stop();
    drop(monitor);
    for event in region.events(0).events {
        if event.kind == Some(EventKind::WorkerPromoted) && event.b > 0 {
            gaps.insert(event.sequence, event.b);
        }
    }
    let mut sorted: Vec<u64> = gaps.into_values().collect();
    sorted.sort_unstable();
    println!(
        "{kills} kills: {tally:?}, lost {}; gap us p50 {} p99 {} max {}",
        tally.sent - tally.answered,
        percentile(&sorted, 50) / 1000,
        percentile(&sorted, 99) / 1000,
        sorted.last().unwrap() / 1000
    );
    flood.collect();
    println!(
        "{full_rounds} rounds overflowed the RX ring, {full} packets dropped there, {} for want of a \
         frame; of {} flooded {} were answered",
        counted(&region, table::FILL_RING_EMPTY),
        flood.sent,
        flood.answered.len()
    );
    let unanswered = tally.sent - tally.answered + flood.sent - flood.answered.len() as u64;
    let told = [table::RX_RING_FULL, table::FILL_RING_EMPTY, table::RX_KERNEL_DROPPED]
        .map(|counter| counted(&region, counter));
    println!("unanswered {unanswered}, of these told by the kernel {}", told.iter().sum::<u64>());
    assert_eq!((tally.wrong, tally.duplicates), (0, 0));
    assert_eq!(full_rounds, kills / 10);
    assert_eq!(sorted.len(), kills, "every death has its gap in the log");
    assert_eq!(node.shared_sockets(), sockets, "no rebind");
    wait_until("every dead worker is reaped", Duration::from_secs(5), || {
        children(node.supervisor_pid()).len() == 2
    });
    // Reaping waits for normal tasks in a busy loop of the kernel.
    let reaper = threads(node.supervisor_pid()).into_iter().find(|(name, _)| name == "reaper");
    assert_eq!(reaper, Some(("reaper".into(), libc::SCHED_OTHER)));
    assert_eq!(frames(&region), 1024, "frames are conserved");
    assert_eq!(of_workers(&region, table::FRAMES_LOST), 0);
    // A frame in two places would come back from the kernel a second time and be refused.
    assert_eq!(of_workers(&region, table::RX_DROPPED_PACKETS.of(RxDrop::Descriptor)), 0);
    // Overflowed rounds lose what the rings cannot hold; the others at most what was in hand.
    assert!(tally.answered * 10 > tally.sent * 5, "{tally:?}");
    node.stop();
    assert!(!node.has_program() && !node.run_dir().exists());
}

/// Datagrams sent while nobody serves; the ones that are answered must be right, and answered once.
struct Flood {
    socket: UdpSocket,
    sent: u64,
    answered: HashSet<u64>,
}

impl Flood {
    fn new(socket: UdpSocket) -> Self {
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        Self { socket, sent: 0, answered: HashSet::new() }
    }

    fn send(&mut self, count: u64) {
        for _ in 0..count {
            let _ = self.socket.send(&pattern(self.sent));
            self.sent += 1;
        }
    }

    fn collect(&mut self) {
        let mut buffer = [0; 2048];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let number = u64::from_le_bytes(*buffer.first_chunk().unwrap());
            assert!(number < self.sent && buffer[..length] == pattern(number), "a wrong answer");
            assert!(self.answered.insert(number), "{number} was answered twice");
        }
    }
}

#[test]
fn a_hung_worker_is_killed_and_replaced() {
    if !privileged("a_hung_worker_is_killed_and_replaced") {
        return;
    }
    let mut node = Supervised::new("[supervisor]\nhang_limit_ms = 500\n");
    node.start();
    node.await_echo();
    let region = node.attach().unwrap();
    let victim = node.active().unwrap();
    // Idle, it sleeps and says so; that is no hang.
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!((node.active(), counted(&region, table::WORKER_HANGS)), (Some(victim), 0));
    let begin = Instant::now();
    kill(Pid::from_raw(victim as i32), Signal::SIGSTOP).unwrap();
    std::thread::sleep(Duration::from_millis(250));
    assert_eq!(node.active(), Some(victim), "not before its time");
    node.await_echo();
    println!("a stopped worker was replaced after {:?}", begin.elapsed());
    assert_ne!(node.active(), Some(victim));
    assert_eq!(counted(&region, table::WORKER_HANGS), 1);
    let log = std::fs::read_to_string(node.log()).unwrap();
    assert!(log.contains(&format!("worker {victim} is killed: no heartbeat for ")), "{log}");
    node.stop();
}

#[test]
fn the_supervisor_may_die_and_come_back() {
    if !privileged("the_supervisor_may_die_and_come_back") {
        return;
    }
    let mut node = Supervised::new("");
    node.start();
    node.await_echo();
    let sockets = node.shared_sockets();
    let worker = node.active();
    let load = Load::start(node.client(), 5_000);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(300));
        node.kill_supervisor();
        std::thread::sleep(Duration::from_millis(300));
        assert!(node.has_program(), "the worker keeps the link");
        node.start();
        assert_eq!(node.active(), worker, "the same worker serves on");
        assert_eq!(node.shared_sockets(), sockets, "taken back, not bound anew");
    }
    let tally = load.stop();
    println!("supervisor killed 3 times: {tally:?}");
    assert_eq!((tally.wrong, tally.duplicates), (0, 0));
    assert_eq!(tally.answered, tally.sent, "nothing was lost");
    // What was taken back works: the worker may die now.
    let victim = node.active().unwrap();
    kill(Pid::from_raw(victim as i32), Signal::SIGKILL).unwrap();
    wait_until("the next worker", Duration::from_secs(10), || {
        node.active().is_some_and(|pid| pid != victim)
    });
    node.await_echo();
    assert_eq!(node.shared_sockets(), sockets);
    assert!(node.attach().unwrap().supervisor().identity().unwrap().generation == 4);
}

#[test]
fn when_both_die_the_kernel_has_the_interface_back() {
    if !privileged("when_both_die_the_kernel_has_the_interface_back") {
        return;
    }
    let mut node = Supervised::new("");
    node.start();
    node.await_echo();
    let worker = node.active().unwrap();
    node.signal_supervisor(Signal::SIGSTOP);
    kill(Pid::from_raw(worker as i32), Signal::SIGKILL).unwrap();
    node.kill_supervisor();
    wait_until("the program is gone", Duration::from_secs(5), || !node.has_program());
    let server =
        Supervised::udp(&node.server_ns, SocketAddr::new(SERVER.parse().unwrap(), ECHO_PORT));
    server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let client = node.client();
    client.send(b"by the kernel").unwrap();
    let mut buffer = [0; 64];
    let (length, peer) = server.recv_from(&mut buffer).unwrap();
    server.send_to(&buffer[..length], peer).unwrap();
    assert_eq!(client.recv(&mut buffer).unwrap(), length);
    drop(server);
    // The next start finds stale files, and nothing else.
    node.start();
    node.await_echo();
    assert!(!node.run_dir().join(format!("worker-{worker}.sock")).exists());
    node.stop();
    assert!(!node.run_dir().exists());
}

#[test]
fn strangers_and_second_supervisors_are_refused() {
    if !privileged("strangers_and_second_supervisors_are_refused") {
        return;
    }
    let mut node = Supervised::new("[control]\nuser = \"65530\"\n");
    node.start();
    assert!(node.refused().contains("runs this node already"), "{}", node.refused());
    assert!(node.attach().is_ok());
    let as_user = |uid: u32| {
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| {
                // SAFETY: the raw call changes the uid of this thread alone, which ends here.
                let changed = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
                assert_eq!(changed, 0);
                node.attach().map(drop).map_err(|header| header.code)
            });
            asked.join().unwrap()
        })
    };
    assert_eq!(as_user(65530), Ok(()));
    assert_eq!(as_user(65531), Err(Code::Refused));
    assert_eq!(as_user(65534), Err(Code::Refused), "the worker's own user is no reader");
}

#[test]
fn what_cannot_be_served_is_refused_and_left_alone() {
    if !privileged("what_cannot_be_served_is_refused_and_left_alone") {
        return;
    }
    let node = Supervised::new("");
    let replace = |from: &str, to: &str| {
        let text = std::fs::read_to_string(&node.config).unwrap();
        assert!(text.contains(from));
        std::fs::write(&node.config, text.replace(from, to)).unwrap();
    };
    ip(&format!("-n {} link set s0 mtu 9000", node.server_ns));
    let message = node.refused();
    assert!(message.contains("interface s0: MTU 9000 does not fit"), "{message}");
    ip(&format!("-n {} link set s0 mtu 1500", node.server_ns));
    replace("\"s0\"", "\"nope\"");
    let message = node.refused();
    assert!(message.contains("interface nope: does not exist"), "{message}");
    replace("\"nope\"", "\"s0\"");
    replace("port = 7", "prot = 7");
    let message = node.refused();
    assert!(message.contains("node.toml:7: echo.prot: unknown field `prot`"), "{message}");
    replace("prot = 7", "port = 7");

    let namespace = node.server_ns.clone();
    let (attached, ready) = std::sync::mpsc::channel();
    let (finish, finished) = std::sync::mpsc::channel::<()>();
    let holder = std::thread::spawn(move || {
        let file = std::fs::File::open(format!("/run/netns/{namespace}")).unwrap();
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let ifindex = nix::net::if_::if_nametoindex("s0").unwrap();
        let program = nautilus_ebpf::PassProgram::load().unwrap();
        let link = program.attach(ifindex).unwrap();
        attached.send(()).unwrap();
        let _ = finished.recv();
        drop(link);
    });
    ready.recv().unwrap();
    let message = node.refused();
    assert!(message.contains("`ip link set dev s0 xdp off`"), "{message}");
    assert!(node.has_program(), "the other program is left alone");
    drop(finish);
    holder.join().unwrap();
    wait_until("it is gone", Duration::from_secs(5), || !node.has_program());
}

#[test]
fn interfaces_come_and_go() {
    if !privileged("interfaces_come_and_go") {
        return;
    }
    let mut node = Supervised::new("");
    node.start();
    node.await_echo();
    let server = node.server_ns.clone();
    ip(&format!("-n {server} link set s0 down"));
    std::thread::sleep(Duration::from_millis(100));
    ip(&format!("-n {server} link set s0 up"));
    node.await_echo();
    ip(&format!("-n {server} link set s0 address 02:00:00:00:77:01"));
    // The kernel does not announce it (arp_notify); the client would find out in half a minute.
    ip(&format!("-n {} neigh flush dev c0", node.client_ns));
    node.await_echo();
    let sockets = node.shared_sockets();
    ip(&format!("-n {server} link del s0"));
    std::thread::sleep(Duration::from_millis(100));
    node.make_veth();
    node.await_echo();
    wait_until("the rebind is told", Duration::from_secs(5), || {
        std::fs::read_to_string(node.log()).unwrap().contains("s0 is served again")
    });
    let log = std::fs::read_to_string(node.log()).unwrap();
    for line in
        ["s0 is down", "s0 is up, gap", "has a new MAC", "s0 has gone", "s0 is served again, gap"]
    {
        assert!(log.contains(line), "{line} is not in\n{log}");
    }
    assert_ne!(node.shared_sockets(), sockets, "the one case that binds anew");
    node.stop();
}

#[test]
fn what_was_acknowledged_outlives_its_worker() {
    if !privileged("what_was_acknowledged_outlives_its_worker") {
        return;
    }
    let mut node = Supervised::new("[cache]\nid = \"quotes\"\nport = 11211\nmax_memory_mb = 8\n");
    node.start();
    node.await_echo();
    let client = node.client();
    client.connect((SERVER, CACHE_PORT)).unwrap();
    let ask = |text: &str| supervised::ask(&client, text);
    for round in 0..5 {
        assert_eq!(ask(&format!("set key{round} 0 0 6\r\nvalue{round}\r\n")), "STORED\r\n");
        let victim = node.active().unwrap();
        kill(Pid::from_raw(victim as i32), Signal::SIGKILL).unwrap();
        wait_until("the next worker", Duration::from_secs(10), || {
            node.active().is_some_and(|pid| pid != victim)
        });
        for kept in 0..=round {
            let answer = ask(&format!("get key{kept}\r\n"));
            assert_eq!(answer, format!("VALUE key{kept} 0 6\r\nvalue{kept}\r\nEND\r\n"));
        }
        wait_until("a standby", Duration::from_secs(10), || {
            node.status().is_some_and(|text| text.contains("Ready"))
        });
    }
    // The table outlives the supervisor as well.
    node.kill_supervisor();
    assert!(ask("get key0\r\n").contains("value0"));
    node.start();
    let victim = node.active().unwrap();
    kill(Pid::from_raw(victim as i32), Signal::SIGKILL).unwrap();
    wait_until("the next worker", Duration::from_secs(10), || {
        node.active().is_some_and(|pid| pid != victim)
    });
    assert!(ask("get key4\r\n").contains("value4"));
    node.stop();
}
