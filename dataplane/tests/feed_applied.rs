//! Two lines of a feed through the real steering program and the application behind it: whatever XDP drops
//! had been applied by the worker that owns the feed now, and every count is as if nothing had been dropped.
//! Needs root.

mod support;

use nautilus_dataplane::app::feed::{Feed, FeedSpec};
use nautilus_dataplane::feed::Venue;
use nautilus_dataplane::feed::applied::Applied;
use nautilus_dataplane::feed::book::BookLimits;
use nautilus_dataplane::feed::channel::{Channel, ChannelSpec};
use nautilus_dataplane::feed::lines::{LineCounts, WINDOW_MESSAGES};
use nautilus_dataplane::feed::moldudp64::Session;
use nautilus_dataplane::feed::session::Start;
use nautilus_dataplane::net::Endpoint;
use nautilus_dataplane::net::build::{self, LinkAddress};
use nautilus_dataplane::port::{Burst, Datagram, Link};
use nautilus_dataplane::replay::generate::{Generator, GeneratorSpec};
use nautilus_dataplane::replay::random::Random;
use nautilus_ebpf::intf::{HOT_PATH, Interface, Permissions, Service};
use nautilus_ebpf::{Action, FeedLineAt, FeedSlot, Options, Steering, TestContext};
use support::{MapKeyspace, mold_packet};

const LIMIT_NS: u64 = 5_000_000;
const PACE_NS: u64 = 20_000;
const MAC: [u8; 6] = [2, 0x6e, 0x61, 0, 0, 1];
const FEED: u32 = 3;
const PORT: u16 = 26_477;
/// Messages of a session: the windows of the lines move on many times.
const MESSAGES: u64 = 3 * WINDOW_MESSAGES;

/// Line A is IPv4 and untagged, line B IPv6 behind two tags.
fn lines() -> [(Endpoint, Endpoint, [u16; 2]); 2] {
    let at = |from: &str, group: &str| {
        [from, group].map(|address| Endpoint::new(address.parse().unwrap(), PORT))
    };
    let ([a_from, a], [b_from, b]) =
        (at("198.18.0.2", "233.54.12.111"), at("fd00:6e61::2", "ff15::6e61:1"));
    [(a_from, a, [0; 2]), (b_from, b, [0x8000 | 7, 0x8000 | 9])]
}

fn steering() -> Steering {
    let steering = Steering::load(Options::default()).unwrap();
    let line = |(line, (_, group, _)): (u32, (Endpoint, Endpoint, [u16; 2]))| FeedLineAt {
        group: group.ip(),
        port: PORT,
        feed: FEED,
        line,
    };
    let lines: Vec<FeedLineAt> = (0..).zip(lines()).map(line).collect();
    for line in &lines {
        steering.serve_address(line.group).unwrap();
    }
    steering.replace_feed_lines(&lines).unwrap();
    steering.set_service(PORT, Service::listening(3).of_feeds()).unwrap();
    for prefix in ["198.18.0.0/15", "fd00:6e61::/32"] {
        steering.set_source(prefix.parse().unwrap(), Permissions::READ).unwrap();
    }
    let interface = Interface { mac: MAC, queue_count: 1, first_socket: 0 };
    steering.set_interface(1, interface).unwrap();
    steering
}

/// One packet of the exchange.
#[derive(Clone)]
struct Sent {
    session: Session,
    next: u64,
    messages: u64,
    payload: Vec<u8>,
}

/// A session in packets of 1 to 29 messages, with a heartbeat now and then.
fn session(number: u32) -> Vec<Sent> {
    let session = Session(*format!("{number:10}").as_bytes().first_chunk().unwrap());
    let spec = GeneratorSpec { seed: number.into(), symbols: 6, messages: MESSAGES, rate: 100_000 };
    let mut generator = Generator::new(spec).unwrap();
    let mut random = Random::new(number.into());
    let (mut sent, mut sequence) = (Vec::new(), 1);
    loop {
        let mut blocks: Vec<Vec<u8>> = Vec::new();
        for _ in 0..1 + random.below(29) {
            blocks.extend(generator.next_message().map(<[u8]>::to_vec));
        }
        let blocks: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
        let messages = blocks.len() as u64;
        let payload = mold_packet(session, sequence, &blocks);
        sequence += messages;
        sent.push(Sent { session, next: sequence, messages, payload });
        if messages == 0 {
            return sent;
        }
    }
}

/// Whether XDP drops a packet that comes on a line.
fn is_dropped(steering: &Steering, line: usize, sent: &Sent) -> bool {
    let (from, to, vlans) = lines()[line];
    let mut frame = vec![0; build::header_bytes(vlans, to.is_v4())];
    frame.extend(&sent.payload);
    let link = LinkAddress { destination: MAC, source: [2; 6], vlans };
    build::headers(&mut frame, &link, &from, &to);
    steering.test_run(&frame, TestContext::default()).unwrap().action == Action::Drop
}

/// What came on a line.
#[derive(Clone)]
struct Arrival {
    line: usize,
    rx_ns: u64,
    sent: Sent,
}

