//! What a wire leaves alone, leaves behind and refuses.

use std::time::Duration;

use nautilus_tests::frames::without_outer_tag;
use nautilus_tests::lab::{Process, binary};
use nautilus_tests::wait::wait_until;

use crate::rig::{PORTS, Rig, packet};

/// Every datagram of the line dies, so that what arrives was not taken for one.
const DEADLY: &str = "
[[line]]
to = \"233.54.12.111:26477\"
loss_ppm = 1000000
[[line]]
name = \"v6\"
to = \"[ff15::6e61:1]:26477\"
loss_ppm = 1000000
[[line]]
name = \"back\"
to = \"198.18.0.3:26477\"
way = \"back\"
loss_ppm = 1000000
delay_us = 10
";

/// A frame of an IPv6 line.
fn packet_v6() -> Vec<u8> {
    let group = "ff15::6e61:1".parse::<std::net::Ipv6Addr>().unwrap().octets();
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [0x33, 0x33, 0x6e, 0x61, 0, 1])
        .ipv6([0xfd; 16], group, 8)
        .udp(40_000, PORTS[0])
        .write(&mut frame, &[7; 100])
        .unwrap();
    frame
}

/// The frame with so many tags.
fn tagged(frame: &[u8], tags: usize) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, 100].repeat(tags), &frame[12..]].concat()
}

