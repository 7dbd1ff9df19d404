//! From a frame to the datagram in it: Ethernet, at most two VLAN tags, IPv4 or IPv6, UDP.
//!
//! Nothing of the frame is believed: every length is bounded by what is there, and the checksums of
//! the IPv4 header and of UDP are verified before a field behind them is used. The steering program
//! has looked at the same frame before; this parser does not rely on it.

use super::{Endpoint, checksum, ethernet};

/// Whether received checksums are verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RxChecksum {
    /// IPv4 header and UDP checksums are verified; a wrong one drops the packet.
    #[default]
    Verify,
    /// They are not looked at. For links whose hardware has verified them; never the default.
    Trust,
}

/// Why a frame holds no datagram for us. Each is one counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Discard {
    /// Shorter than the headers it announces.
    Truncated,
    /// Neither IPv4 nor IPv6.
    NotIp,
    /// More than two VLAN tags.
    Tags,
    /// IP version, header length or total length that cannot be.
    IpLength,
    /// IPv4 header checksum.
    IpChecksum,
    /// Any fragment, the first included; fragments are the kernel's.
    Fragment,
    /// More IPv6 extension headers than [`crate::limits::IPV6_EXTENSION_HEADERS_MAX`].
    Extensions,
    /// Another protocol than UDP.
    NotUdp,
    /// A UDP length below 8 or beyond the IP payload.
    UdpLength,
    /// UDP checksum, or none over IPv6 (RFC 8200 section 8.1).
    UdpChecksum,
    /// A source nobody can be: multicast, unspecified, loopback, broadcast, or an IPv4-mapped
    /// address in an IPv6 header (it would pass for another host in maps keyed by the mapped form).
    Source,
}

impl Discard {
    /// All, in counter order.
    pub const ALL: [Discard; 11] = [
        Discard::Truncated,
        Discard::NotIp,
        Discard::Tags,
        Discard::IpLength,
        Discard::IpChecksum,
        Discard::Fragment,
        Discard::Extensions,
        Discard::NotUdp,
        Discard::UdpLength,
        Discard::UdpChecksum,
        Discard::Source,
    ];

    /// The value of the `reason` label in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Discard::Truncated => "truncated",
            Discard::NotIp => "not_ip",
            Discard::Tags => "vlan_tags",
            Discard::IpLength => "ip_length",
            Discard::IpChecksum => "ip_checksum",
            Discard::Fragment => "fragment",
            Discard::Extensions => "ipv6_extensions",
            Discard::NotUdp => "not_udp",
            Discard::UdpLength => "udp_length",
            Discard::UdpChecksum => "udp_checksum",
            Discard::Source => "source_address",
        }
    }
}

/// Where in a frame its datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Sender.
    pub source: Endpoint,
    /// Receiver.
    pub destination: Endpoint,
    /// Tags as in [`crate::port::Link::vlans`].
    pub vlans: [u16; 2],
    /// First byte of the payload, from the start of the frame.
    pub payload_offset: u16,
    /// Length of the payload in bytes.
    pub payload_bytes: u16,
}

const UDP: u8 = 17;
const UDP_HEADER_BYTES: usize = 8;

/// Finds the UDP datagram in a frame that starts at its Ethernet header. Frames are at most 65,535
/// bytes; a longer one is `Truncated`.
#[inline]
pub fn parse(frame: &[u8], checksums: RxChecksum) -> Result<Parsed, Discard> {
    if frame.len() > usize::from(u16::MAX) {
        return Err(Discard::Truncated);
    }
    let link = ethernet::parse(frame)?;
    let packet = &frame[link.bytes..];
    let network = match link.ether_type {
        ethernet::IPV4 => ipv4(packet, checksums)?,
        ethernet::IPV6 => ipv6(packet)?,
        _ => return Err(Discard::NotIp),
    };
    let segment = &packet[network.header_bytes..network.end];
    let Some(header) = segment.first_chunk::<UDP_HEADER_BYTES>() else {
        return Err(Discard::UdpLength);
    };
    let &[s0, s1, d0, d1, l0, l1, c0, c1] = header;
    let udp_bytes = u16::from_be_bytes([l0, l1]);
    let Some(datagram) = segment.get(..usize::from(udp_bytes)) else {
        return Err(Discard::UdpLength);
    };
    if datagram.len() < UDP_HEADER_BYTES {
        return Err(Discard::UdpLength);
    }
    let absent = [c0, c1] == [0, 0];
    if absent && !network.is_v4 {
        return Err(Discard::UdpChecksum);
    }
    if checksums == RxChecksum::Verify && !absent {
        let addresses = &packet[network.addresses.0..network.addresses.1];
        let sum = checksum::add(checksum::pseudo(UDP, udp_bytes), addresses);
        if checksum::fold(checksum::add(sum, datagram)) != 0xffff {
            return Err(Discard::UdpChecksum);
        }
    }
    Ok(Parsed {
        source: Endpoint { address: network.source, port: u16::from_be_bytes([s0, s1]) },
        destination: Endpoint { address: network.destination, port: u16::from_be_bytes([d0, d1]) },
        vlans: link.vlans,
        payload_offset: (link.bytes + network.header_bytes + UDP_HEADER_BYTES) as u16,
        payload_bytes: udp_bytes - UDP_HEADER_BYTES as u16,
    })
}

