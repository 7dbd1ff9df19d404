//! A feed with subscribers over lines that lose, double and hold back datagrams by a seed.

#[path = "../support/mod.rs"]
pub mod support;

use nautilus_dataplane::app::feed::{Feed, FeedSpec};
use nautilus_dataplane::feed::book::BookLimits;
use nautilus_dataplane::feed::channel::ChannelSpec;
use nautilus_dataplane::feed::distribution::subscriber::{Event, Subscriber, Wanted};
use nautilus_dataplane::feed::distribution::wire::{Mode, Records, State};
use nautilus_dataplane::feed::distribution::{
    Distribution, DistributionCounts, DistributionSpec, Entitlement, Entitlements, SlowPolicy,
};
use nautilus_dataplane::feed::moldudp64::Session;
use nautilus_dataplane::feed::pack::Packer;
use nautilus_dataplane::feed::session::Start;
use nautilus_dataplane::feed::{Protocol, Symbol, Venue};
use nautilus_dataplane::net::Endpoint;
use nautilus_dataplane::port::{Burst, Datagram, Filled, Link, Path, SendError, Transmit};
use nautilus_dataplane::replay::generate::{Generator, GeneratorSpec};
use nautilus_dataplane::replay::random::Random;
use std::collections::{BTreeMap, VecDeque};
use support::MapKeyspace;

pub const LINE: Endpoint = Endpoint::v4([233, 54, 12, 111], 26_477);
pub const ASKED: Endpoint = Endpoint::v4([198, 18, 0, 1], 26_700);
pub const LEASE_NS: u64 = 2_000_000_000;
/// One turn of the loop.
pub const TURN_NS: u64 = 50_000;

pub fn source(last: u8, port: u16) -> Endpoint {
    Endpoint::v4([198, 18, 0, last], port)
}

pub fn wanted(records: u8, depth: u8, mode: Mode, symbols: &[&str]) -> Wanted {
    let symbols = symbols.iter().map(|symbol| Symbol::new(symbol).unwrap()).collect();
    Wanted { records: Records(records), depth, mode, interval_us: 0, symbols }
}

pub fn everything() -> Wanted {
    wanted(0x7f, 3, Mode::Full, &[])
}

pub fn spec() -> DistributionSpec {
    DistributionSpec {
        endpoint: ASKED,
        subscribers_max: 4,
        history_bytes: 1 << 20,
        lease_ns: LEASE_NS,
        slow: SlowPolicy::Conflate,
        conflate_ns: 1_000_000,
        depth: 3,
        entitlements: Entitlements::new(vec![Entitlement {
            prefix: "198.18.0.0/24".parse().unwrap(),
            records: Records::ALL,
            depth_max: 3,
            subscriptions_max: 2,
            symbols: None,
        }]),
    }
}

struct One<'a>(Datagram<'a>);

impl Burst for One<'_> {
    fn len(&self) -> usize {
        1
    }

    fn get(&self, _: usize) -> Datagram<'_> {
        self.0
    }
}

/// What the node sends, by receiver; takes no more than it is told to.
#[derive(Default)]
pub struct Wire {
    pub sent: Vec<(Endpoint, Vec<u8>)>,
    pub room: usize,
}

impl Transmit for Wire {
    fn send<F: Into<Filled>>(
        &mut self,
        path: &Path,
        write: impl FnOnce(&mut [u8]) -> F,
    ) -> Result<(), SendError> {
        assert_eq!(path.from, ASKED);
        if self.sent.len() >= self.room {
            return Err(SendError::NoFrame);
        }
        let mut out = vec![0; 1_400];
        let Filled { bytes, .. } = write(&mut out).into();
        out.truncate(bytes);
        self.sent.push((path.to, out));
        Ok(())
    }
}

/// The node: one feed into a map, and its subscribers.
pub struct Node {
    pub feed: Feed,
    pub keyspace: MapKeyspace,
    pub wire: Wire,
    pub now_ns: u64,
}

