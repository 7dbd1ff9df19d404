//! What no line brought comes back from a request server or a snapshot: the channel is suspect meanwhile and
//! exact afterwards, whatever the servers do.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use nautilus_dataplane::feed::Venue;
use nautilus_dataplane::feed::book::BookLimits;
use nautilus_dataplane::feed::channel::{Channel, ChannelSpec, SnapshotPiece};
use nautilus_dataplane::feed::held::HeldLimits;
use nautilus_dataplane::feed::itch::Message;
use nautilus_dataplane::feed::moldudp64::Session;
use nautilus_dataplane::feed::record::BboRecord;
use nautilus_dataplane::feed::recovery::requests::{Request, TRIES_MAX};
use nautilus_dataplane::feed::recovery::{Recovery, RecoveryCounts, RecoverySpec};
use nautilus_dataplane::feed::session::{Doubt, Start};
use nautilus_dataplane::net::Endpoint;
use nautilus_dataplane::replay::generate::{Generator, GeneratorSpec};
use nautilus_dataplane::replay::random::Random;
use proptest::prelude::*;
use support::{MapKeyspace, mold_packet};

const MONDAY: Session = Session(*b"000000MON1");
const TUESDAY: Session = Session(*b"000000TUE1");
const HOLD_NS: u64 = 1_000_000;
const AFTER_NS: u64 = 200_000;
const TIMEOUT_NS: u64 = 1_000_000;
/// Between two packets of the exchange.
const PACE_NS: u64 = 100_000;
const SILENCE_NS: u64 = 3_000_000_000;

fn server(index: u8) -> Endpoint {
    Endpoint::v4([198, 18, 0, 10 + index], 26_500)
}

/// What the tests vary of a recovering feed.
#[derive(Clone, Copy)]
struct Setting {
    servers: u8,
    has_snapshot: bool,
    messages_max: u64,
    queue: HeldLimits,
}

impl Default for Setting {
    fn default() -> Self {
        let queue = HeldLimits { packets_max: 1 << 14, bytes_max: 4 << 20 };
        Self { servers: 2, has_snapshot: false, messages_max: u64::MAX, queue }
    }
}

fn channel(setting: Setting) -> Channel {
    let spec = ChannelSpec {
        venue: Venue::new("nasdaq").unwrap(),
        channel: 1,
        start: Start::Session,
        silence_limit_ns: SILENCE_NS,
        hold_limit_ns: HOLD_NS,
        books: BookLimits { orders_max: 1 << 12, levels_max: 1 << 12, hash_seed: 3 },
    };
    let mut servers = [None; 4];
    for index in 0..setting.servers {
        servers[usize::from(index)] = Some(server(index));
    }
    let recovery = RecoverySpec {
        servers,
        from: Endpoint::v4([198, 18, 0, 1], 26_400),
        interface: 0,
        request_after_ns: AFTER_NS,
        timeout_ns: TIMEOUT_NS,
        messages_max: setting.messages_max,
        queue: setting.queue,
        has_snapshot: setting.has_snapshot,
    };
    Channel::with_recovery(spec, 2, Some(Recovery::new(recovery, 1)))
}

/// A day of the exchange: every message, and the packets it sends of them.
struct Day {
    messages: Vec<Vec<u8>>,
    /// (first number, number behind the last).
    packets: Vec<(u64, u64)>,
}

impl Day {
    fn new(seed: u64, count: u64) -> Self {
        let spec = GeneratorSpec { seed, symbols: 6, messages: count, rate: 100_000 };
        let mut generator = Generator::new(spec).unwrap();
        let mut messages = Vec::new();
        while let Some(message) = generator.next_message() {
            messages.push(message.to_vec());
        }
        let mut random = Random::new(seed);
        let (mut packets, mut next) = (Vec::new(), 1);
        while next <= messages.len() as u64 {
            let end = (next + 1 + u64::from(random.below(9))).min(messages.len() as u64 + 1);
            packets.push((next, end));
            next = end;
        }
        Self { messages, packets }
    }

