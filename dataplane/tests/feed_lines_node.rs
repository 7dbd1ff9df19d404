//! A feed with two lines over a real node of two workers: packets lost on either line, and the death of
//! either line, are not noticed by whoever asks; what both lose is. Needs root.

#[path = "support/supervised.rs"]
mod supervised;
mod support;

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nautilus_dataplane::feed::Venue;
use nautilus_dataplane::feed::book::BookLimits;
use nautilus_dataplane::feed::channel::{Channel, ChannelSpec};
use nautilus_dataplane::feed::moldudp64::Session;
use nautilus_dataplane::feed::record::BboRecord;
use nautilus_dataplane::feed::session::Start;
use nautilus_dataplane::replay::generate::{Generator, GeneratorSpec};
use nautilus_dataplane::replay::pack::Packer;
use nautilus_dataplane::replay::random::Random;
use nautilus_shm::control_region::{ControlReader, WORKERS_MAX};
use nautilus_shm::metrics::labels::{FeedLine, HoleEnd};
use nautilus_shm::metrics::{Counter, table};

use supervised::{CACHE_PORT, CLIENT, SERVER, Supervised, ip, privileged, wait_until};
use support::MapKeyspace;

const SYMBOLS: u16 = 4;
const SESSION: Session = Session(*b"000000MON1");
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two packets.
const PACE: Duration = Duration::from_millis(1);

/// Packets on their way: what finds no room between two workers on a busy machine is lost on its line, and no
/// line is to lose more than it is told to.
const BACKLOG_MAX: u64 = 48;

/// Packets that line B is behind: what A lacks is a hole until then.
const LAG: usize = 2;

/// A day in packets, and what is published of it.
fn day() -> (Vec<Vec<u8>>, u64, BTreeMap<String, BboRecord>) {
    let messages = 20_000;
    let spec = GeneratorSpec { seed: 7, symbols: SYMBOLS, messages, rate: 100_000 };
    let mut generator = Generator::new(spec).unwrap();
    let (mut packer, mut packets) = (Packer::new(SESSION, 1), Vec::new());
    let mut take = |packer: &mut Packer| {
        let mut packet = Vec::new();
        packer.take(&mut packet).map(|_| packets.push(packet))
    };
    while let Some(message) = generator.next_message() {
        if !packer.push(message) {
            take(&mut packer);
            assert!(packer.push(message));
        }
    }
    take(&mut packer);
    packets.push(packer.heartbeat().to_vec());

    let books = BookLimits { orders_max: 1 << 15, levels_max: 1 << 15, hash_seed: 3 };
    let mut channel = Channel::new(ChannelSpec {
        venue: Venue::new("nasdaq").unwrap(),
        protocol: Default::default(),
        channel: 1,
        start: Start::Session,
        silence_limit_ns: u64::MAX,
        depth: 0,
        hold_limit_ns: 0,
        books,
    });
    let mut keyspace = MapKeyspace::default();
    for packet in &packets {
        channel.handle(1, packet, &mut keyspace);
    }
    assert!(channel.is_live(1));
    let values = keyspace.values.iter().filter(|(key, _)| key.ends_with(b":bbo"));
    let values = values.map(|(key, (value, _))| {
        (String::from_utf8(key.clone()).unwrap(), BboRecord::decode(value).unwrap())
    });
    (packets, messages, values.collect())
}

/// Both lines of the venue.
struct Sender(Vec<UdpSocket>);

impl Sender {
    fn new(node: &Supervised, port_b: u16) -> Self {
        ip(&format!("-n {} route add 224.0.0.0/4 dev c0", node.client_ns));
        let line = |(group, port): (&str, u16)| {
            let from = SocketAddr::new(CLIENT.parse().unwrap(), 0);
            let socket = Supervised::udp(&node.client_ns, from);
            socket.connect((group, port)).unwrap();
            socket
        };
        Self([("233.54.12.111", 26_477), ("233.54.12.112", port_b)].map(line).into())
    }

    fn send(&self, lines: &[usize], packet: &[u8]) {
        for line in lines {
            self.0[*line].send(packet).unwrap();
        }
    }
}

/// The record under a key; `None` for a miss.
fn get(client: &UdpSocket, key: &str) -> Option<BboRecord> {
    let request = [&[0, 1, 0, 0, 0, 1, 0, 0], format!("get {key}\r\n").as_bytes()].concat();
    let mut reply = [0; 1500];
    for _ in 0..5 {
        client.send(&request).unwrap();
        let Ok(length) = client.recv(&mut reply) else { continue };
        let text = &reply[8..length];
        if text == b"END\r\n" {
            return None;
        }
        let start = text.windows(2).position(|pair| pair == b"\r\n").unwrap() + 2;
        return Some(BboRecord::decode(&text[start..text.len() - 7]).unwrap());
    }
    panic!("no answer for {key}");
}

