//! The adversary between two namespaces: what a receiver sees is what was drawn, packet by packet, and what the
//! program says became of them.

mod edges;
mod rig;

use std::collections::VecDeque;
use std::time::Duration;

use nautilus_dataplane::fault::FaultFile;
use nautilus_ebpf::fault::{FaultFate, FaultFates};
use nautilus_shm::clock::monotonic_ns;
use nautilus_tests::lab::{WireLine, WireReport};

use rig::{HEADERS_BYTES, PAYLOAD_BYTES, PORTS, Rig, packet};

const PACKETS: u32 = 100_000;
/// After so many frames the sender pauses, so that one core can do the work of all.
const BATCH: u32 = 32;
const PAUSE: Duration = Duration::from_micros(200);
/// Nothing comes any more.
const SILENCE: Duration = Duration::from_millis(600);

const FAULTS: &str = "
seed = SEED
[[line]]
name = \"A\"
to = \"233.54.12.111:26477\"
loss_ppm = 10000
duplicate_ppm = 5000
corrupt_ppm = 10000
begin_after_packets = 100
end_after_packets = 99000
[line.burst]
enter_ppm = 500
leave_ppm = 200000
[[line]]
name = \"B\"
to = \"233.54.12.111:26478\"
loss_ppm = 20000
duplicate_ppm = 5000
corrupt_ppm = 4000
corrupt_checksum = \"repaired\"
reorder_ppm = 10000
reorder_distance = 3
reorder_hold_us = 5000000
delay_us = 300
jitter_us = 200
";

/// A packet as it came.
#[derive(Clone, Debug)]
struct Came {
    number: u32,
    turned: Option<u32>,
    checksum_is_right: bool,
    after_ns: u64,
}

/// Reads a frame: its line, and what is to be said of it. Corruption of the first bytes is put right by the
/// frame that was sent.
fn read(frame: &[u8], at_ns: u64, sent: &[Vec<Vec<u8>>; 2]) -> (usize, Came) {
    assert_eq!(frame.len(), HEADERS_BYTES + PAYLOAD_BYTES);
    let line = usize::from(u16::from_be_bytes([frame[36], frame[37]]) == PORTS[1]);
    let payload = &frame[HEADERS_BYTES..];
    let number_at = |payload: &[u8]| u32::from_be_bytes(payload[1..5].try_into().unwrap());
    let numbers = number_at(payload);
    // One bit may be another: the packet that differs in one bit at most.
    let candidates = std::iter::once(numbers).chain((0..32).map(|bit| numbers ^ 1 << bit));
    let differs = |number: u32| -> Option<Vec<u32>> {
        let original = sent[line].get(number.checked_sub(1)? as usize)?;
        let original = &original[HEADERS_BYTES..];
        let bits = (0..PAYLOAD_BYTES as u32 * 8).filter(|bit| {
            let place = *bit as usize / 8;
            (payload[place] ^ original[place]) >> (bit % 8) & 1 == 1
        });
        let bits: Vec<u32> = bits.collect();
        (bits.len() <= 1).then_some(bits)
    };
    let (number, bits) = candidates
        .filter_map(|number| Some((number, differs(number)?)))
        .next()
        .expect("a packet that was sent, but for one bit");
    let original = &sent[line][number as usize - 1];
    assert_eq!(frame[..40], original[..40], "headers but for the checksum");
    let sent_ns = u64::from_be_bytes(original[HEADERS_BYTES + 5..][..8].try_into().unwrap());
    let udp = etherparse::UdpHeader::from_slice(&frame[34..]).unwrap().0;
    let ip = etherparse::Ipv4Header::from_slice(&frame[14..]).unwrap().0;
    let right = udp.calc_checksum_ipv4(&ip, payload).unwrap() == udp.checksum;
    let came = Came {
        number,
        turned: bits.first().copied(),
        checksum_is_right: right,
        after_ns: at_ns - sent_ns,
    };
    (line, came)
}