#[test]
#[ignore = "privileged: makes network namespaces and XDP programs"]
fn what_is_no_datagram_of_a_line_arrives_as_it_was_sent() {
    let mut rig = Rig::new(DEADLY);
    let (sender, receiver) = rig.sockets();
    let (v4, v6) = (packet(0, 1), packet_v6());
    let changed = |frame: &[u8], at: usize, bytes: &[u8]| {
        let mut frame = frame.to_vec();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    // Of the lines, with any number of tags up to two.
    let dead = [v4.clone(), v6.clone(), tagged(&v4, 1), tagged(&v6, 2)];
    let unharmed = [
        changed(&v4, 12, &[0x08, 0x06]),
        changed(&v4, 20, &[0x20, 0x00]),
        changed(&v4, 20, &[0x00, 0x10]),
        changed(&v4, 16, &[0x7f, 0xff]),
        changed(&v4, 38, &[0x7f, 0xff]),
        changed(&v4, 38, &[0, 7]),
        changed(&v4, 23, &[6]),
        changed(&v6, 20, &[44]),
        changed(&v6, 18, &[0xff, 0xff]),
        tagged(&v4, 3),
        v4[..40].to_vec(),
        v4[..20].to_vec(),
        packet(1, 1),
        tagged(&packet(1, 2), 1),
        tagged(&packet(1, 3), 2),
    ];
    for frame in dead.iter().chain(&unharmed) {
        sender.send(frame).unwrap();
    }
    let mut buffer = vec![0; 2_048];
    for (place, frame) in unharmed.iter().enumerate() {
        let came = receiver.receive(&mut buffer, Duration::from_secs(5)).unwrap();
        let expected = without_outer_tag(frame);
        assert_eq!(came, Some(&expected[..]), "frame {place}");
    }
    // The other way: neither the forward lines' packets nor those of other lines are harmed.
    receiver.send(&v4).unwrap();
    assert_eq!(sender.receive(&mut buffer, Duration::from_secs(5)).unwrap(), Some(&v4[..]));
    let mut back = v4.clone();
    back[30..34].copy_from_slice(&[198, 18, 0, 3]);
    receiver.send(&back).unwrap();
    assert_eq!(sender.receive(&mut buffer, Duration::from_millis(200)).unwrap(), None);
    let report = rig.wire.cut().unwrap();
    assert_eq!(receiver.receive(&mut buffer, Duration::from_millis(100)).unwrap(), None);
    let counts: Vec<[u64; 3]> =
        report.lines.iter().map(|line| [line.received, line.lost, line.passed]).collect();
    assert_eq!(counts, [[2, 2, 0], [2, 2, 0], [1, 1, 0]]);
    assert_eq!((report.others.forward, report.others.back), (unharmed.len() as u64, 1));
}

#[test]
#[ignore = "privileged: makes network namespaces and XDP programs"]
fn a_killed_wire_carries_nothing_and_leaves_nothing() {
    let faults = DEADLY.replace("26477", "26470");
    let mut rig = Rig::new(&faults);
    let (sender, receiver) = rig.sockets();
    let mut buffer = vec![0; 2_048];
    let frame = packet(0, 1);
    sender.send(&frame).unwrap();
    let patience = Duration::from_secs(5);
    assert_eq!(receiver.receive(&mut buffer, patience).unwrap(), Some(&frame[..]));

    let inside = rig.wire.namespace().clone();
    let shows = |what: &str| inside.ip("-d link show").unwrap().matches(what).count();
    let programs = || shows("prog/xdp");
    assert_eq!((programs(), shows("promiscuity 1")), (2, 2));
    rig.wire.process().kill();
    wait_until("the programs are gone", patience, || programs() == 0).unwrap();
    assert_eq!(shows("promiscuity 1"), 0);
    assert_eq!(inside.processes(), [] as [i32; 0]);
    sender.send(&frame).unwrap();
    assert_eq!(receiver.receive(&mut buffer, Duration::from_millis(300)).unwrap(), None);

    // The next one carries again, on the same interfaces, though the kernel frees sockets late.
    let arguments = ["--in", "in", "--out", "out", "--file"].map(std::ffi::OsString::from);
    let file = rig.folder.write("again.toml", &faults).unwrap();
    let log = rig.folder.join("again.log");
    let arguments = arguments.into_iter().chain([file.into()]);
    let program = binary("nautilus-fault");
    let mut again = Process::start(rig.run, &inside, program, arguments, &log).unwrap();
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    wait_until("it connects again", patience, || said().contains("connected"))
        .unwrap_or_else(|error| panic!("{error}: {}", said()));
    sender.send(&frame).unwrap();
    assert_eq!(receiver.receive(&mut buffer, patience).unwrap(), Some(&frame[..]));
    assert!(again.terminate().success(), "{}", said());
    assert_eq!(programs(), 0);
    assert!(said().contains("others: 1 forward, 0 back, unharmed"), "{}", said());
}

#[test]
#[ignore = "privileged: makes network namespaces and XDP programs"]
fn what_cannot_be_done_is_refused_with_the_reason() {
    let rig = Rig::new(DEADLY);
    let inside = rig.wire.namespace().clone();
    let file = rig.folder.write("line.toml", DEADLY).unwrap();
    let wrong =
        rig.folder.write("wrong.toml", "[[line]]\nto = \"10.0.0.1:1\"\nlos_ppm = 1\n").unwrap();
    let program = binary("nautilus-fault");
    let refused = |before: &str, from: &str, to: &str, file: &std::path::Path| {
        let words = format!(
            "{before} {} --in {from} --out {to} --file {}",
            program.display(),
            file.display()
        );
        inside.exec(words.trim()).expect_err("refused").to_string()
    };
    inside.ip("link add spare type veth peer name other").unwrap();
    for (before, from, to, file, expected) in [
        ("", "in", "spare", &file, "interface in: XDP program"),
        ("", "spare", "spare", &file, "--in and --out are both spare"),
        ("", "absent", "spare", &file, "interface absent: does not exist"),
        ("", "lo", "spare", &file, "interface lo: the loopback has no native XDP"),
        ("", "spare", "other", &wrong, "wrong.toml:3: line[0].los_ppm: unknown field `los_ppm`"),
        ("", "spare", "other", &rig.folder.join("none"), "cannot read the fault file"),
        (
            "setpriv --reuid 65534 --clear-groups --inh-caps -all",
            "spare",
            "other",
            &file,
            "cannot load the fault program: needs root, or CAP_BPF with CAP_NET_ADMIN",
        ),
    ] {
        let said = refused(before, from, to, file);
        assert!(said.contains(expected), "{said}\n  not {expected}");
        assert!(!said.contains("panicked"), "{said}");
    }
}