fn sum(region: &ControlReader, counter: Counter) -> u64 {
    (0..WORKERS_MAX).map(|slot| region.metrics(slot).counter(counter)).sum()
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn the_loss_of_either_line_is_not_seen_and_that_of_both_is() {
    if !privileged("the_loss_of_either_line_is_not_seen_and_that_of_both_is") {
        return;
    }
    let mut node = Supervised::new(&format!(
        "queues = [0, 1]\n[worker]\ncount = 2\n[port]\nframes = 1024\n{}",
        cache_and_feed(26_478)
    ));
    ip(&format!("-n {} link del s0", node.server_ns));
    node.make_link(0, 2);
    node.start();
    node.await_workers(2);
    lose_lines(&node, 26_478);
    node.stop();
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn lines_on_one_port_of_kernel_sockets_are_each_received_once() {
    if !privileged("lines_on_one_port_of_kernel_sockets_are_each_received_once") {
        return;
    }
    let port = "[port]\nkind = \"socket\"\n";
    let mut node = Supervised::new(&format!("{port}{}", cache_and_feed(26_477)));
    // The worker is nobody, and echo is served on port 7.
    let sysctl = "sysctl -qw net.ipv4.ip_unprivileged_port_start=0";
    ip(&format!("netns exec {} {sysctl}", node.server_ns));
    node.start();
    node.await_workers(1);
    lose_lines(&node, 26_477);
    node.stop();
}

fn cache_and_feed(port_b: u16) -> String {
    format!(
        "[cache]\nid = \"q\"\nmax_memory_mb = 64\n\
         [[feed]]\nvenue = \"nasdaq\"\ngroup = \"233.54.12.111\"\nport = 26477\n\
         lines = [{{ group = \"233.54.12.112\", port = {port_b} }}]\nhold_limit_us = 50000\n\
         channel = 1\nmax_orders = 32768\n"
    )
}

/// Sends a day over lines that lose much, asks for its records meanwhile and at the end, and then has
/// both lines lose the same packet.
fn lose_lines(node: &Supervised, port_b: u16) {
    let sender = Sender::new(node, port_b);
    let client = Supervised::udp(&node.client_ns, SocketAddr::new(CLIENT.parse().unwrap(), 0));
    client.connect((SERVER, CACHE_PORT)).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();

    let (packets, messages, expected) = day();
    assert_eq!(expected.len(), usize::from(SYMBOLS));
    let probe = expected.keys().next().unwrap();
    let mut random = Random::new(5);
    let third = packets.len() / 3;
    let (mut asked, mut began) = (0, false);
    let mut due = Instant::now();
    // A third with one packet in ten lost on one of the lines, a third on B, a third on A alone.
    let mut lines_of = |place: usize| match (place / third, random.below(20)) {
        _ if place == 0 => [true, true],
        (0, 0) | (1, _) => [false, true],
        (0, 1) | (2.., _) => [true, false],
        (0, _) => [true, true],
    };
    let carried: Vec<[bool; 2]> = (0..packets.len()).map(&mut lines_of).collect();
    let region = node.attach().unwrap();
    let mut sent = 0;
    for place in 0..packets.len() {
        for (line, behind) in [(0, 0), (1, LAG)] {
            let of_line = place.checked_sub(behind).filter(|place| carried[*place][line]);
            if let Some(place) = of_line {
                sender.send(&[line], &packets[place]);
                sent += 1;
            }
        }
        // Not while a hole may be open: it is as old as the wait.
        let recent = &carried[place.saturating_sub(LAG + 1)..=place];
        if recent.windows(2).all(|pair| pair[0] == pair[1]) {
            wait_until("the feed keeps up", PATIENCE, || {
                sum(&region, table::FEED_PACKETS) + BACKLOG_MAX >= sent
            });
        }
        if place % 8 == 0 {
            let found = get(&client, probe).is_some();
            assert!(found || !began, "a miss after packet {place} of {}", packets.len());
            began |= found;
            asked += u32::from(found);
        }
        due += PACE;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    assert!(asked > 40, "{asked} answers of {} packets", packets.len());
    let same = |found: &BboRecord, expected: &BboRecord| {
        let mut found = *found;
        found.origin.capture_ns = expected.origin.capture_ns;
        found == *expected
    };
    wait_until("every record is that of the whole day", PATIENCE, || {
        expected
            .iter()
            .all(|(key, record)| get(&client, key).is_some_and(|found| same(&found, record)))
    });
    wait_until("all is counted", PATIENCE, || sum(&region, table::FEED_MESSAGES) == messages);
    let by_line = |counter: fn(FeedLine) -> Counter| {
        [FeedLine::A, FeedLine::B].map(|line| sum(&region, counter(line)))
    };
    let received = by_line(|line| table::FEED_LINE_MESSAGES.of(line));
    let first = by_line(|line| table::FEED_LINE_FIRST.of(line));
    let healed = sum(&region, table::FEED_HOLES.of(HoleEnd::Healed));
    println!("received {received:?}, first {first:?}, {healed} holes healed, {asked} asked");
    assert_eq!(sum(&region, table::FEED_GAPS), 0);
    assert_eq!(by_line(|line| table::FEED_LINE_DUPLICATES.of(line)), [0, 0]);
    assert_eq!(first[0] + first[1], messages);
    let holes = carried.windows(2).filter(|pair| !pair[0][0] && pair[1][0]).count();
    assert!(holes >= 5 && healed >= holes as u64 / 2, "{healed} healed of {holes} that A left");
    assert!(received.iter().all(|line| (messages / 2..messages * 4 / 5).contains(line)));

    // One packet of another session is lost on both.
    let tuesday = |packet: &[u8]| {
        let mut packet = packet.to_vec();
        packet[..10].copy_from_slice(b"000000TUE1");
        packet
    };
    let is_read = || get(&client, probe).is_some();
    for packet in &packets[..60] {
        sender.send(&[0, 1], &tuesday(packet));
        std::thread::sleep(PACE);
    }
    wait_until("the next session is read", PATIENCE, is_read);
    sender.send(&[0, 1], &tuesday(&packets[61]));
    wait_until("the gap is a miss, with nothing more sent", PATIENCE, || !is_read());
    assert_eq!(sum(&region, table::FEED_HOLES.of(HoleEnd::Healed)), healed);
    sender.send(&[0, 1], &tuesday(&packets[60]));
    std::thread::sleep(Duration::from_millis(20));
    assert!(!is_read(), "what comes after the limit heals nothing");
    assert_eq!(sum(&region, table::FEED_HOLES.of(HoleEnd::Late)), 1);
}
