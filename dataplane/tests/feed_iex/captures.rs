//! Every field of the nine captures, read by hand from their hexadecimal digits, and the records of them byte
//! for byte. No dissector at hand knows IEX-TP, so what stands here was not made by one.

use nautilus_dataplane::app::App;
use nautilus_dataplane::app::feed::{FeedApp, FeedSpec};
use nautilus_dataplane::feed::iex::iextp::{self, Header, PROTOCOL_TOPS};
use nautilus_dataplane::feed::iex::tops::*;
use nautilus_dataplane::feed::iex::wire::{Price, Timestamp};
use nautilus_dataplane::feed::itch::{Code, Text};
use nautilus_dataplane::feed::session::{Doubt, Start};
use nautilus_dataplane::feed::{Protocol, Symbol};
use nautilus_dataplane::net::Endpoint;
use nautilus_dataplane::port::{Burst, Datagram, Filled, Link, Path, SendError, Transmit};

use super::support::{MapKeyspace, market_data};
use super::{Bench, NOW_NS, all_captures, capture, spec};

/// The sequence number, message count, payload bytes, stream offset and send time of each.
const HEADERS: [(u64, u16, u16, u64, i64); 9] = [
    (0x853e, 52, 0x587, 0x0e_2eaf, 0x150d_ac3a_7961_f078),
    (0x85da, 4, 0x64, 0x0e_3f55, 0x150d_ac3a_bf8c_d127),
    (0x85de, 1, 0x15, 0x0e_3fb9, 0x150d_ac4c_f29e_b342),
    (0x862b, 1, 0x28, 0x0e_46f5, 0x150d_ade8_8aa4_e5bc),
    (0x863a, 1, 0x52, 0x0e_494d, 0x150d_ae65_6c60_374d),
    (0x8afb, 1, 0x0c, 0x0f_cbed, 0x150d_b11f_e2cf_729a),
    (0xb23a, 1, 0x1c, 0x16_9163, 0x150d_b1d5_863a_5ff8),
    (0xc29d, 1, 0x2c, 0x19_05de, 0x150d_b337_9cf7_f143),
    (0xd7ff, 1, 0x18, 0x1c_7030, 0x150d_b3a7_36da_3df1),
];

fn decoded(datagram: &[u8]) -> Vec<Message<'_>> {
    let packet = iextp::parse(datagram, PROTOCOL_TOPS).unwrap();
    iextp::messages(&packet).map(|bytes| Message::decode(bytes).unwrap()).collect()
}

macro_rules! only {
    ($datagram:expr, $kind:ident) => {{
        let messages = decoded($datagram);
        assert_eq!(messages.len(), 1);
        let Message::$kind(message) = messages[0] else { panic!("{messages:?}") };
        message
    }};
}

#[test]
fn every_header_is_read_as_it_stands() {
    let Some(captures) = all_captures("every_header_is_read_as_it_stands") else { return };
    for ((name, datagram), expected) in captures.iter().zip(HEADERS) {
        let (header, rest) = Header::parse(datagram).unwrap();
        let (sequence, count, payload_bytes, stream_offset, send_time_ns) = expected;
        let expected = Header {
            version: 1,
            protocol: 0x8003,
            channel: 1,
            session: 0x4496_0000,
            payload_bytes,
            count,
            stream_offset,
            sequence,
            send_time_ns,
        };
        assert_eq!(header, expected, "{name}");
        assert_eq!(rest.len(), usize::from(payload_bytes), "{name}");
        assert_eq!(datagram[..40], header.encode(), "{name}");
        assert_eq!(decoded(datagram).len(), usize::from(count), "{name}");
    }
}

