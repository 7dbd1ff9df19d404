//! What a channel publishes, and above all when its keys may be believed.

mod support;

use nautilus_dataplane::app::feed::{Feed, FeedSpec};
use nautilus_dataplane::feed::Symbol;
use nautilus_dataplane::feed::Venue;
use nautilus_dataplane::feed::book::BookLimits;
use nautilus_dataplane::feed::channel::{Channel, ChannelSpec, LEASE_NS};
use nautilus_dataplane::feed::itch::messages::{
    AddOrder, BrokenTrade, CrossTrade, OrderDelete, OrderExecuted, OrderExecutedWithPrice, Trade,
};
use nautilus_dataplane::feed::itch::{Code, Common, Nanoseconds, Price4};
use nautilus_dataplane::feed::metrics::FeedMetrics;
use nautilus_dataplane::feed::moldudp64::{HEADER_BYTES, Session, write_header};
use nautilus_dataplane::feed::record::{BboRecord, FLAG_PARTIAL, LastRecord};
use nautilus_dataplane::feed::session::{Doubt, Start};
use nautilus_dataplane::net::Endpoint;
use nautilus_dataplane::port::{Burst, Datagram, Link};
use nautilus_shm::control_region::ControlRegion;
use nautilus_shm::metrics::labels::{FeedError, FeedLine, HoleEnd};
use nautilus_shm::metrics::table;
use support::{MapKeyspace, mold_packet};

const MONDAY: Session = Session(*b"000000MON1");
const TUESDAY: Session = Session(*b"000000TUE1");
const SILENCE_NS: u64 = 3_000_000_000;
const BBO: &str = "md:nasdaq:AAPL:bbo";
const LAST: &str = "md:nasdaq:AAPL:last";
const COMMON: Common =
    Common { stock_locate: 13, tracking_number: 0, timestamp: Nanoseconds(34_200_000_000_000) };

fn spec(start: Start) -> ChannelSpec {
    ChannelSpec {
        venue: Venue::new("nasdaq").unwrap(),
        protocol: Default::default(),
        channel: 3,
        start,
        silence_limit_ns: SILENCE_NS,
        depth: 0,
        hold_limit_ns: 0,
        books: BookLimits { orders_max: 8, levels_max: 4, hash_seed: 1 },
    }
}

fn add(order: u64, side: u8, shares: u32, price: u32) -> [u8; 36] {
    let stock = Symbol(*b"AAPL    ");
    AddOrder::encode(COMMON, order, Code(side), shares, stock, Price4(price))
}

fn control(session: Session, sequence: u64, count: u16) -> [u8; HEADER_BYTES] {
    let mut packet = [0; HEADER_BYTES];
    write_header(&mut packet, session, sequence, count);
    packet
}

/// A burst of one datagram to a line.
struct One<'a>(Datagram<'a>);

impl<'a> One<'a> {
    fn new(destination: Endpoint, rx_ns: u64, payload: &'a [u8]) -> Self {
        let (source, link) = (Endpoint::default(), Link::default());
        Self(Datagram { source, destination, link, rx_ns, permissions: None, payload })
    }
}

impl Burst for One<'_> {
    fn len(&self) -> usize {
        1
    }

    fn get(&self, _index: usize) -> Datagram<'_> {
        self.0
    }
}

struct Bench {
    channel: Channel,
    keyspace: MapKeyspace,
    now_ns: u64,
}

impl Bench {
    fn new(start: Start) -> Self {
        let channel = Channel::new(spec(start));
        Self { channel, keyspace: MapKeyspace::default(), now_ns: 1_000 }
    }

    fn send(&mut self, session: Session, sequence: u64, messages: &[&[u8]]) {
        self.now_ns += 1_000;
        let packet = mold_packet(session, sequence, messages);
        self.channel.handle(self.now_ns, &packet, &mut self.keyspace);
    }

    fn heartbeat(&mut self, session: Session, sequence: u64, count: u16) {
        let packet = control(session, sequence, count);
        self.channel.handle(self.now_ns, &packet, &mut self.keyspace);
    }

    fn bbo(&self) -> Option<(u32, u64, u32, u64)> {
        let record = BboRecord::decode(self.keyspace.get(BBO, self.now_ns)?).unwrap();
        let bid = record.bbo.bid.unwrap_or_default();
        let ask = record.bbo.ask.unwrap_or_default();
        Some((bid.price, bid.shares, ask.price, ask.shares))
    }

