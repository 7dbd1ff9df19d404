//! The replay program: what it writes is what a receiver needs, and bad input is a clear error.

#[path = "support/lobster.rs"]
mod lobster;
mod support;

use nautilus_dataplane::feed::Venue;
use nautilus_dataplane::feed::book::BookLimits;
use nautilus_dataplane::feed::channel::{Channel, ChannelSpec};
use nautilus_dataplane::feed::itch::Side;
use nautilus_dataplane::feed::moldudp64::{HEADER_BYTES, Kind, Packet};
use nautilus_dataplane::feed::session::Start;
use nautilus_dataplane::net::{Endpoint, RxChecksum, parse::parse};
use nautilus_dataplane::replay::binary_file::write_message;
use nautilus_dataplane::replay::generate::{Generator, GeneratorSpec};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use support::{MapKeyspace, captures, frames, market_data};

fn replay(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_nautilus-replay");
    Command::new(program).args(arguments).output().unwrap()
}

/// Runs the program into a file and returns the file's frames.
fn written(arguments: &[&str]) -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.pcap");
    let output = replay(&[arguments, &["--write", path.to_str().unwrap()]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    frames(&path)
}

/// The payload of a frame, whose addresses and checksums must be right.
fn payload(frame: &[u8]) -> &[u8] {
    let parsed = parse(frame, RxChecksum::Verify).unwrap();
    assert_eq!(parsed.destination, Endpoint::v4([233, 54, 12, 111], 26_477));
    assert_eq!(frame[..6], [0x01, 0x00, 0x5e, 0x36, 0x0c, 0x6f]);
    let start = usize::from(parsed.payload_offset);
    &frame[start..start + usize::from(parsed.payload_bytes)]
}

fn channel() -> Channel {
    Channel::new(ChannelSpec {
        venue: Venue::new("nasdaq").unwrap(),
        protocol: Default::default(),
        channel: 1,
        start: Start::Session,
        silence_limit_ns: u64::MAX,
        depth: 0,
        hold_limit_ns: 5_000_000,
        books: BookLimits { orders_max: 1 << 15, levels_max: 1 << 15, hash_seed: 3 },
    })
}

fn applied(frames: &[Vec<u8>]) -> (Channel, MapKeyspace) {
    let (mut channel, mut keyspace) = (channel(), MapKeyspace::default());
    for frame in frames {
        channel.handle(1, payload(frame), &mut keyspace);
    }
    (channel, keyspace)
}

const GENERATE: &[&str] =
    &["--generate", "--messages", "20000", "--symbols", "9", "--session", "TEST", "--pace", "max"];

#[test]
fn the_same_seed_writes_the_same_packets() {
    let first = written(&[GENERATE, &["--seed", "7"]].concat());
    assert_eq!(first, written(&[GENERATE, &["--seed", "7"]].concat()));
    assert_ne!(first, written(&[GENERATE, &["--seed", "8"]].concat()));
    let counts: Vec<u16> =
        first.iter().map(|frame| Packet::parse(payload(frame)).unwrap().message_count()).collect();
    assert_eq!(counts.iter().map(|count| u64::from(*count)).sum::<u64>(), 20_000);
    assert_eq!(counts.iter().max(), Some(&38));
    assert!(counts.contains(&1));
    assert!(first.iter().all(|frame| frame.len() <= 1_514));
}

#[test]
fn a_generated_day_arrives_whole() {
    let frames = written(&[GENERATE, &["--seed", "7"]].concat());
    let (channel, keyspace) = applied(&frames);
    assert!(channel.is_live(1) && channel.sequencer().has_ended());
    assert_eq!(channel.counters().messages, 20_000);
    assert_eq!(channel.counters().gaps + channel.counters().unknown_orders, 0);
    assert_eq!(channel.sequencer().session().unwrap().0, *b"      TEST");

    let spec = GeneratorSpec { seed: 7, symbols: 9, messages: 20_000, rate: 100_000 };
    let mut generator = Generator::new(spec).unwrap();
    let mut live = 0;
    while let Some(message) = generator.next_message() {
        live += i32::from(matches!(message[0], b'A' | b'F'));
    }
    assert!(live > 5_000);
    assert_eq!(keyspace.values.keys().filter(|key| key.ends_with(b":bbo")).count(), 9);
}

#[test]
fn original_pace_puts_heartbeats_into_pauses() {
    let slow = ["--rate", "4", "--messages", "12", "--pace", "original", "--heartbeat-ms", "100"];
    let frames = written(&[&["--generate", "--session", "S"], &slow[..]].concat());
    let kinds: Vec<Kind> =
        frames.iter().map(|frame| Packet::parse(payload(frame)).unwrap().kind).collect();
    let heartbeats = kinds.iter().filter(|kind| **kind == Kind::Heartbeat).count();
    // 11 pauses of 250 ms, two heartbeats in each.
    assert_eq!(heartbeats, 22, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == Kind::EndOfSession).count(), 3);
    let (channel, _) = applied(&frames);
    assert_eq!((channel.counters().gaps, channel.counters().heartbeats), (0, 22));
}