#[test]
fn the_fields_of_messages_that_come_alone() {
    let Some(data) = market_data("the_fields_of_messages_that_come_alone") else { return };
    let datagram = capture(&data, "QuoteUpdateMessage");
    let quote = only!(&datagram, QuoteUpdate);
    assert_eq!((quote.flags(), quote.timestamp()), (0, Timestamp(0x150d_b337_9ce3_48c0)));
    assert_eq!(quote.symbol(), Symbol(*b"ATSG    "));
    assert_eq!((quote.bid_size(), quote.bid_price()), (18_773, Price(241_900)));
    assert_eq!((quote.ask_size(), quote.ask_price()), (60_677, Price(242_500)));

    let datagram = capture(&data, "TradeReportMessage");
    let trade = only!(&datagram, TradeReport);
    assert_eq!((trade.conditions(), trade.timestamp()), (0xc0, Timestamp(0x150d_ade8_8a9d_f2f8)));
    assert_eq!((trade.symbol(), trade.size()), (Symbol(*b"ZIEXT   "), 100));
    assert_eq!((trade.price(), trade.trade_id()), (Price(9_998), 972_306));

    let datagram = capture(&data, "OfficialPriceMessage");
    let official = only!(&datagram, OfficialPrice);
    assert_eq!(
        (official.kind(), official.timestamp()),
        (Code(b'Q'), Timestamp(0x150d_b1d5_863a_5ff8))
    );
    assert_eq!((official.symbol(), official.price()), (Symbol(*b"ZXIET   "), Price(1_000_000)));

    let datagram = capture(&data, "SystemEventMessage");
    let event = only!(&datagram, SystemEvent);
    assert_eq!((event.event(), event.timestamp()), (Code(b'R'), Timestamp(0x150d_b11f_e2cf_729a)));

    let datagram = capture(&data, "TradingStatusMessage");
    let status = only!(&datagram, TradingStatus);
    assert_eq!(
        (status.status(), status.timestamp()),
        (Code(b'H'), Timestamp(0x150d_b3a7_36da_3df1))
    );
    assert_eq!((status.symbol(), status.reason()), (Symbol(*b"JHMU    "), Text(*b"NA  ")));

    let datagram = capture(&data, "ShortSalePriceTestStatusMessage");
    let test = only!(&datagram, ShortSalePriceTest);
    assert_eq!((test.status(), test.timestamp()), (1, Timestamp(0x150d_ac4c_f29e_b342)));
    assert_eq!((test.symbol(), test.detail()), (Symbol(*b"AHL     "), Code(b'N')));

    let datagram = capture(&data, "AuctionInformationMessage");
    let auction = only!(&datagram, AuctionInformation);
    assert_eq!(
        (auction.kind(), auction.timestamp()),
        (Code(b'H'), Timestamp(0x150d_ae65_6c45_3647))
    );
    assert_eq!((auction.symbol(), auction.paired_shares()), (Symbol(*b"ZIEXT   "), 0));
    assert_eq!(auction.reference_price(), Price(10_000));
    assert_eq!(auction.indicative_price(), Price(10_000));
    assert_eq!((auction.imbalance_shares(), auction.imbalance_side()), (251, Code(b'S')));
    assert_eq!((auction.extension(), auction.scheduled_s()), (0, 0x5a6c_825c));
    assert_eq!(auction.book_price(), Price(10_000));
    assert_eq!(auction.collar_reference_price(), Price(0));
    assert_eq!((auction.collar_lower_price(), auction.collar_upper_price()), (Price(0), Price(0)));
}

/// Stocks of the directory's capture in their order, with the low bytes of their time.
const STOCKS: [(&[u8; 8], u32); 13] = [
    (b"ZEXIT   ", 0x7961_99dd),
    (b"ZF      ", 0x7961_9af7),
    (b"ZFGN    ", 0x7961_9d4a),
    (b"ZG      ", 0x7961_a8b2),
    (b"ZGNX    ", 0x7961_a959),
    (b"ZIEXT   ", 0x7961_aa21),
    (b"ZION    ", 0x7961_b1de),
    (b"ZIONW   ", 0x7961_dac7),
    (b"ZIONZ   ", 0x7961_db6a),
    (b"ZIOP    ", 0x7961_e843),
    (b"ZIV     ", 0x7961_e8e4),
    (b"ZIXI    ", 0x7961_e971),
    (b"ZJZZT   ", 0x7961_f078),
];

fn zero_quote(symbol: Symbol, timestamp: Timestamp) -> [u8; QuoteUpdate::BYTES] {
    QuoteUpdate::encode(0x40, timestamp, symbol, 0, Price(0), Price(0), 0)
}