/// Sends so many packets on both lines in turn; what came of each, and what the wire says.
fn send(mut rig: Rig, packets: u32) -> ([Vec<Came>; 2], WireReport) {
    let (sender, receiver) = rig.sockets();
    let (sent, frames) = std::thread::scope(|scope| {
        let receiving = scope.spawn(move || {
            let (mut buffer, mut frames) = (vec![0; 2_048], Vec::new());
            let mut patience = Duration::from_secs(10);
            while let Some(frame) = receiver.receive(&mut buffer, patience).unwrap() {
                frames.push((frame.to_vec(), monotonic_ns()));
                patience = SILENCE;
            }
            frames
        });
        let mut sent = [Vec::new(), Vec::new()];
        for number in 1..=packets {
            for (line, sent) in sent.iter_mut().enumerate() {
                let frame = packet(line, number);
                sender.send(&frame).unwrap();
                sent.push(frame);
            }
            if number % BATCH == 0 {
                std::thread::sleep(PAUSE);
            }
        }
        (sent, receiving.join().unwrap())
    });
    // Held packets that nothing overtook leave when the wire is cut.
    let (_, late) = rig.sockets();
    let report = rig.wire.cut().unwrap();
    let mut buffer = vec![0; 2_048];
    let mut frames = frames;
    while let Some(frame) = late.receive(&mut buffer, Duration::from_millis(100)).unwrap() {
        frames.push((frame.to_vec(), monotonic_ns()));
    }
    let mut came = [Vec::new(), Vec::new()];
    for (frame, at_ns) in &frames {
        let (line, one) = read(frame, *at_ns, &sent);
        came[line].push(one);
    }
    (came, report)
}

/// What has to come of a line's packets by its rules, in order, and what is to be counted.
fn drawn(file: &FaultFile, index: usize, packets: u32) -> (Vec<FaultFate>, WireLine) {
    let line = &file.line[index];
    let mut fates = FaultFates::new(file.rules(line));
    let mut counts =
        WireLine { name: line.name(), received: packets.into(), ..WireLine::default() };
    let (mut order, mut aside, mut in_burst) = (Vec::new(), VecDeque::new(), false);
    for _ in 0..packets {
        let fate = fates.next(PAYLOAD_BYTES as u32);
        counts.bursts += u64::from(fates.is_in_burst() && !in_burst);
        in_burst = fates.is_in_burst();
        if fate.is_lost {
            counts.lost += 1;
            continue;
        }
        counts.passed += 1;
        counts.corrupted += u64::from(fate.corrupted_bit.is_some());
        counts.duplicated += u64::from(fate.is_duplicated);
        counts.held += u64::from(line.holds());
        if fate.is_reordered {
            aside.push_back((fate, line.reorder_distance));
            continue;
        }
        order.push(fate);
        aside.iter_mut().for_each(|(_, left)| *left -= 1);
        while aside.front().is_some_and(|(_, left)| *left == 0) {
            order.extend(aside.pop_front().map(|(fate, _)| fate));
            counts.reordered += 1;
        }
    }
    counts.reordered +=
        aside.iter().filter(|(_, left)| *left < line.reorder_distance).count() as u64;
    order.extend(aside.into_iter().map(|(fate, _)| fate));
    (order, counts)
}

/// That a receiver saw exactly what was drawn, and the wire counted it.
fn check(faults: &str, packets: u32, came: &[Vec<Came>; 2], report: &WireReport) {
    assert_eq!(report.undelivered.forward, Some(0), "{report:?}");
    let file = FaultFile::parse(faults, "faults").unwrap();
    for (index, came) in came.iter().enumerate() {
        let (order, expected) = drawn(&file, index, packets);
        let line = &file.line[index];
        let repaired = file.rules(line).repairs;
        let mut twice: Vec<&FaultFate> = Vec::new();
        for fate in &order {
            twice.extend(std::iter::repeat_n(fate, 1 + usize::from(fate.is_duplicated)));
        }
        assert_eq!(came.len(), twice.len(), "line {}: {report:?}", line.name());
        for (place, (came, fate)) in came.iter().zip(twice).enumerate() {
            assert_eq!(u64::from(came.number), fate.number, "line {}, {place}", line.name());
            assert_eq!(came.turned, fate.corrupted_bit, "line {}: {came:?}", line.name());
            assert_eq!(came.checksum_is_right, fate.corrupted_bit.is_none() || repaired);
            assert!(came.after_ns >= u64::from(line.delay_us) * 1_000, "{came:?}");
        }
        // What a receiver without any knowledge of the file can say.
        let mut highest = 0;
        let mut late = std::collections::HashSet::new();
        for one in came {
            if one.number < highest {
                late.insert(one.number);
            }
            highest = highest.max(one.number);
        }
        assert_eq!(late.len() as u64, expected.reordered);
        let counted = WireLine {
            held_ns_min: 0,
            held_ns_mean: 0,
            held_ns_max: 0,
            ..report.lines[index].clone()
        };
        assert_eq!(counted, expected);
        if line.holds() {
            let times = &report.lines[index];
            assert!(times.held_ns_min >= u64::from(line.delay_us) * 1_000, "{times:?}");
            assert!(times.held_ns_min <= times.held_ns_mean);
            assert!(times.held_ns_mean <= times.held_ns_max, "{times:?}");
        }
    }
}

