//! A node that is starved of time and room while its two lines lose packets: its rings run over, and still every
//! frame that reached the host is either handled, dropped as a copy of what was applied, or counted by the
//! kernel as one there was no room for; and a message is missing only if no copy of it found room. Needs
//! root.

#[path = "support/supervised.rs"]
mod supervised;
mod support;

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nautilus_dataplane::feed::moldudp64::Session;
use nautilus_dataplane::replay::generate::{Generator, GeneratorSpec};
use nautilus_dataplane::replay::random::Random;
use nautilus_ebpf::intf::HOT_PATH;
use nautilus_shm::control_region::{ControlReader, SUPERVISOR_PROCESS, WORKERS_MAX};
use nautilus_shm::metrics::labels::FeedLine;
use nautilus_shm::metrics::{Counter, table};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use supervised::{CLIENT, Supervised, ip, privileged, wait_until};
use support::mold_packet;

const PATIENCE: Duration = Duration::from_secs(20);
/// Between two packets: 20,000 a second on each line.
const PACE: Duration = Duration::from_micros(50);
/// Packets that line B is behind, so that most of its copies come when the first was applied.
const LAG: usize = 20;
const SESSIONS: u64 = 4;
const PACKETS: u64 = 16_000;
/// A frame in the fill ring for each of half of these: 6 ms of both lines.
const NODE: &str = "[port]\nframes = 256\n[supervisor]\nhang_limit_ms = 0\n\
    [cache]\nid = \"q\"\nmax_memory_mb = 64\n\
    [[feed]]\nvenue = \"nasdaq\"\ngroup = \"233.54.12.111\"\nport = 26477\n\
    lines = [{ group = \"233.54.12.112\", port = 26478 }]\nhold_limit_us = 20000\n\
    channel = 1\nmax_orders = 32768\n";

/// What was counted, of both lines.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    /// Handled, or dropped in XDP as a copy.
    taken: u64,
    dropped_copies: u64,
    /// By the kernel, for want of a frame or of room in the ring.
    no_room: u64,
    applied: u64,
    missing: u64,
    stale: u64,
}

impl Counts {
    fn of(region: &ControlReader) -> Self {
        let sum = |counter: Counter| -> u64 {
            (0..WORKERS_MAX).map(|slot| region.metrics(slot).counter(counter)).sum()
        };
        let kernel = |counter| region.metrics(SUPERVISOR_PROCESS).counter(counter);
        let dropped = [FeedLine::A, FeedLine::B];
        Self {
            taken: sum(table::FEED_PACKETS),
            dropped_copies: dropped
                .map(|line| sum(table::FEED_LINE_DROPPED_PACKETS.of(line)))
                .iter()
                .sum(),
            no_room: kernel(table::FILL_RING_EMPTY)
                + kernel(table::RX_RING_FULL)
                + kernel(table::RX_KERNEL_DROPPED),
            applied: sum(table::FEED_MESSAGES),
            missing: sum(table::FEED_LOST_MESSAGES),
            stale: sum(
                table::FEED_ERRORS.of(nautilus_shm::metrics::labels::FeedError::OtherSession)
            ),
        }
    }
}

struct Packet {
    messages: u64,
    bytes: Vec<u8>,
    /// On how many lines it is sent.
    copies: u64,
}

/// A session in packets, each of which is lost on either line in one case of a hundred.
fn session(number: u64) -> (Vec<Packet>, Vec<[bool; 2]>) {
    let messages = PACKETS * 30;
    let spec = GeneratorSpec { seed: number, symbols: 4, messages, rate: 1_000_000 };
    let mut generator = Generator::new(spec).unwrap();
    let mut random = Random::new(number);
    let mut name = *b"0000000000";
    name[2..].copy_from_slice(format!("{number:08}").as_bytes());
    let (mut packets, mut carried, mut sequence) = (Vec::new(), Vec::new(), 1);
    for place in 0..PACKETS {
        let count = 1 + random.below(19);
        let blocks: Vec<Vec<u8>> =
            (0..count).filter_map(|_| generator.next_message().map(<[u8]>::to_vec)).collect();
        let blocks: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
        let bytes = mold_packet(Session(name), sequence, &blocks);
        sequence += blocks.len() as u64;
        // The first and the last come whole.
        let is_edge = place == 0 || place + 1 == PACKETS;
        let lines = [0, 1].map(|_| random.below(100) != 0 || is_edge);
        let copies = lines.iter().filter(|line| **line).count() as u64;
        packets.push(Packet { messages: blocks.len() as u64, bytes, copies });
        carried.push(lines);
    }
    (packets, carried)
}

