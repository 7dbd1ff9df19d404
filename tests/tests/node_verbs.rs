//! What a supervisor does to its node when it is told to: a real node that is started, drained, resumed and
//! parked, with the deaths that may come in between.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nautilus_control::attach::{drain_node, park_node, resume_node, start_node};
use nautilus_shm::life::NodePhase;
use nautilus_tests::lab::node_file::CACHE_PORT;
use nautilus_tests::lab::{Folder, Lab, RunId, active_worker, attach};
use nautilus_tests::memcached::Client;
use nautilus_tests::wait::wait_until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const SOON: Duration = Duration::from_secs(20);

fn parked_lab() -> Lab {
    let run = RunId::draw();
    let folder = Arc::new(Folder::create(run).unwrap());
    let parked = |_, _: &_, file: &mut nautilus_tests::lab::NodeFile| {
        file.parked = true;
        Ok(())
    };
    Lab::start(folder, run, 1, parked).unwrap()
}

fn cache(lab: &Lab) -> SocketAddr {
    SocketAddr::new(lab.nodes()[0].member.address.v4().into(), CACHE_PORT)
}

fn udp(lab: &Lab) -> Client {
    let connect = || Client::connect(cache(lab), Duration::from_secs(2));
    lab.client().namespace.run(connect).unwrap()
}

fn tcp(lab: &Lab) -> std::io::Result<TcpStream> {
    let connect = || TcpStream::connect_timeout(&cache(lab), Duration::from_millis(500));
    let stream = lab.client().namespace.run(connect)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    Ok(stream)
}

/// Whether the connection answers a `get` of what was stored.
fn answers(stream: &mut TcpStream) -> bool {
    let expected = b"VALUE kept 0 2\r\nv1\r\nEND\r\n";
    let mut answer = [0; 25];
    stream.write_all(b"get kept\r\n").is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && answer == *expected
}

fn phase(run_dir: &Path) -> Option<NodePhase> {
    Some(attach(run_dir).ok()?.supervisor().phase())
}

fn has_program(lab: &Lab) -> bool {
    lab.nodes()[0].member.namespace.exec("ip -d link show eth0").unwrap().contains("xdp")
}

fn worker_pid(run_dir: &Path) -> Option<u32> {
    active_worker(&attach(run_dir).ok()?).map(|worker| worker.pid)
}

