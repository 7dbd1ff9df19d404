//! The captures of IEX TOPS, every field by hand from their bytes, and what a channel publishes of them.

mod support;

use nautilus_dataplane::feed::book::BookLimits;
use nautilus_dataplane::feed::channel::{Channel, ChannelSpec};
use nautilus_dataplane::feed::session::Start;
use nautilus_dataplane::feed::{Protocol, Venue};
use support::{MapKeyspace, frames, market_data, udp_payload};

const FOLDER: &str = "omi-pcap/Iex.Tops.IexTp.v1.5";

#[test]
fn a_quote_becomes_a_record() {
    let Some(data) = market_data("a_quote_becomes_a_record") else { return };
    let payload =
        udp_payload(&frames(&data.join(FOLDER).join("QuoteUpdateMessage.pcap"))[0]).unwrap();
    let mut channel = Channel::new(ChannelSpec {
        venue: Venue::new("iex").unwrap(),
        protocol: Protocol::IexTops16,
        channel: 9,
        start: Start::Any,
        silence_limit_ns: 1_000_000_000,
        hold_limit_ns: 0,
        books: BookLimits { orders_max: 1, levels_max: 1, hash_seed: 1 },
        depth: 0,
    });
    let mut keyspace = MapKeyspace::default();
    channel.handle(77, &payload, &mut keyspace);
    let record = keyspace.get("md:iex:ATSG:bbo", 77).unwrap();
    println!("{record:?}");
    assert_eq!(record[56..64], 241_900u64.to_le_bytes());
}
