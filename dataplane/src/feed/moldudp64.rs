//! MoldUDP64 framing.
//!
//! Source: NASDAQ "MoldUDP64 Protocol Specification", version 1.00. All integers are big-endian.
//!
//! ```text
//!   0        10          18      20
//!   | session | sequence | count | length(2) message ... | length(2) message ...
//! ```
//!
//! `count` 0 is a heartbeat and 0xFFFF the end of the session; in both, `sequence` is the number the
//! next message will have. Sequence numbers start at 1.

use std::fmt;

/// Bytes of the downstream packet header.
pub const HEADER_BYTES: usize = 20;

/// Message count that announces the end of the session.
pub const COUNT_END_OF_SESSION: u16 = 0xffff;

/// Ten bytes that name one run of sequence numbers. Normally printable and left-padded with spaces;
/// any bytes are read, since captures with blanked headers carry ten zero bytes. Other framings make
/// theirs of what they have.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Session(pub [u8; 10]);

impl Session {
    /// Whether two names are the same but for how they are padded: SoupBinTCP pads on the left, publishers
    /// of MoldUDP64 on either side.
    pub fn is_same(&self, other: &Self) -> bool {
        self.0.trim_ascii() == other.0.trim_ascii()
    }

    /// Whether it is printable text, as the specification has it.
    pub fn is_text(&self) -> bool {
        self.0.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ')
    }

    /// Whether it is ten zero bytes, as blanked captures have it.
    pub fn is_blank(&self) -> bool {
        self.0 == [0; 10]
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({self})")
    }
}

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// This many messages follow, 1 to 65,534.
    Messages(u16),
    /// Nothing new; sent about once a second.
    Heartbeat,
    /// The session is over; sent repeatedly for some seconds.
    EndOfSession,
}

/// Why a payload is not a MoldUDP64 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoldError {
    /// Shorter than the header.
    #[error("{bytes} bytes are shorter than the {HEADER_BYTES}-byte header")]
    ShortHeader {
        /// Length of the payload.
        bytes: usize,
    },
    /// A message block reaches past the end of the payload.
    #[error("message {index} of {count} reaches past the end of the packet")]
    TruncatedMessage {
        /// Index of the message in this packet, from 0.
        index: u16,
        /// The header's message count.
        count: u16,
    },
    /// The sequence numbers of the packet leave the range 1..=u64::MAX.
    #[error("sequence {sequence} with {count} messages leaves the range of sequence numbers")]
    BadSequence {
        /// The header's sequence number.
        sequence: u64,
        /// The header's message count.
        count: u16,
    },
}

/// One parsed packet header and the message blocks behind it. Other framings make the same of theirs.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The session the sequence numbers belong to.
    pub session: Session,
    /// Number of the first message, or of the next one in a heartbeat or end of session.
    pub sequence: u64,
    /// What follows.
    pub kind: Kind,
    blocks: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads the header; the blocks are only bounded as they are iterated or [`Self::check`]ed.
    pub fn parse(payload: &'a [u8]) -> Result<Self, MoldError> {
        let Some((header, blocks)) = payload.split_first_chunk::<HEADER_BYTES>() else {
            return Err(MoldError::ShortHeader { bytes: payload.len() });
        };
        let mut session = [0; 10];
        session.copy_from_slice(&header[..10]);
        let mut sequence = [0; 8];
        sequence.copy_from_slice(&header[10..18]);
        let kind = match u16::from_be_bytes([header[18], header[19]]) {
            0 => Kind::Heartbeat,
            COUNT_END_OF_SESSION => Kind::EndOfSession,
            count => Kind::Messages(count),
        };
        Ok(Self { session: Session(session), sequence: u64::from_be_bytes(sequence), kind, blocks })
    }

    /// A packet of another framing, whose blocks only that can read.
    pub fn of_blocks(session: Session, sequence: u64, kind: Kind, blocks: &'a [u8]) -> Self {
        Self { session, sequence, kind, blocks }
    }

    /// The message blocks as they are.
    pub fn blocks(&self) -> &'a [u8] {
        self.blocks
    }

    /// How many messages the packet claims to hold.
    pub fn message_count(&self) -> u16 {
        match self.kind {
            Kind::Messages(count) => count,
            Kind::Heartbeat | Kind::EndOfSession => 0,
        }
    }

    /// The number that follows the packet's last message.
    pub fn next_sequence(&self) -> u64 {
        self.sequence.saturating_add(u64::from(self.message_count()))
    }

    /// Verifies, without decoding any, that every block lies inside the payload and that the sequence
    /// numbers are possible. Returns the bytes the blocks occupy; what follows them is not part of
    /// the packet. A packet that fails is dropped whole: half of it would be an unseen gap.
    pub fn check(&self) -> Result<usize, MoldError> {
        let count = self.message_count();
        if self.sequence == 0 || self.sequence.checked_add(u64::from(count)).is_none() {
            return Err(MoldError::BadSequence { sequence: self.sequence, count });
        }
        let mut messages = self.messages();
        for message in &mut messages {
            message?;
        }
        Ok(self.blocks.len() - messages.rest.len())
    }

    /// The messages of a MoldUDP64 packet in order. The first block that does not fit gives an error and ends the iteration.
    pub fn messages(&self) -> Messages<'a> {
        Messages { rest: self.blocks, index: 0, count: self.message_count() }
    }
}

/// Iterator over the message blocks of one packet.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
    index: u16,
    count: u16,
}

