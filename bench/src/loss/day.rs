//! The packets of a generated day, made as they are needed, and the newest of them kept.

use std::collections::VecDeque;

use nautilus_dataplane::feed::moldudp64::{HEADER_BYTES, Session, write_header};
use nautilus_dataplane::feed::recovery::requests::PieceRequest;
use nautilus_dataplane::replay::generate::{Generator, GeneratorSpec};
use nautilus_dataplane::replay::random::Random;

use super::{PACKET_MESSAGES_MAX, STOCKS};

/// The session.
pub const SESSION: Session = Session(*b"0000000C2D");

/// Packets that are kept for requests and for the plain book. A request is never that late.
const KEPT: usize = 1 << 16;

/// Bytes of a reply's messages.
const REPLY_BYTES_MAX: usize = 1_400;

/// One packet.
pub struct Sent {
    /// Number of its first message.
    pub sequence: u64,
    /// The number that follows its last.
    pub next_sequence: u64,
    /// Header and blocks.
    pub bytes: Vec<u8>,
}

/// The day.
pub struct Day {
    generator: Generator,
    random: Random,
    next_sequence: u64,
    /// Index of the first one kept.
    first: u64,
    kept: VecDeque<Sent>,
}

impl Day {
    /// A day of so many messages.
    pub fn new(seed: u64, messages: u64) -> anyhow::Result<Self> {
        let spec = GeneratorSpec { seed, symbols: STOCKS, messages, rate: 200_000 };
        Ok(Self {
            generator: Generator::new(spec)?,
            random: Random::new(seed),
            next_sequence: 1,
            first: 0,
            kept: VecDeque::new(),
        })
    }

    /// Makes the next packet and returns its index; `None` when the day is over.
    pub fn make(&mut self) -> Option<u64> {
        let sequence = self.next_sequence;
        let mut bytes = vec![0; HEADER_BYTES];
        let mut count = 0;
        for _ in 0..1 + self.random.below(PACKET_MESSAGES_MAX) {
            let Some(message) = self.generator.next_message() else { break };
            bytes.extend_from_slice(&(message.len() as u16).to_be_bytes());
            bytes.extend_from_slice(message);
            count += 1;
        }
        if count == 0 {
            return None;
        }
        self.next_sequence += u64::from(count);
        let header = bytes.first_chunk_mut().expect("it was made so long");
        write_header(header, SESSION, sequence, count);
        if self.kept.len() == KEPT {
            self.kept.pop_front();
            self.first += 1;
        }
        self.kept.push_back(Sent { sequence, next_sequence: self.next_sequence, bytes });
        Some(self.first + self.kept.len() as u64 - 1)
    }

    /// The number that follows the last message made.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// A packet that is kept.
    pub fn packet(&self, index: u64) -> Option<&Sent> {
        self.kept.get(index.checked_sub(self.first)? as usize)
    }

    /// The messages from a number on that are kept, with their numbers.
    pub fn messages_from(&self, sequence: u64) -> impl Iterator<Item = (u64, &[u8])> {
        let place = self.kept.partition_point(|sent| sent.next_sequence <= sequence);
        let messages = self.kept.range(place..).flat_map(|sent| {
            let mut rest = &sent.bytes[HEADER_BYTES..];
            (sent.sequence..sent.next_sequence).map(move |number| {
                let bytes = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
                let (block, behind) = rest.split_at(2 + bytes);
                rest = behind;
                (number, &block[2..])
            })
        });
        messages.skip_while(move |(number, _)| *number < sequence)
    }

    /// What a request server answers: as much as fits.
    pub fn reply(&self, request: &PieceRequest) -> Option<Vec<u8>> {
        let mut bytes = vec![0; HEADER_BYTES];
        let mut count = 0;
        for (_, message) in self.messages_from(request.sequence).take(request.count.into()) {
            if bytes.len() + 2 + message.len() > REPLY_BYTES_MAX {
                break;
            }
            bytes.extend_from_slice(&(message.len() as u16).to_be_bytes());
            bytes.extend_from_slice(message);
            count += 1;
        }
        write_header(bytes.first_chunk_mut()?, SESSION, request.sequence, count);
        (count > 0).then_some(bytes)
    }
}