#[test]
fn blanked_captures_get_addresses_session_and_a_running_sequence() {
    let name = "blanked_captures_get_addresses_session_and_a_running_sequence";
    let Some(data) = market_data(name) else { return };
    let files = captures(&data.join("omi-pcap/Psx.Equities.TotalView.Itch.v5.0.20230822"));
    let mut arguments = vec!["--pcap"];
    arguments.extend(files.iter().map(|path| path.to_str().unwrap()));
    arguments.extend(["--session", "PSX", "--sequence-start", "100", "--pace", "max", "--no-end"]);
    let original: Vec<_> = files.iter().flat_map(|path| frames(path)).collect();
    for (vlan, tagged) in [("strip", None), ("keep", Some(141)), ("7", Some(7))] {
        let sent = written(&[&arguments[..], &["--vlan", vlan]].concat());
        assert_eq!(sent.len(), original.len());
        for (index, (sent, original)) in sent.iter().zip(&original).enumerate() {
            let packet = Packet::parse(payload(sent)).unwrap();
            assert_eq!(packet.session.0, *b"       PSX");
            assert_eq!(packet.sequence, 100 + index as u64);
            let blank = support::udp_payload(original).unwrap();
            assert_eq!(payload(sent)[HEADER_BYTES..], blank[HEADER_BYTES..]);
            let tag = (sent[12..14] == [0x81, 0]).then(|| u16::from_be_bytes([sent[14], sent[15]]));
            assert_eq!(tag, tagged);
        }
    }
}

#[test]
fn captures_as_they_are_keep_every_byte() {
    let Some(data) = market_data("captures_as_they_are_keep_every_byte") else { return };
    for folder in std::fs::read_dir(data.join("omi-pcap")).unwrap() {
        let folder = folder.unwrap().path();
        if !folder.is_dir() || folder.ends_with("expected-decode") {
            continue;
        }
        for file in captures(&folder) {
            let sent = written(&["--pcap", file.to_str().unwrap(), "--as-is", "--pace", "max"]);
            assert_eq!(sent, frames(&file));
        }
    }
}

/// A node file whose feed is that of the generator.
fn example() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/src/capture/example.toml").into()
}

