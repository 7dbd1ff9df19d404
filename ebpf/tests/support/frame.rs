//! Frames, sound by default, with a field for every lie a test wants to tell.

use std::net::IpAddr;

use super::checksum;
use super::{GROUP_V4, LISTED_V4, LISTED_V6, OUR_MAC, OUR_V4, OUR_V6, PEER_MAC, ip};

pub const UDP: u8 = 17;
pub const TCP: u8 = 6;
pub const HOP_BY_HOP: u8 = 0;
pub const ROUTING: u8 = 43;
pub const FRAGMENT: u8 = 44;
pub const DESTINATION: u8 = 60;

/// One UDP or TCP packet.
#[derive(Clone)]
pub struct Frame {
    pub to_mac: [u8; 6],
    pub from_mac: [u8; 6],
    /// EtherTypes of the tags, outermost first.
    pub tags: Vec<u16>,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// IPv4 options; a multiple of 4 bytes.
    pub options: Vec<u8>,
    /// IPv6 extension headers: number and whole header, first byte (next header) filled in here.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// IPv4 flags and fragment offset.
    pub fragment: u16,
    pub protocol: u8,
    pub source_port: u16,
    pub port: u16,
    pub payload: Vec<u8>,
    /// In place of the true IPv4 total length or IPv6 payload length.
    pub ip_length: Option<u16>,
    /// In place of the true UDP length.
    pub udp_length: Option<u16>,
    /// Right checksums; else 0, for steering looks only at those of what it answers.
    pub checksums: bool,
}

impl Frame {
    pub fn new(source: &str, destination: &str, port: u16) -> Self {
        Self {
            to_mac: OUR_MAC,
            from_mac: PEER_MAC,
            tags: Vec::new(),
            source: ip(source),
            destination: ip(destination),
            options: Vec::new(),
            extensions: Vec::new(),
            fragment: 0,
            protocol: UDP,
            source_port: 40_000,
            port,
            payload: b"\0\x01\0\0\0\x01\0\0get key\r\n".to_vec(),
            ip_length: None,
            udp_length: None,
            checksums: false,
        }
    }

    /// A listed source to our address.
    pub fn v4(port: u16) -> Self {
        Self::new(LISTED_V4, OUR_V4, port)
    }

    pub fn v6(port: u16) -> Self {
        Self::new(LISTED_V6, OUR_V6, port)
    }

    /// A listed source to our group, at its group MAC.
    pub fn group(port: u16) -> Self {
        let mut frame = Self::new(LISTED_V4, GROUP_V4, port);
        frame.to_mac = group_mac(frame.destination);
        frame
    }

    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut frame = self.to_mac.to_vec();
        frame.extend(self.from_mac);
        for (index, tag) in self.tags.iter().enumerate() {
            frame.extend(tag.to_be_bytes());
            frame.extend((0x6000 | (100 + index as u16)).to_be_bytes());
        }
        let transport = self.transport();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend([0x08, 0x00]);
                let header_bytes = 20 + self.options.len();
                let length = self.ip_length.unwrap_or((header_bytes + transport.len()) as u16);
                frame.extend([0x40 | (header_bytes / 4) as u8, 0]);
                frame.extend(length.to_be_bytes());
                frame.extend([0x12, 0x34]);
                frame.extend(self.fragment.to_be_bytes());
                frame.extend([64, self.protocol, 0, 0]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
                frame.extend(&self.options);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                let extension_bytes: usize = self.extensions.iter().map(|(_, h)| h.len()).sum();
                let length = self.ip_length.unwrap_or((extension_bytes + transport.len()) as u16);
                frame.extend(length.to_be_bytes());
                let mut numbers: Vec<u8> = self.extensions.iter().map(|(n, _)| *n).collect();
                numbers.push(self.protocol);
                frame.extend([numbers[0], 64]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
                for ((_, header), next) in self.extensions.iter().zip(&numbers[1..]) {
                    frame.push(*next);
                    frame.extend(&header[1..]);
                }
            }
            families => panic!("one family for both ends, not {families:?}"),
        }
        frame.extend(transport);
        if self.checksums {
            checksum::repair(&mut frame);
        }
        frame
    }

    fn transport(&self) -> Vec<u8> {
        let mut transport = self.source_port.to_be_bytes().to_vec();
        transport.extend(self.port.to_be_bytes());
        if self.protocol == TCP {
            transport.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
        } else {
            let length = self.udp_length.unwrap_or((8 + self.payload.len()) as u16);
            transport.extend(length.to_be_bytes());
            transport.extend([0, 0]);
        }
        transport.extend(&self.payload);
        transport
    }
}

/// RFC 1112 6.4, RFC 2464 7.
pub fn group_mac(group: IpAddr) -> [u8; 6] {
    match group {
        IpAddr::V4(group) => {
            let [_, b, c, d] = group.octets();
            [0x01, 0x00, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V6(group) => {
            let octets = group.octets();
            [0x33, 0x33, octets[12], octets[13], octets[14], octets[15]]
        }
    }
}