    fn last(&self) -> Option<LastRecord> {
        self.keyspace.get(LAST, self.now_ns).map(|bytes| LastRecord::decode(bytes).unwrap())
    }
}

#[test]
fn a_session_from_its_start_is_published_with_its_origin() {
    let mut bench = Bench::new(Start::Session);
    bench.send(MONDAY, 1, &[&add(1, b'B', 100, 5_000_000), &add(2, b'S', 50, 5_000_100)]);
    assert_eq!(bench.bbo(), Some((5_000_000, 100, 5_000_100, 50)));
    let record = BboRecord::decode(bench.keyspace.get(BBO, bench.now_ns).unwrap()).unwrap();
    assert_eq!(record.origin.source_sequence, 2);
    assert_eq!(record.origin.capture_ns, bench.now_ns);
    assert_eq!(record.origin.exchange_ns, COMMON.timestamp.0);
    assert_eq!((record.origin.session, record.origin.locate), (MONDAY, 13));
    assert_eq!(record.origin.flags, 0);
    assert_eq!(bench.keyspace.puts, 1, "one record a packet");

    bench.send(MONDAY, 3, &[&add(3, b'B', 10, 4_990_000)]);
    assert_eq!(bench.keyspace.puts, 1, "an order behind the best changes no record");
    bench.send(MONDAY, 4, &[&OrderExecuted::encode(COMMON, 1, 40, 77)]);
    assert_eq!(bench.bbo(), Some((5_000_000, 60, 5_000_100, 50)));
    let last = bench.last().unwrap();
    let trade = last.trade.unwrap();
    assert_eq!((trade.price, trade.shares, trade.match_number), (5_000_000, 40, 77));
    assert_eq!(last.origin.source_sequence, 4);
    bench.send(MONDAY, 5, &[&OrderDelete::encode(COMMON, 1), &OrderDelete::encode(COMMON, 2)]);
    assert_eq!(bench.bbo(), Some((4_990_000, 10, 0, 0)));
}

#[test]
fn every_kind_of_trade_is_the_last_trade() {
    let mut bench = Bench::new(Start::Session);
    let stock = Symbol(*b"AAPL    ");
    let price = Price4(42);
    bench.send(MONDAY, 1, &[&add(1, b'B', 100, 10)]);
    bench.send(MONDAY, 2, &[&Trade::encode(COMMON, 0, Code(b'B'), 7, stock, price, 1)]);
    assert_eq!(bench.last().unwrap().trade.unwrap().kind, b'P');
    let not_printable = OrderExecutedWithPrice::encode(COMMON, 1, 10, 2, Code(b'N'), price);
    bench.send(MONDAY, 3, &[&not_printable]);
    assert_eq!(bench.last().unwrap().trade.unwrap().kind, b'P');
    assert_eq!(bench.bbo().unwrap().1, 90, "the book moves all the same");
    let printable = OrderExecutedWithPrice::encode(COMMON, 1, 10, 3, Code(b'Y'), price);
    bench.send(MONDAY, 4, &[&printable]);
    let trade = bench.last().unwrap().trade.unwrap();
    assert_eq!((trade.kind, trade.price, trade.shares), (b'C', 42, 10));
    bench.send(MONDAY, 5, &[&CrossTrade::encode(COMMON, 0, stock, price, 4, Code(b'O'))]);
    assert_eq!(bench.last().unwrap().trade.unwrap().kind, b'C', "a cross of nothing");
    bench.send(MONDAY, 6, &[&CrossTrade::encode(COMMON, 1 << 40, stock, price, 5, Code(b'O'))]);
    let trade = bench.last().unwrap().trade.unwrap();
    assert_eq!((trade.kind, trade.shares, trade.side), (b'Q', u64::from(u32::MAX), None));
    bench.send(MONDAY, 7, &[&BrokenTrade::encode(COMMON, 4)]);
    assert!(!bench.last().unwrap().trade.unwrap().broken);
    bench.send(MONDAY, 8, &[&BrokenTrade::encode(COMMON, 5)]);
    assert!(bench.last().unwrap().trade.unwrap().broken);
}

