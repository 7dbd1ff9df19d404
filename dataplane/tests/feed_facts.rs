//! What is published beside best bid, offer and last trade: status, statistics, depth, and the venue itself.

mod support;

use nautilus_dataplane::feed::book::{BookLimits, Level};
use nautilus_dataplane::feed::channel::{Channel, ChannelSpec, SnapshotPiece};
use nautilus_dataplane::feed::held::HeldLimits;
use nautilus_dataplane::feed::itch::messages::*;
use nautilus_dataplane::feed::itch::{Code, Common, Nanoseconds, Price4, Price8, Text};
use nautilus_dataplane::feed::moldudp64::Session;
use nautilus_dataplane::feed::record::depth::DepthRecord;
use nautilus_dataplane::feed::record::statistics::StatisticsRecord;
use nautilus_dataplane::feed::record::status::{StatusRecord, VenueStatusRecord};
use nautilus_dataplane::feed::record::{BboRecord, FLAG_CROSSED};
use nautilus_dataplane::feed::recovery::{Recovery, RecoverySpec};
use nautilus_dataplane::feed::session::Start;
use nautilus_dataplane::feed::status::Stamp;
use nautilus_dataplane::feed::{Symbol, Venue};
use nautilus_dataplane::net::Endpoint;
use support::{MapKeyspace, mold_packet};

const MONDAY: Session = Session(*b"000000MON1");
const AAPL: Symbol = Symbol(*b"AAPL    ");
const NOW_NS: u64 = 1_000_000_000;

fn at(exchange_ns: u64) -> Common {
    Common { stock_locate: 13, tracking_number: 0, timestamp: Nanoseconds(exchange_ns) }
}

fn add(order: u64, side: u8, shares: u32, price: u32) -> Vec<u8> {
    AddOrder::encode(at(order), order, Code(side), shares, AAPL, Price4(price)).to_vec()
}

struct Bench {
    channel: Channel,
    keyspace: MapKeyspace,
    next: u64,
}

impl Bench {
    fn new(depth: u8) -> Self {
        let spec = ChannelSpec {
            venue: Venue::new("nasdaq").unwrap(),
            channel: 3,
            start: Start::Session,
            silence_limit_ns: u64::MAX,
            hold_limit_ns: 1_000_000,
            books: BookLimits { orders_max: 64, levels_max: 64, hash_seed: 1 },
            depth,
        };
        let recovery = RecoverySpec {
            servers: [None; 4],
            from: Endpoint::default(),
            interface: 0,
            request_after_ns: 0,
            timeout_ns: 1,
            messages_max: 1,
            queue: HeldLimits::default(),
            has_snapshot: true,
        };
        let recovery = Some(Recovery::new(recovery, 1));
        let channel = Channel::with_recovery(spec, 1, recovery);
        Self { channel, keyspace: MapKeyspace::default(), next: 1 }
    }

    /// Sends messages in one packet; returns the number of the last.
    fn send(&mut self, messages: &[Vec<u8>]) -> u64 {
        let blocks: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        let packet = mold_packet(MONDAY, self.next, &blocks);
        self.next += blocks.len() as u64;
        self.channel.handle(NOW_NS, &packet, &mut self.keyspace);
        self.next - 1
    }

    fn get<T>(&self, key: &str, decode: impl FnOnce(&[u8]) -> Option<T>) -> T {
        let bytes = self.keyspace.get(key, NOW_NS).unwrap_or_else(|| panic!("{key} is a miss"));
        decode(bytes).unwrap_or_else(|| panic!("{key} is no record"))
    }

    fn status(&self) -> StatusRecord {
        self.get("md:nasdaq:AAPL:status", StatusRecord::decode)
    }

    fn statistics(&self, key: &str) -> [u64; 6] {
        let record = self.get(key, StatisticsRecord::decode);
        let counts = record.statistics;
        let value = counts.value as u64;
        [counts.orders, counts.trades, counts.shares, value, counts.broken, counts.unknown_breaks]
    }
}