#[test]
fn the_fields_of_messages_that_come_together() {
    let Some(data) = market_data("the_fields_of_messages_that_come_together") else { return };
    let datagram = capture(&data, "OperationalHaltStatusMessage");
    let messages = decoded(&datagram);
    let (zyne, at) = (Symbol(*b"ZYNE    "), Timestamp(0x150d_ac3a_7962_8153));
    let Message::OperationalHalt(halt) = messages[0] else { panic!("{messages:?}") };
    assert_eq!((halt.status(), halt.timestamp(), halt.symbol()), (Code(b'N'), at, zyne));
    let Message::TradingStatus(status) = messages[1] else { panic!("{messages:?}") };
    assert_eq!((status.status(), status.timestamp(), status.symbol()), (Code(b'T'), at, zyne));
    assert_eq!(status.reason(), Text(*b"    "));
    let zero = zero_quote(zyne, at);
    assert_eq!(messages[2], Message::decode(&zero).unwrap());
    let Message::SystemEvent(event) = messages[3] else { panic!("{messages:?}") };
    let start = Timestamp(0x150d_ac3a_9c4d_601a);
    assert_eq!((event.event(), event.timestamp()), (Code(b'S'), start));

    // Every stock has the same messages but for those listed at IEX, which begin with their directory; the
    // last is cut off behind its second.
    let datagram = capture(&data, "SecurityDirectoryMessage");
    let mut messages = decoded(&datagram).into_iter();
    for (symbol, low) in STOCKS {
        let (symbol, at) = (Symbol(*symbol), Timestamp(0x150d_ac3a_0000_0000 | i64::from(low)));
        let listed = match symbol.trimmed() {
            b"ZEXIT" => Some((Price(100_000), 1)),
            b"ZIEXT" => Some((Price(10_000), 2)),
            _ => None,
        };
        if let Some((adjusted_close, luld_tier)) = listed {
            let Some(Message::SecurityDirectory(directory)) = messages.next() else { panic!() };
            assert_eq!((directory.flags(), directory.timestamp()), (0x80, at));
            assert_eq!((directory.symbol(), directory.round_lot()), (symbol, 100));
            assert_eq!(directory.adjusted_close(), adjusted_close);
            assert_eq!(directory.luld_tier(), luld_tier);
        }
        let Some(Message::ShortSalePriceTest(test)) = messages.next() else { panic!() };
        assert_eq!((test.status(), test.timestamp()), (0, at));
        assert_eq!((test.symbol(), test.detail()), (symbol, Code(b' ')));
        let Some(Message::OperationalHalt(halt)) = messages.next() else { panic!() };
        assert_eq!((halt.status(), halt.timestamp(), halt.symbol()), (Code(b'N'), at, symbol));
        if symbol.trimmed() == b"ZJZZT" {
            break;
        }
        let Some(Message::TradingStatus(status)) = messages.next() else { panic!() };
        assert_eq!((status.status(), status.timestamp()), (Code(b'T'), at));
        assert_eq!((status.symbol(), status.reason()), (symbol, Text(*b"    ")));
        let zero = zero_quote(symbol, at);
        assert_eq!(messages.next(), Some(Message::decode(&zero).unwrap()));
    }
    assert_eq!(messages.next(), None);
}

/// Bytes of a record, from the places where its fields are and all else 0.
fn record(
    bytes: usize,
    symbol: &[u8; 8],
    (flags, sequence, exchange_ns): (u8, u64, u64),
    fields: &[(usize, &[u8])],
) -> Vec<u8> {
    let mut record = vec![0; bytes];
    record[0] = 1;
    record[2..4].copy_from_slice(&(bytes as u16).to_le_bytes());
    record[6] = flags;
    record[8..16].copy_from_slice(&sequence.to_le_bytes());
    record[16..24].copy_from_slice(&NOW_NS.to_le_bytes());
    record[24..32].copy_from_slice(&exchange_ns.to_le_bytes());
    record[32..40].copy_from_slice(symbol);
    record[40..50].copy_from_slice(b"4496000001");
    for (at, field) in fields {
        record[*at..*at + field.len()].copy_from_slice(field);
    }
    record
}

/// Sequence number and time as parts of a status have them.
fn stamp(sequence: u64, exchange_ns: u64) -> [u8; 16] {
    let mut stamp = [0; 16];
    stamp[..8].copy_from_slice(&sequence.to_le_bytes());
    stamp[8..].copy_from_slice(&exchange_ns.to_le_bytes());
    stamp
}

/// Flag of a session that was joined late.
const PARTIAL: u8 = 1;