impl Node {
    pub fn new(spec: DistributionSpec) -> Self {
        let channel = ChannelSpec {
            venue: Venue::new("nasdaq").unwrap(),
            protocol: Protocol::NasdaqItch50,
            channel: 3,
            start: Start::Session,
            silence_limit_ns: 400_000_000,
            hold_limit_ns: 0,
            books: BookLimits { orders_max: 1 << 14, levels_max: 1 << 14, hash_seed: 1 },
            depth: spec.depth,
        };
        let feed = Feed::new(&[FeedSpec { lines: vec![LINE], channel, recovery: None }]);
        let mut node = Self {
            feed: feed.distributing(vec![Some(Distribution::new(spec))]),
            keyspace: MapKeyspace::default(),
            wire: Wire { room: usize::MAX, ..Wire::default() },
            now_ns: 1_000_000_000,
        };
        node.feed.begin(&mut node.keyspace);
        node
    }

    pub fn receive(&mut self, source: Endpoint, destination: Endpoint, payload: &[u8]) {
        let (link, rx_ns) = (Link::default(), self.now_ns);
        let datagram = Datagram { source, destination, link, rx_ns, permissions: None, payload };
        self.feed.handle(&One(datagram), &mut self.keyspace);
        self.feed.send(self.now_ns, &mut self.wire);
    }

    /// A turn without a packet; what was sent in it and before.
    pub fn turn(&mut self) -> Vec<(Endpoint, Vec<u8>)> {
        self.now_ns += TURN_NS;
        self.feed.housekeeping(self.now_ns, &mut self.keyspace);
        self.feed.send(self.now_ns, &mut self.wire);
        std::mem::take(&mut self.wire.sent)
    }

    pub fn subscribers(&self) -> u32 {
        self.feed.distributions().map(Distribution::subscribers).sum()
    }

    pub fn counts(&self) -> DistributionCounts {
        *self.feed.distributions().next().unwrap().counts()
    }
}

/// What a subscriber was told and holds, by kind and symbol.
#[derive(Default)]
pub struct Seen {
    pub records: BTreeMap<(u8, [u8; 8]), Vec<u8>>,
    pub changes: u64,
    pub left_out: u64,
    pub images: u32,
    pub states: Vec<State>,
    pub modes: Vec<Mode>,
    /// Records by symbol, those of images among them.
    pub by_symbol: BTreeMap<[u8; 8], u64>,
}

impl Seen {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Record { kind, is_image, left_out, record } => {
                let symbol = record[32..40].try_into().unwrap();
                self.records.insert((kind, symbol), record.to_vec());
                *self.by_symbol.entry(symbol).or_default() += 1;
                self.changes += u64::from(!is_image);
                self.left_out += u64::from(left_out);
            }
            Event::State(state) => {
                if state == State::Session {
                    self.records.clear();
                }
                self.states.push(state);
            }
            Event::ImageBegins => self.records.clear(),
            Event::ImageEnds => self.images += 1,
            Event::Mode(mode) => self.modes.push(mode),
        }
    }

    /// Records of stocks other than this one.
    pub fn foreign(&mut self, symbol: Symbol) -> u64 {
        self.by_symbol.retain(|own, _| *own != symbol.0 && *own != [b' '; 8]);
        self.by_symbol.values().sum()
    }

    /// What the cache holds under the keys that it stands for.
    pub fn assert_is_of(&self, keyspace: &MapKeyspace, wanted: &Wanted) {
        let mut expected = BTreeMap::new();
        for (key, (value, _)) in &keyspace.values {
            let parts: Vec<&str> = std::str::from_utf8(key).unwrap().split(':').collect();
            let (symbol, kind, bit) = match parts[..] {
                [_, _, "status"] => ("", b'V', 5),
                [_, _, "stats"] => ("", b'W', 6),
                [_, _, symbol, "bbo"] => (symbol, b'B', 0),
                [_, _, symbol, "last"] => (symbol, b'L', 1),
                [_, _, symbol, "status"] => (symbol, b'S', 2),
                [_, _, symbol, "stats"] => (symbol, b'T', 3),
                [_, _, symbol, "depth3"] => (symbol, b'D', 4),
                _ => panic!("{parts:?}"),
            };
            let symbol = Symbol::new(symbol).unwrap();
            let has_symbol = wanted.symbols.is_empty() || wanted.symbols.contains(&symbol);
            if wanted.records.has(Records(1 << bit)) && (has_symbol || bit > 4) {
                let mut value = value.clone();
                if kind == b'D' && wanted.depth < 3 {
                    let kept = 16 * usize::from(wanted.depth);
                    let asks = value[56 + 48..56 + 48 + kept].to_vec();
                    value.truncate(56 + kept);
                    value.extend(asks);
                    let bytes = value.len() as u16;
                    value[2..4].copy_from_slice(&bytes.to_le_bytes());
                    value[50] = wanted.depth;
                }
                expected.insert((kind, symbol.0), value);
            }
        }
        let keys = |map: &BTreeMap<(u8, [u8; 8]), Vec<u8>>| map.keys().copied().collect::<Vec<_>>();
        assert_eq!(keys(&self.records), keys(&expected));
        for (key, record) in &expected {
            assert_eq!(&self.records[key], record, "{} {:?}", key.0 as char, Symbol(key.1));
        }
    }
}