/// What both IP versions give: offsets from the start of the IP header.
struct Network {
    header_bytes: usize,
    /// End of the IP payload; what follows is link padding.
    end: usize,
    /// Both addresses, for the pseudo header.
    addresses: (usize, usize),
    source: [u8; 16],
    destination: [u8; 16],
    is_v4: bool,
}

/// RFC 791.
#[inline]
fn ipv4(packet: &[u8], checksums: RxChecksum) -> Result<Network, Discard> {
    let Some(fixed) = packet.first_chunk::<20>() else { return Err(Discard::Truncated) };
    let header_bytes = usize::from(fixed[0] & 0xf) * 4;
    let end = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if fixed[0] >> 4 != 4 || header_bytes < 20 || end < header_bytes {
        return Err(Discard::IpLength);
    }
    if packet.len() < end {
        return Err(Discard::Truncated);
    }
    if checksums == RxChecksum::Verify
        && checksum::fold(checksum::add(0, &packet[..header_bytes])) != 0xffff
    {
        return Err(Discard::IpChecksum);
    }
    // More fragments, or an offset.
    if u16::from_be_bytes([fixed[6], fixed[7]]) & 0x3fff != 0 {
        return Err(Discard::Fragment);
    }
    if fixed[9] != UDP {
        return Err(Discard::NotUdp);
    }
    let source = [fixed[12], fixed[13], fixed[14], fixed[15]];
    // 0.0.0.0/8, 127.0.0.0/8, and from 224.0.0.0 up: multicast, reserved, broadcast.
    if matches!(source[0], 0 | 127 | 224..) {
        return Err(Discard::Source);
    }
    let destination = [fixed[16], fixed[17], fixed[18], fixed[19]];
    Ok(Network {
        header_bytes,
        end,
        addresses: (12, 20),
        source: Endpoint::v4(source, 0).address,
        destination: Endpoint::v4(destination, 0).address,
        is_v4: true,
    })
}

/// RFC 8200: hop-by-hop, routing and destination options are stepped over.
#[inline]
fn ipv6(packet: &[u8]) -> Result<Network, Discard> {
    let Some(fixed) = packet.first_chunk::<40>() else { return Err(Discard::Truncated) };
    if fixed[0] >> 4 != 6 {
        return Err(Discard::IpLength);
    }
    let end = 40 + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    if packet.len() < end {
        return Err(Discard::Truncated);
    }
    let mut source = [0; 16];
    source.copy_from_slice(&fixed[8..24]);
    let mut destination = [0; 16];
    destination.copy_from_slice(&fixed[24..40]);
    let mapped = |address: &[u8; 16]| Endpoint { address: *address, port: 0 }.is_v4();
    let low = u128::from_be_bytes(source);
    if source[0] == 0xff || low <= 1 || mapped(&source) || mapped(&destination) {
        return Err(Discard::Source);
    }
    let mut next = fixed[6];
    let mut header_bytes = 40;
    let mut extensions = 0;
    loop {
        match next {
            UDP => break,
            44 => return Err(Discard::Fragment),
            0 | 43 | 60 => {}
            _ => return Err(Discard::NotUdp),
        }
        extensions += 1;
        if extensions > crate::limits::IPV6_EXTENSION_HEADERS_MAX {
            return Err(Discard::Extensions);
        }
        let Some(&[following, units]) = packet[header_bytes..end].first_chunk::<2>() else {
            return Err(Discard::Truncated);
        };
        next = following;
        header_bytes += (usize::from(units) + 1) * 8;
        if header_bytes > end {
            return Err(Discard::Truncated);
        }
    }
    Ok(Network { header_bytes, end, addresses: (8, 40), source, destination, is_v4: false })
}

#[cfg(test)]
mod tests;
