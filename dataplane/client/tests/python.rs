//! The Python module on a node in this process: `python/check.py` uses all of it, and what it makes of
//! the records is compared with what the feed writes.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use nautilus_dataplane::feed::book::{Bbo, LastTrade, Level};
use nautilus_dataplane::feed::itch::Side;
use nautilus_dataplane::feed::moldudp64::Session;
use nautilus_dataplane::feed::record::depth::{DEPTH_BYTES_MAX, DEPTH_MAX, Depth, DepthRecord};
use nautilus_dataplane::feed::record::statistics::StatisticsRecord;
use nautilus_dataplane::feed::record::status::{StatusRecord, VenueStatusRecord};
use nautilus_dataplane::feed::record::{BboRecord, Key, LastRecord, Origin, Value};
use nautilus_dataplane::feed::statistics::Statistics;
use nautilus_dataplane::feed::status::{
    Collar, DeclineLevels, Flag, Imbalance, Ipo, Stamp, Status, Trading, VenueStatus,
};
use nautilus_dataplane::feed::{Symbol, Venue};
use support::{Host, library_folder, package};

/// A record a feed writes.
#[derive(Clone, Copy)]
enum Record {
    OfStock(Value),
    VenueStatus,
}

/// The records of one shape; depth has one for each number of levels. One more of them does not compile here
/// until it is one more below, and in `nautilus.py`.
const RECORDS: [Record; 5] = [
    Record::OfStock(Value::Bbo),
    Record::OfStock(Value::Last),
    Record::OfStock(Value::Status),
    Record::OfStock(Value::Statistics),
    Record::VenueStatus,
];

fn name(record: Record) -> &'static str {
    match record {
        Record::OfStock(Value::Bbo) => "bbo",
        Record::OfStock(Value::Last) => "last",
        Record::OfStock(Value::Status) => "status",
        Record::OfStock(Value::Statistics) => "stats",
        Record::OfStock(Value::Depth(_)) => "depth",
        Record::VenueStatus => "venue_status",
    }
}

fn key(venue: &Venue, record: Record) -> Key {
    match record {
        Record::OfStock(value) => Key::new(venue, ORIGIN.symbol, value).unwrap(),
        Record::VenueStatus => Key::of_venue(venue, Value::Status),
    }
}

/// A stamp of its own for each part of a status.
fn stamp(part: u64) -> Stamp {
    Stamp { sequence: 100 + part, exchange_ns: 200 + part }
}

/// What numpy reads of it.
fn stamp_text(name: &str, part: u64) -> String {
    format!("{name}_sequence {}|{name}_ns {}|", 100 + part, 200 + part)
}

fn status() -> (StatusRecord, String) {
    let flag = |part, code| Flag { stamp: stamp(part), code };
    let status = Status {
        trading: Trading { stamp: stamp(1), state: b'H', reason: *b"LUDP" },
        reg_sho: flag(2, b'1'),
        halts: [flag(3, b'T'), flag(4, b'H'), flag(5, b'T')],
        collar: Collar {
            stamp: stamp(6),
            reference_price: 10,
            upper_price: 11,
            lower_price: 9,
            extension: 3,
        },
        ipo: Ipo { stamp: stamp(7), release_s: 34_200, qualifier: b'A', price: 77 },
        imbalance: Imbalance {
            stamp: stamp(8),
            paired_shares: 1_000,
            imbalance_shares: 50,
            far_price: 21,
            near_price: 22,
            reference_price: 23,
            direction: b'B',
            cross_type: b'O',
            variation: b'L',
        },
    };
    let text = [
        "trading_state H|reg_sho 1|reason LUDP|halts THT|ipo_qualifier A|ipo_release_s 34200|"
            .into(),
        stamp_text("trading", 1),
        stamp_text("reg_sho", 2),
        stamp_text("halt_q", 3),
        stamp_text("halt_b", 4),
        stamp_text("halt_x", 5),
        stamp_text("collar", 6),
        "collar_reference_price 10|collar_upper_price 11|collar_lower_price 9|collar_extension 3|"
            .into(),
        "imbalance_direction B|cross_type O|price_variation L|reserved_0 |".into(),
        stamp_text("ipo", 7),
        "ipo_price 77|".into(),
        stamp_text("imbalance", 8),
        "paired_shares 1000|imbalance_shares 50|far_price 21|near_price 22|".into(),
        "imbalance_reference_price 23".into(),
    ];
    (StatusRecord { origin: ORIGIN, status }, text.concat())
}

const ORIGIN: Origin = Origin {
    locate: 0x0102,
    flags: 1,
    source_sequence: 3 << 40,
    capture_ns: 4 << 40,
    exchange_ns: 5 << 40,
    symbol: Symbol(*b"AAPL    "),
    session: Session(*b"000010059B"),
};

/// The bytes of a record whose fields all differ, and what they mean.
fn example(record: Record) -> (Vec<u8>, String) {
    let (bytes, rest): (Vec<u8>, String) = content(record);
    let origin = format!(
        "layout_version 1|bytes {}|stock_locate 258|flags 1|source_sequence {}|capture_ns {}|\
         exchange_ns {}|symbol AAPL    |session 000010059B|",
        bytes.len(),
        3_u64 << 40,
        4_u64 << 40,
        5_u64 << 40
    );
    (bytes, origin + &rest)
}

