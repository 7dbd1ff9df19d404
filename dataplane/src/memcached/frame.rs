//! The frame header of a UDP datagram (`doc/protocol.txt`, "UDP protocol"): request id, sequence,
//! total and a reserved word, each 16 bits, big-endian.

use crate::limits::REPLY_PAYLOAD_BYTES_MAX;

/// Bytes of the frame header.
pub const FRAME_HEADER_BYTES: usize = 8;
/// Bytes of reply text in one datagram.
pub const FRAME_TEXT_BYTES_MAX: usize = REPLY_PAYLOAD_BYTES_MAX - FRAME_HEADER_BYTES;
/// Datagrams of one reply. Too low: large values need TCP. Too high: one request makes a burst that
/// no socket buffer holds, and clients lose part of it.
pub const REPLY_FRAMES_MAX: usize = 64;

/// What is known of a request's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Chosen by the client, returned in every datagram of the reply.
    pub request_id: u16,
}

impl FrameHeader {
    /// Splits a request into header and commands. `None`: shorter than a header, or part of a request
    /// of several datagrams; neither is answered. Sequence and reserved word are not looked at.
    #[inline]
    pub fn parse(payload: &[u8]) -> Option<(Self, &[u8])> {
        let (&[id0, id1, _, _, total0, total1, _, _], text) = payload.split_first_chunk()?;
        let total = u16::from_be_bytes([total0, total1]);
        (total == 1).then_some((Self { request_id: u16::from_be_bytes([id0, id1]) }, text))
    }

    /// The header of datagram `sequence` of `total`.
    #[inline]
    pub fn reply(self, sequence: u16, total: u16) -> [u8; FRAME_HEADER_BYTES] {
        let [id0, id1] = self.request_id.to_be_bytes();
        let [sequence0, sequence1] = sequence.to_be_bytes();
        let [total0, total1] = total.to_be_bytes();
        [id0, id1, sequence0, sequence1, total0, total1, 0, 0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_requests_are_answered() {
        let parse = |bytes: &[u8]| FrameHeader::parse(bytes).map(|(header, _)| header.request_id);
        assert_eq!(parse(&[1, 2, 0, 0, 0, 1, 0, 0]), Some(0x0102));
        assert_eq!(parse(&[1, 2, 9, 9, 0, 1, 7, 7, b'x']), Some(0x0102));
        assert_eq!(parse(&[1, 2, 0, 0, 0, 2, 0, 0]), None);
        assert_eq!(parse(&[1, 2, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(parse(&[1, 2, 0, 0, 0, 1, 0]), None);
        let header = FrameHeader { request_id: 0x0a0b };
        assert_eq!(header.reply(3, 15), [0x0a, 0x0b, 0, 3, 0, 15, 0, 0]);
    }
}
