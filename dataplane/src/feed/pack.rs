//! Messages into MoldUDP64 packets with a running sequence: the sending half of a session.
//!
//! [`Packer`] fills packets; [`Packetiser`] decides when one leaves: when the next message does not
//! fit, when its first message has waited for the flush time, and a heartbeat after a second without
//! any. Neither has a socket or a clock. Written by the thread that publishes.

use super::moldudp64::{COUNT_END_OF_SESSION, HEADER_BYTES, Session, write_header};

/// Largest payload unless told otherwise: a 1,500-byte MTU without IPv4 and UDP headers.
pub const PAYLOAD_BYTES_MAX: usize = 1472;

/// The most ITCH messages a captured packet holds.
pub const MESSAGES_MAX: u16 = 38;

/// Without a packet for this long a heartbeat is sent (MoldUDP64 1.00: about once a second).
pub const HEARTBEAT_NS: u64 = 1_000_000_000;

/// Bytes a message takes in a packet besides its own.
pub const BLOCK_OVERHEAD_BYTES: usize = 2;

/// Collects messages until a packet is full. Sequence numbers run on from packet to packet.
pub struct Packer {
    session: Session,
    sequence: u64,
    count: u16,
    payload_bytes_max: usize,
    messages_max: u16,
    buffer: Vec<u8>,
}

impl Packer {
    /// A packer whose first message has number `sequence`, with the limits of captured feeds.
    pub fn new(session: Session, sequence: u64) -> Self {
        Self::with_limits(session, sequence, PAYLOAD_BYTES_MAX, MESSAGES_MAX)
    }

    /// The same with packets of at most `payload_bytes_max` bytes, header included, and
    /// `messages_max` messages, 1 to 65,534.
    ///
    /// Panics when a limit leaves no room for a message.
    pub fn with_limits(
        session: Session,
        sequence: u64,
        payload_bytes_max: usize,
        messages_max: u16,
    ) -> Self {
        assert!(payload_bytes_max > HEADER_BYTES + BLOCK_OVERHEAD_BYTES, "{payload_bytes_max}");
        assert!((1..COUNT_END_OF_SESSION).contains(&messages_max), "{messages_max} messages");
        let mut buffer = Vec::with_capacity(payload_bytes_max);
        buffer.resize(HEADER_BYTES, 0);
        Self { session, sequence, count: 0, payload_bytes_max, messages_max, buffer }
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
        let end = self.buffer.len() + BLOCK_OVERHEAD_BYTES + message_bytes;
        self.count < self.messages_max && end <= self.payload_bytes_max
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

/// A packet that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due<'a> {
    /// This many messages.
    Messages(u16, &'a [u8]),
    /// A heartbeat.
    Heartbeat(&'a [u8]),
}

impl<'a> Due<'a> {
    /// The payload to send.
    pub fn payload(&self) -> &'a [u8] {
        match self {
            Self::Messages(_, payload) | Self::Heartbeat(payload) => payload,
        }
    }
}

/// Messages in, packets out when they are due.
pub struct Packetiser {
    packer: Packer,
    flush_ns: u64,
    /// When the first message of the packet being filled came.
    began_ns: u64,
    sent_ns: u64,
    payload: Vec<u8>,
}

impl Packetiser {
    /// Packets of `packer`, none of whose messages waits longer than `flush_ns` for others.
    pub fn new(packer: Packer, flush_ns: u64, now_ns: u64) -> Self {
        Self { packer, flush_ns, began_ns: 0, sent_ns: now_ns, payload: Vec::new() }
    }

    /// The session and the numbers.
    pub fn packer(&self) -> &Packer {
        &self.packer
    }

    /// Number the next message will have.
    pub fn next_sequence(&self) -> u64 {
        self.packer.sequence() + u64::from(self.packer.count())
    }

    /// Adds a message and gives the packet before it if that had no room left, or nothing. A message
    /// that fits no packet is an error and takes no number.
    pub fn push(&mut self, message: &[u8], now_ns: u64) -> Result<Option<Due<'_>>, MessageTooLong> {
        let limit_bytes = self.packer.payload_bytes_max - HEADER_BYTES - BLOCK_OVERHEAD_BYTES;
        if message.len() > limit_bytes {
            return Err(MessageTooLong { bytes: message.len(), limit_bytes });
        }
        let due = match self.packer.fits(message.len()) {
            true => None,
            false => self.packer.take(&mut self.payload),
        };
        if self.packer.count() == 0 {
            self.began_ns = now_ns;
        }
        let pushed = self.packer.push(message);
        debug_assert!(pushed, "an empty packet takes every message within the limit");
        Ok(due.map(|count| {
            self.sent_ns = now_ns;
            Due::Messages(count, &self.payload)
        }))
    }

    /// The packet being filled if its time has come, or a heartbeat if one is due.
    pub fn poll(&mut self, now_ns: u64) -> Option<Due<'_>> {
        if self.packer.count() != 0 {
            let is_due = now_ns.saturating_sub(self.began_ns) >= self.flush_ns;
            return is_due.then(|| self.flush(now_ns))?;
        }
        if now_ns.saturating_sub(self.sent_ns) < HEARTBEAT_NS {
            return None;
        }
        self.sent_ns = now_ns;
        self.payload.clear();
        self.payload.extend_from_slice(&self.packer.heartbeat());
        Some(Due::Heartbeat(&self.payload))
    }