struct Arrived<'a>(&'a [Arrival]);

impl Burst for Arrived<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, index: usize) -> Datagram<'_> {
        let Arrival { line, rx_ns, sent } = &self.0[index];
        let (source, destination, _) = lines()[*line];
        let (link, payload) = (Link::default(), sent.payload.as_slice());
        Datagram { source, destination, link, rx_ns: *rx_ns, permissions: None, payload }
    }
}

/// A worker's feed and what it publishes.
struct Worker {
    feed: Feed,
    keyspace: MapKeyspace,
}

impl Worker {
    fn new(slot: Option<FeedSlot>) -> Self {
        let channel = ChannelSpec {
            venue: Venue::new("nasdaq").unwrap(),
            protocol: Default::default(),
            channel: 1,
            start: Start::Any,
            silence_limit_ns: u64::MAX,
            depth: 0,
            hold_limit_ns: LIMIT_NS,
            books: BookLimits { orders_max: 1 << 16, levels_max: 1 << 14, hash_seed: 3 },
        };
        let lines = lines().map(|(_, group, _)| group).to_vec();
        let feed = Feed::new(&[FeedSpec { lines, channel, recovery: None }]);
        let feed = feed.saying(vec![slot.map(Applied::new)]);
        let mut this = Self { feed, keyspace: MapKeyspace::default() };
        this.feed.begin(&mut this.keyspace);
        this
    }

    fn channel(&self) -> &Channel {
        self.feed.channels().next().unwrap()
    }

    /// The counts without what was dropped, and what was dropped.
    fn lines(&self) -> ([LineCounts; 2], u64) {
        let counts: Vec<LineCounts> = self.channel().line_counts().copied().collect();
        let dropped = counts.iter().map(|line| line.dropped_packets).sum();
        let without =
            |line: &LineCounts| LineCounts { dropped_packets: 0, dropped_messages: 0, ..*line };
        ([without(&counts[0]), without(&counts[1])], dropped)
    }
}

struct Run<'a> {
    steering: &'a Steering,
    random: Random,
    now_ns: u64,
    /// The worker behind XDP, and one that is given all that came.
    behind: Worker,
    plain: Worker,
    /// What has come since their last bursts.
    passed: Vec<Arrival>,
    came: Vec<Arrival>,
    dropped: u64,
    deaths: u32,
}

impl<'a> Run<'a> {
    fn new(steering: &'a Steering) -> Self {
        let slot = FeedSlot::map(steering.feeds_fd(), FEED).unwrap();
        Self {
            steering,
            random: Random::new(11),
            now_ns: 1,
            behind: Worker::new(Some(slot)),
            plain: Worker::new(None),
            passed: Vec::new(),
            came: Vec::new(),
            dropped: 0,
            deaths: 0,
        }
    }
}

impl Run<'_> {
    fn arrive(&mut self, line: usize, sent: &Sent) {
        let arrival = Arrival { line, rx_ns: self.now_ns, sent: sent.clone() };
        self.came.push(arrival.clone());
        if is_dropped(self.steering, line, sent) {
            let sequencer = self.behind.channel().sequencer();
            assert_eq!(sequencer.session(), Some(sent.session), "of another session");
            assert!(sent.messages > 0 && sent.next <= sequencer.expected(), "not applied");
            self.dropped += 1;
        } else {
            self.passed.push(arrival);
        }
    }

    fn burst(&mut self) {
        let Worker { feed, keyspace } = &mut self.behind;
        feed.handle(&Arrived(&self.passed), keyspace);
        let Worker { feed, keyspace } = &mut self.plain;
        feed.handle(&Arrived(&self.came), keyspace);
        self.passed.clear();
        self.came.clear();
    }

    fn housekeeping(&mut self) {
        self.burst();
        self.behind.feed.housekeeping(self.now_ns, &mut self.behind.keyspace);
        self.plain.feed.housekeeping(self.now_ns, &mut self.plain.keyspace);
    }

    /// The worker dies. What waits in its sockets its successor has; what it had not counted is nobody's.
    fn die(&mut self) {
        self.came.clone_from(&self.passed);
        let slot = FeedSlot::map(self.steering.feeds_fd(), FEED).unwrap();
        self.behind = Worker::new(Some(slot));
        self.plain = Worker::new(None);
        self.deaths += 1;
    }

    /// The worker takes its own feed over again, as if it were another.
    fn begin(&mut self) {
        self.burst();
        for Worker { feed, keyspace } in [&mut self.behind, &mut self.plain] {
            feed.begin(keyspace);
        }
    }

    fn compare(&mut self) {
        self.housekeeping();
        let (behind, dropped) = self.behind.lines();
        assert_eq!(behind, self.plain.lines().0);
        assert_eq!(self.behind.channel().counters(), self.plain.channel().counters());
        assert_eq!(self.plain.lines().1, 0);
        assert!(self.behind.keyspace.values == self.plain.keyspace.values);
        if self.deaths == 0 {
            assert_eq!(dropped, self.dropped);
        }
    }

    /// One session over both lines, B some packets behind, each with loss, copies and reorder.
    fn session(&mut self, number: u32, mortal: bool) {
        let packets = session(number);
        let mut queues: [Vec<Sent>; 2] = [Vec::new(), Vec::new()];
        for (place, sent) in packets.iter().enumerate() {
            self.now_ns += PACE_NS;
            for queue in &mut queues {
                match self.random.below(40) {
                    0 => {}
                    1 => queue.extend([sent.clone(), sent.clone()]),
                    _ => queue.push(sent.clone()),
                }
            }
            for (line, behind) in [(0, 1), (1, 6)] {
                while queues[line].len() > behind {
                    let early = self.random.below(10) == 0;
                    let sent = queues[line].remove(usize::from(early));
                    self.arrive(line, &sent);
                }
            }
            if self.random.below(3) == 0 {
                self.burst();
            }
            if self.random.below(30) == 0 {
                self.housekeeping();
            }
            if mortal && self.random.below(2_000) == 0 {
                self.die();
            }
            if mortal && self.random.below(2_000) == 0 {
                self.begin();
            }
            if place % 4_000 == 0 {
                self.compare();
            }
        }
        for (line, queue) in queues.iter_mut().enumerate() {
            for sent in std::mem::take(queue) {
                self.arrive(line, &sent);
            }
        }
        self.now_ns += 2 * LIMIT_NS;
        self.compare();
    }
}