/// The bytes, and what they mean behind what all records begin with.
fn content(record: Record) -> (Vec<u8>, String) {
    match record {
        Record::OfStock(Value::Bbo) => {
            let bid = Level { price: 1_509_400, orders: 7, shares: 100 };
            let ask = Level { price: 1_509_500, orders: 8, shares: 200 };
            let bbo = Bbo { bid: Some(bid), ask: Some(ask) };
            let rest = "reserved_0 |bid_price 1509400|ask_price 1509500|bid_size 100|ask_size 200|\
                        bid_orders 7|ask_orders 8|reserved_1 ";
            (BboRecord { origin: ORIGIN, bbo }.encode().into(), rest.into())
        }
        Record::OfStock(Value::Last) => {
            let trade = LastTrade {
                kind: b'C',
                side: Some(Side::Sell),
                broken: false,
                price: 21_200,
                shares: 90,
                match_number: 27_129,
                exchange_ns: 0,
            };
            let rest =
                "kind C|side S|size 90|price 21200|match_number 27129|conditions 0|reserved_0 ";
            (LastRecord { origin: ORIGIN, trade: Some(trade) }.encode().into(), rest.into())
        }
        Record::OfStock(Value::Status) => {
            let (record, rest) = status();
            (record.encode().into(), rest)
        }
        Record::OfStock(Value::Statistics) => {
            let statistics = Statistics {
                orders: 1,
                trades: 2,
                shares: 3,
                value: 4,
                broken: 5,
                unknown_breaks: 6,
            };
            let rest = "reserved_0 |orders 1|trades 2|shares 3|value 4|broken 5|unknown_breaks 6";
            (StatisticsRecord { origin: ORIGIN, statistics }.encode().into(), rest.into())
        }
        Record::OfStock(Value::Depth(levels)) => {
            let mut depth = Depth {
                levels,
                bids: [Level::default(); DEPTH_MAX],
                asks: [Level::default(); DEPTH_MAX],
            };
            depth.bids[0] = Level { price: 5_000, shares: 10, orders: 1 };
            depth.bids[1] = Level { price: 4_999, shares: 20, orders: 2 };
            depth.asks[0] = Level { price: 5_001, shares: 30, orders: 3 };
            let record = DepthRecord { origin: ORIGIN, depth };
            (record.encode(&mut [0; DEPTH_BYTES_MAX]).into(), String::new())
        }
        Record::VenueStatus => {
            let status = VenueStatus {
                event: Flag { stamp: stamp(1), code: b'Q' },
                breach: Flag { stamp: stamp(2), code: b'2' },
                levels: DeclineLevels { stamp: stamp(3), levels: [7, 8, 9] },
            };
            let rest = [
                "event Q|breach 2|reserved_0 |".into(),
                stamp_text("event", 1),
                stamp_text("breach", 2),
                stamp_text("levels", 3),
                "level_1 7|level_2 8|level_3 9".into(),
            ];
            (VenueStatusRecord { origin: ORIGIN, status }.encode().into(), rest.concat())
        }
    }
}

/// The rows (offset, name, dtype) of the feed's table of a record; a test there holds it to the code.
fn documented(record: Record) -> Vec<String> {
    let readme = include_str!("../../src/feed/README.md");
    let title = match record {
        Record::VenueStatus => "`md:{venue}:status`,".to_owned(),
        Record::OfStock(_) => format!("`md:{{venue}}:{{symbol}}:{}`,", name(record)),
    };
    let section = &readme[readme.find(&title).expect("the record's table")..];
    let rows = section.lines().skip_while(|line| !line.starts_with("| 0 "));
    rows.map_while(|line| {
        let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let [_, offset, field, dtype, _] = cells[..] else { return None };
        Some(format!("layout {} {offset} {field} {dtype}", name(record)))
    })
    .collect()
}

/// A Python with numpy: the shell's, or Debian's.
fn python() -> Option<&'static str> {
    ["python3", "/usr/bin/python3"].into_iter().find(|python| {
        let import = Command::new(python).args(["-c", "import numpy"]).output();
        import.is_ok_and(|output| output.status.success())
    })
}

#[test]
fn a_python_program_reads_values_and_records() {
    let Some(python) = python() else {
        println!("SKIPPED a_python_program_reads_values_and_records: no numpy (python3-numpy)");
        return;
    };
    let mut host = Host::start(16);
    host.put(b"plain", b"plain value");
    host.put(b"empty", b"");
    host.put(b"large", &(0..1_usize << 20).map(|at| (at % 251) as u8).collect::<Vec<_>>());
    host.put(b"changing", b"before");
    host.put_as(b"suspect", b"of a feed", 3);
    host.put(b"short:bbo", &[1, 0, 96, 0]);
    let venue = Venue::new("nasdaq").unwrap();
    let mut expected = Vec::new();
    for record in RECORDS {
        let (bytes, _) = example(record);
        expected.extend(documented(record));
        expected.push(format!("size {} {}", name(record), bytes.len()));
        host.put(key(&venue, record).as_bytes(), &bytes);
        let mut other = bytes;
        other[0] = 2;
        host.put(format!("other-layout:{}", name(record)).as_bytes(), &other);
    }
    let depth = Record::OfStock(Value::Depth(2));
    host.put(key(&venue, depth).as_bytes(), &example(depth).0);
    for record in RECORDS {
        let (_, meaning) = example(record);
        let rows = meaning.split('|').map(|field| format!("value {} {field}", name(record)));
        expected.extend(rows);
    }
    expected.extend(["waiting", "anew", "all as expected"].map(str::to_owned));

    let mut child = Command::new(python)
        .arg("-B")
        .arg(package("tests/python/check.py"))
        .arg(host.run_dir())
        .env("PYTHONPATH", package("python"))
        .env("NAUTILUS_CLIENT_LIBRARY", library_folder().join("libnautilus_client.so"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        match line.as_str() {
            "waiting" => {
                std::thread::sleep(std::time::Duration::from_millis(5));
                host.put(b"changing", b"changed");
            }
            "anew" => host.start_anew(),
            _ => {}
        }
        said.push(line);
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(said, expected);
}
