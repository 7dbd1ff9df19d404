//! IEX-TP framing.
//!
//! Source: IEX "Transport Specification", version 1.0, outbound segment. All integers are little-endian.
//!
//! ```text
//!   0   version        1      always 1
//!   1   reserved       1
//!   2   protocol       2      what the messages are; TOPS 1.5 and 1.6 are 0x8003
//!   4   channel        4      the stream of that protocol
//!   8   session        4      one run of sequence numbers
//!   12  payload bytes  2
//!   14  messages       2      0: heartbeat
//!   16  stream offset  8      of the payload, in bytes
//!   24  sequence       8      of the first message, or of the next one in a heartbeat
//!   32  send time      8      nanoseconds since 1970 in UTC
//!   40  | length(2) message ... | length(2) message ...
//! ```
//!
//! Sequence numbers start at 1. There is no end of session but the last message, a system event.

use super::wire::Wire;
use crate::feed::moldudp64::{Kind, Packet, Session};

/// Bytes of the segment header.
pub const HEADER_BYTES: usize = 40;

/// The version of the transport that is understood.
pub const VERSION: u8 = 1;

/// What the messages of TOPS 1.5 and 1.6 are called.
pub const PROTOCOL_TOPS: u16 = 0x8003;

/// Highest channel number that a session's name has room for. IEX numbers its feeds' channels from 1.
pub const CHANNEL_MAX: u32 = 0xff;

/// Why a datagram is no segment of the wanted protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IexTpError {
    /// Shorter than the header.
    #[error("{bytes} bytes are shorter than the {HEADER_BYTES}-byte header")]
    ShortHeader {
        /// Length of the datagram.
        bytes: usize,
    },
    /// Not version 1, or not IEX-TP.
    #[error("version {version} is not {VERSION}")]
    Version {
        /// The version found.
        version: u8,
    },
    /// Messages of another protocol: DEEP is 0x8004.
    #[error("messages of protocol {protocol:#06x}, not {wanted:#06x}")]
    MessageProtocol {
        /// The protocol found.
        protocol: u16,
        /// The protocol wanted.
        wanted: u16,
    },
    /// A channel that a session's name has no room for.
    #[error("channel {channel} is above {CHANNEL_MAX}")]
    Channel {
        /// The channel found.
        channel: u32,
    },
    /// The payload is longer than what came, or its messages do not fill it.
    #[error("{claimed} bytes of payload, of which {filled} are there or filled by messages")]
    PayloadLength {
        /// What the header says.
        claimed: u16,
        /// What there is.
        filled: usize,
    },
    /// A message reaches past the end of the payload.
    #[error("message {index} of {count} reaches past the end of the payload")]
    TruncatedMessage {
        /// Index of the message in this segment, from 0.
        index: u16,
        /// The header's message count.
        count: u16,
    },
    /// The sequence numbers leave the range 1..=u64::MAX.
    #[error("sequence {sequence} with {count} messages leaves the range of sequence numbers")]
    BadSequence {
        /// The header's sequence number.
        sequence: u64,
        /// The header's message count.
        count: u16,
    },
}

/// The fields of a segment header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// [`VERSION`].
    pub version: u8,
    /// What the messages are.
    pub protocol: u16,
    /// The stream.
    pub channel: u32,
    /// The run of sequence numbers.
    pub session: u32,
    /// Bytes of the messages with their lengths.
    pub payload_bytes: u16,
    /// How many messages; 0 for a heartbeat.
    pub count: u16,
    /// Bytes of the stream before the payload.
    pub stream_offset: u64,
    /// Number of the first message, or of the next.
    pub sequence: u64,
    /// When it was sent: nanoseconds since 1970 in UTC.
    pub send_time_ns: i64,
}