#[test]
fn a_gap_is_suspect_until_a_new_session_starts_at_one() {
    let mut bench = Bench::new(Start::Session);
    bench.send(MONDAY, 1, &[&add(1, b'B', 100, 10)]);
    assert!(bench.bbo().is_some());
    bench.send(MONDAY, 3, &[&add(2, b'B', 100, 11)]);
    assert_eq!(bench.bbo(), None);
    bench.send(MONDAY, 2, &[&add(3, b'B', 100, 12)]);
    bench.send(MONDAY, 4, &[&add(4, b'B', 100, 13)]);
    assert_eq!(bench.bbo(), None);
    assert_eq!(bench.channel.counters().gap_messages, 1);
    bench.send(TUESDAY, 1, &[&add(1, b'S', 5, 20)]);
    assert_eq!(bench.bbo(), Some((0, 0, 20, 5)), "nothing of the session before is left");
    assert_eq!(bench.last(), None);
    bench.send(MONDAY, 5, &[&add(5, b'B', 100, 13)]);
    assert_eq!(bench.bbo(), Some((0, 0, 20, 5)), "a late packet of the session before");
    assert_eq!(bench.channel.counters().stale_packets, 1);
}

#[test]
fn a_new_session_forgets_symbols_that_do_not_come_again() {
    let mut bench = Bench::new(Start::Session);
    bench.send(MONDAY, 1, &[&add(1, b'B', 100, 10), &OrderExecuted::encode(COMMON, 1, 1, 1)]);
    assert!(bench.bbo().is_some() && bench.last().is_some());
    bench.heartbeat(TUESDAY, 1, 0);
    assert!(bench.channel.is_live(bench.now_ns));
    assert_eq!((bench.bbo(), bench.last()), (None, None));
}

#[test]
fn joining_late_is_suspect_and_partial_when_allowed() {
    let mut bench = Bench::new(Start::Session);
    bench.send(MONDAY, 900, &[&add(1, b'B', 100, 10)]);
    assert_eq!(bench.bbo(), None);
    assert_eq!(bench.channel.sequencer().doubt(), Some(Doubt::JoinedLate));
    assert_eq!(bench.channel.books().bbo(13).bid.unwrap().price, 10, "decoded all the same");

    let mut bench = Bench::new(Start::Any);
    bench.send(MONDAY, 900, &[&add(1, b'B', 100, 10)]);
    let record = BboRecord::decode(bench.keyspace.get(BBO, bench.now_ns).unwrap()).unwrap();
    assert_eq!(record.origin.flags, FLAG_PARTIAL);
}

#[test]
fn a_silent_line_and_a_worker_that_stops_turn_suspect_without_a_store() {
    let mut bench = Bench::new(Start::Session);
    bench.send(MONDAY, 1, &[&add(1, b'B', 100, 10)]);
    let heard_ns = bench.now_ns;
    bench.now_ns = heard_ns + LEASE_NS + 1;
    assert_eq!(bench.bbo(), None, "nobody renewed the lease");
    while bench.now_ns < heard_ns + SILENCE_NS - LEASE_NS {
        bench.channel.housekeeping(bench.now_ns, &mut bench.keyspace);
        assert!(bench.bbo().is_some(), "{}", bench.now_ns - heard_ns);
        bench.now_ns += LEASE_NS / 4;
    }
    bench.now_ns = heard_ns + SILENCE_NS + 1;
    bench.channel.housekeeping(bench.now_ns, &mut bench.keyspace);
    assert_eq!(bench.bbo(), None, "silent");
    bench.send(MONDAY, 1, &[&add(1, b'B', 100, 10)]);
    assert!(bench.bbo().is_some(), "a copy of the newest packet is current");
    bench.now_ns += SILENCE_NS;
    bench.heartbeat(MONDAY, 2, 0);
    assert!(bench.bbo().is_some(), "the line speaks again and nothing was missed");
    bench.now_ns += SILENCE_NS;
    bench.heartbeat(MONDAY, 1, 0);
    assert_eq!(bench.bbo(), None, "an old heartbeat is not current");
}

