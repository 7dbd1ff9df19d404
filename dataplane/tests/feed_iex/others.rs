//! What is of another protocol than the feed's is counted by its reason and dropped whole; nothing of it is ever
//! published, and nothing that comes makes a feed panic.

use std::path::Path;

use nautilus_dataplane::feed::Protocol;
use nautilus_dataplane::feed::counters::Counters;
use nautilus_dataplane::feed::moldudp64::Session;
use nautilus_dataplane::feed::session::Start;
use nautilus_dataplane::replay::random::Random;

use super::support::{captures, frames, market_data, mold_packet, udp_payload};
use super::{Bench, NOW_NS, all_captures, segment};

const NASDAQ: &str = "omi-pcap/Nasdaq.Equities.TotalView.Itch.v5.0";
const PSX: &str = "omi-pcap/Psx.Equities.TotalView.Itch.v5.0.20230822";
const CME: &str = "omi-pcap/Cme.Mdp3.Sbe.v1.12";

const BOTH: [Protocol; 2] = [Protocol::NasdaqItch50, Protocol::IexTops16];

/// What lies behind UDP or TCP in the captures of a folder.
fn payloads(folder: &Path) -> Vec<Vec<u8>> {
    let payload = |frame: Vec<u8>| match udp_payload(&frame) {
        Some(payload) => payload,
        None => {
            let packet = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
            match packet.transport {
                Some(etherparse::TransportSlice::Tcp(tcp)) => tcp.payload().to_vec(),
                other => panic!("{other:?}"),
            }
        }
    };
    captures(folder).iter().flat_map(|path| frames(path)).map(payload).collect()
}

/// The counts of a feed that was given these datagrams and had published something before; it must not have
/// noticed them.
fn given(protocol: Protocol, datagrams: &[Vec<u8>]) -> Counters {
    let mut bench = Bench::new(protocol, Start::Any);
    let first = match protocol {
        Protocol::NasdaqItch50 => mold_packet(Session(*b"000000MON1"), 1, &[]),
        Protocol::IexTops16 => segment(1, &[]),
    };
    bench.send(&first);
    let (before, session) = (*bench.channel.counters(), bench.channel.sequencer().session());
    for datagram in datagrams {
        bench.send(datagram);
        assert!(bench.channel.is_live(NOW_NS));
        assert_eq!(
            (bench.channel.sequencer().session(), bench.channel.stock_count()),
            (session, 0)
        );
    }
    bench.channel.housekeeping(NOW_NS, &mut bench.keyspace);
    assert_eq!(bench.keys(), [""; 0]);
    let after = *bench.channel.counters();
    let refused = Counters {
        packets: before.packets + datagrams.len() as u64,
        short_headers: after.short_headers,
        truncated_packets: after.truncated_packets,
        bad_sequences: after.bad_sequences,
        other_protocols: after.other_protocols,
        ..before
    };
    assert_eq!(after, refused, "every one is refused, and nothing else is counted");
    assert_eq!(after.malformed_packets(), datagrams.len() as u64);
    after
}

#[test]
fn a_feed_of_moldudp64_refuses_iex_and_cme_as_another_protocol() {
    let test = "a_feed_of_moldudp64_refuses_iex_and_cme_as_another_protocol";
    let Some(captures) = all_captures(test) else { return };
    let iex: Vec<Vec<u8>> = captures.into_iter().map(|(_, datagram)| datagram).collect();
    assert_eq!(given(Protocol::NasdaqItch50, &iex).other_protocols, 9);
    // With the first bytes of a stream the header reads as a heartbeat of MoldUDP64: only its session tells.
    let mut young = segment(1, &[]);
    young[16..24].copy_from_slice(&0x1234_u64.to_le_bytes());
    assert_eq!(young[18..20], [0, 0]);
    let end = segment(1, &[]);
    assert_eq!(given(Protocol::NasdaqItch50, &[young, end]).other_protocols, 2);
    let Some(data) = market_data(test) else { return };
    assert_eq!(cme(Protocol::NasdaqItch50, &data), [0, 0, 0, 14]);
}

/// What a feed counts that is given the seven captures of CME, as they lie in their stream and from the header of
/// their packet on: short, truncated, bad sequences, another protocol.
fn cme(protocol: Protocol, data: &Path) -> [u64; 4] {
    let framed = payloads(&data.join(CME));
    assert_eq!(framed.len(), 7);
    let packets = framed.iter().map(|payload| payload[4..].to_vec());
    let datagrams: Vec<Vec<u8>> = framed.iter().cloned().chain(packets).collect();
    let counts = given(protocol, &datagrams);
    [counts.short_headers, counts.truncated_packets, counts.bad_sequences, counts.other_protocols]
}

