//! The adversary's program on packets in memory: every fate is the one that is drawn in Rust, nothing but what
//! was drawn is changed, and what is no line's goes on as it came.

mod support;

use std::net::SocketAddr;

use nautilus_ebpf::Action;
use nautilus_ebpf::fault::{
    CORRUPTED, DUPLICATED, FaultCounts, FaultFates, FaultRules, FaultWay, FaultWire, PPM, REORDERED,
};

use support::checksum::udp_sum;
use support::frame::{FRAGMENT, Frame, HOP_BY_HOP, TCP};
use support::{FEED_PORT, GROUP_V4, GROUP_V6, LISTED_V4, LISTED_V6, is_root, mutate, scale};

const ROUGH: FaultRules = FaultRules {
    seed: 0x5eed,
    after: 40,
    until: 9_000,
    loss_ppm: 100_000,
    burst_enter_ppm: 5_000,
    burst_leave_ppm: 200_000,
    burst_loss_ppm: 900_000,
    corrupt_ppm: 150_000,
    duplicate_ppm: 120_000,
    reorder_ppm: 130_000,
    repairs: true,
    holds: false,
};

fn line(group: &str) -> SocketAddr {
    SocketAddr::new(group.parse().unwrap(), FEED_PORT)
}

fn wire(test: &str, lines: &[(&str, FaultWay, FaultRules)]) -> Option<FaultWire> {
    if !is_root(test) {
        return None;
    }
    let wire = FaultWire::load().unwrap();
    for (index, (group, way, rules)) in lines.iter().enumerate() {
        wire.set_line(index, line(group), *way, *rules).unwrap();
    }
    for way in FaultWay::ALL {
        wire.lead(way, 1).unwrap();
    }
    Some(wire)
}

/// Packet `number` of a line: payloads of every length, odd ones and the empty one too.
fn packet(group: &str, number: u64) -> Frame {
    let source = if group == GROUP_V6 { LISTED_V6 } else { LISTED_V4 };
    Frame::new(source, group, FEED_PORT).with(|frame| {
        let bytes = (number * 7 % 300) as usize;
        frame.payload = (0..bytes).map(|place| (place as u64 * 31 + number) as u8).collect();
        frame.tags = [vec![], vec![0x8100], vec![0x88a8, 0x8100]][number as usize % 3].clone();
        frame.checksums = true;
        if group == GROUP_V6 && number.is_multiple_of(4) {
            frame.extensions = vec![(HOP_BY_HOP, vec![0; 8])];
        }
    })
}

/// Where a frame's UDP header begins.
fn transport(frame: &Frame) -> usize {
    let fixed = if frame.destination.is_ipv4() { 20 } else { 40 };
    let extensions: usize = frame.extensions.iter().map(|(_, header)| header.len()).sum();
    14 + 4 * frame.tags.len() + fixed + extensions
}

/// Whether the checksum of what came out fits its content.
fn checksum_is_right(frame: &Frame, bytes: &[u8]) -> bool {
    let udp = transport(frame);
    let ip = 14 + 4 * frame.tags.len();
    let addresses = match frame.destination.is_ipv4() {
        true => &bytes[ip + 12..ip + 20],
        false => &bytes[ip + 8..ip + 40],
    };
    udp_sum(addresses, &bytes[udp..]) == 0xffff
}