/// Everything that is published of each capture alone.
fn expected_of(name: &str) -> Vec<(String, Vec<u8>)> {
    let key = |symbol: &str, value: &str| format!("md:iex:{symbol}:{value}");
    match name {
        "QuoteUpdateMessage" => {
            let at = (PARTIAL, 0xc29d, 36_500_930_439_360);
            let sides: &[(usize, &[u8])] = &[
                (56, &241_900_u64.to_le_bytes()),
                (64, &242_500_u64.to_le_bytes()),
                (72, &18_773_u32.to_le_bytes()),
                (76, &60_677_u32.to_le_bytes()),
            ];
            vec![(key("ATSG", "bbo"), record(96, b"ATSG    ", at, sides))]
        }
        "TradeReportMessage" => {
            let at = (PARTIAL, 0x862b, 30_663_763_350_264);
            let last: &[(usize, &[u8])] = &[
                (50, b"T "),
                (52, &100_u32.to_le_bytes()),
                (56, &9_998_u64.to_le_bytes()),
                (64, &972_306_u64.to_le_bytes()),
                (72, &[0xc0]),
            ];
            let stats: &[(usize, &[u8])] = &[
                (64, &1_u64.to_le_bytes()),
                (72, &100_u64.to_le_bytes()),
                (80, &999_800_u64.to_le_bytes()),
            ];
            vec![
                (key("ZIEXT", "last"), record(80, b"ZIEXT   ", at, last)),
                (key("ZIEXT", "stats"), record(104, b"ZIEXT   ", at, stats)),
            ]
        }
        "TradingStatusMessage" => {
            let at = (PARTIAL, 0xd7ff, 36_980_254_907_889);
            let fields: &[(usize, &[u8])] = &[(50, b"H"), (52, b"NA  "), (64, &stamp(at.1, at.2))];
            vec![(key("JHMU", "status"), record(272, b"JHMU    ", at, fields))]
        }
        "ShortSalePriceTestStatusMessage" => {
            let at = (PARTIAL, 0x85de, 28_895_981_704_002);
            let fields: &[(usize, &[u8])] = &[(51, b"N"), (80, &stamp(at.1, at.2))];
            vec![(key("AHL", "status"), record(272, b"AHL     ", at, fields))]
        }
        "AuctionInformationMessage" => {
            let at = (PARTIAL, 0x863a, 31_200_125_130_311);
            let price = 10_000_u64.to_le_bytes();
            let fields: &[(usize, &[u8])] = &[
                (144, &stamp(at.1, at.2)),
                (188, b"SH"),
                (216, &stamp(at.1, at.2)),
                (240, &251_u64.to_le_bytes()),
                (248, &price),
                (256, &price),
                (264, &price),
            ];
            vec![(key("ZIEXT", "status"), record(272, b"ZIEXT   ", at, fields))]
        }
        "SystemEventMessage" => {
            let at = (PARTIAL, 0x8afb, 34_200_001_073_818);
            // The code of ITCH for the start of regular hours.
            let fields: &[(usize, &[u8])] = &[(50, b"Q"), (56, &stamp(at.1, at.2))];
            vec![("md:iex:status".into(), record(128, b"        ", at, fields))]
        }
        "OperationalHaltStatusMessage" => {
            let exchange_ns = 28_816_638_304_595;
            let (halt, trading, quote, event) = (0x85da, 0x85db, 0x85dc, 0x85dd);
            let fields: &[(usize, &[u8])] = &[
                (50, b"T"),
                (52, b"    "),
                (56, b"T"),
                (64, &stamp(trading, exchange_ns)),
                (96, &stamp(halt, exchange_ns)),
            ];
            let status = record(272, b"ZYNE    ", (PARTIAL, trading, exchange_ns), fields);
            let off_hours = (PARTIAL | 32, quote, exchange_ns);
            let event_ns = 28_817_224_122_394;
            let day: &[(usize, &[u8])] = &[(50, b"S"), (56, &stamp(event, event_ns))];
            vec![
                (key("ZYNE", "bbo"), record(96, b"ZYNE    ", off_hours, &[])),
                (key("ZYNE", "status"), status),
                ("md:iex:status".into(), record(128, b"        ", (PARTIAL, event, event_ns), day)),
            ]
        }
        "OfficialPriceMessage" => Vec::new(),
        "SecurityDirectoryMessage" => {
            let (mut sequence, mut records) = (0x853e, Vec::new());
            for (symbol, low) in STOCKS {
                let name = Symbol(*symbol).to_string();
                // 05:00 in UTC.
                let midnight_ns = 1_517_029_200_000_000_000_u64;
                let exchange_ns = (0x150d_ac3a_0000_0000 | u64::from(low)) - midnight_ns;
                sequence += u64::from(name == "ZEXIT" || name == "ZIEXT");
                let is_cut = name == "ZJZZT";
                let (test, halt) = (stamp(sequence, exchange_ns), stamp(sequence + 1, exchange_ns));
                let trading = stamp(sequence + 2, exchange_ns);
                let mut fields: Vec<(usize, &[u8])> =
                    vec![(51, b"0"), (56, b"T"), (80, &test), (96, &halt)];
                if !is_cut {
                    fields.extend([(50, &b"T"[..]), (52, b"    "), (64, &trading)]);
                    let quote = (PARTIAL | 32, sequence + 3, exchange_ns);
                    records.push((key(&name, "bbo"), record(96, symbol, quote, &[])));
                }
                let newest = sequence + if is_cut { 1 } else { 2 };
                let status = record(272, symbol, (PARTIAL, newest, exchange_ns), &fields);
                records.push((key(&name, "status"), status));
                sequence += 4;
            }
            records
        }
        _ => panic!("{name}"),
    }
}