#[test]
fn a_worker_that_takes_over_forgets_what_was_published() {
    let mut bench = Bench::new(Start::Session);
    bench.send(MONDAY, 1, &[&add(1, b'B', 100, 10)]);
    let mut successor = Channel::new(spec(Start::Session));
    successor.begin(&mut bench.keyspace);
    assert_eq!(bench.bbo(), None);
    assert!(bench.keyspace.values.is_empty());
}

#[test]
fn a_refused_write_is_suspect_until_it_succeeds() {
    let mut bench = Bench::new(Start::Session);
    bench.send(MONDAY, 1, &[&add(1, b'B', 100, 10)]);
    bench.keyspace.full = true;
    bench.send(MONDAY, 2, &[&add(2, b'B', 100, 11)]);
    assert_eq!(bench.bbo(), None, "the key holds 10, the book 11");
    bench.channel.housekeeping(bench.now_ns, &mut bench.keyspace);
    bench.send(MONDAY, 3, &[&add(3, b'S', 100, 12)]);
    assert_eq!(bench.bbo(), None);
    bench.keyspace.full = false;
    bench.channel.housekeeping(bench.now_ns, &mut bench.keyspace);
    assert_eq!(bench.bbo(), Some((11, 100, 12, 100)));
    assert_eq!(bench.channel.counters().publish_failures, 3);
}