    fn end(&self) -> u64 {
        self.messages.len() as u64 + 1
    }

    fn packet(&self, session: Session, (sequence, next): (u64, u64)) -> Vec<u8> {
        let messages = &self.messages[sequence as usize - 1..next as usize - 1];
        let blocks: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        mold_packet(session, sequence, &blocks)
    }

    /// What a request server answers: as much as fits.
    fn reply(&self, session: Session, request: &Request) -> Vec<u8> {
        let last = (request.sequence + u64::from(request.count)).min(self.end());
        let (mut next, mut bytes) = (request.sequence, 20);
        while next < last {
            bytes += 2 + self.messages[next as usize - 1].len();
            if bytes > 600 && next > request.sequence {
                break;
            }
            next += 1;
        }
        self.packet(session, (request.sequence, next))
    }

    /// The state of all books when everything before `next` was applied, as a snapshot has it.
    fn snapshot(&self, next: u64) -> Vec<Vec<u8>> {
        let mut orders: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let mut state = Vec::new();
        for bytes in &self.messages[..next as usize - 1] {
            let reduce = |orders: &mut BTreeMap<u64, Vec<u8>>, order: u64, shares: u32| {
                let Some(add) = orders.get_mut(&order) else { return };
                let left = u32::from_be_bytes(add[20..24].try_into().unwrap());
                if shares >= left {
                    orders.remove(&order);
                } else {
                    add[20..24].copy_from_slice(&(left - shares).to_be_bytes());
                }
            };
            match Message::decode(bytes).unwrap() {
                Message::StockDirectory(_) => state.push(bytes.clone()),
                Message::AddOrder(add) => drop(orders.insert(add.order(), bytes.clone())),
                Message::AddOrderAttributed(add) => drop(orders.insert(add.order(), bytes.clone())),
                Message::OrderExecuted(done) => reduce(&mut orders, done.order(), done.shares()),
                Message::OrderExecutedWithPrice(done) => {
                    reduce(&mut orders, done.order(), done.shares());
                }
                Message::OrderCancel(done) => reduce(&mut orders, done.order(), done.shares()),
                Message::OrderDelete(done) => drop(orders.remove(&done.order())),
                Message::OrderReplace(replace) => {
                    let Some(mut add) = orders.remove(&replace.order()) else { continue };
                    add[11..19].copy_from_slice(&replace.new_order().to_be_bytes());
                    add[20..24].copy_from_slice(&replace.shares().to_be_bytes());
                    add[32..36].copy_from_slice(&replace.price().0.to_be_bytes());
                    orders.insert(replace.new_order(), add);
                }
                _ => {}
            }
        }
        state.extend(orders.into_values());
        state
    }
}

/// Best bids and offers as published: prices, sizes, order counts.
fn published(keyspace: &MapKeyspace) -> BTreeMap<Vec<u8>, String> {
    let bbo = |(key, (value, _)): (&Vec<u8>, &(Vec<u8>, u8))| {
        let is_bbo = key.ends_with(b":bbo");
        is_bbo.then(|| (key.clone(), format!("{:?}", BboRecord::decode(value).unwrap().bbo)))
    };
    let mut all: BTreeMap<_, _> = keyspace.values.iter().filter_map(bbo).collect();
    // An empty book is nothing in a snapshot.
    let nothing = format!("{:?}", nautilus_dataplane::feed::book::Bbo::default());
    all.retain(|_, bbo| *bbo != nothing);
    all
}

/// What an undisturbed channel has published when it has applied all before each number.
fn truth(day: &Day) -> BTreeMap<u64, BTreeMap<Vec<u8>, String>> {
    let (mut channel, mut keyspace) = (channel(Setting::default()), MapKeyspace::default());
    let mut truth = BTreeMap::new();
    truth.insert(1, BTreeMap::new());
    for sequence in 1..day.end() {
        let packet = day.packet(MONDAY, (sequence, sequence + 1));
        channel.handle(1, &packet, &mut keyspace);
        truth.insert(sequence + 1, published(&keyspace));
    }
    assert_eq!(channel.sequencer().doubt(), None);
    truth
}