impl Header {
    /// Reads a header and what is behind it, whatever it says.
    pub fn parse(datagram: &[u8]) -> Result<(Self, &[u8]), IexTpError> {
        let Some((header, rest)) = datagram.split_first_chunk::<HEADER_BYTES>() else {
            return Err(IexTpError::ShortHeader { bytes: datagram.len() });
        };
        let two = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let header = Self {
            version: header[0],
            protocol: two(2),
            channel: u32::get(&header[4..8]),
            session: u32::get(&header[8..12]),
            payload_bytes: two(12),
            count: two(14),
            stream_offset: u64::get(&header[16..24]),
            sequence: u64::get(&header[24..32]),
            send_time_ns: i64::get(&header[32..40]),
        };
        Ok((header, rest))
    }

    /// The header's bytes, for tests and tools.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0] = self.version;
        out[2..4].copy_from_slice(&self.protocol.to_le_bytes());
        out[4..8].copy_from_slice(&self.channel.to_le_bytes());
        out[8..12].copy_from_slice(&self.session.to_le_bytes());
        out[12..14].copy_from_slice(&self.payload_bytes.to_le_bytes());
        out[14..16].copy_from_slice(&self.count.to_le_bytes());
        out[16..24].copy_from_slice(&self.stream_offset.to_le_bytes());
        out[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        out[32..40].copy_from_slice(&self.send_time_ns.to_le_bytes());
        out
    }

    /// The session as records and arbitration know it: session id and channel in hexadecimal, eight digits
    /// and two. Channel at most [`CHANNEL_MAX`].
    pub fn session_name(&self) -> Session {
        let digit = |nibble: u32| b"0123456789abcdef"[nibble as usize & 15];
        let mut name = [0; 10];
        for (place, out) in name.iter_mut().take(8).enumerate() {
            *out = digit(self.session >> (28 - 4 * place));
        }
        (name[8], name[9]) = (digit(self.channel >> 4), digit(self.channel));
        Session(name)
    }
}

/// Reads a datagram whose messages are to be of protocol `wanted` and bounds every one of them. What follows
/// the payload is not part of the segment.
pub fn parse(datagram: &[u8], wanted: u16) -> Result<Packet<'_>, IexTpError> {
    let (header, rest) = Header::parse(datagram)?;
    let Header { version, protocol, channel, payload_bytes, count, sequence, .. } = header;
    if version != VERSION {
        return Err(IexTpError::Version { version });
    }
    if protocol != wanted {
        return Err(IexTpError::MessageProtocol { protocol, wanted });
    }
    if channel > CHANNEL_MAX {
        return Err(IexTpError::Channel { channel });
    }
    let Some(payload) = rest.get(..usize::from(payload_bytes)) else {
        return Err(IexTpError::PayloadLength { claimed: payload_bytes, filled: rest.len() });
    };
    if sequence == 0 || sequence.checked_add(u64::from(count)).is_none() {
        return Err(IexTpError::BadSequence { sequence, count });
    }
    let mut blocks = Blocks { rest: payload, left: count };
    if (&mut blocks).count() != usize::from(count) {
        return Err(IexTpError::TruncatedMessage { index: count - blocks.left, count });
    }
    if !blocks.rest.is_empty() {
        let filled = payload.len() - blocks.rest.len();
        return Err(IexTpError::PayloadLength { claimed: payload_bytes, filled });
    }
    let kind = if count == 0 { Kind::Heartbeat } else { Kind::Messages(count) };
    Ok(Packet::of_blocks(header.session_name(), sequence, kind, payload))
}

/// The messages of a packet that [`parse`] has read.
#[inline]
pub fn messages<'a>(packet: &Packet<'a>) -> Blocks<'a> {
    Blocks { rest: packet.blocks(), left: packet.message_count() }
}

/// Iterator over message blocks; ends where one does not fit.
#[derive(Clone, Debug)]
pub struct Blocks<'a> {
    rest: &'a [u8],
    left: u16,
}

