//! IEX TOPS through a real node: captures as they were sent, read from the cache as memcached's clients do; no copy is
//! dropped in XDP, whatever its bytes look like, and what is of other protocols leaves no trace. Needs root.

#[path = "support/supervised.rs"]
mod supervised;
mod support;

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nautilus_dataplane::feed::Symbol;
use nautilus_dataplane::feed::iex::iextp::{Header, PROTOCOL_TOPS, VERSION};
use nautilus_dataplane::feed::iex::tops::{QuoteUpdate, TradeReport};
use nautilus_dataplane::feed::iex::wire::{Price, Timestamp};
use nautilus_dataplane::feed::iex::{Quote, TopsTrade};
use nautilus_dataplane::feed::moldudp64::Session;
use nautilus_dataplane::feed::record::tops::{QuoteRecord, TradeRecord};
use nautilus_shm::control_region::{ControlReader, SUPERVISOR_PROCESS, WORKERS_MAX};
use nautilus_shm::metrics::labels::{FeedError, FeedLine, XdpVerdict};
use nautilus_shm::metrics::{Counter, table};

use supervised::{CACHE_PORT, CLIENT, SERVER, Supervised, ip, privileged, wait_until};
use support::{frames, market_data, mold_packet, udp_payload};

const PATIENCE: Duration = Duration::from_secs(20);
const LINE_A: (&str, u16) = ("233.215.21.3", 10_377);
const LINE_B: (&str, u16) = ("233.215.21.4", 10_378);
const NASDAQ: (&str, u16) = ("233.54.12.111", 10_377);
/// Who sent the captures.
const SOURCE: &str = "23.226.155.131/32";
/// A feed of the other protocol shares a port with line A.
const NODE: &str = "[cache]\nid = \"q\"\nmax_memory_mb = 64\n\
    [[feed]]\nvenue = \"iex\"\nprotocol = \"iex-tops-1.6\"\ngroup = \"233.215.21.3\"\nport = 10377\n\
    lines = [{ group = \"233.215.21.4\", port = 10378 }]\nhold_limit_us = 50000\nstart = \"any\"\n\
    channel = 1\n\
    [[feed]]\nvenue = \"nasdaq\"\ngroup = \"233.54.12.111\"\nport = 10377\nchannel = 2\n\
    max_orders = 32768\n";
/// Number of the quote update's capture.
const QUOTE_NUMBER: u64 = 0xc29d;

fn segment(sequence: u64, messages: &[&[u8]]) -> Vec<u8> {
    let mut payload = Vec::new();
    for message in messages {
        payload.extend_from_slice(&(message.len() as u16).to_le_bytes());
        payload.extend_from_slice(message);
    }
    let header = Header {
        version: VERSION,
        protocol: PROTOCOL_TOPS,
        channel: 1,
        session: 0x4496_0000,
        payload_bytes: payload.len() as u16,
        count: messages.len() as u16,
        sequence,
        ..Header::default()
    };
    [&header.encode()[..], &payload].concat()
}

/// Sends captures from the client's side as they are.
fn replay(node: &Supervised, files: &[&Path]) {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &node.client_ns, env!("CARGO_BIN_EXE_nautilus-replay")]);
    command.args(["--raw", "--interface", "c0", "--as-is", "--pace", "max", "--no-end", "--pcap"]);
    let output = command.args(files).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains(&format!("packets={}", files.len())), "{said}");
}

/// The value under a key; `None` for a miss.
fn get(client: &UdpSocket, key: &str) -> Option<Vec<u8>> {
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
        return Some(text[start..text.len() - 7].to_vec());
    }
    panic!("no answer for {key}");
}

