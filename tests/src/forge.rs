//! Captured and hand-made frames turned against a node: readdressed, tagged, cut into fragments.
//!
//! Only addresses, ports and checksums are touched; every other oddity of a capture stays. Offsets
//! are those of RFC 791, RFC 8200 and RFC 768.

use std::net::IpAddr;

/// Bytes of an Ethernet header without tags.
const ETHERNET_BYTES: usize = 14;
const PROTOCOL_UDP: u8 = 17;

/// Where the parts of a UDP frame lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpOffsets {
    /// The IP header.
    pub ip: usize,
    /// The UDP header.
    pub udp: usize,
    /// Whether it is IPv4.
    pub v4: bool,
}

/// The target of a readdressed frame, and who it pretends to come from.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The node's MAC address.
    pub mac: [u8; 6],
    /// The node's IPv4 and IPv6 addresses.
    pub addresses: [IpAddr; 2],
    /// Source addresses to pretend, None to keep the captured ones.
    pub sources: Option<[IpAddr; 2]>,
    /// Destination port.
    pub port: u16,
}

fn u16_at(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]))
}

/// Finds the UDP header behind at most two VLAN tags and the usual IPv6 extension headers; None for
/// what is no whole UDP header.
pub fn udp_offsets(frame: &[u8]) -> Option<UdpOffsets> {
    let mut at = ETHERNET_BYTES;
    let mut ethertype = u16_at(frame, 12)?;
    for _ in 0..2 {
        if matches!(ethertype, 0x8100 | 0x88a8) {
            ethertype = u16_at(frame, at + 2)?;
            at += 4;
        }
    }
    let ip = at;
    let udp = match ethertype {
        0x0800 => {
            let header = usize::from(frame.get(ip)? & 0x0f) * 4;
            if header < 20
                || *frame.get(ip + 9)? != PROTOCOL_UDP
                || u16_at(frame, ip + 6)? & 0x1fff != 0
            {
                return None;
            }
            ip + header
        }
        0x86dd => {
            let mut next = *frame.get(ip + 6)?;
            let mut at = ip + 40;
            // Hop-by-hop, routing and destination options.
            while matches!(next, 0 | 43 | 60) {
                next = *frame.get(at)?;
                at += (usize::from(*frame.get(at + 1)?) + 1) * 8;
            }
            if next != PROTOCOL_UDP {
                return None;
            }
            at
        }
        _ => return None,
    };
    (frame.len() >= udp + 8).then_some(UdpOffsets { ip, udp, v4: ethertype == 0x0800 })
}

/// The frame sent to `target` instead, with both checksums made right where their lengths allow; None
/// for a frame that is not UDP.
pub fn readdress(frame: &[u8], target: &Target) -> Option<Vec<u8>> {
    let UdpOffsets { ip, udp, v4 } = udp_offsets(frame)?;
    let mut frame = frame.to_vec();
    frame[..6].copy_from_slice(&target.mac);
    let family = usize::from(!v4);
    write_address(&mut frame, ip, v4, false, target.addresses[family]);
    if let Some(sources) = target.sources {
        write_address(&mut frame, ip, v4, true, sources[family]);
    }
    frame[udp + 2..udp + 4].copy_from_slice(&target.port.to_be_bytes());
    if v4 {
        frame[ip + 10..ip + 12].fill(0);
        let sum = ones_complement(&frame[ip..udp], 0);
        frame[ip + 10..ip + 12].copy_from_slice(&(!sum).to_be_bytes());
    }
    let length = usize::from(u16_at(&frame, udp + 4)?);
    if length >= 8 && udp + length <= frame.len() {
        write_udp_checksum(&mut frame, UdpOffsets { ip, udp, v4 }, length);
    }
    Some(frame)
}

fn write_address(frame: &mut [u8], ip: usize, v4: bool, source: bool, address: IpAddr) {
    match address {
        IpAddr::V4(address) if v4 => {
            let at = ip + if source { 12 } else { 16 };
            frame[at..at + 4].copy_from_slice(&address.octets());
        }
        IpAddr::V6(address) if !v4 => {
            let at = ip + if source { 8 } else { 24 };
            frame[at..at + 16].copy_from_slice(&address.octets());
        }
        other => panic!("{other} in a frame of the other family"),
    }
}

fn write_udp_checksum(frame: &mut [u8], UdpOffsets { ip, udp, v4 }: UdpOffsets, length: usize) {
    frame[udp + 6..udp + 8].fill(0);
    let addresses = if v4 { ip + 12..ip + 20 } else { ip + 8..ip + 40 };
    let pseudo = ones_complement(&frame[addresses], 0);
    let pseudo = u32::from(pseudo) + u32::from(PROTOCOL_UDP) + length as u32;
    let sum = !ones_complement(&frame[udp..udp + length], pseudo);
    // 0 means "not computed" on the wire.
    let sum = if sum == 0 { 0xffff } else { sum };
    frame[udp + 6..udp + 8].copy_from_slice(&sum.to_be_bytes());
}

