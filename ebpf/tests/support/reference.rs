//! The rules again, in plain Rust on byte slices, to compare the program with. Written from the
//! README's rules and the RFCs, sharing nothing with the C source but the names of the verdicts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nautilus_ebpf::Verdict::{self, *};
use nautilus_ebpf::intf::HOT_PATH;

use super::feed::{FROM, NEXT, SESSION};
use super::hot::HOT_KEYS;
use super::{
    CACHE_PORT, ECHO_PORT, FEED_PORT, FRAME_BYTES_MAX, GROUP_V4, GROUP_V6, OUR_MAC, OUR_V4, OUR_V6,
    SOURCES, checksum, frame, ip,
};

/// The verdict the rules give, for the maps of a `Rig` with a socket.
pub fn verdict(frame: &[u8]) -> Verdict {
    decide(frame).unwrap_or_else(|verdict| verdict)
}

/// What an IP header says.
struct Ip {
    source: IpAddr,
    destination: IpAddr,
    fragment: bool,
    /// Of the transport, or of the first extension header.
    protocol: u8,
    /// After the fixed header and IPv4 options, to the end of the frame.
    rest: usize,
    /// Of the fixed header and IPv4 options.
    header_bytes: usize,
    /// Where the IP packet claims to end in the frame.
    end: usize,
}

fn u16_at(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]))
}

fn decide(frame: &[u8]) -> Result<Verdict, Verdict> {
    let (protocol, at) = link(frame)?;
    let packet = match protocol {
        0x0800 => ipv4(frame, at),
        0x86dd => ipv6(frame, at),
        _ => return Err(NotIp),
    }
    .ok_or(IpMalformed)?;

    let group_frame =
        packet.destination.is_multicast() && frame[..6] == frame::group_mac(packet.destination);
    if frame[..6] != OUR_MAC && !group_frame {
        return Err(OtherMac);
    }
    if ![OUR_V4, OUR_V6, GROUP_V4, GROUP_V6].map(ip).contains(&packet.destination) {
        return Err(OtherAddress);
    }
    if packet.fragment {
        return Err(Fragment);
    }
    let (protocol, transport) = match packet.destination {
        IpAddr::V4(_) => (packet.protocol, packet.rest),
        IpAddr::V6(_) => extensions(frame, packet.protocol, packet.rest)?,
    };
    if ![6, 17].contains(&protocol) {
        return Err(OtherProtocol);
    }
    let source_port = u16_at(frame, transport).ok_or(TransportTruncated)?;
    let port = u16_at(frame, transport + 2).ok_or(TransportTruncated)?;
    let replying = [ECHO_PORT, CACHE_PORT].contains(&port);
    if !(port == FEED_PORT || replying && !packet.destination.is_multicast()) {
        return Err(OtherPort);
    }

    if invalid(packet.source) || packet.source == packet.destination {
        return Err(SourceInvalid);
    }
    match (protocol, listed(packet.source)) {
        (6, true) => return Ok(TcpListed),
        (6, false) => return Err(TcpSourceUnlisted),
        (_, false) => return Err(SourceUnlisted),
        (_, true) => {}
    }
    if packet.end > frame.len() || packet.end < transport + 8 {
        return Err(IpLength);
    }
    let udp_bytes = usize::from(u16_at(frame, transport + 4).ok_or(IpLength)?);
    if udp_bytes < 8 || udp_bytes > packet.end - transport {
        return Err(UdpLength);
    }
    if replying && [0, ECHO_PORT, CACHE_PORT].contains(&source_port) {
        return Err(SourcePort);
    }
    if frame.len() > FRAME_BYTES_MAX as usize {
        return Err(TooLong);
    }
    let datagram = &frame[transport..transport + udp_bytes];
    if HOT_PATH && port == CACHE_PORT && plain(frame, &packet) && hot(&packet, datagram) {
        return Ok(HotHit);
    }
    if HOT_PATH && port == FEED_PORT && whole(frame, &packet) && applied(&packet, datagram) {
        return Ok(FeedApplied);
    }
    Ok(Redirected)
}

/// An IP header without options, with a right checksum.
fn whole(frame: &[u8], packet: &Ip) -> bool {
    let header_at = packet.rest - packet.header_bytes;
    match packet.source {
        IpAddr::V4(_) => {
            packet.header_bytes == 20 && checksum::sum(&[&frame[header_at..packet.rest]]) == 0xffff
        }
        IpAddr::V6(_) => packet.protocol == 17,
    }
}

/// A right checksum on one of the feed's lines, and messages all of which the rig's owner has applied.
fn applied(packet: &Ip, datagram: &[u8]) -> bool {
    let number = |from: usize, to: usize| {
        datagram[from..to].iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
    };
    if ![GROUP_V4, GROUP_V6].map(ip).contains(&packet.destination) || datagram.len() < 28 {
        return false;
    }
    let (first, count) = (number(18, 26), number(26, 28));
    datagram.len() <= 2_048
        && datagram[8..18] == SESSION
        && (1..0xffff).contains(&count)
        && (datagram.len() - 28) as u128 >= 2 * count
        && u128::from(FROM) <= first
        && first + count <= u128::from(NEXT)
        && right(packet, datagram)
}