#[test]
fn what_is_published_of_each_capture_is_right_to_the_byte() {
    let test = "what_is_published_of_each_capture_is_right_to_the_byte";
    let Some(captures) = all_captures(test) else { return };
    let mut records = 0;
    for ((name, datagram), (_, count, ..)) in captures.iter().zip(HEADERS) {
        let mut bench = Bench::new(Protocol::IexTops16, Start::Any);
        bench.send(datagram);
        let mut expected = expected_of(name);
        expected.sort();
        let keys: Vec<&str> = expected.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(bench.keys(), keys, "{name}");
        for (key, record) in &expected {
            assert_eq!(bench.value(key), Some(record.as_slice()), "{name}: {key}");
            assert!(bench.keyspace.get(key, NOW_NS).is_some(), "{name}: {key} is live");
        }
        records += expected.len();
        let counters = bench.channel.counters();
        assert_eq!((counters.packets, counters.messages), (1, u64::from(count)), "{name}");
        assert_eq!(counters.published as usize, expected.len(), "{name}");
        assert_eq!(counters.unknown_messages + counters.malformed_messages, 0, "{name}");
        assert_eq!(counters.invalid_messages + counters.unnamed, 0, "{name}");
    }
    assert_eq!(records, 1 + 2 + 1 + 1 + 1 + 1 + 3 + 25);
}

struct Arrived<'a>(&'a [(Endpoint, Vec<u8>)]);

impl Burst for Arrived<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, index: usize) -> Datagram<'_> {
        let (destination, payload) = &self.0[index];
        let (source, link) = (Endpoint::v4([23, 226, 155, 131], 10_377), Link::default());
        let destination = *destination;
        Datagram { source, destination, link, rx_ns: NOW_NS, permissions: None, payload }
    }
}

/// Nothing is sent.
struct NoTransmit;

impl Transmit for NoTransmit {
    fn send<F: Into<Filled>>(
        &mut self,
        _: &Path,
        _: impl FnOnce(&mut [u8]) -> F,
    ) -> Result<(), SendError> {
        panic!("nothing is to be sent")
    }
}

/// The captures are pieces of one day: what is between them is a gap, and from then on nothing is believed.
#[test]
fn all_captures_in_one_feed_leave_the_gaps_between_them() {
    let test = "all_captures_in_one_feed_leave_the_gaps_between_them";
    let Some(captures) = all_captures(test) else { return };
    let line = Endpoint::v4([233, 215, 21, 3], 10_377);
    let channel = nautilus_dataplane::feed::channel::ChannelSpec {
        hold_limit_ns: 0,
        ..spec(Protocol::IexTops16, Start::Any)
    };
    let specs = [FeedSpec { lines: vec![line], channel, recovery: None }];
    let mut app = FeedApp::new(&specs, MapKeyspace::default());
    app.begin();
    let burst: Vec<_> = captures.into_iter().map(|(_, datagram)| (line, datagram)).collect();
    app.handle(NOW_NS, &Arrived(&burst[..1]), &mut NoTransmit);
    assert!(app.feed().channels().next().unwrap().is_live(NOW_NS));
    app.handle(NOW_NS, &Arrived(&burst[1..]), &mut NoTransmit);
    let channel = app.feed().channels().next().unwrap();
    let counters = channel.counters();
    // Behind the 52 of the first, and so on.
    let missing: u64 =
        HEADERS.windows(2).map(|pair| pair[1].0 - pair[0].0 - u64::from(pair[0].1)).sum();
    assert_eq!((counters.packets, counters.messages), (9, 63));
    assert_eq!((counters.gaps, counters.gap_messages), (7, missing), "two follow each other");
    assert_eq!(channel.sequencer().doubt(), Some(Doubt::Gap));
    assert_eq!(app.keyspace().get("md:iex:ATSG:bbo", NOW_NS), None);
    let value = &app.keyspace().values[&b"md:iex:ATSG:bbo"[..]].0;
    assert_eq!(*value, expected_of("QuoteUpdateMessage")[0].1);
}
