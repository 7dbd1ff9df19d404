//! The lab's own parts: what is made is there, works, and goes.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use nautilus_tests::lab::{
    self, Bridge, NetNs, Process, RunId, Service, VethPair, left_behind, sweep,
};
use nautilus_tests::wait::wait_until;

const SOON: Duration = Duration::from_secs(10);

/// One datagram from `from` to `to` on `port` arrives.
fn one_datagram(from: &NetNs, to: &NetNs, address: std::net::IpAddr, port: u16) {
    let receiver = to.run(|| UdpSocket::bind((address, port)).unwrap());
    receiver.set_read_timeout(Some(SOON)).unwrap();
    let sender = from.run(|| match address {
        std::net::IpAddr::V4(_) => UdpSocket::bind("0.0.0.0:0").unwrap(),
        std::net::IpAddr::V6(_) => UdpSocket::bind("[::]:0").unwrap(),
    });
    sender.send_to(b"hello", (address, port)).unwrap();
    let mut buffer = [0; 64];
    let (length, _) = receiver.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"hello");
}

#[test]
#[ignore = "privileged: makes network namespaces"]
fn members_of_a_bridge_reach_each_other_and_nothing_is_left() {
    let run = RunId::draw();
    {
        let bridge = Bridge::create(run).unwrap();
        let node = Arc::new(NetNs::create(run, "node1").unwrap());
        let client = Arc::new(NetNs::create(run, "client").unwrap());
        let _node_link = bridge.join(&node, "node1", lab::node(1)).unwrap();
        let _client_link = bridge.join(&client, "client", lab::CLIENT).unwrap();
        for address in lab::node(1).both() {
            one_datagram(&client, &node, address, 7000);
        }
        assert_eq!(left_behind(run).len(), 3, "three namespaces: {:?}", left_behind(run));
    }
    assert_eq!(left_behind(run), Vec::<String>::new());
}

#[test]
#[ignore = "privileged: makes network namespaces"]
fn a_process_in_a_namespace_ends_with_it() {
    let run = RunId::draw();
    let folder = tempfile::tempdir().unwrap();
    let namespace = NetNs::create(run, "alone").unwrap();
    let mut orphan = namespace.command("sleep").arg("1000").spawn().unwrap();
    wait_until("the process is inside", SOON, || !namespace.processes().is_empty()).unwrap();
    let log = folder.path().join("log");
    let guarded =
        Process::start(run, &namespace, "sh", ["-c", "echo started; exec sleep 1000"], &log)
            .unwrap();
    let pid = guarded.pid();
    wait_until("its output is in the log", SOON, || {
        std::fs::read_to_string(&log).is_ok_and(|text| text == "started\n")
    })
    .unwrap();
    assert!(left_behind(run).iter().any(|line| line.contains(&pid.to_string())));
    drop(guarded);
    drop(namespace);
    assert!(!orphan.wait().unwrap().success(), "killed with its namespace");
    assert_eq!(left_behind(run), Vec::<String>::new());
}

#[test]
#[ignore = "privileged: makes network namespaces"]
fn a_service_is_started_again_and_ends_for_good() {
    let run = RunId::draw();
    let folder = tempfile::tempdir().unwrap();
    let namespace = Arc::new(NetNs::create(run, "service").unwrap());
    let service = Service::start(
        run,
        Some(&namespace),
        "sleep".into(),
        vec!["1000".into()],
        folder.path().join("log"),
    )
    .unwrap();
    let first = service.status().pid.unwrap();
    service.kill();
    wait_until("it runs again", SOON, || {
        service.status().restarts == 1 && service.status().pid.is_some_and(|pid| pid != first)
    })
    .unwrap();
    drop(service);
    assert_eq!(namespace.processes(), Vec::<i32>::new());
}

#[test]
#[ignore = "privileged: makes network namespaces"]
fn a_sweep_takes_away_what_no_guard_did() {
    let run = RunId::draw();
    let a = Arc::new(NetNs::create(run, "a").unwrap());
    let b = Arc::new(NetNs::create(run, "b").unwrap());
    let pair = VethPair::create((&a, "left"), (&b, "right")).unwrap();
    let mut process = a.command("sleep").arg("1000").spawn().unwrap();
    // As after SIGKILL of the owner: no drop runs.
    std::mem::forget((a, b, pair));
    assert!(!left_behind(run).is_empty());
    sweep(run);
    assert_eq!(left_behind(run), Vec::<String>::new());
    assert!(!process.wait().unwrap().success());
    sweep(run);
}
