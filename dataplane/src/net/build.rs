//! From a datagram to the frame around it: the mirror of [`super::parse`].

use super::{Endpoint, checksum, ethernet};

/// Time to live, and hop limit, of what we send (RFC 1700's recommended default).
const TTL: u8 = 64;
const UDP: u8 = 17;

/// The link layer of one outgoing datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkAddress {
    /// MAC address of the next hop.
    pub destination: [u8; 6],
    /// Our MAC address on that link.
    pub source: [u8; 6],
    /// Tags as in [`crate::port::Link::vlans`].
    pub vlans: [u16; 2],
}

/// Bytes of all headers in front of the payload: 42 to 70.
#[inline]
pub fn header_bytes(vlans: [u16; 2], is_v4: bool) -> usize {
    ethernet::header_bytes(vlans) + if is_v4 { 20 } else { 40 } + 8
}

/// Largest UDP payload a link of this MTU carries.
#[inline]
pub fn payload_bytes_max(mtu_bytes: usize, is_v4: bool) -> usize {
    mtu_bytes.saturating_sub(if is_v4 { 28 } else { 48 })
}

/// Writes the headers of a datagram whose payload is already in place: `frame` begins at the
/// Ethernet header and ends with the payload. Both checksums are generated. IPv4 leaves with "don't
/// fragment" and identification 0 (RFC 6864).
///
/// # Panics
/// When the families of the two endpoints differ, when `frame` is shorter than
/// [`header_bytes`], or when the payload exceeds 65,487 bytes.
#[inline]
pub fn headers(frame: &mut [u8], link: &LinkAddress, from: &Endpoint, to: &Endpoint) {
    let payload = &frame[header_bytes(link.vlans, to.is_v4())..];
    let payload_sum = checksum::fold(checksum::add(0, payload));
    headers_summed(frame, link, from, to, payload_sum);
}

/// [`headers`] around a payload whose sum is known, folded as by [`checksum::fold`]. Nothing that was
/// just written is read back: such a read waits until the smaller stores before it have left the core.
#[inline]
pub fn headers_summed(
    frame: &mut [u8],
    link: &LinkAddress,
    from: &Endpoint,
    to: &Endpoint,
    payload_sum: u16,
) {
    let is_v4 = to.is_v4();
    assert_eq!(from.is_v4(), is_v4, "one family on both ends");
    let link_bytes = ethernet::header_bytes(link.vlans);
    let (ether, packet) = frame.split_at_mut(link_bytes);
    let ether_type = if is_v4 { ethernet::IPV4 } else { ethernet::IPV6 };
    ethernet::build(ether, link.destination, link.source, link.vlans, ether_type);
    let network_bytes = if is_v4 { 20 } else { 40 };
    let (network, datagram) = packet.split_at_mut(network_bytes);
    let udp_bytes = u16::try_from(datagram.len()).expect("a UDP datagram is below 64 KiB");

    let addresses = if is_v4 {
        let total_bytes = udp_bytes.checked_add(20).expect("an IPv4 packet is below 64 KiB");
        let header: &mut [u8; 20] = network.try_into().expect("split at 20");
        let (source, destination) = (from.v4_octets(), to.v4_octets());
        let addresses =
            u64::from(u32::from_ne_bytes(source)) + u64::from(u32::from_ne_bytes(destination));
        // Version 4 and five words; "don't fragment"; time to live and protocol.
        let fixed = [[0x45, 0], total_bytes.to_be_bytes(), [0x40, 0], [TTL, UDP]];
        let words: u64 = fixed.iter().map(|word| u64::from(u16::from_ne_bytes(*word))).sum();
        let sum = !checksum::fold(words + addresses);
        let [total0, total1] = total_bytes.to_be_bytes();
        let [sum0, sum1] = sum.to_ne_bytes();
        header[0..4].copy_from_slice(&[0x45, 0, total0, total1]);
        header[4..8].copy_from_slice(&[0, 0, 0x40, 0]);
        header[8..12].copy_from_slice(&[TTL, UDP, sum0, sum1]);
        header[12..16].copy_from_slice(&source);
        header[16..20].copy_from_slice(&destination);
        addresses
    } else {
        let header: &mut [u8; 40] = network.try_into().expect("split at 40");
        let [udp0, udp1] = udp_bytes.to_be_bytes();
        header[0..8].copy_from_slice(&[0x60, 0, 0, 0, udp0, udp1, UDP, TTL]);
        header[8..24].copy_from_slice(&from.address);
        header[24..40].copy_from_slice(&to.address);
        checksum::add(checksum::add(0, &from.address), &to.address)
    };
    let [from0, from1] = from.port.to_be_bytes();
    let [to0, to1] = to.port.to_be_bytes();
    let [udp0, udp1] = udp_bytes.to_be_bytes();
    let ports = u32::from_ne_bytes([from0, from1, to0, to1]);
    let sum = checksum::join(addresses, checksum::pseudo(UDP, udp_bytes));
    let sum = checksum::join(sum, u64::from(ports));
    let length = u64::from(u16::from_ne_bytes([udp0, udp1]));
    let sum = checksum::join(sum, length + u64::from(payload_sum));
    // A sum of zero is sent as its other form, zero means "none" (RFC 768).
    let sum = match !checksum::fold(sum) {
        0 => 0xffff,
        sum => sum,
    };
    let [sum0, sum1] = sum.to_ne_bytes();
    datagram[0..8].copy_from_slice(&[from0, from1, to0, to1, udp0, udp1, sum0, sum1]);
}
