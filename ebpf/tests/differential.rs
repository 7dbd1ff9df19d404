//! Seeded mutations of sound and captured frames: the program must give the reference's verdict, and
//! whatever it redirects, a second parser nobody here wrote must read as sound UDP for us.
//!
//! `NAUTILUS_MUTATIONS` sets how many frames, `NAUTILUS_SEED` which; a failure prints the frame.

mod support;

use std::collections::BTreeMap;
use std::net::IpAddr;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use nautilus_ebpf::{VERDICTS, Verdict};

use support::corpus::{SHAPES, corpus};
use support::hot::{HOT_KEYS, read_answer, text};
use support::mutate::{Random, mutate};
use support::{
    CACHE_PORT, ECHO_PORT, FEED_PORT, GROUP_V4, GROUP_V6, OUR_V4, OUR_V6, Rig, checksum, ip,
    reference, scale,
};

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