impl<'a> Messages<'a> {
    /// The messages of a sequence of blocks without a header, at most 65,534 of them.
    pub fn of_blocks(blocks: &'a [u8]) -> Self {
        let mut count = 0;
        let mut at = blocks;
        while !at.is_empty() && count < COUNT_END_OF_SESSION - 1 {
            count += 1;
            let Some((length, rest)) = at.split_first_chunk::<2>() else { break };
            at = rest.get(usize::from(u16::from_be_bytes(*length))..).unwrap_or_default();
        }
        Self { rest: blocks, index: 0, count }
    }

    /// What has not been consumed yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<&'a [u8], MoldError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.index == self.count {
            return None;
        }
        let block = self.rest.split_first_chunk::<2>().and_then(|(length, rest)| {
            rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
        });
        match block {
            Some((message, rest)) => {
                self.rest = rest;
                self.index += 1;
                Some(Ok(message))
            }
            None => {
                let error = MoldError::TruncatedMessage { index: self.index, count: self.count };
                self.count = self.index;
                Some(Err(error))
            }
        }
    }
}

/// Writes a packet header to the front of `out`.
pub fn write_header(out: &mut [u8; HEADER_BYTES], session: Session, sequence: u64, count: u16) {
    out[..10].copy_from_slice(&session.0);
    out[10..18].copy_from_slice(&sequence.to_be_bytes());
    out[18..].copy_from_slice(&count.to_be_bytes());
}

/// Bytes of a request for messages.
pub const REQUEST_BYTES: usize = 20;

/// A request for messages that were lost, as it is on the wire: 20 bytes.
///
/// ```text
///   0        10          18      20
///   | session | sequence | count |      the first message wanted, and how many from there on
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageRequest {
    /// The session.
    pub session: Session,
    /// Number of the first message wanted.
    pub sequence: u64,
    /// How many.
    pub count: u16,
}

impl MessageRequest {
    /// Reads a request; none where there are not exactly 20 bytes.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; REQUEST_BYTES] = bytes.try_into().ok()?;
        let (mut session, mut sequence) = ([0; 10], [0; 8]);
        session.copy_from_slice(&bytes[..10]);
        sequence.copy_from_slice(&bytes[10..18]);
        Some(Self {
            session: Session(session),
            sequence: u64::from_be_bytes(sequence),
            count: u16::from_be_bytes([bytes[18], bytes[19]]),
        })
    }

    /// The bytes of the request.
    pub fn encode(&self) -> [u8; REQUEST_BYTES] {
        // The same fields at the same places as in the header of a downstream packet.
        let mut out = [0; HEADER_BYTES];
        write_header(&mut out, self.session, self.sequence, self.count);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sequence: u64, count: u16, blocks: &[&[u8]]) -> Vec<u8> {
        let mut header = [0; HEADER_BYTES];
        write_header(&mut header, Session(*b"000010059B"), sequence, count);
        let mut bytes = header.to_vec();
        for block in blocks {
            bytes.extend_from_slice(&(block.len() as u16).to_be_bytes());
            bytes.extend_from_slice(block);
        }
        bytes
    }

    #[test]
    fn header_and_blocks_are_read_back() {
        let bytes = packet(7, 2, &[b"first", b""]);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.session.to_string(), "000010059B");
        assert_eq!((packet.sequence, packet.kind), (7, Kind::Messages(2)));
        assert_eq!(packet.next_sequence(), 9);
        assert_eq!(packet.check(), Ok(9));
        let messages: Vec<_> = packet.messages().map(Result::unwrap).collect();
        assert_eq!(messages, [&b"first"[..], b""]);
    }

    #[test]
    fn heartbeat_and_end_of_session_hold_no_message() {
        for (count, kind) in [(0, Kind::Heartbeat), (COUNT_END_OF_SESSION, Kind::EndOfSession)] {
            let bytes = packet(42, count, &[]);
            let packet = Packet::parse(&bytes).unwrap();
            assert_eq!(packet.kind, kind);
            assert_eq!(packet.check(), Ok(0));
            assert_eq!(packet.next_sequence(), 42);
            assert!(packet.messages().next().is_none());
        }
    }

    #[test]
    fn every_truncation_is_an_error_and_never_a_short_message() {
        let bytes = packet(1, 3, &[b"one", b"two", b"three"]);
        for length in 0..bytes.len() {
            match Packet::parse(&bytes[..length]) {
                Err(error) => {
                    assert!(length < HEADER_BYTES);
                    assert_eq!(error, MoldError::ShortHeader { bytes: length });
                }
                Ok(packet) => {
                    assert!(matches!(packet.check(), Err(MoldError::TruncatedMessage { .. })));
                    assert_eq!(packet.messages().filter(Result::is_err).count(), 1);
                }
            }
        }
    }

    #[test]
    fn impossible_sequences_are_refused() {
        for (sequence, count) in [(0, 1), (0, 0), (u64::MAX, 1)] {
            let bytes = packet(sequence, count, &[b"x"]);
            let checked = Packet::parse(&bytes).unwrap().check();
            assert_eq!(checked, Err(MoldError::BadSequence { sequence, count }));
        }
    }

    #[test]
    fn a_session_of_zero_bytes_prints_escaped() {
        assert_eq!(Session([0; 10]).to_string(), "\\x00".repeat(10));
    }

    #[test]
    fn a_request_is_the_specifications_bytes() {
        let session = Session(*b"0123456789");
        let request = MessageRequest { session, sequence: 0x0102, count: 0x0304 };
        assert_eq!(request.encode(), *b"0123456789\0\0\0\0\0\0\x01\x02\x03\x04");
        assert_eq!(MessageRequest::parse(&request.encode()), Some(request));
        for bytes in [0, 19, 21] {
            assert_eq!(MessageRequest::parse(&vec![0; bytes]), None);
        }
    }
}
