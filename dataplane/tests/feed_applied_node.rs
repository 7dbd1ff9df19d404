//! A feed with two lines over a real node: copies that come when their messages are applied are dropped in
//! XDP, each line is counted to the message, and what a dead worker had applied drops nothing of its successor's.
//! Needs root.

#[path = "support/supervised.rs"]
mod supervised;
mod support;

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nautilus_dataplane::feed::moldudp64::Session;
use nautilus_dataplane::replay::generate::{Generator, GeneratorSpec};
use nautilus_dataplane::replay::random::Random;
use nautilus_ebpf::intf::HOT_PATH;
use nautilus_shm::control_region::{ControlReader, SUPERVISOR_PROCESS, WORKERS_MAX};
use nautilus_shm::metrics::labels::{FeedLine, XdpVerdict};
use nautilus_shm::metrics::{Counter, table};

use supervised::{CLIENT, Supervised, ip, privileged, wait_until};
use support::mold_packet;

const PATIENCE: Duration = Duration::from_secs(20);
/// Between two packets.
const PACE: Duration = Duration::from_micros(500);
const NODE: &str = "[cache]\nid = \"q\"\nmax_memory_mb = 64\n\
    [[feed]]\nvenue = \"nasdaq\"\ngroup = \"233.54.12.111\"\nport = 26477\n\
    lines = [{ group = \"233.54.12.112\", port = 26478 }]\nhold_limit_us = 50000\n\
    channel = 1\nmax_orders = 32768\n";

/// A session in packets, with how many messages each has.
fn session(name: &[u8; 10], seed: u64, messages: u64) -> Vec<(u64, Vec<u8>)> {
    let spec = GeneratorSpec { seed, symbols: 4, messages, rate: 100_000 };
    let mut generator = Generator::new(spec).unwrap();
    let mut random = Random::new(seed);
    let (mut packets, mut sequence) = (Vec::new(), 1);
    loop {
        let mut blocks: Vec<Vec<u8>> = Vec::new();
        for _ in 0..1 + random.below(29) {
            blocks.extend(generator.next_message().map(<[u8]>::to_vec));
        }
        let blocks: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
        packets.push((blocks.len() as u64, mold_packet(Session(*name), sequence, &blocks)));
        sequence += blocks.len() as u64;
        if blocks.is_empty() {
            return packets;
        }
    }
}

struct Venue {
    lines: [UdpSocket; 2],
    due: Instant,
}

impl Venue {
    fn new(node: &Supervised) -> Self {
        ip(&format!("-n {} route add 224.0.0.0/4 dev c0", node.client_ns));
        let line = |(group, port): (&str, u16)| {
            let from = SocketAddr::new(CLIENT.parse().unwrap(), 0);
            let socket = Supervised::udp(&node.client_ns, from);
            socket.connect((group, port)).unwrap();
            socket
        };
        let lines = [("233.54.12.111", 26_477), ("233.54.12.112", 26_478)].map(line);
        Self { lines, due: Instant::now() }
    }

    fn send(&self, line: usize, packet: &[u8]) {
        self.lines[line].send(packet).unwrap();
    }

    fn pace(&mut self) {
        self.due = Instant::now().max(self.due + PACE);
        std::thread::sleep(self.due.saturating_duration_since(Instant::now()));
    }
}

/// Of both lines, since some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    packets: u64,
    received: [u64; 2],
    lost: [u64; 2],
    duplicates: [u64; 2],
    applied: u64,
    dropped: u64,
    xdp: u64,
}

impl Counts {
    fn of(region: &ControlReader) -> Self {
        let sum = |counter: Counter| -> u64 {
            (0..WORKERS_MAX).map(|slot| region.metrics(slot).counter(counter)).sum()
        };
        let by_line = |counter: fn(FeedLine) -> Counter| {
            [FeedLine::A, FeedLine::B].map(|line| sum(counter(line)))
        };
        let dropped: [u64; 2] = by_line(|line| table::FEED_LINE_DROPPED_PACKETS.of(line));
        Self {
            packets: sum(table::FEED_PACKETS),
            received: by_line(|line| table::FEED_LINE_MESSAGES.of(line)),
            lost: by_line(|line| table::FEED_LINE_LOST.of(line)),
            duplicates: by_line(|line| table::FEED_LINE_DUPLICATES.of(line)),
            applied: sum(table::FEED_MESSAGES),
            dropped: dropped.iter().sum(),
            xdp: xdp(region),
        }
    }

    fn since(self, before: Self) -> Self {
        let pair = |now: [u64; 2], then: [u64; 2]| [now[0] - then[0], now[1] - then[1]];
        Self {
            packets: self.packets - before.packets,
            received: pair(self.received, before.received),
            lost: pair(self.lost, before.lost),
            duplicates: pair(self.duplicates, before.duplicates),
            applied: self.applied - before.applied,
            dropped: self.dropped - before.dropped,
            xdp: self.xdp - before.xdp,
        }
    }
}

