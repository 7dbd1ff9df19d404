//! Any bytes at all, and any sequence of packets: counted, never a panic, never a wrong promise.

mod support;

use nautilus_dataplane::feed::book::BookLimits;
use nautilus_dataplane::feed::channel::{Channel, ChannelSpec};
use nautilus_dataplane::feed::itch::Message;
use nautilus_dataplane::feed::moldudp64::{HEADER_BYTES, Packet, Session};
use nautilus_dataplane::feed::session::Start;
use nautilus_dataplane::feed::{Symbol, Venue};
use nautilus_dataplane::replay::generate::{Generator, GeneratorSpec};
use proptest::prelude::*;
use support::{MapKeyspace, captures, frames, market_data, mold_packet, udp_payload};

fn channel() -> Channel {
    Channel::new(ChannelSpec {
        venue: Venue::new("nasdaq").unwrap(),
        protocol: Default::default(),
        channel: 1,
        start: Start::Session,
        silence_limit_ns: 1_000_000_000,
        depth: 0,
        hold_limit_ns: 5_000_000,
        books: BookLimits { orders_max: 32, levels_max: 16, hash_seed: 3 },
    })
}

fn generated(messages: u64) -> Vec<Vec<u8>> {
    let spec = GeneratorSpec { seed: 9, symbols: 3, messages, rate: 1_000 };
    let mut generator = Generator::new(spec).unwrap();
    let mut all = Vec::new();
    while let Some(message) = generator.next_message() {
        all.push(message.to_vec());
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_counted(payloads in prop::collection::vec(
        prop::collection::vec(any::<u8>(), 0..200), 1..40
    )) {
        let mut channel = channel();
        let mut keyspace = MapKeyspace::default();
        for (index, payload) in payloads.iter().enumerate() {
            channel.handle(index as u64, payload, &mut keyspace);
            let _ = Message::decode(payload);
            if let Ok(packet) = Packet::parse(payload) {
                prop_assert!(packet.messages().count() <= usize::from(packet.message_count()) + 1);
            }
        }
        prop_assert_eq!(channel.counters().packets, payloads.len() as u64);
    }

    /// Bits of good packets are flipped: whatever happens, the books add up.
    #[test]
    fn damaged_packets_are_survived(
        flips in prop::collection::vec((0usize..40, 0usize..1_400, 0u8..8), 0..60)
    ) {
        let messages = generated(600);
        let mut packets: Vec<_> = messages
            .chunks(15)
            .scan(1u64, |sequence, chunk| {
                let blocks: Vec<&[u8]> = chunk.iter().map(Vec::as_slice).collect();
                let packet = mold_packet(Session(*b"0123456789"), *sequence, &blocks);
                *sequence += chunk.len() as u64;
                Some(packet)
            })
            .collect();
        for (packet, byte, bit) in flips {
            let packet = &mut packets[packet];
            let at = byte % packet.len();
            packet[at] ^= 1 << bit;
        }
        let mut channel = channel();
        let mut keyspace = MapKeyspace::default();
        for (index, packet) in packets.iter().enumerate() {
            channel.handle(index as u64, packet, &mut keyspace);
            channel.housekeeping(index as u64, &mut keyspace);
        }
        let books = channel.books();
        let mut orders = 0;
        let mut levels = 0;
        for locate in 0..=u16::MAX {
            for side in [
                nautilus_dataplane::feed::itch::Side::Buy,
                nautilus_dataplane::feed::itch::Side::Sell,
            ] {
                for level in books.levels(locate, side) {
                    prop_assert!(level.orders > 0 && level.shares >= u64::from(level.orders));
                    orders += level.orders;
                    levels += 1;
                }
            }
        }
        prop_assert_eq!((orders, levels), (books.order_count(), books.level_count()));
    }

    /// Packets lost, repeated and swapped: while the channel says its keys hold true, they are what the
    /// undisturbed feed gave at that point.
    #[test]
    fn a_live_channel_never_shows_a_wrong_price(
        order in prop::collection::vec(0usize..30, 1..80), losses in any::<bool>()
    ) {
        let messages = generated(450);
        let session = Session(*b"0123456789");
        let packets: Vec<_> = messages
            .chunks(15)
            .enumerate()
            .map(|(index, chunk)| {
                let blocks: Vec<&[u8]> = chunk.iter().map(Vec::as_slice).collect();
                mold_packet(session, 1 + index as u64 * 15, &blocks)
            })
            .collect();
        let symbols = [Symbol::new("ZAAA"), Symbol::new("ZAAB"), Symbol::new("ZAAC")];
        let keys = symbols.map(|symbol| format!("md:nasdaq:{}:bbo", symbol.unwrap()));
        let big = ChannelSpec {
            books: BookLimits { orders_max: 512, levels_max: 512, hash_seed: 3 },
            ..*channel().spec()
        };
        // What an undisturbed channel holds after each packet.
        let (mut truth, mut oracle) = (Channel::new(big), MapKeyspace::default());
        let mut expected = vec![keys.clone().map(|_| None::<Vec<u8>>)];
        for packet in &packets {
            truth.handle(5, packet, &mut oracle);
            expected.push(keys.clone().map(|key| oracle.get(&key, 5).map(<[u8]>::to_vec)));
        }
        let (mut channel, mut keyspace) = (Channel::new(big), MapKeyspace::default());
        let mut next = 0;
        for at in order {
            // Mostly in order, else anywhere.
            let at = if losses && at % 7 == 0 { at } else { next.min(packets.len() - 1) };
            next = at + 1;
            channel.handle(5, &packets[at], &mut keyspace);
            let applied = (channel.sequencer().expected() - 1) / 15;
            for (key, expected) in keys.iter().zip(&expected[applied as usize]) {
                if let Some(found) = keyspace.get(key, 5) {
                    prop_assert_eq!(Some(found), expected.as_deref(), "{} after {}", key, applied);
                }
            }
        }
    }
}

#[test]
fn other_venues_packets_are_never_decoded() {
    let Some(data) = market_data("other_venues_packets_are_never_decoded") else { return };
    let (mut udp, mut other) = (0, 0);
    for folder in ["Cme.Mdp3.Sbe.v1.12", "Iex.Tops.IexTp.v1.5"] {
        for capture in captures(&data.join("omi-pcap").join(folder)) {
            for frame in frames(&capture) {
                let Some(payload) = udp_payload(&frame) else {
                    other += 1;
                    continue;
                };
                udp += 1;
                let mut channel = channel();
                let mut keyspace = MapKeyspace::default();
                channel.handle(1, &payload, &mut keyspace);
                let counters = channel.counters();
                assert_eq!((counters.packets, counters.malformed_packets()), (1, 1));
                assert_eq!((counters.messages, keyspace.puts), (0, 0), "{}", capture.display());
                assert!(!channel.is_live(1));
            }
        }
    }
    assert_eq!((udp, other), (9, 7), "IEX is UDP, these CME captures are TCP");
}

#[test]
fn blanked_captures_have_no_sequence_and_are_dropped() {
    let Some(data) = market_data("blanked_captures_have_no_sequence_and_are_dropped") else {
        return;
    };
    let folder = data.join("omi-pcap/Psx.Equities.TotalView.Itch.v5.0.20230822");
    for payload in captures(&folder).iter().flat_map(|file| frames(file)) {
        let payload = udp_payload(&payload).unwrap();
        assert_eq!(payload[..HEADER_BYTES - 2], [0; HEADER_BYTES - 2]);
        let mut channel = channel();
        channel.handle(1, &payload, &mut MapKeyspace::default());
        assert_eq!(channel.counters().malformed_packets(), 1);
        assert_eq!(channel.counters().messages, 0);
    }
}