/// The ones'-complement sum of RFC 1071 over `bytes`, added to `start`.
fn ones_complement(bytes: &[u8], start: u32) -> u16 {
    let mut sum = u64::from(start);
    for pair in bytes.chunks(2) {
        sum += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The frame with an 802.1Q tag of VLAN `id`.
pub fn tagged(frame: &[u8], id: u16) -> Vec<u8> {
    let mut tagged = frame[..12].to_vec();
    tagged.extend_from_slice(&0x8100_u16.to_be_bytes());
    tagged.extend_from_slice(&id.to_be_bytes());
    tagged.extend_from_slice(&frame[12..]);
    tagged
}

/// An untagged IPv4 frame cut into fragments of at most `bytes` (a multiple of 8) of payload.
pub fn fragments_v4(frame: &[u8], bytes: usize) -> Vec<Vec<u8>> {
    assert!(bytes > 0 && bytes.is_multiple_of(8));
    let ip = ETHERNET_BYTES;
    let header = usize::from(frame[ip] & 0x0f) * 4;
    let payload = &frame[ip + header..];
    let count = payload.len().div_ceil(bytes);
    payload
        .chunks(bytes)
        .enumerate()
        .map(|(index, part)| {
            let mut fragment = frame[..ip + header].to_vec();
            let more = if index + 1 < count { 0x2000 } else { 0 };
            let offset = (index * bytes / 8) as u16 | more;
            fragment[ip + 6..ip + 8].copy_from_slice(&offset.to_be_bytes());
            let total = (header + part.len()) as u16;
            fragment[ip + 2..ip + 4].copy_from_slice(&total.to_be_bytes());
            fragment[ip + 10..ip + 12].fill(0);
            let sum = !ones_complement(&fragment[ip..ip + header], 0);
            fragment[ip + 10..ip + 12].copy_from_slice(&sum.to_be_bytes());
            fragment.extend_from_slice(part);
            fragment
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};

    fn target() -> Target {
        Target {
            mac: [2, 0, 0, 0, 0, 9],
            addresses: ["198.18.0.11".parse().unwrap(), "fd00:6e61::b".parse().unwrap()],
            sources: Some(["198.18.0.2".parse().unwrap(), "fd00:6e61::2".parse().unwrap()]),
            port: 7007,
        }
    }

    fn sample(v4: bool, payload: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6]);
        let builder = if v4 {
            builder.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        } else {
            builder.ipv6([1; 16], [2; 16], 64)
        };
        let mut frame = Vec::new();
        builder.udp(5, 6).write(&mut frame, payload).unwrap();
        frame
    }

    #[test]
    fn a_readdressed_frame_is_what_a_stack_would_send() {
        for v4 in [true, false] {
            for payload in [b"odd".as_slice(), b"even", b""] {
                let frame = readdress(&tagged(&sample(v4, payload), 5), &target()).unwrap();
                let packet = SlicedPacket::from_ethernet(&frame).unwrap();
                let Some(TransportSlice::Udp(udp)) = packet.transport else { panic!("no UDP") };
                assert_eq!(udp.destination_port(), 7007);
                let header = udp.to_header();
                let sum = match packet.net.unwrap() {
                    etherparse::NetSlice::Ipv4(ip) => {
                        let ip = ip.header().to_header();
                        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                        assert_eq!(ip.destination, [198, 18, 0, 11]);
                        header.calc_checksum_ipv4(&ip, payload).unwrap()
                    }
                    etherparse::NetSlice::Ipv6(ip) => {
                        header.calc_checksum_ipv6(&ip.header().to_header(), payload).unwrap()
                    }
                    other => panic!("{other:?}"),
                };
                assert_eq!(header.checksum, sum);
            }
        }
    }

    #[test]
    fn fragments_carry_the_whole_payload() {
        let frame = sample(true, &[7; 100]);
        let parts = fragments_v4(&frame, 48);
        let rebuilt: Vec<u8> = parts.iter().flat_map(|part| part[34..].to_vec()).collect();
        assert_eq!(rebuilt, frame[34..]);
        assert_eq!(parts.len(), 3);
        assert_eq!(udp_offsets(&parts[1]), None, "no UDP header in a later fragment");
    }

    #[test]
    fn what_is_cut_short_is_no_udp() {
        let frame = sample(false, b"payload");
        assert!(udp_offsets(&frame).is_some());
        for length in 0..62 {
            assert_eq!(udp_offsets(&frame[..length]), None, "{length}");
        }
    }
}