/// Packets with the verdict, as the supervisor copies it.
fn xdp(region: &ControlReader) -> u64 {
    let packets = table::XDP_PACKETS.of(XdpVerdict::FeedApplied);
    region.metrics(SUPERVISOR_PROCESS).counter(packets)
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn copies_are_dropped_in_xdp_and_counted_to_the_message() {
    let test = "copies_are_dropped_in_xdp_and_counted_to_the_message";
    if !privileged(test) || !HOT_PATH {
        return;
    }
    let mut node = Supervised::new(NODE);
    node.start();
    node.await_workers(1);
    let region = node.attach().unwrap();
    let mut venue = Venue::new(&node);
    let settled = |what: &str, expected: &dyn Fn(&Counts) -> bool| {
        wait_until(what, PATIENCE, || expected(&Counts::of(&region)));
        // The supervisor copies verdicts now and then.
        wait_until("verdicts are copied", PATIENCE, || {
            let counts = Counts::of(&region);
            counts.xdp >= counts.dropped
        });
        Counts::of(&region)
    };

    // Now and then a packet is lost on one line, or comes twice on it; B is two packets behind.
    let monday = session(b"000000MON1", 7, 20_000);
    let mut random = Random::new(3);
    let mut expected = Counts::default();
    let mut carried = vec![[1u64; 2]; monday.len()];
    for (place, (messages, _)) in monday.iter().enumerate() {
        // The first and the last: so that no line's session begins late or ends early.
        if place > 0 && place + 1 < monday.len() {
            match random.below(40) {
                0 => carried[place][0] = 0,
                1 => carried[place][1] = 0,
                2 => carried[place][0] = 2,
                3 => carried[place][1] = 2,
                _ => {}
            }
        }
        for (line, copies) in carried[place].into_iter().enumerate() {
            expected.packets += copies;
            expected.received[line] += messages * copies.min(1);
            expected.duplicates[line] += messages * copies.saturating_sub(1);
            expected.lost[line] += messages * u64::from(copies == 0);
        }
        expected.applied += messages;
    }
    let send_all = |venue: &mut Venue| {
        for place in 0..monday.len() + 2 {
            for (line, behind) in [(0, 0), (1, 2)] {
                let Some((_, packet)) =
                    place.checked_sub(behind).and_then(|place| monday.get(place))
                else {
                    continue;
                };
                (0..carried[place - behind][line]).for_each(|_| venue.send(line, packet));
            }
            venue.pace();
        }
    };
    send_all(&mut venue);
    let counts = settled("all of Monday came", &|counts| counts.packets >= expected.packets);
    // Nothing has left the window, and no other session has begun.
    let so_far = Counts { lost: [0; 2], dropped: counts.dropped, xdp: counts.dropped, ..expected };
    assert_eq!(counts, so_far);
    let copies = monday.len() as u64;
    assert!(counts.dropped > copies / 2, "{} of {copies} copies dropped", counts.dropped);

    // Monday is over.
    let tuesday = session(b"000000TUE1", 8, 3_000);
    for line in [0, 1] {
        venue.send(line, &tuesday[0].1);
        std::thread::sleep(Duration::from_millis(10));
    }
    let over = settled("Tuesday began", &|counts| counts.packets >= expected.packets + 2);
    assert_eq!(over.lost, expected.lost, "each line lost what was not sent on it");
    println!("Monday {counts:?}");

    // What the dead worker had applied, and nobody has now, drops nothing.
    for (_, packet) in &tuesday[1..40] {
        venue.send(0, packet);
        venue.pace();
    }
    settled("some of Tuesday came", &|counts| counts.packets == over.packets + 39);
    let copy = |number: usize| {
        let before = Counts::of(&region);
        venue.send(1, &tuesday[number].1);
        let after = settled("it came", &|counts| counts.packets > before.packets);
        after.since(before)
    };
    assert_eq!(copy(20).dropped, 1, "applied by the worker that lives");
    let dead = node.serving()[0];
    Supervised::kill_worker(dead);
    wait_until("another worker serves", PATIENCE, || {
        node.serving().first().is_some_and(|pid| *pid != dead)
    });
    node.await_workers(1);
    let before = Counts::of(&region);
    let first = copy(20);
    assert_eq!((first.dropped, first.xdp), (0, 0), "not applied by the worker that lives");
    // What came before it may still come on the other line, for a while.
    settled("it is applied", &|counts| counts.applied > before.applied);
    assert_eq!(Counts::of(&region).since(before).applied, tuesday[20].0);
    assert_eq!(copy(19).dropped, 0, "before what it has applied");
    assert_eq!(copy(21).dropped, 0, "new to it");
    assert_eq!(copy(21).dropped, 1, "applied by it now");

    // And it counts as its predecessor did.
    let before = Counts::of(&region);
    let wednesday = session(b"000000WED1", 9, 5_000);
    for (_, packet) in &wednesday {
        venue.send(0, packet);
        venue.pace();
        venue.send(1, packet);
        venue.pace();
    }
    let packets = 2 * wednesday.len() as u64;
    let counts =
        settled("all of Wednesday came", &|counts| counts.packets >= before.packets + packets);
    let counts = counts.since(before);
    println!("Wednesday {counts:?}");
    assert_eq!((counts.packets, counts.received, counts.applied), (packets, [5_000; 2], 5_000));
    assert_eq!((counts.duplicates, counts.xdp), ([0; 2], counts.dropped));
    assert!(counts.dropped > packets / 4, "{counts:?}");
    node.stop();
}
