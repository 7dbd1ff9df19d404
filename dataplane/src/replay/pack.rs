//! Messages into MoldUDP64 packets with a running sequence.

use crate::feed::moldudp64::{COUNT_END_OF_SESSION, HEADER_BYTES, Session, write_header};
use std::time::{SystemTime, UNIX_EPOCH};

/// Largest payload: a 1,500-byte MTU without IPv4 and UDP headers.
pub const PAYLOAD_BYTES_MAX: usize = 1472;

/// The most ITCH messages a captured packet holds.
pub const MESSAGES_MAX: u16 = 38;

/// A session no earlier run had: the clock in milliseconds, base 36, ten characters.
pub fn session_of_now() -> Session {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut rest = now.as_millis() as u64;
    let mut bytes = [b'0'; 10];
    for byte in bytes.iter_mut().rev() {
        *byte = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[(rest % 36) as usize];
        rest /= 36;
    }
    Session(bytes)
}

/// Collects messages until a packet is full. Sequence numbers run on from packet to packet.
pub struct Packer {
    session: Session,
    sequence: u64,
    count: u16,
    buffer: Vec<u8>,
}

impl Packer {
    /// A packer whose first message has number `sequence`.
    pub fn new(session: Session, sequence: u64) -> Self {
        let mut buffer = Vec::with_capacity(PAYLOAD_BYTES_MAX);
        buffer.resize(HEADER_BYTES, 0);
        Self { session, sequence, count: 0, buffer }
    }

    /// The session.
    pub fn session(&self) -> Session {
        self.session
    }

    /// Number of the next message that begins a packet.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Messages collected for the packet.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Whether a message of this length still fits the packet.
    pub fn fits(&self, message_bytes: usize) -> bool {
        self.count < MESSAGES_MAX && self.buffer.len() + 2 + message_bytes <= PAYLOAD_BYTES_MAX
    }

    /// Adds a message that [`Self::fits`]. A message longer than a packet is refused by returning
    /// `false`, as is one that does not fit this packet.
    #[must_use]
    pub fn push(&mut self, message: &[u8]) -> bool {
        if !self.fits(message.len()) {
            return false;
        }
        self.buffer.extend_from_slice(&(message.len() as u16).to_be_bytes());
        self.buffer.extend_from_slice(message);
        self.count += 1;
        true
    }

    /// The packet collected, `None` when it is empty. The next one begins.
    pub fn take(&mut self, out: &mut Vec<u8>) -> Option<u16> {
        if self.count == 0 {
            return None;
        }
        let count = std::mem::take(&mut self.count);
        self.finish(count, out);
        self.buffer.truncate(HEADER_BYTES);
        self.sequence += u64::from(count);
        Some(count)
    }

    /// A heartbeat: the number of the next message, and nothing else.
    pub fn heartbeat(&self) -> [u8; HEADER_BYTES] {
        self.control(0)
    }

    /// The announcement that the session is over.
    pub fn end_of_session(&self) -> [u8; HEADER_BYTES] {
        self.control(COUNT_END_OF_SESSION)
    }

    /// Gives an existing packet this session and the running sequence. `count` is its message count.
    pub fn readdress(&mut self, packet: &mut [u8; HEADER_BYTES], count: u16) {
        write_header(packet, self.session, self.sequence, count);
        if count != COUNT_END_OF_SESSION {
            self.sequence += u64::from(count);
        }
    }

    fn finish(&mut self, count: u16, out: &mut Vec<u8>) {
        if let Some(header) = self.buffer.first_chunk_mut::<HEADER_BYTES>() {
            write_header(header, self.session, self.sequence, count);
        }
        out.clear();
        out.extend_from_slice(&self.buffer);
    }

    fn control(&self, count: u16) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        write_header(&mut header, self.session, self.sequence, count);
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::moldudp64::{Kind, Packet};

    #[test]
    fn packets_are_full_in_order_and_within_the_mtu() {
        let mut packer = Packer::new(Session(*b"0123456789"), 1);
        let mut packet = Vec::new();
        let mut sent = 0u64;
        for number in 0..1_000u32 {
            let message = vec![number as u8; 19 + number as usize % 32];
            if !packer.fits(message.len()) {
                let count = packer.take(&mut packet).unwrap();
                let read = Packet::parse(&packet).unwrap();
                assert_eq!(read.check(), Ok(packet.len() - HEADER_BYTES));
                assert_eq!((read.sequence, read.kind), (1 + sent, Kind::Messages(count)));
                assert!(packet.len() <= PAYLOAD_BYTES_MAX && count <= MESSAGES_MAX);
                sent += u64::from(count);
            }
            assert!(packer.push(&message));
        }
        sent += u64::from(packer.take(&mut packet).unwrap());
        assert_eq!((sent, packer.sequence()), (1_000, 1_001));
        assert_eq!(packer.take(&mut packet), None);
        assert_eq!(Packet::parse(&packer.heartbeat()).unwrap().kind, Kind::Heartbeat);
        assert_eq!(Packet::parse(&packer.end_of_session()).unwrap().sequence, 1_001);
        assert!(!packer.push(&[0; PAYLOAD_BYTES_MAX]));
    }

    #[test]
    fn sessions_of_the_clock_are_ten_printable_characters() {
        let session = session_of_now();
        assert!(session.0.iter().all(u8::is_ascii_alphanumeric), "{session}");
    }
}
