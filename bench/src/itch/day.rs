//! One generated day, framed as each side takes it.

use nautilus_dataplane::feed::moldudp64::{HEADER_BYTES, Session, write_header};
use nautilus_dataplane::replay::binary_file::write_message;
use nautilus_dataplane::replay::generate::{Generator, GeneratorSpec};
use nautilus_dataplane::replay::random::Random;

/// Stocks of the day.
pub const STOCKS: u16 = 8_192;

/// Most messages of a packet; from 1 to this many, 10 on average.
const PACKET_MESSAGES_MAX: u32 = 19;

/// A run of messages.
#[derive(Default)]
pub struct Day {
    /// Messages in it.
    pub messages: u64,
    /// All of them as one BinaryFILE.
    pub file: Vec<u8>,
    /// The same as MoldUDP64 packets, one behind the other.
    pub packets: Vec<u8>,
    /// Where each packet ends.
    pub ends: Vec<usize>,
}

impl Day {
    /// A day of this seed. Messages of the types in `without` are left out.
    pub fn generate(seed: u64, messages: u64, without: &[u8]) -> anyhow::Result<Self> {
        let spec = GeneratorSpec { seed, symbols: STOCKS, messages, rate: 1_000_000 };
        let mut generator = Generator::new(spec)?;
        let mut random = Random::new(seed);
        let mut day = Self::default();
        let mut packet = Vec::new();
        let (mut count, mut most) = (0, 1 + random.below(PACKET_MESSAGES_MAX) as u16);
        while let Some(message) = generator.next_message() {
            if message.first().is_some_and(|code| without.contains(code)) {
                continue;
            }
            write_message(&mut day.file, message)?;
            write_message(&mut packet, message)?;
            day.messages += 1;
            count += 1;
            if count == most {
                day.push(&mut packet, count);
                (count, most) = (0, 1 + random.below(PACKET_MESSAGES_MAX) as u16);
            }
        }
        if count != 0 {
            day.push(&mut packet, count);
        }
        Ok(day)
    }

    /// Appends a packet of the last `count` messages.
    fn push(&mut self, blocks: &mut Vec<u8>, count: u16) {
        let mut header = [0; HEADER_BYTES];
        let sequence = self.messages + 1 - u64::from(count);
        write_header(&mut header, Session(*b"0000000C1D"), sequence, count);
        self.packets.extend_from_slice(&header);
        self.packets.append(blocks);
        self.ends.push(self.packets.len());
    }

    /// The packets in order.
    pub fn packets(&self) -> impl Iterator<Item = &[u8]> {
        let mut begin = 0;
        self.ends.iter().map(move |&end| {
            let packet = &self.packets[begin..end];
            begin = end;
            packet
        })
    }
}
