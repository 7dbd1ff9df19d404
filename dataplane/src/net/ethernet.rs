//! Ethernet II and its VLAN tags (IEEE 802.1Q, 802.1ad).

use std::net::IpAddr;

use super::Endpoint;
use super::parse::Discard;

/// Ether type of IPv4.
pub const IPV4: u16 = 0x0800;
/// Ether type of IPv6.
pub const IPV6: u16 = 0x86dd;
/// Customer tag, 802.1Q.
pub const CUSTOMER_TAG: u16 = 0x8100;
/// Service tag, 802.1ad.
pub const SERVICE_TAG: u16 = 0x88a8;

/// Set in a VLAN word of [`crate::port::Link`] whose tag is a service tag.
pub const SERVICE_TAG_BIT: u16 = 0x8000;
/// The VLAN identifier in a VLAN word.
pub const VLAN_IDENTIFIER_MASK: u16 = 0x0fff;

/// A link header.
pub struct LinkHeader {
    /// Its length: 14, 18 or 22.
    pub bytes: usize,
    /// Ether type behind the tags.
    pub ether_type: u16,
    /// As in [`crate::port::Link::vlans`]. A tag of identifier 0 carries a priority only and leaves
    /// no word (802.1Q section 9.6).
    pub vlans: [u16; 2],
}

/// Reads the link header at the front of a frame.
#[inline]
pub fn parse(frame: &[u8]) -> Result<LinkHeader, Discard> {
    let mut header = LinkHeader { bytes: 14, ether_type: word(frame, 12)?, vlans: [0; 2] };
    let mut tags = 0;
    let mut words = 0;
    while matches!(header.ether_type, CUSTOMER_TAG | SERVICE_TAG) {
        if tags == 2 {
            return Err(Discard::Tags);
        }
        let identifier = word(frame, header.bytes)? & VLAN_IDENTIFIER_MASK;
        if identifier != 0 {
            let service = if header.ether_type == SERVICE_TAG { SERVICE_TAG_BIT } else { 0 };
            header.vlans[words] = identifier | service;
            words += 1;
        }
        header.ether_type = word(frame, header.bytes + 2)?;
        header.bytes += 4;
        tags += 1;
    }
    Ok(header)
}

#[inline]
fn word(frame: &[u8], offset: usize) -> Result<u16, Discard> {
    match frame.get(offset..offset + 2) {
        Some(&[high, low]) => Ok(u16::from_be_bytes([high, low])),
        _ => Err(Discard::Truncated),
    }
}

/// The MAC address of a multicast group (RFC 1112, 6.4; RFC 2464, 7); `None` for another address.
pub fn group_address(to: &Endpoint) -> Option<[u8; 6]> {
    match to.ip() {
        IpAddr::V4(group) if group.is_multicast() => {
            let [_, b, c, d] = group.octets();
            Some([0x01, 0x00, 0x5e, b & 0x7f, c, d])
        }
        IpAddr::V6(group) if group.is_multicast() => {
            let [.., a, b, c, d] = group.octets();
            Some([0x33, 0x33, a, b, c, d])
        }
        _ => None,
    }
}

/// Bytes of the link header with these tags.
#[inline]
pub fn header_bytes(vlans: [u16; 2]) -> usize {
    14 + 4 * vlans.iter().filter(|&&vlan| vlan & VLAN_IDENTIFIER_MASK != 0).count()
}

/// Writes a link header; `out` is exactly [`header_bytes`] long.
///
/// # Panics
/// When it is not.
#[inline]
pub fn build(
    out: &mut [u8],
    destination: [u8; 6],
    source: [u8; 6],
    vlans: [u16; 2],
    ether_type: u16,
) {
    assert_eq!(out.len(), header_bytes(vlans));
    out[..6].copy_from_slice(&destination);
    out[6..12].copy_from_slice(&source);
    let mut offset = 12;
    for vlan in vlans {
        if vlan & VLAN_IDENTIFIER_MASK != 0 {
            let tag = if vlan & SERVICE_TAG_BIT != 0 { SERVICE_TAG } else { CUSTOMER_TAG };
            out[offset..offset + 2].copy_from_slice(&tag.to_be_bytes());
            let identifier = vlan & VLAN_IDENTIFIER_MASK;
            out[offset + 2..offset + 4].copy_from_slice(&identifier.to_be_bytes());
            offset += 4;
        }
    }
    out[offset..].copy_from_slice(&ether_type.to_be_bytes());
}