#[test]
fn each_part_of_a_status_has_the_number_and_time_of_its_message() {
    let mut bench = Bench::new(0);
    let (h, reason) = (Code(b'H'), Text(*b"T1  "));
    bench.send(&[
        StockTradingAction::encode(at(7), AAPL, h, Code(b' '), reason).to_vec(),
        RegShoRestriction::encode(at(8), AAPL, Code(b'1')).to_vec(),
    ]);
    let record = bench.status();
    assert_eq!((record.origin.source_sequence, record.origin.exchange_ns), (2, 8));
    assert_eq!((record.origin.symbol, record.origin.session), (AAPL, MONDAY));
    let status = record.status;
    assert_eq!((status.trading.state, status.trading.reason), (b'H', *b"T1  "));
    assert_eq!(status.trading.stamp, Stamp { sequence: 1, exchange_ns: 7 });
    assert_eq!((status.reg_sho.code, status.imbalance.stamp.sequence), (b'1', 0));

    bench.send(&[
        OperationalHalt::encode(at(9), AAPL, Code(b'X'), Code(b'H')).to_vec(),
        OperationalHalt::encode(at(9), AAPL, Code(b'Z'), Code(b'H')).to_vec(),
        LuldAuctionCollar::encode(at(10), AAPL, Price4(5), Price4(6), Price4(4), 2).to_vec(),
        IpoQuotingPeriod::encode(at(11), AAPL, 34_200, Code(b'A'), Price4(99)).to_vec(),
        NetOrderImbalance::encode(
            at(12),
            1_000,
            50,
            Code(b'B'),
            AAPL,
            Price4(11),
            Price4(12),
            Price4(13),
            Code(b'O'),
            Code(b'L'),
        )
        .to_vec(),
    ]);
    let status = bench.status().status;
    assert_eq!(status.halts.map(|halt| halt.code), [0, 0, b'H']);
    assert_eq!((status.collar.upper_price, status.collar.extension), (6, 2));
    assert_eq!((status.ipo.release_s, status.ipo.qualifier, status.ipo.price), (34_200, b'A', 99));
    let imbalance = status.imbalance;
    assert_eq!((imbalance.paired_shares, imbalance.imbalance_shares), (1_000, 50));
    assert_eq!(
        (imbalance.far_price, imbalance.near_price, imbalance.reference_price),
        (11, 12, 13)
    );
    assert_eq!(
        (imbalance.direction, imbalance.cross_type, imbalance.variation),
        (b'B', b'O', b'L')
    );
    assert_eq!(imbalance.stamp, Stamp { sequence: 7, exchange_ns: 12 });
    assert_eq!(status.trading.stamp.sequence, 1, "what was said before stays");
    assert_eq!(bench.channel.counters().invalid_messages, 1, "a market that nobody knows");
}

#[test]
fn a_venue_says_where_its_day_stands() {
    let mut bench = Bench::new(0);
    let venue = Common { stock_locate: 0, ..at(5) };
    bench.send(&[SystemEvent::encode(venue, Code(b'Q')).to_vec()]);
    let levels = [Price8(1), Price8(2), Price8(3)];
    let [one, two, three] = levels;
    bench.send(&[
        MwcbDeclineLevel::encode(venue, one, two, three).to_vec(),
        MwcbStatus::encode(venue, Code(b'2')).to_vec(),
    ]);
    let record = bench.get("md:nasdaq:status", VenueStatusRecord::decode);
    assert_eq!((record.status.event.code, record.status.breach.code), (b'Q', b'2'));
    assert_eq!((record.status.levels.levels, record.origin.source_sequence), ([1, 2, 3], 3));
}

#[test]
fn trades_are_counted_and_broken_ones_are_taken_out_again() {
    let mut bench = Bench::new(0);
    bench.send(&[add(1, b'B', 100, 500), add(2, b'S', 100, 600)]);
    bench.send(&[OrderExecuted::encode(at(3), 1, 40, 900).to_vec()]);
    assert_eq!(bench.statistics("md:nasdaq:AAPL:stats"), [2, 1, 40, 20_000, 0, 0]);
    // Not printable: it comes again in the bulk of a cross.
    let quiet = OrderExecutedWithPrice::encode(at(4), 2, 10, 901, Code(b'N'), Price4(550));
    let printed = OrderExecutedWithPrice::encode(at(5), 2, 10, 902, Code(b'Y'), Price4(550));
    bench.send(&[quiet.to_vec(), printed.to_vec()]);
    let trade = Trade::encode(at(6), 0, Code(b'B'), 7, AAPL, Price4(100), 903);
    let cross = CrossTrade::encode(at(7), 1_000, AAPL, Price4(10), 904, Code(b'O'));
    let number = bench.send(&[trade.to_vec(), cross.to_vec()]);
    let all = [2, 4, 1_057, 20_000 + 5_500 + 700 + 10_000, 0, 0];
    assert_eq!(bench.statistics("md:nasdaq:AAPL:stats"), all);
    let origin = bench.get("md:nasdaq:AAPL:stats", StatisticsRecord::decode).origin;
    assert_eq!((origin.source_sequence, origin.exchange_ns), (number, 7));

    // The third of four is broken, and once more, and one that was never told.
    let broken = |number| BrokenTrade::encode(at(8), number).to_vec();
    bench.send(&[broken(903)]);
    let less = [2, 3, 1_050, all[3] - 700, 1, 0];
    assert_eq!(bench.statistics("md:nasdaq:AAPL:stats"), less);
    bench.send(&[broken(903), broken(77)]);
    bench.channel.housekeeping(NOW_NS, &mut bench.keyspace);
    let venue = bench.statistics("md:nasdaq:stats");
    assert_eq!(venue, [2, 3, 1_050, less[3], 1, 2]);
    assert_eq!(bench.statistics("md:nasdaq:AAPL:stats"), less);
}