#[test]
fn what_the_books_cannot_hold_or_read_is_suspect() {
    type Case = (&'static str, Vec<Vec<u8>>);
    let mut conflict = add(2, b'B', 1, 1);
    conflict[24..32].copy_from_slice(b"MSFT    ");
    let cases: [Case; 5] = [
        ("orders", (1..=9).map(|order| add(order, b'B', 1, 1).to_vec()).collect()),
        ("levels", (1..=5).map(|order| add(order, b'B', 1, order as u32).to_vec()).collect()),
        ("short", vec![add(1, b'B', 1, 1).to_vec(), add(2, b'B', 1, 1)[..35].to_vec()]),
        ("side", vec![add(1, b'B', 1, 1).to_vec(), add(2, b'X', 1, 1).to_vec()]),
        ("symbol", vec![add(1, b'B', 1, 1).to_vec(), conflict.to_vec()]),
    ];
    for (name, messages) in cases {
        let mut bench = Bench::new(Start::Session);
        let (last, first) = messages.split_last().unwrap();
        let first: Vec<&[u8]> = first.iter().map(Vec::as_slice).collect();
        bench.send(MONDAY, 1, &first);
        assert!(bench.bbo().is_some(), "{name}");
        bench.send(MONDAY, 1 + first.len() as u64, &[last]);
        assert_eq!(bench.bbo(), None, "{name}");
    }
    let mut bench = Bench::new(Start::Session);
    bench.send(MONDAY, 1, &[&add(1, b'B', 1, 1), b"zfuture", &OrderDelete::encode(COMMON, 9)]);
    assert!(bench.bbo().is_some(), "new types and unknown orders are counted and survived");
    let counters = bench.channel.counters();
    assert_eq!((counters.unknown_messages, counters.unknown_orders), (1, 1));
}

#[test]
fn a_malformed_packet_is_dropped_whole_and_shows_as_a_gap() {
    let mut bench = Bench::new(Start::Session);
    bench.send(MONDAY, 1, &[&add(1, b'B', 1, 1)]);
    let packet = mold_packet(MONDAY, 2, &[&add(2, b'B', 1, 2), &add(3, b'B', 1, 3)]);
    let now_ns = bench.now_ns;
    bench.channel.handle(now_ns, &packet[..packet.len() - 1], &mut bench.keyspace);
    assert_eq!(bench.bbo(), Some((1, 1, 0, 0)));
    assert_eq!(bench.channel.counters().malformed_packets(), 1);
    bench.heartbeat(MONDAY, 4, 0);
    assert_eq!(bench.bbo(), None);
}

/// More messages are missing in two sessions than a number holds.
#[test]
fn numbers_of_a_peer_that_lies_end_nothing() {
    for hold_limit_ns in [0, 5_000] {
        let region = ControlRegion::create(c"feed-numbers").unwrap();
        let (mut metrics, mut keyspace) = (FeedMetrics::default(), MapKeyspace::default());
        let line = Endpoint::v4([233, 54, 12, 111], 26_477);
        let channel = ChannelSpec { hold_limit_ns, ..spec(Start::Session) };
        let mut feed = Feed::new(&[FeedSpec { lines: vec![line], channel, recovery: None }]);
        let mut now_ns = 1_000;
        for session in [MONDAY, TUESDAY, Session(*b"000000WED1")] {
            for sequence in [1, u64::MAX - 9] {
                let packet = mold_packet(session, sequence, &[&add(sequence, b'B', 1, 1)]);
                feed.handle(&One::new(line, now_ns, &packet), &mut keyspace);
            }
            now_ns += 1_000_000;
            feed.housekeeping(now_ns, &mut keyspace);
            metrics.publish([&feed], now_ns, &region.metrics(1));
            let channel = feed.channels().next().unwrap();
            assert_eq!(channel.sequencer().doubt(), Some(Doubt::Gap));
        }
        let bank = region.metrics(1);
        let counted = [table::FEED_GAPS, table::FEED_MESSAGES].map(|counter| bank.counter(counter));
        assert_eq!(counted, [3, 6], "hold limit {hold_limit_ns} ns");
    }
}

#[test]
fn metrics_are_the_sum_of_the_channels_and_go_on_after_a_successor() {
    let lines = [111, 45, 112].map(|group| Endpoint::v4([233, 54, 12, group], 26_477));
    let specs = [(3, vec![lines[0], lines[2]]), (4, vec![lines[1]])].map(|(channel, lines)| {
        let channel = ChannelSpec { channel, hold_limit_ns: 1_000, ..spec(Start::Session) };
        FeedSpec { lines, channel, recovery: None }
    });
    let region = ControlRegion::create(c"feed-test").unwrap();
    let bank = region.metrics(0);
    let mut keyspace = MapKeyspace::default();
    for round in 1..=2u64 {
        let mut feed = Feed::new(&specs);
        let mut metrics = FeedMetrics::default();
        feed.begin(&mut keyspace);
        let packet =
            mold_packet(MONDAY, 1, &[&add(1, b'B', 1, 1), &OrderDelete::encode(COMMON, 9)]);
        let third = mold_packet(MONDAY, 3, &[&OrderDelete::encode(COMMON, 9)]);
        for (destination, payload) in [
            (lines[0], &packet[..]),
            (lines[2], &packet),
            (lines[1], &packet),
            (lines[1], &packet[..9]),
            (lines[1], &control(MONDAY, 4, 0)),
            (lines[1], &third),
        ] {
            let burst = One::new(destination, 5, payload);
            feed.handle(&burst, &mut keyspace);
            metrics.publish([&feed], 5, &bank);
        }
        let elsewhere = Endpoint::v4([239, 0, 0, 1], 1);
        feed.handle(&One::new(elsewhere, 5, &packet), &mut keyspace);
        assert_eq!(feed.unknown_line(), 1);
        metrics.publish([&feed], 5, &bank);
        assert_eq!(bank.counter(table::FEED_PACKETS), 6 * round);
        assert_eq!(bank.counter(table::FEED_DUPLICATE_PACKETS), round);
        assert_eq!(bank.counter(table::FEED_MESSAGES), 5 * round);
        assert_eq!(bank.counter(table::FEED_HELD_PACKETS), round);
        assert_eq!(bank.counter(table::FEED_HOLES.of(HoleEnd::Healed)), round);
        let by_line = |line| {
            [table::FEED_LINE_MESSAGES, table::FEED_LINE_FIRST, table::FEED_LINE_LOST]
                .map(|row| bank.counter(row.of(line)))
        };
        assert_eq!(by_line(FeedLine::A), [5 * round, 5 * round, 0]);
        assert_eq!(by_line(FeedLine::B), [2 * round, 0, 0]);
        assert_eq!(bank.counter(table::FEED_UNKNOWN_ORDERS), 3 * round);
        assert_eq!(bank.counter(table::FEED_UPDATES), 2 * round);
        assert_eq!(bank.counter(table::FEED_ERRORS.of(FeedError::ShortHeader)), round);
        assert_eq!(bank.gauge(table::FEED_CHANNELS), 2);
        assert_eq!(bank.gauge(table::FEED_SUSPECT_CHANNELS), 0);
        assert_eq!((bank.gauge(table::FEED_BOOKS), bank.gauge(table::FEED_ORDERS)), (2, 2));
    }
}