fn lines(node: &Supervised) -> [UdpSocket; 2] {
    ip(&format!("-n {} route add 224.0.0.0/4 dev c0", node.client_ns));
    [("233.54.12.111", 26_477), ("233.54.12.112", 26_478)].map(|(group, port)| {
        let from = SocketAddr::new(CLIENT.parse().unwrap(), 0);
        let socket = Supervised::udp(&node.client_ns, from);
        socket.connect((group, port)).unwrap();
        socket
    })
}

/// Takes the worker's core away now and then, for 5 to 20 ms, until it is over.
fn starve(worker: i32, over: &AtomicBool) -> u64 {
    let (mut random, mut count) = (Random::new(9), 0);
    let signal = |signal| kill(Pid::from_raw(worker), signal).unwrap();
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(u64::from(30 + random.below(90))));
        signal(Signal::SIGSTOP);
        std::thread::sleep(Duration::from_millis(u64::from(5 + random.below(15))));
        signal(Signal::SIGCONT);
        count += 1;
    }
    count
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn nothing_that_found_room_is_lost_and_no_copy_is_dropped_that_was_not_applied() {
    let test = "nothing_that_found_room_is_lost_and_no_copy_is_dropped_that_was_not_applied";
    if !privileged(test) || !HOT_PATH {
        return;
    }
    let mut node = Supervised::new(NODE);
    node.start();
    node.await_workers(1);
    let region = node.attach().unwrap();
    let lines = lines(&node);
    let worker = node.active().unwrap() as i32;
    let mut before = Counts::of(&region);
    let (mut no_room, mut dropped_copies, mut missing) = (0, 0, 0);
    for number in 1..=SESSIONS {
        let (packets, carried) = session(number);
        let over = AtomicBool::new(false);
        let (sent, starved) = std::thread::scope(|scope| {
            let starving = scope.spawn(|| starve(worker, &over));
            let (mut sent, mut due) = (0, Instant::now());
            for place in 0..packets.len() + LAG {
                for (line, behind) in [(0, 0), (1, LAG)] {
                    let of_line = place.checked_sub(behind).filter(|place| *place < packets.len());
                    if let Some(place) = of_line.filter(|place| carried[*place][line]) {
                        lines[line].send(&packets[place].bytes).unwrap();
                        sent += 1;
                    }
                }
                due += PACE;
                while Instant::now() < due {
                    std::hint::spin_loop();
                }
            }
            over.store(true, Ordering::Relaxed);
            (sent, starving.join().unwrap())
        });
        // The end again, until it was heard: what is missing before it is known of then.
        let last = packets.last().unwrap();
        let total: u64 = packets.iter().map(|packet| packet.messages).sum();
        let mut again = 0;
        wait_until("the session's end has come", PATIENCE, || {
            lines[0].send(&last.bytes).unwrap();
            again += 1;
            std::thread::sleep(Duration::from_millis(50));
            let now = Counts::of(&region);
            now.applied + now.missing - before.applied - before.missing >= total
        });
        wait_until("all frames are counted", PATIENCE, || {
            let now = Counts::of(&region);
            now.taken + now.no_room >= before.taken + before.no_room + sent + again
        });
        let now = Counts::of(&region);
        let taken = now.taken - before.taken;
        let full = now.no_room - before.no_room;
        assert_eq!(taken + full, sent + again, "a frame is counted once");
        assert_eq!(now.applied + now.missing - before.applied - before.missing, total);
        // Whatever is missing had no copy that found room: the fewest frames for that.
        let lost = now.missing - before.missing;
        let mut needed: Vec<(u64, u64)> =
            packets.iter().map(|packet| (packet.messages, packet.copies)).collect();
        let unsent: u64 =
            needed.iter().filter(|(_, copies)| *copies == 0).map(|(messages, _)| messages).sum();
        needed.retain(|(_, copies)| *copies > 0);
        assert!(lost >= unsent, "{unsent} messages were sent on no line, {lost} are missing");
        // The largest packets on one line first: no other choice of them explains more with fewer frames.
        needed.sort_by_key(|(messages, copies)| (*copies, std::cmp::Reverse(*messages)));
        let (mut explained, mut frames) = (unsent, 0);
        for (messages, copies) in needed {
            if explained >= lost {
                break;
            }
            explained += messages;
            frames += copies;
        }
        assert!(frames <= full, "{lost} missing take {frames} frames, {full} found no room");
        assert_eq!(now.stale, before.stale);
        println!(
            "session {number}: {sent} frames sent, {starved} times starved, {full} without room, {} copies \
             dropped in XDP, {lost} messages missing",
            now.dropped_copies - before.dropped_copies
        );
        no_room += full;
        dropped_copies += now.dropped_copies - before.dropped_copies;
        missing += lost;
        before = now;
    }
    assert!(no_room > 500, "the rings never ran over: {no_room}");
    assert!(dropped_copies > 100, "{dropped_copies} copies dropped");
    assert!(missing > 0, "both copies of some packet found no room");
    node.stop();
}
