use std::path::Path;

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice, VlanId};
use proptest::prelude::*;

use super::*;
use crate::net::{LinkAddress, build};

const MAC: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

/// What an independent parser says about a frame, in our terms; `None` where it sees no UDP
/// datagram that both of us would accept.
fn theirs(frame: &[u8]) -> Option<Parsed> {
    let sliced = SlicedPacket::from_ethernet(frame).ok()?;
    let TransportSlice::Udp(udp) = sliced.transport? else { return None };
    let (source, destination, valid) = match sliced.net? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            let source = header.source;
            // Its parsed form loses the reserved flag, and its checksum with it.
            let valid = header.header_checksum == header.calc_header_checksum()
                && ip.header().slice()[6] & 0x80 == 0
                && !header.is_fragmenting_payload()
                && !matches!(source[0], 0 | 127 | 224..)
                && (udp.checksum() == 0
                    || udp.to_header().calc_checksum_ipv4(&header, udp.payload()).ok()?
                        == udp.checksum());
            (Endpoint::v4(source, 0), Endpoint::v4(header.destination, 0), valid)
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            let sum = udp.to_header().calc_checksum_ipv6(&header, udp.payload()).ok()?;
            let source = Endpoint { address: header.source, port: 0 };
            let destination = Endpoint { address: header.destination, port: 0 };
            let valid = udp.checksum() == sum
                && !source.is_v4()
                && !destination.is_v4()
                && header.source[0] != 0xff
                && u128::from_be_bytes(header.source) > 1;
            (source, destination, valid)
        }
        NetSlice::Arp(_) => return None,
    };
    let mut vlans = [0; 2];
    let mut words = 0;
    for tag in &sliced.link_exts {
        let etherparse::LinkExtSlice::Vlan(tag) = tag else { return None };
        let identifier = tag.vlan_identifier().value();
        if identifier != 0 {
            *vlans.get_mut(words)? = identifier;
            words += 1;
        }
    }
    valid.then(|| Parsed {
        source: Endpoint { port: udp.source_port(), ..source },
        destination: Endpoint { port: udp.destination_port(), ..destination },
        vlans,
        payload_offset: (udp.payload().as_ptr() as usize - frame.as_ptr() as usize) as u16,
        payload_bytes: udp.payload().len() as u16,
    })
}

/// Ours, without the kind of tag, which the other parser gives by position.
fn ours(frame: &[u8]) -> Result<Parsed, Discard> {
    parse(frame, RxChecksum::Verify).map(|mut parsed| {
        parsed.vlans = parsed.vlans.map(|vlan| vlan & ethernet::VLAN_IDENTIFIER_MASK);
        parsed
    })
}

/// Frames of a classic pcap file.
fn frames_of(path: &Path) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(path).unwrap();
    let little = bytes[..4] == [0xd4, 0xc3, 0xb2, 0xa1] || bytes[..4] == [0x4d, 0x3c, 0xb2, 0xa1];
    let mut at = 24;
    let mut frames = Vec::new();
    while at + 16 <= bytes.len() {
        let word: [u8; 4] = bytes[at + 8..at + 12].try_into().unwrap();
        let kept = if little { u32::from_le_bytes(word) } else { u32::from_be_bytes(word) };
        let end = (at + 16 + kept as usize).min(bytes.len());
        frames.push(bytes[at + 16..end].to_vec());
        at = end;
    }
    frames
}

#[test]
fn every_bad_capture_is_answered_and_udp_agrees_with_an_independent_parser() {
    let folder = std::env::var_os("NAUTILUS_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        Into::into,
    );
    if !folder.is_dir() {
        println!("SKIPPED every bad capture: no captures in {}", folder.display());
        return;
    }
    let mut seen = 0;
    let mut datagrams = 0;
    for entry in std::fs::read_dir(folder.join("bad-packets")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "pcap") {
            continue;
        }
        for frame in frames_of(&path) {
            seen += 1;
            let ours = ours(&frame);
            if let Some(theirs) = theirs(&frame) {
                assert_eq!(ours, Ok(theirs), "{}", path.display());
                datagrams += 1;
            } else if let Ok(ours) = ours {
                panic!("{} holds no UDP, yet we found {ours:?}", path.display());
            }
            // Every prefix and every trusting parse ends as well.
            for end in 0..frame.len() {
                let _ = parse(&frame[..end], RxChecksum::Verify);
            }
            let _ = parse(&frame, RxChecksum::Trust);
        }
    }
    assert_eq!(seen, 1955);
    assert!(datagrams > 200, "{datagrams} datagrams");
}

