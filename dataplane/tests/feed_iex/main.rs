//! IEX TOPS over IEX-TP: the captures field by field, what is published of them, random days against a model, two
//! lines, and what is of other protocols.

#[path = "../support/mod.rs"]
mod support;

mod captures;
mod lines;
mod model;
mod others;

use std::path::PathBuf;

use nautilus_dataplane::feed::book::BookLimits;
use nautilus_dataplane::feed::channel::{Channel, ChannelSpec};
use nautilus_dataplane::feed::iex::iextp::{Header, PROTOCOL_TOPS, VERSION};
use nautilus_dataplane::feed::session::Start;
use nautilus_dataplane::feed::{Protocol, Venue};
use support::{MapKeyspace, frames, market_data, udp_payload};

const FOLDER: &str = "omi-pcap/Iex.Tops.IexTp.v1.5";
const NOW_NS: u64 = 1_000_000_000;
const SESSION_ID: u32 = 0x4496_0000;

fn spec(protocol: Protocol, start: Start) -> ChannelSpec {
    ChannelSpec {
        venue: Venue::new("iex").unwrap(),
        protocol,
        channel: 9,
        start,
        silence_limit_ns: u64::MAX,
        hold_limit_ns: 1_000_000,
        books: BookLimits { orders_max: 64, levels_max: 64, hash_seed: 1 },
        depth: 0,
    }
}

/// A channel and what it publishes.
struct Bench {
    channel: Channel,
    keyspace: MapKeyspace,
}

impl Bench {
    fn new(protocol: Protocol, start: Start) -> Self {
        Self::with_lines(protocol, start, 1)
    }

    fn with_lines(protocol: Protocol, start: Start, lines: usize) -> Self {
        let channel = Channel::with_lines(spec(protocol, start), lines);
        Self { channel, keyspace: MapKeyspace::default() }
    }

    fn tops() -> Self {
        Self::new(Protocol::IexTops16, Start::Session)
    }

    fn send(&mut self, datagram: &[u8]) {
        self.channel.handle(NOW_NS, datagram, &mut self.keyspace);
    }

    fn value(&self, key: &str) -> Option<&[u8]> {
        self.keyspace.values.get(key.as_bytes()).map(|(value, _)| value.as_slice())
    }

    fn keys(&self) -> Vec<&str> {
        let keys = self.keyspace.values.keys();
        keys.map(|key| std::str::from_utf8(key).unwrap()).collect()
    }
}

/// One segment of these messages.
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
        session: SESSION_ID,
        payload_bytes: payload.len() as u16,
        count: messages.len() as u16,
        stream_offset: 0,
        sequence,
        send_time_ns: 0,
    };
    [&header.encode()[..], &payload].concat()
}

/// The datagram of one of the captures, which have one each; `None` when there is no data.
fn capture(data: &std::path::Path, name: &str) -> Vec<u8> {
    let frames = frames(&data.join(FOLDER).join(format!("{name}.pcap")));
    assert_eq!(frames.len(), 1, "{name}");
    udp_payload(&frames[0]).expect("UDP")
}

/// The nine captures in the order of their sequence numbers.
const CAPTURES: [&str; 9] = [
    "SecurityDirectoryMessage",
    "OperationalHaltStatusMessage",
    "ShortSalePriceTestStatusMessage",
    "TradeReportMessage",
    "AuctionInformationMessage",
    "SystemEventMessage",
    "OfficialPriceMessage",
    "QuoteUpdateMessage",
    "TradingStatusMessage",
];

fn all_captures(test: &str) -> Option<Vec<(&'static str, Vec<u8>)>> {
    let data: PathBuf = market_data(test)?;
    Some(CAPTURES.map(|name| (name, capture(&data, name))).into())
}
