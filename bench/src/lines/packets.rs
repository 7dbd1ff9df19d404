//! The messages of a generated day in packets of 1 to 38, 10 on average, each of which ends with an order
//! that moves the best bid of one more stock.

use nautilus_dataplane::feed::Symbol;
use nautilus_dataplane::feed::itch::messages::AddOrder;
use nautilus_dataplane::feed::itch::{Code, Common, Nanoseconds, Price4};
use nautilus_dataplane::feed::moldudp64::{HEADER_BYTES, Session, write_header};
use nautilus_dataplane::replay::generate::{Generator, GeneratorSpec};
use nautilus_dataplane::replay::random::Random;

/// Stocks of the day beside the one that is watched.
const STOCKS: u16 = 64;

/// Most messages of a packet.
const MESSAGES_MAX: u32 = 38;

/// Bytes of a payload.
const PAYLOAD_BYTES_MAX: usize = 1_400;

/// References of the orders that are watched: above all of the generator's.
const REFERENCE_MIN: u64 = 1 << 40;

/// The packets of a session, without their headers.
pub struct Packets {
    blocks: Vec<u8>,
    /// Where each message begins, and the end.
    starts: Vec<usize>,
    /// Number of each packet's first message, and the number behind the last.
    sequences: Vec<u64>,
}

impl Packets {
    /// So many packets of this seed.
    pub fn generate(seed: u64, count: usize) -> anyhow::Result<Self> {
        let messages = count as u64 * u64::from(MESSAGES_MAX);
        let spec = GeneratorSpec { seed, symbols: STOCKS, messages, rate: 1_000_000 };
        let mut generator = Generator::new(spec)?;
        let mut random = Random::new(seed);
        let mut packets = Self { blocks: Vec::new(), starts: vec![0], sequences: vec![1] };
        for number in 0..count as u64 {
            let most = 1 + random.below(MESSAGES_MAX);
            let others = random.below(most);
            let begin = packets.blocks.len();
            for _ in 0..others {
                let Some(message) = generator.next_message() else { break };
                if packets.blocks.len() - begin + 2 + message.len() > PAYLOAD_BYTES_MAX - 60 {
                    packets.push(message);
                    break;
                }
                packets.push(message);
            }
            packets.push(&watched(number));
            packets.sequences.push(packets.starts.len() as u64);
        }
        Ok(packets)
    }

    fn push(&mut self, message: &[u8]) {
        self.blocks.extend_from_slice(&(message.len() as u16).to_be_bytes());
        self.blocks.extend_from_slice(message);
        self.starts.push(self.blocks.len());
    }

    /// How many packets there are.
    pub fn count(&self) -> u64 {
        self.sequences.len() as u64 - 1
    }

    /// Number of the first message of a packet; that of the one behind the last is the next to come.
    pub fn sequence(&self, index: u64) -> u64 {
        self.sequences[index as usize]
    }

    /// Writes a packet and returns its length.
    pub fn write(&self, session: Session, index: u64, out: &mut [u8]) -> usize {
        self.write_messages(session, self.sequence(index), self.sequence(index + 1), out)
    }

    /// Writes as many of the messages asked for as fit a packet, and returns its length; 0 for none.
    pub fn answer(&self, session: Session, sequence: u64, count: u16, out: &mut [u8]) -> usize {
        let end = self.starts.len() as u64;
        if sequence == 0 || sequence >= end || count == 0 {
            return 0;
        }
        let begin = self.starts[sequence as usize - 1];
        let mut next = sequence;
        let last = (sequence + u64::from(count)).min(end);
        while next < last && self.starts[next as usize] - begin <= PAYLOAD_BYTES_MAX - HEADER_BYTES
        {
            next += 1;
        }
        self.write_messages(session, sequence, next, out)
    }

    fn write_messages(&self, session: Session, from: u64, to: u64, out: &mut [u8]) -> usize {
        let blocks = &self.blocks[self.starts[from as usize - 1]..self.starts[to as usize - 1]];
        let Some(header) = out.first_chunk_mut() else { return 0 };
        write_header(header, session, from, (to - from) as u16);
        let bytes = HEADER_BYTES + blocks.len();
        out[HEADER_BYTES..bytes].copy_from_slice(blocks);
        bytes
    }
}

/// An order of one share more at the one best bid.
fn watched(number: u64) -> [u8; 36] {
    let stock_locate = STOCKS + 1;
    let timestamp = Nanoseconds(34_200_000_000_000 + number);
    let common = Common { stock_locate, tracking_number: 0, timestamp };
    let stock = Symbol(*b"PROBE   ");
    AddOrder::encode(common, REFERENCE_MIN + number, Code(b'B'), 1, stock, Price4(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nautilus_dataplane::feed::moldudp64::Packet;

    const SESSION: Session = Session(*b"0000000C3D");

    #[test]
    fn packets_hold_ten_messages_on_average_and_fit_a_frame() {
        let packets = Packets::generate(3, 20_000).unwrap();
        let mut out = [0; 1_500];
        for index in 0..packets.count() {
            let bytes = packets.write(SESSION, index, &mut out);
            assert!(bytes <= PAYLOAD_BYTES_MAX + HEADER_BYTES, "{bytes}");
            let packet = Packet::parse(&out[..bytes]).unwrap();
            assert_eq!(packet.check(), Ok(bytes - HEADER_BYTES));
            assert_eq!(packet.sequence, packets.sequence(index));
        }
        let average = packets.sequence(packets.count()) as f64 / 20_000.0;
        assert!((9.5..11.0).contains(&average), "{average}");
    }

    #[test]
    fn a_request_is_answered_with_what_fits() {
        let packets = Packets::generate(3, 1_000).unwrap();
        let mut out = [0; 1_500];
        let mut next = 1;
        while next < packets.sequence(1_000) {
            let bytes = packets.answer(SESSION, next, 60, &mut out);
            let packet = Packet::parse(&out[..bytes]).unwrap();
            assert!(packet.check().is_ok() && packet.sequence == next && bytes <= 1_400);
            next = packet.next_sequence();
        }
        assert_eq!(packets.answer(SESSION, next, 1, &mut out), 0);
        assert_eq!(packets.answer(SESSION, 0, 1, &mut out), 0);
    }
}
