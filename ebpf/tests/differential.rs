//! Seeded mutations of sound and captured frames: the program must give the reference's verdict, and
//! whatever it redirects, a second parser nobody here wrote must read as sound UDP for us.
//!
//! `NAUTILUS_MUTATIONS` sets how many frames, `NAUTILUS_SEED` which; a failure prints the frame.

mod support;

use std::collections::BTreeMap;
use std::net::IpAddr;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use nautilus_ebpf::{VERDICTS, Verdict};

use support::frame::{DESTINATION, FRAGMENT, Frame, HOP_BY_HOP, ROUTING, TCP};
use support::hot::{HOT_KEYS, get, read_answer, text};
use support::mutate::{Random, mutate, readdress};
use support::{
    CACHE_PORT, ECHO_PORT, FEED_PORT, GROUP_V4, GROUP_V6, LISTED_V4, LISTED_V6, OUR_V4, OUR_V6,
    Rig, UNLISTED_V4, captures, checksum, data, ip, reference, scale,
};

/// Sound shapes at the front of the corpus.
const SHAPES: usize = 22;

/// Frames to start from: every shape the fixtures have, and the captures readdressed to us.
fn corpus() -> Vec<Vec<u8>> {
    let chain = |kinds: &[u8]| {
        let extensions = kinds.iter().map(|kind| (*kind, vec![0; 8])).collect();
        Frame::v6(CACHE_PORT).with(|f| f.extensions = extensions)
    };
    let mut corpus: Vec<Vec<u8>> = [
        Frame::v4(CACHE_PORT),
        Frame::v4(ECHO_PORT).with(|f| f.tags = vec![0x8100]),
        Frame::v4(CACHE_PORT).with(|f| f.options = vec![1; 12]),
        Frame::v4(CACHE_PORT).with(|f| f.protocol = TCP),
        Frame::v4(CACHE_PORT).with(|f| f.source_port = ECHO_PORT),
        Frame::v4(CACHE_PORT).with(|f| f.payload = vec![0; 1760]),
        Frame::new(UNLISTED_V4, OUR_V4, CACHE_PORT),
        Frame::new("198.18.9.9", OUR_V4, CACHE_PORT),
        Frame::group(FEED_PORT),
        Frame::v6(CACHE_PORT),
        Frame::v6(ECHO_PORT).with(|f| f.tags = vec![0x88a8, 0x8100]),
        Frame::new(LISTED_V6, GROUP_V6, FEED_PORT),
        chain(&[HOP_BY_HOP, DESTINATION]),
        chain(&[DESTINATION; 4]),
        chain(&[ROUTING, FRAGMENT]),
        get(Frame::v4(CACHE_PORT), 1, b"h"),
        get(Frame::v4(CACHE_PORT), 2, HOT_KEYS[3].as_bytes()).with(|f| f.tags = vec![0x8100]),
        get(Frame::v6(CACHE_PORT), 3, b"md:nasdaq:AAPL:bbo"),
        get(Frame::v6(CACHE_PORT), 4, b"hot:key").with(|f| f.tags = vec![0x8100]),
        get(Frame::v4(CACHE_PORT), 5, b"cold:key"),
        get(Frame::v4(CACHE_PORT), 6, b"hot:key").with(|f| f.options = vec![1; 4]),
        get(Frame::v6(CACHE_PORT), 7, b"h").with(|f| f.tags = vec![0x88a8]),
    ]
    .iter()
    .map(Frame::bytes)
    .collect();
    assert_eq!(corpus.len(), SHAPES);
    for folder in ["bad-packets", "marketdata/omi-pcap"] {
        let Some(folder) = data("mutations of captures", folder) else { continue };
        for (index, frame) in captures::frames(&folder).iter().enumerate() {
            let port = [CACHE_PORT, ECHO_PORT, FEED_PORT][index % 3];
            if let Some(frame) = readdress(&frame.bytes, port, (LISTED_V4, LISTED_V6)) {
                corpus.push(frame);
            }
        }
    }
    corpus
}

/// What etherparse must find in a redirected frame. Its strict reading ends at the claimed lengths.
fn assert_sound(frame: &[u8]) {
    let packet = SlicedPacket::from_ethernet(frame).expect("a redirected frame parses");
    let (source, destination, fragmented): (IpAddr, IpAddr, bool) = match packet.net {
        Some(NetSlice::Ipv4(v4)) => {
            let header = v4.header();
            let fragmented = header.is_fragmenting_payload();
            (header.source_addr().into(), header.destination_addr().into(), fragmented)
        }
        Some(NetSlice::Ipv6(v6)) => {
            let header = v6.header();
            let fragmented = v6.extensions().is_fragmenting_payload();
            (header.source_addr().into(), header.destination_addr().into(), fragmented)
        }
        other => panic!("redirected without IP: {other:?}"),
    };
    assert!(!fragmented);
    assert!([OUR_V4, OUR_V6, GROUP_V4, GROUP_V6].map(ip).contains(&destination), "{destination}");
    let front = match source {
        IpAddr::V4(v4) => v4.octets()[..2] == [198, 18],
        IpAddr::V6(v6) => v6.segments()[..2] == [0xfd00, 0x6e61],
    };
    assert!(front, "{source} is on no list");
    let Some(TransportSlice::Udp(udp)) = packet.transport else { panic!("redirected without UDP") };
    assert!([CACHE_PORT, ECHO_PORT, FEED_PORT].contains(&udp.destination_port()));
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn mutated_frames() {
    let Some(rig) = Rig::new("mutated_frames") else { return };
    let long = std::env::var_os("NAUTILUS_LONG").is_some();
    let frames = scale("NAUTILUS_MUTATIONS", if long { 5_000_000 } else { 200_000 });
    let seed = scale("NAUTILUS_SEED", 1);
    let (mut random, corpus) = (Random::new(seed), corpus());
    let mut verdicts: BTreeMap<Verdict, u64> = BTreeMap::new();
    for number in 0..frames {
        // Every other frame from the sound shapes, which are few, so that they are not drowned.
        let reach = if number % 2 == 0 { SHAPES } else { corpus.len() };
        let mut frame = mutate(&corpus[random.below(reach)], &mut random);
        // Half of them with the checksums put right again, or no mutation would pass those.
        if random.below(2) == 0 {
            checksum::repair(&mut frame);
        }
        let name = format!("seed {seed}, frame {number}");
        let (verdict, outcome) = rig.run(&name, &frame);
        assert_eq!(verdict, reference::verdict(&frame), "{name}: {frame:02x?}");
        if [Verdict::Redirected, Verdict::HotHit].contains(&verdict) {
            assert_sound(&frame);
        }
        if verdict == Verdict::HotHit {
            let answer = read_answer(&name, &frame, &outcome.packet);
            assert!(HOT_KEYS.iter().any(|key| text(key.as_bytes()) == answer), "{name}");
        }
        *verdicts.entry(verdict).or_default() += 1;
    }
    println!("{frames} mutated frames of seed {seed}: {verdicts:?}");

    // The mutations must reach every verdict that depends on the packet alone.
    let other = [
        Verdict::UnknownInterface,
        Verdict::NoSocket,
        Verdict::NoMetadata,
        Verdict::PacketLimit,
        Verdict::ByteLimit,
    ];
    let missed: Vec<_> = VERDICTS
        .iter()
        .filter(|row| !other.contains(&row.verdict) && !verdicts.contains_key(&row.verdict))
        .map(|row| row.name)
        .collect();
    assert!(missed.is_empty() || frames < 200_000, "never seen: {missed:?}");
}