/// Runs `count` packets of a line through program and model.
fn compare(wire: &FaultWire, index: usize, group: &str, rules: FaultRules, count: u64) {
    let mut fates = FaultFates::new(rules);
    let mut expected = FaultCounts::default();
    let mut in_burst = false;
    for number in 1..=count {
        let frame = packet(group, number);
        let bytes = frame.bytes();
        let fate = fates.next(frame.payload.len() as u32);
        let outcome = wire.test_run(FaultWay::Forward, &bytes).unwrap();
        let counts = wire.counts(index).unwrap();
        assert_eq!(counts.last, fate, "{group} {number}");
        let action = if fate.is_lost { Action::Drop } else { Action::Redirect };
        // Without a socket what is held is dropped.
        assert_eq!(outcome.action, if rules.holds { Action::Drop } else { action }, "{number}");
        let mut wanted = bytes.clone();
        if let Some(bit) = fate.corrupted_bit {
            let udp = transport(&frame);
            wanted[udp + 8 + bit as usize / 8] ^= 1 << (bit % 8);
            if rules.repairs {
                assert!(checksum_is_right(&frame, &outcome.packet), "{group} {number}");
                wanted[udp + 6..udp + 8].copy_from_slice(&outcome.packet[udp + 6..udp + 8]);
            } else {
                assert!(!checksum_is_right(&frame, &outcome.packet), "{group} {number}");
            }
        }
        assert_eq!(outcome.packet, wanted, "{group} {number}");
        match outcome.metadata {
            None => assert!(fate.is_lost || !rules.holds),
            Some(meta) => {
                let flag = |flag: u32, is: bool| if is { flag as u16 } else { 0 };
                let flags = flag(CORRUPTED, fate.corrupted_bit.is_some())
                    | flag(DUPLICATED, fate.is_duplicated)
                    | flag(REORDERED, fate.is_reordered);
                assert!(rules.holds && !fate.is_lost);
                assert_eq!((meta.line, meta.number, meta.flags), (index as u16, number, flags));
                assert_eq!(meta.jitter, fates.jitter(), "{number}");
            }
        }
        expected.received += 1;
        expected.bytes += bytes.len() as u64;
        expected.lost += u64::from(fate.is_lost);
        expected.corrupted += u64::from(fate.corrupted_bit.is_some());
        expected.duplicated += u64::from(fate.is_duplicated && !rules.holds);
        expected.handed += u64::from(rules.holds && !fate.is_lost);
        expected.bursts += u64::from(fates.is_in_burst() && !in_burst);
        in_burst = fates.is_in_burst();
        expected.last = fate;
        assert_eq!(counts, expected, "{group} {number}");
    }
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn every_fate_is_the_one_that_was_drawn() {
    let wrong = FaultRules { seed: 9, repairs: false, until: u64::MAX, ..ROUGH };
    let held = FaultRules { seed: 10, holds: true, ..wrong };
    let lines = [
        (GROUP_V4, FaultWay::Forward, ROUGH),
        (GROUP_V6, FaultWay::Forward, wrong),
        ("233.54.12.113", FaultWay::Forward, held),
    ];
    let Some(wire) = wire("every_fate_is_the_one_that_was_drawn", &lines) else { return };
    let count = scale("NAUTILUS_FATES", 10_000);
    for (index, (group, _, rules)) in lines.into_iter().enumerate() {
        compare(&wire, index, group, rules, count);
    }
    let [first, second, third] = [0, 1, 2].map(|index| wire.counts(index).unwrap());
    assert!(first.lost > 900 && second.corrupted > 900 && third.handed > 5_000, "{third:?}");
    // A line that is set anew begins anew.
    wire.set_line(0, line(GROUP_V4), FaultWay::Forward, ROUGH).unwrap();
    compare(&wire, 0, GROUP_V4, ROUGH, 300);
    assert_eq!(wire.counts(1).unwrap(), second, "another line");
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn a_datagram_without_a_checksum_keeps_none() {
    let rules = FaultRules { corrupt_ppm: PPM, repairs: true, ..FaultRules::default() };
    let lines = [(GROUP_V4, FaultWay::Forward, rules)];
    let Some(wire) = wire("a_datagram_without_a_checksum_keeps_none", &lines) else { return };
    let frame = packet(GROUP_V4, 3).with(|frame| frame.checksums = false);
    let outcome = wire.test_run(FaultWay::Forward, &frame.bytes()).unwrap();
    let udp = transport(&frame);
    assert_eq!(outcome.packet[udp + 6..udp + 8], [0, 0]);
    assert_ne!(outcome.packet, frame.bytes());
}

/// The line's own packets all die here; whatever is not one of them goes on, unchanged.
#[test]
#[ignore = "privileged: loads XDP programs"]
fn what_is_no_whole_datagram_of_a_line_passes_unharmed() {
    let deadly = FaultRules { loss_ppm: PPM, ..FaultRules::default() };
    let lines = [(GROUP_V4, FaultWay::Forward, deadly), (GROUP_V6, FaultWay::Forward, deadly)];
    let test = "what_is_no_whole_datagram_of_a_line_passes_unharmed";
    let Some(wire) = wire(test, &lines) else { return };
    let v4 = || packet(GROUP_V4, 9);
    let v6 = || packet(GROUP_V6, 9);
    for frame in [v4(), v6()] {
        assert_eq!(wire.test_run(FaultWay::Forward, &frame.bytes()).unwrap().action, Action::Drop);
    }
    let arp = [&[0xff; 12][..], &[0x08, 0x06], &[0; 46]].concat();
    let mut whole = vec![
        ("ARP", arp),
        ("another port", v4().with(|f| f.port += 1).bytes()),
        ("another group", packet("233.54.12.112", 9).bytes()),
        ("TCP", v4().with(|f| f.protocol = TCP).bytes()),
        ("first fragment", v4().with(|f| f.fragment = 0x2000).bytes()),
        ("later fragment", v4().with(|f| f.fragment = 100).bytes()),
        ("IPv6 fragment", v6().with(|f| f.extensions = vec![(FRAGMENT, vec![0; 8])]).bytes()),
        ("three tags", v4().with(|f| f.tags = vec![0x8100; 3]).bytes()),
        ("IP too long", v4().with(|f| f.ip_length = Some(1_400)).bytes()),
        ("UDP too long", v4().with(|f| f.udp_length = Some(1_400)).bytes()),
        ("UDP too short", v4().with(|f| f.udp_length = Some(7)).bytes()),
    ];
    for frame in [v4().bytes(), v6().bytes()] {
        whole.extend((14..frame.len()).map(|end| ("cut short", frame[..end].to_vec())));
    }
    let mut others = 0;
    for (name, bytes) in &whole {
        let outcome = wire.test_run(FaultWay::Forward, bytes).unwrap();
        assert_eq!((outcome.action, &outcome.packet), (Action::Redirect, bytes), "{name}");
        others += 1;
    }
    // The other way has no lines.
    let back = wire.test_run(FaultWay::Back, &v4().bytes()).unwrap();
    assert_eq!((back.action, back.packet), (Action::Redirect, v4().bytes()));
    let counted = FaultWay::ALL.map(|way| wire.others(way).unwrap());
    assert_eq!(counted, [others, 1]);
    assert_eq!([0, 1].map(|index| wire.counts(index).unwrap().received), [1, 1]);
}

/// Whatever the bytes say, a frame is dropped as the line's or goes on, and never grows, shrinks or changes
/// outside its payload.
#[test]
#[ignore = "privileged: loads XDP programs"]
fn mutated_frames_change_in_one_bit_at_most() {
    let rules = FaultRules { corrupt_ppm: PPM, ..FaultRules::default() };
    let lines = [(GROUP_V4, FaultWay::Forward, rules), (GROUP_V6, FaultWay::Forward, rules)];
    let Some(wire) = wire("mutated_frames_change_in_one_bit_at_most", &lines) else { return };
    let mut random = mutate::Random::new(5);
    let mut changed = 0;
    for number in 0..scale("NAUTILUS_MUTATIONS", 20_000) {
        let group = if number % 2 == 0 { GROUP_V4 } else { GROUP_V6 };
        let bytes = mutate::mutate(&packet(group, number % 300 + 1).bytes(), &mut random);
        let outcome = wire.test_run(FaultWay::Forward, &bytes).unwrap();
        assert_eq!(outcome.action, Action::Redirect);
        let shown = support::shown(&bytes);
        assert_eq!(outcome.packet.len(), shown.len());
        let turned =
            outcome.packet.iter().zip(shown).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
        assert!(turned <= 1, "{turned} bits");
        changed += turned;
    }
    assert!(changed > 1_000, "{changed}");
}

/// Several CPUs at once: each packet gets a number of its own, and the fate that belongs to it.
#[test]
#[ignore = "privileged: loads XDP programs"]
fn packets_of_all_queues_are_numbered_one_after_another() {
    const EACH: u64 = 5_000;
    let rules = FaultRules { after: 0, until: u64::MAX, holds: true, ..ROUGH };
    let lines = [(GROUP_V4, FaultWay::Forward, rules)];
    let test = "packets_of_all_queues_are_numbered_one_after_another";
    let Some(wire) = wire(test, &lines) else { return };
    let bytes = packet(GROUP_V4, 9).bytes();
    let run = || -> Vec<u64> {
        let outcomes = (0..EACH).map(|_| wire.test_run(FaultWay::Forward, &bytes).unwrap());
        outcomes.filter_map(|outcome| Some(outcome.metadata?.number)).collect()
    };
    let mut numbers = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    numbers.sort_unstable();
    let payload_bytes = packet(GROUP_V4, 9).payload.len() as u32;
    let mut fates = FaultFates::new(rules);
    let expected = (0..4 * EACH).map(|_| fates.next(payload_bytes));
    let kept: Vec<u64> = expected.filter(|fate| !fate.is_lost).map(|fate| fate.number).collect();
    assert_eq!(numbers, kept);
    let counts = wire.counts(0).unwrap();
    assert_eq!((counts.received, counts.handed), (4 * EACH, kept.len() as u64));
}
