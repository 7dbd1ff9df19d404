//! Ethernet, IPv4 and UDP by hand, for one flow of the generator.

use std::net::SocketAddrV4;

/// Bytes before the UDP payload: Ethernet 14, IPv4 20, UDP 8.
pub const HEADER_BYTES: usize = 42;

/// Both ends of the flow, as the generator sends.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// MAC of the generator's interface.
    pub client_mac: [u8; 6],
    /// MAC of the server's interface.
    pub server_mac: [u8; 6],
    /// Where requests come from.
    pub client: SocketAddrV4,
    /// Where requests go.
    pub server: SocketAddrV4,
}

impl Flow {
    /// Puts headers before the payload that already stands at [`HEADER_BYTES`], and returns the
    /// frame's length. Both checksums are computed (RFC 791, RFC 768).
    pub fn finish(&self, frame: &mut [u8], payload_bytes: usize) -> usize {
        let total = HEADER_BYTES + payload_bytes;
        let ip_bytes = (total - 14) as u16;
        let udp_bytes = (8 + payload_bytes) as u16;
        frame[0..6].copy_from_slice(&self.server_mac);
        frame[6..12].copy_from_slice(&self.client_mac);
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        frame[14..26].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0]);
        frame[16..18].copy_from_slice(&ip_bytes.to_be_bytes());
        frame[26..30].copy_from_slice(&self.client.ip().octets());
        frame[30..34].copy_from_slice(&self.server.ip().octets());
        let checksum = fold(sum(&frame[14..34]));
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        frame[34..36].copy_from_slice(&self.client.port().to_be_bytes());
        frame[36..38].copy_from_slice(&self.server.port().to_be_bytes());
        frame[38..40].copy_from_slice(&udp_bytes.to_be_bytes());
        frame[40..42].fill(0);
        let pseudo = sum(&frame[26..34]) + 17 + u64::from(udp_bytes);
        let checksum = match fold(sum(&frame[34..total]) + pseudo) {
            0 => 0xffff,
            other => other,
        };
        frame[40..42].copy_from_slice(&checksum.to_be_bytes());
        total
    }

    /// The payload of a frame that belongs to this flow: from the server's port to the client's, or
    /// (`mirrored`) the client's own frame sent back with only its MACs swapped.
    pub fn payload<'a>(&self, frame: &'a [u8], mirrored: bool) -> Option<&'a [u8]> {
        if frame.len() < HEADER_BYTES || frame[12..15] != [0x08, 0x00, 0x45] || frame[23] != 17 {
            return None;
        }
        let (source, destination) =
            if mirrored { (&self.client, &self.server) } else { (&self.server, &self.client) };
        if frame[26..30] != source.ip().octets()
            || frame[30..34] != destination.ip().octets()
            || frame[34..36] != source.port().to_be_bytes()
            || frame[36..38] != destination.port().to_be_bytes()
        {
            return None;
        }
        let udp_bytes = usize::from(u16::from_be_bytes([frame[38], frame[39]]));
        frame.get(HEADER_BYTES..34 + udp_bytes)
    }

    /// Whether both checksums of an IPv4/UDP frame hold; a UDP checksum of zero is "not computed".
    pub fn checksums_hold(frame: &[u8]) -> bool {
        let Some(udp_bytes) = frame.get(38..40).map(|b| u16::from_be_bytes([b[0], b[1]])) else {
            return false;
        };
        let Some(udp) = frame.get(34..34 + usize::from(udp_bytes)) else { return false };
        let pseudo = sum(&frame[26..34]) + 17 + u64::from(udp_bytes);
        fold(sum(&frame[14..34])) == 0 && (udp[6..8] == [0, 0] || fold(sum(udp) + pseudo) == 0)
    }
}

/// Sum of big-endian 16-bit words, an odd last byte padded with zero.
fn sum(bytes: &[u8]) -> u64 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let whole: u64 = pairs.iter().map(|pair| u64::from(u16::from_be_bytes(*pair))).sum();
    whole + rest.first().map_or(0, |&last| u64::from(last) << 8)
}

/// Ones'-complement of the folded sum.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: Flow = Flow {
        client_mac: [2, 0, 0, 0, 0, 1],
        server_mac: [2, 0, 0, 0, 0, 2],
        client: SocketAddrV4::new(std::net::Ipv4Addr::new(198, 18, 0, 1), 40_000),
        server: SocketAddrV4::new(std::net::Ipv4Addr::new(198, 18, 0, 2), 11_211),
    };

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0xaa; HEADER_BYTES + payload.len()];
        frame[HEADER_BYTES..].copy_from_slice(payload);
        let length = FLOW.finish(&mut frame, payload.len());
        assert_eq!(length, frame.len());
        frame
    }

    #[test]
    fn checksums_of_odd_and_even_payloads_hold_and_notice_a_flipped_bit() {
        for payload in [&b""[..], b"x", b"get key:000000000001\r\n", &[0xff; 1_401]] {
            let mut frame = frame(payload);
            assert!(Flow::checksums_hold(&frame), "{} bytes", payload.len());
            for at in [15, 27, 35] {
                frame[at] ^= 0x10;
                assert!(!Flow::checksums_hold(&frame), "{} bytes, byte {at}", payload.len());
                frame[at] ^= 0x10;
            }
        }
    }

    /// RFC 1071, section 3: the words 0001 f203 f4f5 f6f7 sum to 2ddf0, folded ddf2.
    #[test]
    fn the_sum_is_the_rfcs() {
        let words = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(sum(&words), 0x2ddf0);
        assert_eq!(fold(sum(&words)), !0xddf2);
    }

    #[test]
    fn only_frames_of_the_flow_are_taken() {
        let own = frame(b"abc");
        assert_eq!(FLOW.payload(&own, true), Some(&b"abc"[..]));
        assert_eq!(FLOW.payload(&own, false), None);
        let back = Flow { client: FLOW.server, server: FLOW.client, ..FLOW };
        assert_eq!(back.payload(&own, false), Some(&b"abc"[..]));
        for length in 0..HEADER_BYTES {
            assert_eq!(FLOW.payload(&own[..length], true), None, "{length} bytes");
        }
        assert_eq!(FLOW.payload(&own[..own.len() - 1], true), None);
    }
}