fn sum(region: &ControlReader, counter: Counter) -> u64 {
    (0..WORKERS_MAX).map(|slot| region.metrics(slot).counter(counter)).sum()
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn captures_of_iex_are_read_from_the_cache_and_no_copy_is_dropped_before() {
    let test = "captures_of_iex_are_read_from_the_cache_and_no_copy_is_dropped_before";
    if !privileged(test) {
        return;
    }
    let Some(data) = market_data(test) else { return };
    let mut node = Supervised::new(NODE);
    let text = fs::read_to_string(&node.config).unwrap();
    let text = text.replace("sources = [", &format!("sources = [\"{SOURCE}\", "));
    fs::write(&node.config, text).unwrap();
    let mut check = Command::new("ip");
    check.args(["netns", "exec", &node.server_ns, env!("CARGO_BIN_EXE_nautilus-supervisor")]);
    let output = check.arg("--check").arg("--config").arg(&node.config).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("feed of \"iex\": iex-tops-1.6; "), "{said}");
    assert!(said.contains("feed of \"nasdaq\": nasdaq-itch-5.0; "), "{said}");

    node.start();
    node.await_workers(1);
    ip(&format!("-n {} route add 224.0.0.0/4 dev c0", node.client_ns));
    let client = Supervised::udp(&node.client_ns, SocketAddr::new(CLIENT.parse().unwrap(), 0));
    client.connect((SERVER, CACHE_PORT)).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let venue = Supervised::udp(&node.client_ns, SocketAddr::new(CLIENT.parse().unwrap(), 0));
    let send = |to: (&str, u16), payload: &[u8]| {
        venue.send_to(payload, to).unwrap();
    };
    let region = node.attach().unwrap();

    let folder = data.join("omi-pcap/Iex.Tops.IexTp.v1.5");
    let mut files = support::captures(&folder);
    let quote_file = folder.join("QuoteUpdateMessage.pcap");
    replay(&node, &[&quote_file]);
    let read = || {
        let value = get(&client, "md:iex:ATSG:bbo")?;
        Some(QuoteRecord::decode(&value).expect("a record"))
    };
    wait_until("the quote is read", PATIENCE, || read().is_some());
    let record = read().unwrap();
    let quote = Quote {
        bid_price: 241_900,
        ask_price: 242_500,
        bid_size: 18_773,
        ask_size: 60_677,
        ..Quote::default()
    };
    assert_eq!((record.quote, record.origin.symbol), (quote, Symbol(*b"ATSG    ")));
    assert_eq!(record.origin.session, Session(*b"4496000001"));
    assert_eq!((record.origin.source_sequence, record.origin.flags), (QUOTE_NUMBER, 1));
    assert_eq!((record.origin.locate, record.origin.exchange_ns), (0, 36_500_930_439_360));
    assert_ne!(record.origin.capture_ns, 0);

    // Seven captures are of before it and the quote itself is a copy: every one comes to the worker.
    files.retain(|file| !file.ends_with("TradingStatusMessage.pcap"));
    let files: Vec<&Path> = files.iter().map(|file| file.as_path()).collect();
    assert_eq!(files.len(), 8);
    replay(&node, &files);
    wait_until("every copy came", PATIENCE, || sum(&region, table::FEED_DUPLICATE_PACKETS) == 8);

    // What follows, on both lines.
    let at = Timestamp(1_517_065_701_000_000_000);
    let atsg = Symbol(*b"ATSG    ");
    let better = QuoteUpdate::encode(0x80, at, atsg, 7, Price(242_000), Price(242_500), 8);
    let trade = TradeReport::encode(0x20, at, atsg, 5, Price(242_100), 77);
    let next = segment(QUOTE_NUMBER + 1, &[&better, &trade]);
    send(LINE_A, &next);
    wait_until("the next quote is read", PATIENCE, || {
        read().is_some_and(|record| record.quote.bid_price == 242_000)
    });
    assert_eq!(read().unwrap().origin.flags, 1 + 16, "partial, and not to be traded");
    let last = TradeRecord::decode(&get(&client, "md:iex:ATSG:last").unwrap()).unwrap();
    let TopsTrade { price, size, conditions, trade_id, .. } = last.trade;
    assert_eq!((price, size, conditions, trade_id), (242_100, 5, 0x20, 77));
    let stats = get(&client, "md:iex:ATSG:stats").unwrap();
    assert_eq!(stats[80..88], (5 * 242_100_u64).to_le_bytes());
    send(LINE_B, &next);
    send(LINE_B, &segment(QUOTE_NUMBER + 3, &[]));
    wait_until("and its copy", PATIENCE, || {
        sum(&region, table::FEED_LINE_MESSAGES.of(FeedLine::B)) == 2
    });

    // DEEP, ITCH, and packets of MoldUDP64 that have the very session and numbers which the feed has applied: what
    // takes the framing for MoldUDP64 would drop them as copies, or decode them.
    let deep = |file: &&Path| {
        let mut payload = udp_payload(&frames(file)[0]).unwrap();
        payload[2] = 4;
        payload
    };
    let mut others: Vec<Vec<u8>> = files.iter().map(deep).collect();
    let itch = data.join("omi-pcap/Nasdaq.Equities.TotalView.Itch.v5.0");
    let itch = support::captures(&itch).into_iter().flat_map(|file| frames(&file));
    others.extend(itch.map(|frame| udp_payload(&frame).unwrap()));
    let name = record.origin.session;
    others.extend((0..5).map(|n| mold_packet(name, QUOTE_NUMBER + 1 + n % 2, &[&[b'S'; 40]])));
    let errors = || sum(&region, table::FEED_ERRORS.of(FeedError::OtherProtocol));
    let packets = sum(&region, table::FEED_PACKETS);
    assert_eq!((errors(), others.len()), (0, 8 + 9 + 5));
    for (place, payload) in others.iter().enumerate() {
        send([LINE_A, LINE_B][place % 2], payload);
    }
    // The same to the feed of MoldUDP64.
    send(NASDAQ, &next);
    send(NASDAQ, &segment(1, &[]));
    wait_until("every other protocol is counted", PATIENCE, || errors() == 24);
    send(LINE_A, &segment(QUOTE_NUMBER + 3, &[]));
    wait_until("and nothing else is", PATIENCE, || {
        sum(&region, table::FEED_PACKETS) == packets + 25
    });
    assert_eq!(read().unwrap().quote.bid_price, 242_000, "and the quotes are believed");
    assert_eq!(sum(&region, table::FEED_MESSAGES), 3);
    let dropped = [FeedLine::A, FeedLine::B]
        .map(|line| sum(&region, table::FEED_LINE_DROPPED_PACKETS.of(line)));
    let verdict = table::XDP_PACKETS.of(XdpVerdict::FeedApplied);
    assert_eq!((dropped, region.metrics(SUPERVISOR_PROCESS).counter(verdict)), ([0, 0], 0));

    // Nobody speaks any more.
    wait_until("silence is a miss", PATIENCE, || read().is_none());
    node.stop();
}
