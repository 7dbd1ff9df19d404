//! What a frame says of itself, as far as it goes: for people to read. Nothing is decided here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Protocol numbers that have a name.
pub(super) const UDP: u8 = 17;
pub(super) const TCP: u8 = 6;

/// Extension headers followed, as in `parse.h`.
const EXTENSION_HEADERS_MAX: usize = 4;

/// The parts of a frame; None where it ends before them, or they cannot be read.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// VLAN numbers, outermost first, at most two.
    pub vlans: Vec<u16>,
    pub ethertype: Option<u16>,
    pub ip: Option<Ip>,
    /// Number and place of the transport.
    pub transport: Option<(u8, usize)>,
    /// Source and destination.
    pub ports: Option<(u16, u16)>,
    pub udp_bytes: Option<usize>,
}

/// An IP header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ip {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub fragment: bool,
    /// Of the fixed header and IPv4's options.
    pub header_bytes: usize,
    /// Where the packet claims to end in the frame.
    pub end: usize,
}

fn word(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]))
}

impl Facts {
    pub fn of(frame: &[u8]) -> Self {
        let mut facts = Self::default();
        // Whatever is missing ends it.
        let _ = facts.read(frame);
        facts
    }

    fn read(&mut self, frame: &[u8]) -> Option<()> {
        let mut at = 12;
        loop {
            let ethertype = word(frame, at)?;
            at += 2;
            if ![0x8100, 0x88a8].contains(&ethertype) || self.vlans.len() == 2 {
                self.ethertype = Some(ethertype);
                break;
            }
            self.vlans.push(word(frame, at)? & 0xfff);
            at += 2;
        }
        let (mut protocol, mut transport) = match self.ethertype? {
            0x0800 => self.ipv4(frame, at)?,
            0x86dd => self.ipv6(frame, at)?,
            _ => return None,
        };
        for _ in 0..EXTENSION_HEADERS_MAX {
            if ![0, 43, 60].contains(&protocol) || self.ethertype == Some(0x0800) {
                break;
            }
            protocol = *frame.get(transport)?;
            transport += 8 * (usize::from(*frame.get(transport + 1)?) + 1);
        }
        self.transport = Some((protocol, transport));
        if protocol != UDP && protocol != TCP {
            return None;
        }
        self.ports = Some((word(frame, transport)?, word(frame, transport + 2)?));
        if protocol == UDP {
            self.udp_bytes = Some(usize::from(word(frame, transport + 4)?));
        }
        Some(())
    }

    fn ipv4(&mut self, frame: &[u8], at: usize) -> Option<(u8, usize)> {
        let header = frame.get(at..at + 20)?;
        let header_bytes = usize::from(header[0] & 15) * 4;
        if header[0] >> 4 != 4 || header_bytes < 20 {
            return None;
        }
        let address =
            |from: usize| Ipv4Addr::from(*header[from..].first_chunk().unwrap_or(&[0; 4]));
        self.ip = Some(Ip {
            source: address(12).into(),
            destination: address(16).into(),
            fragment: word(header, 6)? & 0x3fff != 0,
            header_bytes,
            end: at + usize::from(word(header, 2)?),
        });
        Some((header[9], at + header_bytes))
    }

    fn ipv6(&mut self, frame: &[u8], at: usize) -> Option<(u8, usize)> {
        let header = frame.get(at..at + 40)?;
        if header[0] >> 4 != 6 {
            return None;
        }
        let address =
            |from: usize| Ipv6Addr::from(*header[from..].first_chunk().unwrap_or(&[0; 16]));
        self.ip = Some(Ip {
            source: address(8).into(),
            destination: address(24).into(),
            fragment: header[6] == 44,
            header_bytes: 40,
            end: at + 40 + usize::from(word(header, 4)?),
        });
        Some((header[6], at + 40))
    }

    /// The UDP payload, as far as the frame holds it.
    pub fn payload<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        let Some((UDP, at)) = self.transport else { return &[] };
        let end = (at + self.udp_bytes.unwrap_or(0)).min(frame.len());
        frame.get(at + 8..end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_read_as_far_as_they_go() {
        let mut frame = vec![0; 12];
        frame.extend([0x81, 0, 0x60, 5, 0x08, 0, 0x45, 0, 0, 33, 0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend([198, 18, 0, 2, 198, 18, 0, 1, 0x0f, 0xa0, 0x2b, 0xcb, 0, 13, 0, 0]);
        frame.extend(b"hello, and padding");
        let facts = Facts::of(&frame);
        assert_eq!((facts.vlans.as_slice(), facts.ports), (&[5][..], Some((4000, 11_211))));
        assert_eq!(facts.payload(&frame), b"hello");
        for bytes in 0..frame.len() {
            let _ = Facts::of(&frame[..bytes]).payload(&frame[..bytes]);
            let mut bent = frame.clone();
            bent[bytes] ^= 0xff;
            let _ = Facts::of(&bent).payload(&bent);
        }
    }
}