/// A subscriber behind a lossy line.
pub struct Client {
    pub at: Endpoint,
    pub subscriber: Subscriber,
    pub seen: Seen,
    /// Loses so many datagrams of a thousand, each way; doubles and delays as many to it.
    pub harm: u32,
    /// Takes nothing.
    pub deaf: bool,
    pub lost: u64,
    random: Random,
    late: VecDeque<(u64, Vec<u8>)>,
}

impl Client {
    pub fn new(at: Endpoint, number: u64, wanted: Wanted, harm: u32, seed: u64) -> Self {
        Self {
            at,
            subscriber: Subscriber::new(number, wanted),
            seen: Seen::default(),
            harm,
            deaf: false,
            lost: 0,
            random: Random::new(seed),
            late: VecDeque::new(),
        }
    }

    fn is_harmed(&mut self) -> bool {
        self.random.below(1_000) < self.harm
    }

    pub fn hear(&mut self, now_ns: u64, datagram: &[u8]) {
        if self.deaf || self.is_harmed() {
            self.lost += 1;
            return;
        }
        if self.is_harmed() {
            self.late.push_back((now_ns + 3 * TURN_NS, datagram.to_vec()));
            if self.is_harmed() {
                return;
            }
        }
        self.subscriber.receive(now_ns, datagram, |event| self.seen.take(event));
    }

    pub fn turn(&mut self, node: &mut Node) {
        let now_ns = node.now_ns;
        while self.late.front().is_some_and(|(due_ns, _)| *due_ns <= now_ns) {
            if let Some((_, datagram)) = self.late.pop_front() {
                self.subscriber.receive(now_ns, &datagram, |event| self.seen.take(event));
            }
        }
        while let Some(datagram) = self.subscriber.poll(now_ns) {
            if self.is_harmed() {
                self.lost += 1;
            } else {
                node.receive(self.at, ASKED, &datagram);
            }
        }
    }
}

/// One turn of everybody.
pub fn turn(node: &mut Node, clients: &mut [Client]) {
    for (to, datagram) in node.turn() {
        for client in clients.iter_mut().filter(|client| client.at == to) {
            client.hear(node.now_ns, &datagram);
        }
    }
    for client in clients {
        client.turn(node);
    }
}

pub fn turns(node: &mut Node, clients: &mut [Client], count: usize) {
    for _ in 0..count {
        turn(node, clients);
    }
}

/// A generated day in packets, and a heartbeat behind it.
pub struct Day {
    pub packets: Vec<Vec<u8>>,
    pub heartbeat: Vec<u8>,
}

impl Day {
    pub fn new(session: [u8; 10], seed: u64, symbols: u16, messages: u64) -> Self {
        let spec = GeneratorSpec { seed, symbols, messages, rate: 100_000 };
        let mut generator = Generator::new(spec).unwrap();
        let mut packer = Packer::with_limits(Session(session), 1, 600, 12);
        let (mut packets, mut packet) = (Vec::new(), Vec::new());
        while let Some(message) = generator.next_message() {
            if !packer.push(message) {
                packer.take(&mut packet);
                packets.push(packet.clone());
                assert!(packer.push(message));
            }
        }
        packer.take(&mut packet);
        packets.push(packet);
        Self { packets, heartbeat: packer.heartbeat().to_vec() }
    }
}