/// A link and an IP header that the hot set answers: at most one 802.1Q tag, a unicast sender, no
/// options or extension headers, a right header checksum.
fn plain(frame: &[u8], packet: &Ip) -> bool {
    let header_at = packet.rest - packet.header_bytes;
    let link = header_at == 14 || header_at == 18 && frame[12..14] == [0x81, 0x00];
    link && whole(frame, packet) && frame[6] & 1 == 0
}

/// A right checksum, one datagram, and a `get` of one key that the rig published.
fn hot(packet: &Ip, datagram: &[u8]) -> bool {
    let key = datagram
        .get(16..)
        .and_then(|text| text.strip_prefix(b"get "))
        .and_then(|text| text.strip_suffix(b"\r\n"));
    let published = key.is_some_and(|key| HOT_KEYS.iter().any(|hot| hot.as_bytes() == key));
    right(packet, datagram) && published && datagram[12..14] == [0, 1]
}

/// A right UDP checksum, or none where there need not be one.
fn right(packet: &Ip, datagram: &[u8]) -> bool {
    match (packet.source, packet.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let addresses = [source.octets(), destination.octets()].concat();
            datagram[6..8] == [0, 0] || checksum::udp_sum(&addresses, datagram) == 0xffff
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let addresses = [source.octets(), destination.octets()].concat();
            datagram[6..8] != [0, 0] && checksum::udp_sum(&addresses, datagram) == 0xffff
        }
        _ => unreachable!("one family"),
    }
}

/// The EtherType behind at most two tags, and what follows it.
fn link(frame: &[u8]) -> Result<(u16, usize), Verdict> {
    let mut at = 12;
    for tags in 0.. {
        let protocol = u16_at(frame, at).ok_or(LinkTruncated)?;
        at += 2;
        if ![0x8100, 0x88a8].contains(&protocol) {
            return Ok((protocol, at));
        }
        if tags == 2 {
            return Err(VlanDepth);
        }
        at += 2;
    }
    unreachable!("the frame ends")
}

fn ipv4(frame: &[u8], at: usize) -> Option<Ip> {
    let header = frame.get(at..at + 20)?;
    let header_bytes = usize::from(header[0] & 15) * 4;
    if header[0] >> 4 != 4 || header_bytes < 20 || frame.len() < at + header_bytes {
        return None;
    }
    let address = |from: usize| {
        Ipv4Addr::new(header[from], header[from + 1], header[from + 2], header[from + 3]).into()
    };
    Some(Ip {
        source: address(12),
        destination: address(16),
        fragment: u16_at(header, 6)? & !0xc000 != 0,
        protocol: header[9],
        rest: at + header_bytes,
        header_bytes,
        end: at + usize::from(u16_at(header, 2)?),
    })
}

fn ipv6(frame: &[u8], at: usize) -> Option<Ip> {
    let header = frame.get(at..at + 40)?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let address = |from: usize| -> Option<IpAddr> {
        Some(Ipv6Addr::from(<[u8; 16]>::try_from(&header[from..from + 16]).ok()?).into())
    };
    Some(Ip {
        source: address(8)?,
        destination: address(24)?,
        fragment: false,
        protocol: header[6],
        rest: at + 40,
        header_bytes: 40,
        end: at + 40 + usize::from(u16_at(header, 4)?),
    })
}

/// The transport's protocol and place.
fn extensions(frame: &[u8], first: u8, from: usize) -> Result<(u8, usize), Verdict> {
    let (mut protocol, mut at, mut followed) = (first, from, 0);
    while [0, 43, 60].contains(&protocol) {
        let header = frame.get(at..at + 4).filter(|_| followed < 4).ok_or(ExtensionHeaders)?;
        if protocol == 0 && followed > 0 || protocol == 43 && header[3] > 0 {
            return Err(ExtensionHeaders);
        }
        protocol = header[0];
        at += 8 * (usize::from(header[1]) + 1);
        followed += 1;
    }
    if protocol == 44 { Err(Fragment) } else { Ok((protocol, at)) }
}

fn invalid(source: IpAddr) -> bool {
    match source {
        IpAddr::V4(v4) => [0, 127].contains(&v4.octets()[0]) || v4.octets()[0] >= 224,
        IpAddr::V6(v6) => {
            v6.is_unspecified()
                || v6.is_loopback()
                || v6.is_multicast()
                || v6.to_ipv4_mapped().is_some()
        }
    }
}

/// The longest prefix of the source's own family decides.
fn listed(source: IpAddr) -> bool {
    let number = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
        IpAddr::V6(v6) => u128::from(v6),
    };
    SOURCES
        .iter()
        .filter_map(|(text, allowed)| {
            let (address, bits) = text.split_once('/').unwrap_or((text, "128"));
            let address = ip(address);
            let bits_max = if address.is_ipv4() { 32 } else { 128 };
            let bits: u32 = bits.parse::<u32>().unwrap().min(bits_max);
            let covers = address.is_ipv4() == source.is_ipv4()
                && (number(address) ^ number(source)).leading_zeros() >= bits;
            covers.then_some((bits, *allowed))
        })
        .max()
        .is_some_and(|(_, allowed)| allowed)
}
