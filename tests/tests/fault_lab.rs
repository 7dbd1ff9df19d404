//! Wires in a lab: at the venue and at a node, named in its state, gone with it.

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nautilus_tests::lab::node_file::{ECHO_PORT, FEED_GROUP};
use nautilus_tests::lab::state::State;
use nautilus_tests::lab::{self, Folder, Lab, LabError, RunId, WireAt, left_behind};

const DELAY: Duration = Duration::from_millis(20);
const SENT: u64 = 40;

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_lab_has_wires_where_it_is_told_to() {
    let run = RunId::draw();
    {
        let folder = Arc::new(Folder::create(run).unwrap());
        let (group, port) = FEED_GROUP;
        let venue = format!("[[line]]\nname = \"A\"\nto = \"{group}:{port}\"\nloss_ppm = 500000\n");
        let node = format!(
            "[[line]]\nname = \"echo\"\nto = \"{}:{ECHO_PORT}\"\ndelay_us = {}\n",
            lab::node(1).v4(),
            DELAY.as_micros()
        );
        let wire = |member: &str, text: &str| WireAt {
            member: member.into(),
            faults: folder.write(&format!("{member}.faults"), text).unwrap(),
        };
        let wires = [wire("venue", &venue), wire("node1", &node)];
        let mut lab =
            Lab::start_wired(Arc::clone(&folder), run, 1, &wires, |_, _, _| Ok(())).unwrap();

        let state = State::of("lab", &lab);
        let wired: Vec<_> =
            state.members.iter().filter_map(|m| Some((&*m.name, m.wire.as_ref()?))).collect();
        let names: Vec<&str> = wired.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["node1", "venue"]);
        for (name, wire) in &wired {
            assert!(wire.namespace.ends_with(&format!("-{name}-wire")), "{}", wire.namespace);
            let faults = format!("{name}.faults");
            assert_eq!(wire.faults.file_name(), Some(faults.as_ref()));
            assert!(std::path::Path::new(&format!("/proc/{}", wire.pid)).exists());
        }

        // IPv4 to the node is late, IPv6 is no line's.
        let client = &lab.client().namespace;
        let took = |address: IpAddr| {
            let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = client.run(|| UdpSocket::bind(any).unwrap());
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let start = Instant::now();
            socket.send_to(b"late?", (address, ECHO_PORT)).unwrap();
            socket.recv_from(&mut [0; 64]).unwrap();
            start.elapsed()
        };
        let [v4, v6] =
            lab::node(1).both().map(|address| (0..5).map(|_| took(address)).min().unwrap());
        assert!(v4 >= DELAY && v6 < v4, "{v4:?} {v6:?}");

        let sender = lab.venue().namespace.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        for _ in 0..SENT {
            sender.send_to(b"nothing a feed would say", (group, port)).unwrap();
        }
        let report = lab.cut_venue().unwrap().unwrap();
        let line = &report.lines[0];
        assert_eq!((line.received, line.passed + line.lost), (SENT, SENT), "{report:?}");
        assert!(line.lost > 5 && line.passed > 5, "{report:?}");
    }
    assert_eq!(left_behind(run), Vec::<String>::new());
}

#[test]
#[ignore = "privileged: makes network namespaces"]
fn a_wire_at_nobody_or_with_a_bad_file_is_refused() {
    let run = RunId::draw();
    {
        let folder = Arc::new(Folder::create(run).unwrap());
        let faults = folder.write("bad", "[[line]]\nto = \"10.0.0.1:1\"\nlos_ppm = 1\n").unwrap();
        let start = |member: &str| {
            let wires = [WireAt { member: member.into(), faults: faults.clone() }];
            Lab::start_wired(Arc::clone(&folder), run, 1, &wires, |_, _, _| Ok(())).unwrap_err()
        };
        for stranger in ["node2", "bridge", "node", ""] {
            let error = start(stranger);
            assert!(matches!(error, LabError::Wire { .. }), "{error}");
            assert!(error.to_string().contains("has no such member"), "{error}");
        }
        let error = start("venue").to_string();
        assert!(error.contains("line[0].los_ppm: unknown field"), "{error}");
        assert!("venue=/nowhere".parse::<WireAt>().is_err());
    }
    assert_eq!(left_behind(run), Vec::<String>::new());
}