/// Kills the supervisor and waits for the next one.
fn kill_supervisor(lab: &Lab) {
    let node = &lab.nodes()[0];
    let before = attach(&node.run_dir).unwrap().supervisor().identity().unwrap().pid;
    node.supervisor.kill();
    wait_until("the next supervisor answers", SOON, || {
        attach(&node.run_dir)
            .ok()
            .and_then(|region| region.supervisor().identity().ok())
            .is_some_and(|identity| identity.pid != before)
    })
    .unwrap();
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_node_is_started_and_parked_and_stays_what_it_was_told_to_be() {
    let lab = parked_lab();
    let run_dir = lab.nodes()[0].run_dir.clone();
    assert!(!has_program(&lab) && worker_pid(&run_dir).is_none());
    assert!(park_node(&run_dir).unwrap().contains("already"));
    kill_supervisor(&lab);
    assert_eq!(phase(&run_dir), Some(NodePhase::Parked));
    assert!(drain_node(&run_dir, 0).is_err() && resume_node(&run_dir).is_err());

    println!("{}", start_node(&run_dir).unwrap());
    assert!(start_node(&run_dir).unwrap().contains("already"));
    assert!(has_program(&lab));
    udp(&lab).set("kept", 0, b"v1").unwrap();

    // A started node comes back started, from its worker and from nothing.
    let worker = worker_pid(&run_dir).unwrap();
    kill_supervisor(&lab);
    assert_eq!(worker_pid(&run_dir), Some(worker));
    assert!(udp(&lab).get("kept").unwrap().is_some());
    lab.nodes()[0].supervisor.kill_and_hold();
    for pid in [worker_pid(&run_dir), Some(worker)].into_iter().flatten() {
        let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
    }
    wait_until("nobody holds the interface", SOON, || !has_program(&lab)).unwrap();
    lab.nodes()[0].supervisor.release();
    wait_until("the node serves again", SOON, || {
        phase(&run_dir) == Some(NodePhase::Running) && worker_pid(&run_dir).is_some()
    })
    .unwrap();
    assert!(start_node(&run_dir).is_ok());
    udp(&lab).set("kept", 0, b"v1").unwrap();

    println!("{}", park_node(&run_dir).unwrap());
    assert_eq!(phase(&run_dir), Some(NodePhase::Parked));
    assert!(!has_program(&lab) && worker_pid(&run_dir).is_none());
    assert!(tcp(&lab).is_err());
    let left = lab.nodes()[0].member.namespace.exec("ss -xtuanH").unwrap();
    assert!(!left.contains(&CACHE_PORT.to_string()), "{left}");
    kill_supervisor(&lab);
    assert_eq!(phase(&run_dir), Some(NodePhase::Parked));

    // Nothing of the old cache is there, and everything works as the first time.
    start_node(&run_dir).unwrap();
    assert_eq!(udp(&lab).get("kept").unwrap(), None);
    udp(&lab).set("kept", 0, b"v1").unwrap();
    assert!(answers(&mut tcp(&lab).unwrap()));
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_drained_node_serves_who_is_there_and_takes_nobody() {
    let lab = parked_lab();
    let run_dir = lab.nodes()[0].run_dir.clone();
    start_node(&run_dir).unwrap();
    let mut asker = udp(&lab);
    asker.set("kept", 0, b"v1").unwrap();
    let mut known = tcp(&lab).unwrap();
    assert!(answers(&mut known));

    std::thread::scope(|scope| {
        let begun = Instant::now();
        let drain = scope.spawn(|| drain_node(&run_dir, 60_000));
        wait_until("no client is taken", SOON, || tcp(&lab).is_err()).unwrap();
        assert!(attach(&run_dir).unwrap().supervisor().drain_until_ns() > 0);
        assert!(answers(&mut known), "who is there is served");
        assert!(asker.get("kept").unwrap().is_some(), "UDP is answered on");
        // Neither supervisor nor front forgets.
        kill_supervisor(&lab);
        assert!(drain.join().unwrap().is_err(), "whoever asked has to ask again");
        assert!(answers(&mut known) && tcp(&lab).is_err());
        let again = scope.spawn(|| drain_node(&run_dir, 60_000));
        std::thread::sleep(Duration::from_millis(400));
        assert!(!again.is_finished(), "a client is left");
        drop(known);
        println!("{}", again.join().unwrap().unwrap());
        assert!(begun.elapsed() < SOON);
    });
    let front = front_pid(&run_dir);
    kill(Pid::from_raw(front), Signal::SIGKILL).unwrap();
    wait_until("another front", SOON, || ![0, front].contains(&front_pid(&run_dir))).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(tcp(&lab).is_err(), "the next front takes nobody either");

    println!("{}", resume_node(&run_dir).unwrap());
    let mut late = tcp(&lab).unwrap();
    assert!(answers(&mut late));
    assert!(resume_node(&run_dir).unwrap().contains("already"));

    // Whoever stays is closed when the time is over.
    let begun = Instant::now();
    drain_node(&run_dir, 700).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(700), "{:?}", begun.elapsed());
    assert!(!answers(&mut late));
    assert!(asker.get("kept").unwrap().is_some());
    assert!(drain_node(&run_dir, u32::MAX).is_err());
}

fn front_pid(run_dir: &Path) -> i32 {
    let status = nautilus_tests::lab::status(run_dir).unwrap();
    let line = status.lines().find(|line| line.starts_with("front ")).unwrap();
    line.split(' ').nth(1).and_then(|pid| pid.parse().ok()).unwrap_or(0)
}