#[test]
fn a_feed_of_iex_refuses_itch_and_cme() {
    let Some(data) = market_data("a_feed_of_iex_refuses_itch_and_cme") else { return };
    let nasdaq = payloads(&data.join(NASDAQ));
    let counts = given(Protocol::IexTops16, &nasdaq);
    assert_eq!((nasdaq.len(), counts.other_protocols), (9, 9));
    // System events are shorter than a header of IEX-TP.
    let psx = payloads(&data.join(PSX));
    let counts = given(Protocol::IexTops16, &psx);
    assert_eq!((psx.len(), counts.other_protocols, counts.short_headers), (51, 50, 1));
    assert_eq!(cme(Protocol::IexTops16, &data), [4, 0, 0, 10]);
}

#[test]
fn deep_and_other_protocols_of_iex_are_refused_by_their_number() {
    let test = "deep_and_other_protocols_of_iex_are_refused_by_their_number";
    let Some(captures) = all_captures(test) else { return };
    for protocol in [0x8004_u16, 0x8005, 0x8002, 0x0380, 0] {
        let renamed = captures.iter().map(|(_, datagram)| {
            let mut datagram = datagram.clone();
            datagram[2..4].copy_from_slice(&protocol.to_le_bytes());
            datagram
        });
        let renamed: Vec<_> = renamed.collect();
        for feed in BOTH {
            assert_eq!(given(feed, &renamed).other_protocols, 9, "{protocol:#x} to {feed:?}");
        }
    }
}

/// Datagrams that a feed of MoldUDP64 takes in have a session of text; one that has never been heard of does not
/// begin otherwise.
#[test]
fn a_session_of_moldudp64_begins_only_with_text() {
    let mut bench = Bench::new(Protocol::NasdaqItch50, Start::Session);
    for name in [*b"\x0000000MON1", [0; 10], *b"00000\x7fMON1", [0xff; 10]] {
        bench.send(&mold_packet(Session(name), 1, &[]));
    }
    let counters = bench.channel.counters();
    assert_eq!((counters.other_protocols, counters.sessions), (4, 0));
    assert_eq!(bench.channel.sequencer().session(), None);
    bench.send(&mold_packet(Session(*b"    00MON1"), 1, &[]));
    assert_eq!(bench.channel.counters().sessions, 1);
}

#[test]
fn nothing_that_comes_makes_a_feed_panic() {
    let scale = std::env::var("NAUTILUS_TEST_SCALE").ok().and_then(|text| text.parse().ok());
    let rounds = 30_000 * scale.unwrap_or(1_u64);
    let mut seeds: Vec<Vec<u8>> = match all_captures("nothing_that_comes_makes_a_feed_panic") {
        Some(captures) => captures.into_iter().map(|(_, datagram)| datagram).collect(),
        None => Vec::new(),
    };
    seeds.extend([segment(1, &[]), segment(1, &[b"Q", b"", b"T what"]), vec![0; 80]]);
    let mut random = Random::new(41);
    let mut benches = BOTH.map(|protocol| Bench::with_lines(protocol, Start::Any, 2));
    for round in 0..rounds {
        let mut datagram = seeds[random.below(seeds.len() as u32) as usize].clone();
        for _ in 0..random.below(6) {
            let place = random.below(datagram.len() as u32) as usize;
            datagram[place] = random.next_u64() as u8;
        }
        // The sequence stays near, so that the messages are looked at.
        if random.below(2) == 0 && datagram.len() >= 40 {
            let near = benches[1].channel.sequencer().expected().saturating_sub(1);
            datagram[24..32].copy_from_slice(&(near + u64::from(random.below(3))).to_le_bytes());
        }
        match random.below(8) {
            0 => datagram.truncate(random.below(datagram.len() as u32 + 1) as usize),
            1 => datagram.extend((0..random.below(100)).map(|byte| byte as u8)),
            2 => datagram.fill_with(|| random.next_u64() as u8),
            _ => {}
        }
        let now_ns = NOW_NS + round * 1_000;
        for Bench { channel, keyspace } in &mut benches {
            channel.handle_from((round % 2) as usize, now_ns, &datagram, keyspace);
            if round % 64 == 0 {
                channel.housekeeping(now_ns, keyspace);
            }
        }
    }
    let [itch, tops] = benches.map(|bench| *bench.channel.counters());
    assert_eq!((itch.packets, tops.packets), (rounds, rounds));
    assert_eq!(itch.messages, 0, "none of it is ITCH");
    assert!(tops.messages > rounds / 4 && tops.sessions > 10, "{tops:?}");
    assert!(tops.invalid_messages > 100 && tops.malformed_messages > 10, "{tops:?}");
    assert!(tops.unknown_messages > 10 && tops.other_protocols > 100, "{tops:?}");
    assert!(tops.truncated_packets > 100 && tops.short_headers > 10, "{tops:?}");
}
