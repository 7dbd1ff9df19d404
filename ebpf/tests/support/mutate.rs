//! Seeded changes to frames, and captured frames turned into frames for us.

use std::net::IpAddr;

use super::{OUR_MAC, OUR_V4, OUR_V6, ip};

/// xorshift64*: the same frames for the same seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as usize) % bound
    }
}

/// One to four changes: bits, bytes, words of interest, cuts, insertions, repeats. Most hit the
/// headers. The result is a frame the kernel runs programs on: 14 bytes or more.
pub fn mutate(frame: &[u8], random: &mut Random) -> Vec<u8> {
    let mut frame = frame.to_vec();
    for _ in 0..=random.below(4) {
        let reach = if random.below(4) > 0 { frame.len().min(90) } else { frame.len() };
        let at = random.below(reach.max(1)).min(frame.len() - 1);
        match random.below(8) {
            0 | 1 => frame[at] ^= 1 << random.below(8),
            2 => frame[at] = random.below(256) as u8,
            3 => {
                const WORDS: [u16; 16] = [
                    0, 1, 7, 8, 20, 28, 0x2000, 0x8100, 0x88a8, 0x0800, 0x86dd, 0xffff, 7007,
                    11211, 26477, 0x1100,
                ];
                let word = WORDS[random.below(WORDS.len())].to_be_bytes();
                let end = (at + 2).min(frame.len());
                frame[at..end].copy_from_slice(&word[..end - at]);
            }
            4 => frame.truncate((at + 1).max(14)),
            5 => {
                const NUMBERS: [u8; 10] = [0, 6, 17, 43, 44, 51, 58, 60, 0x45, 0x60];
                frame[at] = NUMBERS[random.below(NUMBERS.len())];
            }
            6 => {
                let inserted = vec![random.below(256) as u8; 4 * (1 + random.below(2))];
                frame.splice(at..at, inserted);
            }
            _ => {
                // A tag before the EtherType.
                let tag = [0x81, 0x00, 0x00, 0x64];
                frame.splice(12..12, tag);
            }
        }
    }
    frame.truncate(3400);
    frame
}

/// A captured IPv4 or IPv6 frame with its destination made ours: MAC, address and, for UDP and TCP,
/// port; its source made the given one of its family. None for other frames.
pub fn readdress(frame: &[u8], port: u16, (source_v4, source_v6): (&str, &str)) -> Option<Vec<u8>> {
    let mut bytes = frame.to_vec();
    let mut at = 12;
    while [[0x81, 0x00], [0x88, 0xa8]].contains(&[*bytes.get(at)?, *bytes.get(at + 1)?]) {
        at += 4;
    }
    let ethertype = [bytes[at], *bytes.get(at + 1)?];
    at += 2;
    let transport = match ethertype {
        [0x08, 0x00] if bytes.len() >= at + 20 => {
            write(&mut bytes, at + 16, ip(OUR_V4));
            write(&mut bytes, at + 12, ip(source_v4));
            at + usize::from(bytes[at] & 15) * 4
        }
        [0x86, 0xdd] if bytes.len() >= at + 40 => {
            write(&mut bytes, at + 24, ip(OUR_V6));
            write(&mut bytes, at + 8, ip(source_v6));
            at + 40
        }
        _ => return None,
    };
    bytes[..6].copy_from_slice(&OUR_MAC);
    if let Some(place) = bytes.get_mut(transport + 2..transport + 4) {
        place.copy_from_slice(&port.to_be_bytes());
    }
    Some(bytes)
}

fn write(bytes: &mut [u8], at: usize, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => bytes[at..at + 4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => bytes[at..at + 16].copy_from_slice(&v6.octets()),
    }
}