/// A frame of any supported shape, built by the other side.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    (
        prop::collection::vec(any::<u8>(), 0..1400),
        any::<[u16; 2]>(),
        any::<[u8; 4]>(),
        any::<[u8; 16]>(),
        prop::option::of((1..4095u16, prop::option::of(1..4095u16))),
        prop::collection::vec(any::<u8>(), 0..10),
        0..3usize,
        any::<bool>(),
    )
        .prop_map(|(payload, ports, v4, v6, tags, options, extensions, is_v4)| {
            let link = PacketBuilder::ethernet2(MAC[0], MAC[1]);
            let vlan = |vlan| VlanId::try_new(vlan).unwrap();
            let mut v6_source = v6;
            v6_source[0] = 0xfd;
            let network = if is_v4 {
                let mut options = options;
                options.resize(options.len().next_multiple_of(4), 1);
                let mut header = etherparse::Ipv4Header::new(
                    0,
                    64,
                    etherparse::IpNumber::UDP,
                    [198, 18, v4[0], v4[1]],
                    [198, 18, v4[2], v4[3]],
                )
                .unwrap();
                header.options = options.as_slice().try_into().unwrap();
                etherparse::IpHeaders::Ipv4(header, Default::default())
            } else {
                let mut header = etherparse::Ipv6Header {
                    source: v6_source,
                    destination: v6_source,
                    hop_limit: 3,
                    ..Default::default()
                };
                header.traffic_class = v4[0];
                let raw = |size: usize| {
                    etherparse::Ipv6RawExtHeader::new_raw(
                        etherparse::IpNumber::UDP,
                        &vec![0; 6 + size * 8],
                    )
                    .unwrap()
                };
                let extensions = etherparse::Ipv6Extensions {
                    hop_by_hop_options: (extensions > 0).then(|| raw(0)),
                    destination_options: (extensions > 1).then(|| raw(2)),
                    ..Default::default()
                };
                etherparse::IpHeaders::Ipv6(header, extensions)
            };
            let mut bytes = Vec::new();
            match tags {
                None => link.ip(network).udp(ports[0], ports[1]).write(&mut bytes, &payload),
                Some((outer, None)) => link
                    .single_vlan(vlan(outer))
                    .ip(network)
                    .udp(ports[0], ports[1])
                    .write(&mut bytes, &payload),
                Some((outer, Some(inner))) => link
                    .double_vlan(vlan(outer), vlan(inner))
                    .ip(network)
                    .udp(ports[0], ports[1])
                    .write(&mut bytes, &payload),
            }
            .unwrap();
            bytes
        })
}