fn numbers(came: &[Came]) -> Vec<u32> {
    came.iter().map(|one| one.number).collect()
}

#[test]
#[ignore = "privileged: makes network namespaces and XDP programs"]
fn each_line_suffers_exactly_what_was_drawn_for_it() {
    let faults = FAULTS.replace("SEED", "7");
    let (came, report) = send(Rig::new(&faults), PACKETS);
    println!("{report:#?}");
    check(&faults, PACKETS, &came, &report);
    let [a, b] = &report.lines[..] else { panic!("{report:?}") };
    assert!(a.lost > 1_000 && a.bursts > 20 && a.duplicated > 300 && a.corrupted > 700, "{a:?}");
    assert!(b.lost > 1_500 && b.reordered > 700 && b.duplicated > 300, "{b:?}");
    // The first and the last packets of A were to be spared.
    let first: Vec<u32> = (1..=100).collect();
    assert_eq!(numbers(&came[0])[..100], first);
    assert_eq!(numbers(&came[0]).iter().filter(|number| **number > 99_000).count(), 1_000);
}

#[test]
#[ignore = "privileged: makes network namespaces and XDP programs"]
fn the_same_seed_does_the_same_and_another_something_else() {
    let faults = |seed| FAULTS.replace("SEED", seed);
    let (packets, run) = (5_000, |text: &str| send(Rig::new(text), 5_000));
    let (one, one_report) = run(&faults("1"));
    let (same, same_report) = run(&faults("1"));
    let (other, other_report) = run(&faults("2"));
    for line in [0, 1] {
        assert_eq!(numbers(&one[line]), numbers(&same[line]));
        assert_ne!(numbers(&one[line]), numbers(&other[line]));
    }
    assert_ne!(numbers(&one[0]), numbers(&one[1]));
    check(&faults("1"), packets, &one, &one_report);
    check(&faults("1"), packets, &same, &same_report);
    check(&faults("2"), packets, &other, &other_report);
    // Line A by itself: another line in front of it, and one less, change nothing.
    let (head, lines) = FAULTS.split_once("[[line]]\nname = \"B\"").unwrap();
    let alone = format!("[[line]]\nto = \"10.0.0.1:9\"\n{}", &head[head.find("[[").unwrap()..]);
    let (came, _) = run(&format!("seed = 1\n{alone}"));
    assert_eq!(numbers(&came[0]), numbers(&one[0]));
    assert!(lines.contains("26478") && came[1].len() == packets as usize);
}

#[test]
#[ignore = "privileged: makes network namespaces and XDP programs"]
fn what_finds_no_room_to_wait_is_dropped_and_the_rest_leaves_at_the_end() {
    const ROOM: u32 = 50;
    const SENT: u32 = 200;
    let mut rig = Rig::new(
        "hold_packets = 50\n[[line]]\nto = \"233.54.12.111:26477\"\ndelay_us = 10000000\n",
    );
    let (sender, receiver) = rig.sockets();
    for number in 1..=SENT {
        sender.send(&packet(0, number)).unwrap();
    }
    let report = rig.wire.cut().unwrap();
    let mut buffer = vec![0; 2_048];
    for number in 1..=ROOM {
        let frame = receiver.receive(&mut buffer, Duration::from_secs(5)).unwrap().expect("one");
        assert_eq!(frame[HEADERS_BYTES + 1..HEADERS_BYTES + 5], number.to_be_bytes());
    }
    assert_eq!(receiver.receive(&mut buffer, Duration::from_millis(100)).unwrap(), None);
    let line = &report.lines[0];
    let counts = [line.received, line.passed, line.held, line.queue_full, line.waiting];
    assert_eq!(counts, [SENT, ROOM, ROOM, SENT - ROOM, 0].map(u64::from));
}