#[test]
fn what_was_added_and_traded_is_counted_for_whoever_watches() {
    let mut bench = Bench::new(0);
    bench.send(&[add(1, b'B', 100, 500), add(2, b'S', 100, 600)]);
    bench.send(&[OrderExecuted::encode(at(3), 1, 40, 900).to_vec()]);
    bench.send(&[BrokenTrade::encode(at(4), 900).to_vec()]);
    // Another session goes on counting.
    let packet = mold_packet(Session(*b"000000TUE1"), 1, &[&add(1, b'B', 1, 5)]);
    bench.channel.handle(NOW_NS, &packet, &mut bench.keyspace);
    let counters = bench.channel.counters();
    assert_eq!((counters.orders_added, counters.trades), (3, 1));
    assert_eq!((counters.traded_shares, counters.traded_value), (40, 20_000));
}

#[test]
fn a_crossed_book_is_published_and_says_so() {
    let mut bench = Bench::new(0);
    let flags = |bench: &Bench| {
        bench.get("md:nasdaq:AAPL:bbo", BboRecord::decode).origin.flags & FLAG_CROSSED
    };
    bench.send(&[add(1, b'B', 100, 500), add(2, b'S', 100, 501)]);
    assert_eq!(flags(&bench), 0);
    bench.send(&[add(3, b'B', 100, 501)]);
    assert_eq!(flags(&bench), FLAG_CROSSED, "locked");
    bench.send(&[OrderDelete::encode(at(9), 3).to_vec()]);
    assert_eq!((flags(&bench), bench.channel.counters().crossed_records), (0, 1));
}

#[test]
fn the_best_levels_of_both_sides_are_published_where_that_is_wanted() {
    let mut bench = Bench::new(3);
    bench.send(&[
        add(1, b'B', 100, 500),
        add(2, b'B', 50, 499),
        add(3, b'B', 25, 498),
        add(4, b'B', 12, 497),
        add(5, b'S', 70, 501),
    ]);
    let record = bench.get("md:nasdaq:AAPL:depth3", DepthRecord::decode);
    let level = |price, shares| Level { price, shares, orders: 1 };
    assert_eq!(record.depth.levels, 3);
    assert_eq!(record.depth.bids[..3], [level(500, 100), level(499, 50), level(498, 25)]);
    assert_eq!(record.depth.asks[..3], [level(501, 70), Level::default(), Level::default()]);
    let number = bench.send(&[OrderDelete::encode(at(9), 2).to_vec()]);
    let record = bench.get("md:nasdaq:AAPL:depth3", DepthRecord::decode);
    assert_eq!(record.depth.bids[1..3], [level(498, 25), level(497, 12)]);
    assert_eq!(record.origin.source_sequence, number);
    assert!(bench.keyspace.get("md:nasdaq:AAPL:depth1", NOW_NS).is_none());
}

#[test]
fn a_snapshot_says_what_a_status_was_and_gives_it_its_own_number() {
    let mut bench = Bench::new(2);
    bench.send(&[add(1, b'B', 100, 500)]);
    // A hole that only a snapshot fills.
    bench.next = 50;
    bench.send(&[add(50, b'B', 1, 400)]);
    bench.channel.housekeeping(NOW_NS + 2_000_000, &mut bench.keyspace);
    let (attempt, _) = bench.channel.snapshot_wanted().expect("wanted");
    let action = StockTradingAction::encode(at(20), AAPL, Code(b'T'), Code(b' '), Text(*b"    "));
    let mut blocks = Vec::new();
    for message in [action.to_vec(), add(7, b'B', 10, 450)] {
        blocks.extend_from_slice(&(message.len() as u16).to_be_bytes());
        blocks.extend_from_slice(&message);
    }
    for piece in
        [SnapshotPiece::Begin(MONDAY), SnapshotPiece::Messages(&blocks), SnapshotPiece::End(50)]
    {
        bench.channel.take_snapshot(attempt, NOW_NS, piece, &mut bench.keyspace);
    }
    while bench.channel.turn(NOW_NS, &mut bench.keyspace) {}
    let record = bench.status();
    assert_eq!((record.status.trading.state, record.origin.source_sequence), (b'T', 49));
    let record = bench.get("md:nasdaq:AAPL:depth2", DepthRecord::decode);
    assert_eq!(record.depth.bids.map(|level| level.price)[..2], [450, 400]);
    assert_eq!(record.origin.source_sequence, 50, "what came after it is newer");
}
