//! The Python module on a node in this process: `python/check.py` uses all of it, and what it makes of
//! the records is compared with what the feed writes.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use nautilus_dataplane::feed::book::{Bbo, LastTrade, Level};
use nautilus_dataplane::feed::itch::Side;
use nautilus_dataplane::feed::moldudp64::Session;
use nautilus_dataplane::feed::record::{
    BBO_BYTES, BboRecord, Key, LAST_BYTES, LastRecord, Origin, Value,
};
use nautilus_dataplane::feed::{Symbol, Venue};
use support::{Host, library_folder, package};

/// The records a feed writes. One more of them does not compile here until it is one more below, and
/// in `nautilus.py`.
const RECORDS: [Value; 2] = [Value::Bbo, Value::Last];

fn name(record: Value) -> &'static str {
    match record {
        Value::Bbo => "bbo",
        Value::Last => "last",
    }
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
fn example(record: Value) -> (Vec<u8>, String) {
    let origin = format!(
        "layout_version 1|bytes {}|stock_locate 258|flags 1|source_sequence {}|capture_ns {}|\
         exchange_ns {}|symbol AAPL    |session 000010059B|",
        if record == Value::Bbo { BBO_BYTES } else { LAST_BYTES },
        3_u64 << 40,
        4_u64 << 40,
        5_u64 << 40
    );
    match record {
        Value::Bbo => {
            let bid = Level { price: 1_509_400, orders: 7, shares: 100 };
            let ask = Level { price: 1_509_500, orders: 8, shares: 200 };
            let bbo = Bbo { bid: Some(bid), ask: Some(ask) };
            let rest = "reserved_0 |bid_price 1509400|ask_price 1509500|bid_size 100|ask_size 200|\
                        bid_orders 7|ask_orders 8|reserved_1 ";
            (BboRecord { origin: ORIGIN, bbo }.encode().into(), origin + rest)
        }
        Value::Last => {
            let trade = LastTrade {
                kind: b'C',
                side: Some(Side::Sell),
                broken: false,
                price: 21_200,
                shares: 90,
                match_number: 27_129,
                exchange_ns: 0,
            };
            let rest = "kind C|side S|size 90|price 21200|match_number 27129|reserved_0 ";
            (LastRecord { origin: ORIGIN, trade: Some(trade) }.encode().into(), origin + rest)
        }
    }
}

/// The rows (offset, name, dtype) of the feed's table of a record; a test there holds it to the code.
fn documented(record: Value) -> Vec<String> {
    let readme = include_str!("../../src/feed/README.md");
    let title = format!("`md:{{venue}}:{{symbol}}:{}`,", name(record));
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
        host.put(Key::new(&venue, ORIGIN.symbol, record).unwrap().as_bytes(), &bytes);
        let mut other = bytes;
        other[0] = 2;
        host.put(format!("other-layout:{}", name(record)).as_bytes(), &other);
    }
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