/// Something on its way to the channel.
enum Arrival {
    Line(usize, Vec<u8>),
    Reply(Endpoint, Vec<u8>),
}

/// A channel, its clock, and what is on its way to it.
struct World<'a> {
    day: &'a Day,
    truth: &'a BTreeMap<u64, BTreeMap<Vec<u8>, String>>,
    channel: Channel,
    keyspace: MapKeyspace,
    now_ns: u64,
    coming: BTreeMap<(u64, u64), Arrival>,
    arrivals: u64,
    random: Random,
    /// Of 1,000 requests or replies.
    request_loss: u32,
    deaf_servers: BTreeSet<Endpoint>,
    asked: Vec<(Endpoint, Request)>,
    was_suspect: bool,
}

impl<'a> World<'a> {
    fn new(
        day: &'a Day,
        truth: &'a BTreeMap<u64, BTreeMap<Vec<u8>, String>>,
        setting: Setting,
    ) -> Self {
        Self {
            day,
            truth,
            channel: channel(setting),
            keyspace: MapKeyspace::default(),
            now_ns: 1_000_000_000,
            coming: BTreeMap::new(),
            arrivals: 0,
            random: Random::new(11),
            request_loss: 0,
            deaf_servers: BTreeSet::new(),
            asked: Vec::new(),
            was_suspect: false,
        }
    }

    fn at(&mut self, at_ns: u64, arrival: Arrival) {
        self.arrivals += 1;
        self.coming.insert((at_ns, self.arrivals), arrival);
    }

    /// The exchange sends these packets at its pace; each line loses what `loses` says.
    fn send(&mut self, packets: &[(u64, u64)], mut loses: impl FnMut(usize, (u64, u64)) -> bool) {
        for (place, packet) in packets.iter().enumerate() {
            for line in [0, 1] {
                if !loses(line, *packet) {
                    let at_ns = self.now_ns + place as u64 * PACE_NS + line as u64 * 20_000;
                    self.at(at_ns, Arrival::Line(line, self.day.packet(MONDAY, *packet)));
                }
            }
        }
    }

    /// Lets time pass, with everything that comes, housekeeping each 100 us and the requests answered.
    fn run(&mut self, for_ns: u64) {
        let until_ns = self.now_ns + for_ns;
        let mut housekeeping_ns = self.now_ns;
        loop {
            let next = self.coming.first_key_value().map_or(u64::MAX, |((at_ns, _), _)| *at_ns);
            self.now_ns = next.min(housekeeping_ns).max(self.now_ns);
            if self.now_ns > until_ns {
                break;
            }
            if housekeeping_ns <= self.now_ns {
                housekeeping_ns = self.now_ns + 100_000;
                self.channel.housekeeping(self.now_ns, &mut self.keyspace);
            }
            if next <= self.now_ns
                && let Some((_, arrival)) = self.coming.pop_first()
            {
                match arrival {
                    Arrival::Line(line, bytes) => {
                        self.channel.handle_from(line, self.now_ns, &bytes, &mut self.keyspace);
                    }
                    Arrival::Reply(from, bytes) => {
                        self.channel.handle_reply(&from, self.now_ns, &bytes, &mut self.keyspace);
                    }
                }
            }
            self.channel.turn(self.now_ns, &mut self.keyspace);
            self.answer();
            self.check();
        }
        self.now_ns = until_ns;
    }

    fn answer(&mut self) {
        while let Some((to, session, request)) = self.channel.next_request(self.now_ns) {
            assert_eq!(session, MONDAY);
            assert!((1..=32).contains(&request.count));
            self.asked.push((to, request));
            if self.random.below(1_000) < self.request_loss || self.deaf_servers.contains(&to) {
                continue;
            }
            let delay_ns = u64::from(self.random.below(150_000));
            let reply = self.day.reply(session, &request);
            self.at(self.now_ns + 50_000 + delay_ns, Arrival::Reply(to, reply));
        }
    }