/// A copy that is judged while the worker handles what begins another session.
struct Meanwhile<'a> {
    arrived: Arrived<'a>,
    steering: &'a Steering,
    copy: &'a Sent,
}

impl Burst for Meanwhile<'_> {
    fn len(&self) -> usize {
        self.arrived.len()
    }

    fn get(&self, index: usize) -> Datagram<'_> {
        assert!(is_dropped(self.steering, 1, self.copy), "applied so far");
        self.arrived.get(index)
    }
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn what_was_given_up_is_not_dropped_and_what_is_over_is_stale() {
    if !HOT_PATH || !nix::unistd::geteuid().is_root() {
        println!("SKIPPED what_was_given_up_is_not_dropped_...: needs root and a hot path");
        return;
    }
    let (steering, monday, tuesday) = (steering(), session(1), session(2));
    let mut run = Run::new(&steering);
    run.arrive(0, &monday[0]);
    run.arrive(0, &monday[1]);
    run.burst();
    assert!(is_dropped(&steering, 1, &monday[1]));
    run.arrive(0, &monday[3]);
    run.burst();
    assert!(is_dropped(&steering, 1, &monday[0]), "a hole that is held open changes nothing");
    assert!(!is_dropped(&steering, 1, &monday[2]) && !is_dropped(&steering, 1, &monday[3]));
    run.now_ns += 2 * LIMIT_NS;
    run.housekeeping();
    assert_eq!(run.behind.channel().counters().gaps, 1);
    assert!(!is_dropped(&steering, 1, &monday[2]), "given up, and never applied");
    assert!(!is_dropped(&steering, 1, &monday[1]), "before the run that is said");
    run.arrive(0, &monday[4]);
    run.burst();
    assert!(is_dropped(&steering, 1, &monday[4]));
    assert!(!is_dropped(&steering, 1, &monday[2]));

    let before = (run.behind.lines().0, *run.behind.channel().counters());
    let next = [Arrival { line: 0, rx_ns: run.now_ns, sent: tuesday[0].clone() }];
    let arrived = Arrived(&next);
    let burst = Meanwhile { arrived, steering: &steering, copy: &monday[4] };
    let Worker { feed, keyspace } = &mut run.behind;
    feed.handle(&burst, keyspace);
    assert!(!is_dropped(&steering, 1, &monday[4]), "Monday is over");
    run.burst();
    let (lines, counters) = (run.behind.lines().0, *run.behind.channel().counters());
    assert_eq!(
        lines[1].received,
        before.0[1].received + monday[4].messages,
        "what was drained first"
    );
    assert_eq!(lines[1].duplicates, 0);
    assert_eq!(counters.stale_packets, before.1.stale_packets + 1);
    assert_eq!(counters.packets, before.1.packets + 3);
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn counts_are_as_if_nothing_had_been_dropped() {
    if !HOT_PATH || !nix::unistd::geteuid().is_root() {
        println!("SKIPPED counts_are_as_if_nothing_had_been_dropped: needs root and a hot path");
        return;
    }
    let steering = steering();
    let mut run = Run::new(&steering);
    run.session(1, false);
    run.session(2, false);
    let ([a, b], dropped) = run.behind.lines();
    println!("A {a:?}\nB {b:?}\n{dropped} packets dropped in XDP");
    // Packets of 15 messages on average, most of whose second copies come when the first is applied.
    assert!(dropped > 2 * MESSAGES / 15 / 2, "{dropped}");
    assert!([a, b].iter().all(|line| line.lost > 0 && line.duplicates > 0 && line.first > 0));
    for number in 3..6 {
        run.session(number, true);
    }
    println!("{} packets dropped in all, {} deaths", run.dropped, run.deaths);
    assert!(run.deaths > 5);
}