fn endpoints() -> impl Strategy<Value = (Endpoint, Endpoint)> {
    prop_oneof![
        (any::<[u8; 2]>(), any::<[u16; 2]>()).prop_map(|(low, ports)| (
            Endpoint::v4([198, 18, 0, low[0]], ports[0]),
            Endpoint::v4([198, 19, 0, low[1]], ports[1])
        )),
        (any::<[u8; 2]>(), any::<[u16; 2]>()).prop_map(|(low, ports)| {
            let endpoint = |low, port| {
                let mut address = [0; 16];
                address[..4].copy_from_slice(&[0xfd, 0, 0x6e, 0x61]);
                address[15] = low;
                Endpoint { address, port }
            };
            (endpoint(low[0], ports[0]), endpoint(low[1], ports[1]))
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn agrees_on_well_formed_frames(frame in frame(), padding in 0..20usize) {
        let mut frame = frame;
        let theirs = theirs(&frame).expect("built well formed");
        prop_assert_eq!(ours(&frame), Ok(theirs));
        // Link padding is not payload.
        frame.resize(frame.len() + padding, 0xaa);
        prop_assert_eq!(ours(&frame), Ok(theirs));
    }

    #[test]
    fn agrees_on_damaged_frames(
        frame in frame(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut frame = frame;
        for (at, value) in damage {
            let at = at.index(frame.len().min(64));
            frame[at] = value;
        }
        if let Some(cut) = cut {
            frame.truncate(cut.index(frame.len() + 1));
        }
        // Where the other one finds a valid datagram so do we, apart from what only we refuse
        // or skip (it bounds extension headers and tags elsewhere).
        match (ours(&frame), theirs(&frame)) {
            (Ok(ours), Some(theirs)) => prop_assert_eq!(ours, theirs),
            (Err(Discard::Tags | Discard::Extensions), _) | (Err(_), None) => {}
            // The other one takes an IPv6 fragment header that fragments nothing,
            (Err(Discard::Fragment), Some(theirs)) => prop_assert!(!theirs.source.is_v4()),
            // and the tag type 0x9100, which no standard names.
            (Err(Discard::NotIp), Some(theirs)) => prop_assert_ne!(theirs.vlans, [0; 2]),
            // A UDP length of 0, a jumbogram's (RFC 2675), it takes for the rest of the packet.
            (Err(Discard::UdpLength), Some(theirs)) => {
                let payload = usize::from(theirs.payload_offset);
                prop_assert_eq!(&frame[payload - 4..payload - 2], &[0, 0]);
            }
            (Ok(ours), None) => {
                // Accepted by us alone: must at least lie inside the frame.
                let end = usize::from(ours.payload_offset) + usize::from(ours.payload_bytes);
                prop_assert!(end <= frame.len());
            }
            (Err(reason), Some(theirs)) => {
                return Err(TestCaseError::fail(format!("{reason:?} against {theirs:?}")));
            }
        }
    }

    #[test]
    fn any_bytes_end_in_an_answer(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        kind in 0..4u8,
    ) {
        if bytes.len() > 15 && kind > 0 {
            let kinds = [[8, 0], [0x86, 0xdd], [0x81, 0]];
            bytes[12..14].copy_from_slice(&kinds[usize::from(kind) - 1]);
            bytes[14] = if kind == 1 { 0x45 } else { 0x60 };
        }
        for checksums in [RxChecksum::Verify, RxChecksum::Trust] {
            if let Ok(parsed) = parse(&bytes, checksums) {
                let end = usize::from(parsed.payload_offset) + usize::from(parsed.payload_bytes);
                prop_assert!(end <= bytes.len());
            }
        }
    }

    #[test]
    fn what_we_build_both_of_us_can_read(
        (from, to) in endpoints(),
        payload in prop::collection::vec(any::<u8>(), 0..1400),
        outer in 0..4095u16,
        inner in 0..4095u16,
        service in any::<bool>(),
    ) {
        let inner = if outer == 0 { 0 } else { inner };
        let flag = if service && outer != 0 { ethernet::SERVICE_TAG_BIT } else { 0 };
        let vlans = [outer | flag, inner];
        let link = LinkAddress { destination: MAC[0], source: MAC[1], vlans };
        let headers = build::header_bytes(vlans, to.is_v4());
        let mut frame = vec![0xff; headers];
        frame.extend_from_slice(&payload);
        build::headers(&mut frame, &link, &from, &to);
        prop_assert_eq!(&frame[..12], [MAC[0], MAC[1]].concat());
        let parsed = parse(&frame, RxChecksum::Verify).unwrap();
        prop_assert_eq!((parsed.source, parsed.destination, parsed.vlans), (from, to, vlans));
        prop_assert_eq!(usize::from(parsed.payload_offset), headers);
        prop_assert_eq!(usize::from(parsed.payload_bytes), payload.len());
        prop_assert_eq!(Some(ours(&frame).unwrap()), theirs(&frame));
    }

    #[test]
    fn one_flipped_bit_never_passes_the_checksums(
        (from, to) in endpoints(),
        payload in prop::collection::vec(any::<u8>(), 1..100),
        bit in any::<prop::sample::Index>(),
    ) {
        let link = LinkAddress { destination: MAC[0], source: MAC[1], vlans: [0; 2] };
        let headers = build::header_bytes([0; 2], to.is_v4());
        let mut frame = vec![0; headers];
        frame.extend_from_slice(&payload);
        build::headers(&mut frame, &link, &from, &to);
        // From the first byte either checksum covers: addresses, UDP header, payload.
        let first = if to.is_v4() { 14 } else { 14 + 8 };
        let bit = bit.index((frame.len() - first) * 8);
        frame[first + bit / 8] ^= 1 << (bit % 8);
        prop_assert!(parse(&frame, RxChecksum::Verify).is_err());
    }
}

#[test]
fn each_reason_has_a_frame() {
    let link = LinkAddress { destination: MAC[0], source: MAC[1], vlans: [0; 2] };
    let (from, to) = (Endpoint::v4([198, 18, 0, 1], 7), Endpoint::v4([198, 18, 0, 2], 9));
    let mut good = vec![0; 42 + 10];
    build::headers(&mut good, &link, &from, &to);
    assert!(parse(&good, RxChecksum::Verify).is_ok());
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = good.clone();
        change(&mut frame);
        // The header checksum is put right, so that the later check is the one that answers.
        frame[24..26].fill(0);
        let sum = !checksum::fold(checksum::add(0, &frame[14..34]));
        frame[24..26].copy_from_slice(&sum.to_ne_bytes());
        parse(&frame, RxChecksum::Verify)
    };
    assert_eq!(parse(&good[..13], RxChecksum::Verify), Err(Discard::Truncated));
    assert_eq!(parse(&good[..50], RxChecksum::Verify), Err(Discard::Truncated));
    assert_eq!(with(&|frame| frame[12] = 9), Err(Discard::NotIp));
    assert_eq!(with(&|frame| frame[14] = 0x65), Err(Discard::IpLength));
    assert_eq!(with(&|frame| frame[14] = 0x44), Err(Discard::IpLength));
    assert_eq!(with(&|frame| frame[20] = 0x20), Err(Discard::Fragment));
    assert_eq!(with(&|frame| frame[21] = 1), Err(Discard::Fragment));
    assert_eq!(with(&|frame| frame[23] = 6), Err(Discard::NotUdp));
    assert_eq!(with(&|frame| frame[39] = 7), Err(Discard::UdpLength));
    assert_eq!(with(&|frame| frame[39] = 19), Err(Discard::UdpLength));
    assert_eq!(with(&|frame| frame[50] = 1), Err(Discard::UdpChecksum));
    assert_eq!(with(&|frame| frame[26] = 224), Err(Discard::Source));
    let mut frame = good.clone();
    frame[22] = 63;
    assert_eq!(parse(&frame, RxChecksum::Verify), Err(Discard::IpChecksum));
    assert!(parse(&frame, RxChecksum::Trust).is_ok());
    let mut frame = good.clone();
    frame.splice(12..12, [0x81, 0, 0, 1].repeat(3));
    assert_eq!(parse(&frame, RxChecksum::Verify), Err(Discard::Tags));
}

#[test]
fn an_ipv6_header_that_names_a_mapped_address_is_not_an_ipv4_host() {
    let link = LinkAddress { destination: MAC[0], source: MAC[1], vlans: [0; 2] };
    let local = Endpoint::from("[fd00:6e61::1]:7".parse::<std::net::SocketAddr>().unwrap());
    let mut frame = vec![0; 62 + 4];
    build::headers(&mut frame, &link, &local, &local);
    assert!(parse(&frame, RxChecksum::Verify).is_ok());
    frame[22..38].copy_from_slice(&Endpoint::v4([198, 18, 0, 1], 0).address);
    assert_eq!(parse(&frame, RxChecksum::Trust), Err(Discard::Source));
    // Nor is a datagram without checksum accepted, trust or not.
    build::headers(&mut frame, &link, &local, &local);
    frame[60..62].fill(0);
    assert_eq!(parse(&frame, RxChecksum::Trust), Err(Discard::UdpChecksum));
    // Extension headers end at the bound, and never leave the packet.
    build::headers(&mut frame, &link, &local, &local);
    frame[20] = 0;
    assert_eq!(parse(&frame, RxChecksum::Trust), Err(Discard::Truncated));
    frame.splice(54..54, [60, 0, 0, 0, 0, 0, 0, 0].repeat(9));
    frame[18..20].copy_from_slice(&(12u16 + 72).to_be_bytes());
    assert_eq!(parse(&frame, RxChecksum::Trust), Err(Discard::Extensions));
}