    /// What is live is the truth.
    fn check(&mut self) {
        if !self.channel.is_live(self.now_ns) {
            self.was_suspect = true;
            return;
        }
        let expected = self.channel.sequencer().expected();
        let truth = &self.truth[&expected];
        assert_eq!(published(&self.keyspace), *truth, "live at {expected} and not the truth");
    }

    fn piece(&mut self, attempt: u64, piece: SnapshotPiece<'_>) {
        self.channel.take_snapshot(attempt, self.now_ns, piece, &mut self.keyspace);
        self.check();
    }

    fn counts(&self) -> RecoveryCounts {
        *self.channel.recovery_counts().unwrap()
    }

    fn is_live(&self) -> bool {
        self.channel.is_live(self.now_ns)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Both lines lose, requests and replies are lost as well, and nothing is missing in the end.
    #[test]
    fn nothing_stays_missing_while_a_server_answers(seed in any::<u64>(), first in 0_usize..40) {
        let day = Day::new(seed, 1_500);
        let truth = truth(&day);
        let mut world = World::new(&day, &truth, Setting::default());
        world.request_loss = 250;
        let mut random = Random::new(seed ^ 0x5eed);
        // The session may be joined late, too.
        world.send(&day.packets[first..], |_, _| random.below(1_000) < 200);
        world.run(day.packets.len() as u64 * PACE_NS + 2_000_000_000);
        let end = mold_packet(MONDAY, day.end(), &[]);
        world.at(world.now_ns, Arrival::Line(0, end));
        world.run(1_000_000_000);
        prop_assert_eq!(world.channel.sequencer().expected(), day.end());
        prop_assert_eq!(world.channel.sequencer().doubt(), None);
        prop_assert!(world.is_live());
        prop_assert_eq!(world.channel.counters().gaps, 0);
        prop_assert_eq!(world.channel.counters().messages, day.end() - 1, "each number once");
        prop_assert_eq!(&published(&world.keyspace), &truth[&day.end()]);
        let counts = world.counts();
        prop_assert!(counts.recovered_messages > 0 && counts.timeouts > 0 && counts.exhausted == 0);
    }
}

/// 1,500 messages, of which the numbers of some packets in the middle come on no line.
fn with_a_hole(setting: Setting, hole: std::ops::Range<usize>, run: impl FnOnce(&mut World<'_>)) {
    let day = Day::new(7, 1_500);
    let truth = truth(&day);
    let mut world = World::new(&day, &truth, setting);
    let lost: Vec<(u64, u64)> = day.packets[hole].to_vec();
    world.send(&day.packets, |_, packet| lost.contains(&packet));
    run(&mut world);
}

#[test]
fn what_the_other_line_is_about_to_bring_is_not_asked_for() {
    let day = Day::new(7, 1_500);
    let truth = truth(&day);
    let mut world = World::new(&day, &truth, Setting::default());
    world.send(&day.packets, |line, (sequence, _)| (sequence % 2 == 0) == (line == 0));
    world.run(day.packets.len() as u64 * PACE_NS + 1_000_000);
    assert_eq!((world.asked.len(), world.channel.sequencer().expected()), (0, day.end()));
}

#[test]
fn a_hole_is_suspect_from_its_limit_on_and_exact_once_it_is_filled() {
    with_a_hole(Setting::default(), 50..90, |world| {
        world.deaf_servers.extend([server(0), server(1)]);
        world.run(50 * PACE_NS - 1);
        assert!(world.is_live());
        world.was_suspect = false;
        world.run(40 * PACE_NS + HOLD_NS / 2);
        assert!(world.is_live() && !world.was_suspect, "the hole is young");
        world.run(HOLD_NS);
        assert!(!world.is_live());
        assert_eq!(world.channel.sequencer().doubt(), Some(Doubt::Recovering));
        world.deaf_servers.remove(&server(1));
        world.run(100_000_000);
        assert!(world.is_live());
        assert_eq!(world.channel.sequencer().expected(), world.day.end());
        assert_eq!(world.channel.counters().gaps, 0);
        let (first, last) = (world.day.packets[50].0, world.day.packets[89].1);
        assert_eq!(world.counts().recovered_messages, last - first);
        assert!(world.asked.iter().any(|(to, _)| *to == server(0)), "in turns");
    });
}

#[test]
fn servers_that_never_answer_leave_a_gap_where_there_is_no_snapshot() {
    with_a_hole(Setting::default(), 50..90, |world| {
        world.deaf_servers.extend([server(0), server(1)]);
        world.run(2_000_000_000);
        assert_eq!(world.channel.sequencer().doubt(), Some(Doubt::Gap));
        assert_eq!(world.channel.sequencer().expected(), world.day.end(), "it goes on");
        assert_eq!((world.counts().exhausted, world.channel.counters().gaps), (1, 1));
        let tries =
            world.asked.iter().filter(|(_, asked)| asked.sequence == world.day.packets[50].0);
        assert_eq!(tries.count() as u32, TRIES_MAX);
        assert!(!world.is_live());
    });
}

#[test]
fn servers_that_never_answer_make_a_snapshot_necessary() {
    let setting = Setting { has_snapshot: true, ..Setting::default() };
    with_a_hole(setting, 50..90, |world| {
        world.deaf_servers.extend([server(0), server(1)]);
        world.run(100 * PACE_NS + 200_000_000);
        let (attempt, session) = world.channel.snapshot_wanted().expect("wanted");
        assert_eq!(session, MONDAY);
        assert_eq!(world.channel.sequencer().doubt(), Some(Doubt::Recovering));
        assert_eq!(world.channel.snapshot_wanted(), Some((attempt, session)), "the same attempt");
        // It was made while packets behind the hole were being sent; what follows it was held.
        let next = world.day.packets[95].0 + 1;
        world.piece(attempt, SnapshotPiece::Begin(MONDAY));
        assert_eq!(world.channel.snapshot_wanted(), None);
        world.piece(attempt, SnapshotPiece::Failed);
        assert_eq!(world.counts().snapshots_failed, 1);
        world.run(90_000_000);
        assert_eq!(world.channel.snapshot_wanted(), None, "not at once again");
        world.run(20_000_000);
        let (again, _) = world.channel.snapshot_wanted().expect("wanted again");
        assert!(again > attempt);
        load_as(world, again, MONDAY, next);
        world.run(1_000_000);
        assert!(world.is_live());
        assert_eq!(world.channel.sequencer().expected(), world.day.end());
        assert_eq!(published(&world.keyspace), world.truth[&world.day.end()]);
        assert_eq!((world.counts().snapshots_loaded, world.channel.counters().gaps), (1, 0));
    });
}

/// Hands a snapshot over; `next` is what it says that all before is included of.
fn load_as(world: &mut World<'_>, attempt: u64, session: Session, next: u64) {
    let messages = world.day.snapshot(next);
    world.piece(attempt, SnapshotPiece::Begin(session));
    for message in &messages {
        let block = [&(message.len() as u16).to_be_bytes()[..], message].concat();
        world.piece(attempt, SnapshotPiece::Messages(&block));
        assert!(!world.is_live(), "in its middle");
    }
    world.piece(attempt, SnapshotPiece::End(next));
}

#[test]
fn a_hole_larger_than_is_asked_for_is_a_matter_for_a_snapshot() {
    let setting = Setting { has_snapshot: true, messages_max: 20, ..Setting::default() };
    with_a_hole(setting, 50..90, |world| {
        world.run(90 * PACE_NS + 2 * HOLD_NS);
        assert_eq!(world.asked.len(), 0);
        assert!(world.channel.snapshot_wanted().is_some());
    });
}

#[test]
fn a_node_that_comes_late_takes_a_snapshot() {
    let setting = Setting { servers: 0, has_snapshot: true, ..Setting::default() };
    let day = Day::new(9, 1_500);
    let truth = truth(&day);
    let mut world = World::new(&day, &truth, setting);
    world.send(&day.packets[100..], |_, _| false);
    world.run(10_000_000);
    let (attempt, _) = world.channel.snapshot_wanted().expect("wanted");
    // As the server had it before the first packet that we heard: it is too old.
    load_as(&mut world, attempt, MONDAY, day.packets[90].0);
    world.run(1_000_000);
    assert!(!world.is_live(), "ten packets are missing between");
    world.run(200_000_000);
    let (attempt, _) = world.channel.snapshot_wanted().expect("another");
    load_as(&mut world, attempt, MONDAY, day.packets[120].0);
    world.run(1_000_000);
    assert!(world.is_live());
    assert_eq!(world.channel.sequencer().expected(), day.end());
    assert_eq!((world.counts().snapshots_loaded, world.channel.counters().gaps), (2, 0));
}

#[test]
fn a_message_that_cannot_be_read_is_healed_by_a_snapshot() {
    let setting = Setting { has_snapshot: true, ..Setting::default() };
    let day = Day::new(9, 1_500);
    let truth = truth(&day);
    let mut world = World::new(&day, &truth, setting);
    world.send(&day.packets[..100], |_, _| false);
    world.run(100 * PACE_NS);
    assert!(world.is_live());
    // Messages in a wrong length, on the line that is first.
    let (sequence, next) = day.packets[100];
    let bad = vec![b"A".as_slice(); (next - sequence) as usize];
    world.at(world.now_ns, Arrival::Line(0, mold_packet(MONDAY, sequence, &bad)));
    world.send(&day.packets[100..], |_, _| false);
    world.run(10_000_000);
    assert_eq!(world.channel.sequencer().doubt(), Some(Doubt::Malformed));
    let (attempt, _) = world.channel.snapshot_wanted().expect("wanted");
    load_as(&mut world, attempt, MONDAY, day.packets[130].0);
    world.run(day.packets.len() as u64 * PACE_NS);
    assert!(world.is_live());
    assert_eq!(published(&world.keyspace), truth[&day.end()]);
}

#[test]
fn snapshots_that_lie_stall_or_break_off_are_never_believed() {
    let setting = Setting { servers: 0, has_snapshot: true, ..Setting::default() };
    with_a_hole(setting, 50..90, |world| {
        world.run(100 * PACE_NS + 10_000_000);
        let end = world.day.end();
        let wanted = |world: &mut World<'_>| {
            for _ in 0..700 {
                if let Some((attempt, _)) = world.channel.snapshot_wanted() {
                    return attempt;
                }
                world.run(50_000_000);
            }
            panic!("never wanted again");
        };
        type Lie = fn(&mut World<'_>, u64);
        let lies: [Lie; 6] = [
            |world, attempt| world.piece(attempt, SnapshotPiece::Begin(TUESDAY)),
            |world, attempt| world.piece(attempt, SnapshotPiece::End(9)),
            |world, attempt| {
                world.piece(attempt, SnapshotPiece::Begin(MONDAY));
                world.piece(attempt, SnapshotPiece::Messages(&[0, 9, b'A']));
            },
            |world, attempt| {
                world.piece(attempt, SnapshotPiece::Begin(MONDAY));
                world.piece(attempt, SnapshotPiece::Messages(&[0, 1, b'A']));
            },
            |world, attempt| {
                world.piece(attempt, SnapshotPiece::Begin(MONDAY));
                world.piece(attempt, SnapshotPiece::End(0));
            },
            |world, attempt| {
                world.piece(attempt, SnapshotPiece::Begin(MONDAY));
                world.run(6_000_000_000);
            },
        ];
        for (index, lie) in lies.into_iter().enumerate() {
            let attempt = wanted(world);
            lie(world, attempt);
            assert_eq!(world.counts().snapshots_failed, index as u64 + 1);
            // Of an attempt that is over nothing is taken in.
            load_as(world, attempt, MONDAY, end);
            world.run(1_000_000);
            assert!(!world.is_live(), "{index}");
        }
        let attempt = wanted(world);
        load_as(world, attempt, MONDAY, end);
        // The line has been silent meanwhile, which is another reason.
        world.at(world.now_ns, Arrival::Line(0, mold_packet(MONDAY, end, &[])));
        world.run(1_000_000);
        assert!(world.is_live());
        assert_eq!(world.counts().snapshots_loaded, 1);
    });
}

#[test]
fn replies_that_nobody_asked_for_are_refused_and_begin_no_session() {
    with_a_hole(Setting::default(), 50..60, |world| {
        world.deaf_servers.extend([server(0), server(1)]);
        world.run(70 * PACE_NS);
        let asked = world.asked[0].1;
        let good = world.day.reply(MONDAY, &asked);
        let expected = world.channel.sequencer().expected();
        let refused = [
            (Endpoint::v4([198, 18, 0, 99], 26_500), good.clone()),
            (server(0), world.day.reply(TUESDAY, &asked)),
            (server(0), world.day.packet(MONDAY, (1, 5))),
            (server(0), mold_packet(MONDAY, asked.sequence, &[])),
            (server(0), good[..good.len() - 1].to_vec()),
            (server(0), world.day.packet(MONDAY, (asked.sequence, asked.sequence + 33))),
            (server(0), Vec::new()),
        ];
        let count = refused.len() as u64;
        for (from, bytes) in refused {
            world.channel.handle_reply(&from, world.now_ns, &bytes, &mut world.keyspace);
        }
        assert_eq!((world.counts().refused_replies, world.counts().replies), (count, 0));
        assert_eq!(world.channel.sequencer().expected(), expected);
        assert_eq!(world.channel.sequencer().session(), Some(MONDAY));
        world.channel.handle_reply(&server(1), world.now_ns, &good, &mut world.keyspace);
        assert_eq!(world.counts().replies, 1);
        world.channel.handle_reply(&server(1), world.now_ns, &good, &mut world.keyspace);
        assert_eq!(world.counts().refused_replies, count + 1, "once is enough");
    });
}

#[test]
fn what_finds_no_room_meanwhile_is_asked_for_later() {
    let queue = HeldLimits { packets_max: 64, bytes_max: 1 << 17 };
    let setting = Setting { queue, ..Setting::default() };
    with_a_hole(setting, 50..55, |world| {
        world.deaf_servers.extend([server(0), server(1)]);
        // A hundred packets and more come behind the hole, within what a request may take.
        world.run(200 * PACE_NS);
        assert!(world.counts().queue_dropped > 0);
        assert!(!world.is_live());
        world.deaf_servers.clear();
        world.run(world.day.packets.len() as u64 * PACE_NS + 500_000_000);
        world.at(world.now_ns, Arrival::Line(0, mold_packet(MONDAY, world.day.end(), &[])));
        world.run(1_000_000_000);
        assert!(world.is_live());
        assert_eq!(world.channel.sequencer().expected(), world.day.end());
        assert_eq!(world.channel.counters().gaps, 0);
    });
}

#[test]
fn another_session_makes_an_end_of_recovery() {
    let setting = Setting { servers: 0, has_snapshot: true, ..Setting::default() };
    with_a_hole(setting, 50..90, |world| {
        world.run(100 * PACE_NS + 10_000_000);
        let (attempt, _) = world.channel.snapshot_wanted().expect("wanted");
        world.piece(attempt, SnapshotPiece::Begin(MONDAY));
        let first = world.day.packet(TUESDAY, (1, 5));
        world.channel.handle(world.now_ns, &first, &mut world.keyspace);
        assert!(world.channel.is_live(world.now_ns));
        assert_eq!(world.channel.sequencer().expected(), 5);
        world.channel.take_snapshot(
            attempt,
            world.now_ns,
            SnapshotPiece::End(900),
            &mut world.keyspace,
        );
        assert_eq!(world.channel.sequencer().expected(), 5, "of the session before");
    });
}