    /// The packet being filled, due or not.
    pub fn flush(&mut self, now_ns: u64) -> Option<Due<'_>> {
        let count = self.packer.take(&mut self.payload)?;
        self.sent_ns = now_ns;
        Some(Due::Messages(count, &self.payload))
    }

    /// When [`Self::poll`] has something to give if no message comes before.
    pub fn due_ns(&self) -> u64 {
        match self.packer.count() {
            0 => self.sent_ns.saturating_add(HEARTBEAT_NS),
            _ => self.began_ns.saturating_add(self.flush_ns),
        }
    }
}

/// A message that fits no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("message of {bytes} bytes, a packet holds one of at most {limit_bytes}")]
pub struct MessageTooLong {
    /// Its length.
    pub bytes: usize,
    /// The longest that fits.
    pub limit_bytes: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::moldudp64::{Kind, Packet};

    const SESSION: Session = Session(*b"0123456789");

    #[test]
    fn packets_are_full_in_order_and_within_the_mtu() {
        let mut packer = Packer::new(SESSION, 1);
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
    fn a_message_waits_for_the_flush_time_and_no_longer() {
        let packer = Packer::with_limits(SESSION, 1, HEADER_BYTES + 2 * (2 + 10), 100);
        let mut packets = Packetiser::new(packer, 500, 1_000);
        assert_eq!(packets.push(&[1; 10], 2_000), Ok(None));
        assert_eq!(packets.push(&[2; 10], 2_400), Ok(None));
        assert_eq!(packets.poll(2_499), None);
        assert_eq!(packets.due_ns(), 2_500);
        let Ok(Some(Due::Messages(2, payload))) = packets.push(&[3; 10], 2_499) else { panic!() };
        assert_eq!(payload.len(), 44);
        assert_eq!(packets.poll(2_998), None);
        assert_eq!(packets.due_ns(), 2_999);
        let Some(Due::Messages(1, payload)) = packets.poll(2_999) else { panic!() };
        assert_eq!(Packet::parse(payload).unwrap().sequence, 3);
        assert_eq!(packets.next_sequence(), 4);
        let error = MessageTooLong { bytes: 23, limit_bytes: 22 };
        assert_eq!(packets.push(&[0; 23], 3_000), Err(error));
        assert_eq!((packets.next_sequence(), packets.flush(3_000)), (4, None));
        assert_eq!(packets.push(&[0; 22], 3_000), Ok(None));
    }

    #[test]
    fn a_quiet_second_is_a_heartbeat() {
        let mut packets = Packetiser::new(Packer::new(SESSION, 9), 0, 1_000);
        assert_eq!(packets.poll(HEARTBEAT_NS + 999), None);
        assert_eq!(packets.due_ns(), HEARTBEAT_NS + 1_000);
        let Some(Due::Heartbeat(payload)) = packets.poll(HEARTBEAT_NS + 1_000) else { panic!() };
        let packet = Packet::parse(payload).unwrap();
        assert_eq!((packet.sequence, packet.kind), (9, Kind::Heartbeat));
        assert_eq!(packets.poll(HEARTBEAT_NS + 1_001), None);
        packets.push(b"x", 2 * HEARTBEAT_NS).unwrap();
        assert!(matches!(packets.poll(2 * HEARTBEAT_NS), Some(Due::Messages(1, _))));
        assert_eq!(packets.poll(3 * HEARTBEAT_NS - 1), None);
    }
}