/// Records of a replay without a network, by key, and what it printed.
fn offline(captures: &[&str]) -> (BTreeMap<String, Vec<u8>>, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records");
    let options = ["--offline", &example(), "--records", path.to_str().unwrap()];
    let output = replay(&[&options, captures].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&path).unwrap();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let records = text.lines().map(|line| {
        let (key, digits) = line.split_once(' ').unwrap();
        (key.to_owned(), digits.as_bytes().chunks(2).map(byte).collect())
    });
    (records.collect(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_capture_of_other_hands_gives_its_books_without_a_network() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("day.pcap");
    let path = path.to_str().unwrap();
    let output = replay(&[GENERATE, &["--seed", "7", "--write", path]].concat());
    assert!(output.status.success());
    let (records, printed) = offline(&[path]);
    let (_, keyspace) = applied(&frames(Path::new(path)));
    let whole = |record: &[u8]| {
        // All but the stamp, which the other way gave none.
        [&record[..16], &[0; 8], &record[24..]].concat()
    };
    let mut compared = 0;
    for (key, (record, _)) in &keyspace.values {
        let key = std::str::from_utf8(key).unwrap();
        if !key.ends_with("nasdaq:stats") {
            assert_eq!(whole(&records[key]), whole(record), "{key}");
            compared += 1;
        }
    }
    assert!(compared >= 9 * 3);
    for said in ["md:nasdaq:", "messages 20000 gaps 0", "no node's capture", "missing=0"] {
        assert!(printed.contains(said), "{printed}");
    }
    // Twice the same is the same, in two files as in one.
    assert_eq!(offline(&[path]).0, records);
    assert_eq!(offline(&[path, path]).1.matches("messages 20000").count(), 1);
    // As it is, again: every frame, unchanged.
    let copy = written(&[path, "--pace", "max"]);
    assert_eq!(copy, frames(Path::new(path)));
}

#[test]
fn a_binary_file_is_packed_whole() {
    let Some(data) = market_data("a_binary_file_is_packed_whole") else { return };
    let file = data.join("itch-binaryfile/ex20101224.TEST_ITCH_50");
    let sent = written(&["--itch", file.to_str().unwrap(), "--session", "B", "--pace", "max"]);
    let (channel, _) = applied(&sent);
    assert!(channel.is_live(1));
    assert_eq!((channel.counters().messages, channel.counters().gaps), (12_012, 0));
    assert!(channel.counters().unknown_orders > 0);
}

#[test]
fn converted_order_flow_gives_the_recorded_book() {
    let Some(data) = market_data("converted_order_flow_gives_the_recorded_book") else { return };
    let file = |kind: &str| data.join(format!("lobster/AAPL_2012-06-21_{kind}_10.first400.csv"));
    let events = lobster::convert(&file("message"), &file("orderbook"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("aapl.itch");
    let mut itch = std::fs::File::create(&path).unwrap();
    for message in events.iter().flat_map(|event| event.messages.iter().chain(&event.learnt)) {
        write_message(&mut itch, message).unwrap();
    }
    let sent = written(&["--itch", path.to_str().unwrap(), "--session", "L", "--pace", "max"]);
    let (channel, keyspace) = applied(&sent);
    let book = &events.last().unwrap().book;
    for (side, levels) in [(Side::Sell, &book.asks), (Side::Buy, &book.bids)] {
        let found = channel.books().levels(lobster::LOCATE, side).take(10);
        let found: Vec<_> = found.map(|level| (level.price, level.shares)).collect();
        assert_eq!(found, *levels, "after learning, all ten");
    }
    assert!(keyspace.get("md:nasdaq:AAPL:bbo", 1).is_some());
    assert!(keyspace.get("md:nasdaq:AAPL:last", 1).is_some());
}

#[test]
fn bad_input_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let text = file("text.pcap", b"hello, this is no capture");
    let short = file("short.pcap", &nautilus_dataplane::replay::pcap::file_header()[..20]);
    let blank = file("blank.itch", b"\0\0S012");
    let out = folder.path().join("out.pcap");
    let write = ["--write", out.to_str().unwrap()];
    let example = example();
    let cases: [(&[&str], &str); 14] = [
        (&[], "nothing to replay"),
        (&["no-such.pcapng"], "no-such.pcapng: cannot open"),
        (&[&text], "text.pcap: not a classic pcap file"),
        (&["--pcap", "no-such.pcap"], "no-such.pcap"),
        (&["--pcap", &text], "text.pcap: not a classic pcap file"),
        (&["--pcap", &short], "short.pcap: truncated in file header"),
        (&["--itch", &blank], "blank.itch: truncated in message 1"),
        (&["--generate", "--symbols", "0"], "--symbols"),
        (&["--generate", "--rate", "0"], "--rate"),
        (&["--generate", "--messages", "0"], "--messages"),
        (&["--generate", "--group", "10.0.0.1"], "10.0.0.1 is not a multicast group"),
        (&["--generate", "--session", "elevenchars"], "at most ten characters"),
        (&["--generate", "--pace", "quick"], "is not a pace"),
        (&["--generate", "--rate", "1", "--messages", "99", "--max-seconds", "2"], "limit of 2 s"),
    ];
    for (arguments, expected) in cases {
        let output = replay(&[arguments, &write].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(stderr.contains(expected), "{arguments:?} gave {stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
    for (arguments, expected) in [
        (&[text.as_str()][..], "give --interface NAME, --write FILE or --offline"),
        (&["--offline", &example, &text], "text.pcap: not a classic pcap file"),
        (&["--offline", "no-such.toml", &text], "no-such.toml"),
        (&["--offline", &example], "required"),
    ] {
        let output = replay(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(expected), "{arguments:?}: {stderr}");
    }
    let output = replay(&["--generate", "--interface", "no-such0"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such0 does not exist"));
}

#[test]
fn captures_of_other_protocols_cannot_be_readdressed() {
    let Some(data) = market_data("captures_of_other_protocols_cannot_be_readdressed") else {
        return;
    };
    let out = tempfile::tempdir().unwrap();
    let out = out.path().join("out.pcap");
    let refused = |file: &Path, expected: &str| {
        let paths = [file, &out].map(|path| path.to_str().unwrap().to_owned());
        let output = replay(&["--pcap", &paths[0], "--write", &paths[1], "--pace", "max"]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && stderr.contains(expected), "{stderr}");
    };
    for file in captures(&data.join("omi-pcap/Iex.Tops.IexTp.v1.5")) {
        refused(&file, "record 1 is not MoldUDP64");
    }
    for file in captures(&data.join("omi-pcap/Cme.Mdp3.Sbe.v1.12")) {
        refused(&file, "record 1 holds no UDP datagram");
    }
}