impl<'a> Iterator for Blocks<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.left == 0 {
            return None;
        }
        let (length, rest) = self.rest.split_first_chunk::<2>()?;
        let (message, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
        self.left -= 1;
        self.rest = rest;
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        version: VERSION,
        protocol: PROTOCOL_TOPS,
        channel: 1,
        session: 0x4496_0000,
        payload_bytes: 0,
        count: 0,
        stream_offset: 7,
        sequence: 9,
        send_time_ns: 11,
    };

    fn segment(header: Header, messages: &[&[u8]]) -> Vec<u8> {
        let mut payload = Vec::new();
        for message in messages {
            payload.extend((message.len() as u16).to_le_bytes());
            payload.extend(*message);
        }
        let (payload_bytes, count) = (payload.len() as u16, messages.len() as u16);
        [&Header { payload_bytes, count, ..header }.encode()[..], &payload].concat()
    }

    #[test]
    fn a_segment_gives_its_messages_and_its_session_a_name() {
        let bytes = segment(HEADER, &[b"one", b"", b"three"]);
        let packet = parse(&bytes, PROTOCOL_TOPS).unwrap();
        assert_eq!((packet.session, packet.sequence), (Session(*b"4496000001"), 9));
        assert_eq!((packet.kind, packet.next_sequence()), (Kind::Messages(3), 12));
        assert_eq!(messages(&packet).collect::<Vec<_>>(), [&b"one"[..], b"", b"three"]);
        let heartbeat = segment(HEADER, &[]);
        assert_eq!(parse(&heartbeat, PROTOCOL_TOPS).unwrap().kind, Kind::Heartbeat);
        // What a switch or a capture has put behind it is none of its own.
        let trailed = [&bytes[..], &[1, 2, 3]].concat();
        assert_eq!(messages(&parse(&trailed, PROTOCOL_TOPS).unwrap()).count(), 3);
        let (other_session, other_channel) =
            (Header { session: 1, ..HEADER }, Header { channel: 0x2a, ..HEADER });
        assert_eq!(other_session.session_name(), Session(*b"0000000101"));
        assert_eq!(other_channel.session_name(), Session(*b"449600002a"));
    }

    #[test]
    fn what_is_no_segment_of_tops_is_refused_whole() {
        let bytes = segment(HEADER, &[b"one", b"two"]);
        let with = |at: usize, byte: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            parse(&bytes, PROTOCOL_TOPS).map(|packet| packet.kind)
        };
        assert_eq!(with(0, 2), Err(IexTpError::Version { version: 2 }));
        let wanted = PROTOCOL_TOPS;
        assert_eq!(with(2, 4), Err(IexTpError::MessageProtocol { protocol: 0x8004, wanted }));
        assert_eq!(with(5, 1), Err(IexTpError::Channel { channel: 257 }));
        assert_eq!(with(24, 0), Err(IexTpError::BadSequence { sequence: 0, count: 2 }));
        assert_eq!(with(14, 3), Err(IexTpError::TruncatedMessage { index: 2, count: 3 }));
        assert_eq!(with(14, 1), Err(IexTpError::PayloadLength { claimed: 10, filled: 5 }));
        assert_eq!(with(12, 11), Err(IexTpError::PayloadLength { claimed: 11, filled: 10 }));
        assert_eq!(with(12, 9), Err(IexTpError::TruncatedMessage { index: 1, count: 2 }));
        assert_eq!(with(40, 9), Err(IexTpError::TruncatedMessage { index: 0, count: 2 }));
        // A heartbeat has nothing behind it.
        assert_eq!(with(14, 0), Err(IexTpError::PayloadLength { claimed: 10, filled: 0 }));
        for length in 0..HEADER_BYTES {
            let error = parse(&bytes[..length], PROTOCOL_TOPS).unwrap_err();
            assert_eq!(error, IexTpError::ShortHeader { bytes: length });
        }
        let last = Header { sequence: u64::MAX, ..HEADER };
        assert!(parse(&segment(last, &[]), PROTOCOL_TOPS).is_ok());
        let error = parse(&segment(last, &[b"x"]), PROTOCOL_TOPS).unwrap_err();
        assert_eq!(error, IexTpError::BadSequence { sequence: u64::MAX, count: 1 });
    }
}
