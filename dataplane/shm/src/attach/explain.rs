//! The request to say where a frame would go.
//!
//! | offset | type | field |
//! | --- | --- | --- |
//! | 0 | | the eight bytes of a [`Request`] |
//! | 8 | 16 bytes | name of an interface, padded with zeros; all zero: the node's first |
//! | 24 | u32 | receive queue |
//! | 28 | u8 | 1: the frame is to have the interface's own MAC as its destination |
//! | 29 | 3 bytes | zero |
//! | 32 | 14..=3520 bytes | the frame, from its Ethernet header on |
//!
//! The reply's payload is TOML: what the frame's way looked like, or `error = "..."`.

use super::{AttachError, PACKET_BYTES_MAX, REQUEST_BYTES, Request, Verb, word};

/// Bytes before the frame.
pub const EXPLAIN_HEADER_BYTES: usize = REQUEST_BYTES + INTERFACE_BYTES + 8;

/// Shortest frame that can be asked about: an Ethernet header.
pub const EXPLAIN_FRAME_BYTES_MIN: usize = 14;

/// Longest frame: what the kernel runs an XDP program on in memory.
pub const EXPLAIN_FRAME_BYTES_MAX: usize = 3520;

/// Bytes of an interface's name, with a zero behind it.
const INTERFACE_BYTES: usize = 16;

const _: () = assert!(EXPLAIN_HEADER_BYTES + EXPLAIN_FRAME_BYTES_MAX <= PACKET_BYTES_MAX);

/// A request of [`Verb::Explain`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainRequest {
    /// Where the frame arrives, at most 15 bytes; empty for the node's first interface.
    pub interface: String,
    /// On which of its queues.
    pub queue: u32,
    /// Whether the frame's destination is to be the interface's own MAC.
    pub to_us: bool,
    /// [`EXPLAIN_FRAME_BYTES_MIN`] to [`EXPLAIN_FRAME_BYTES_MAX`] bytes.
    pub frame: Box<[u8]>,
}

impl ExplainRequest {
    /// The packet. A longer name is cut.
    pub fn encode(&self) -> Vec<u8> {
        let mut packet = vec![0; EXPLAIN_HEADER_BYTES];
        packet[..REQUEST_BYTES].copy_from_slice(&Request { verb: Verb::Explain }.encode());
        let name = self.interface.as_bytes();
        let bytes = name.len().min(INTERFACE_BYTES - 1);
        packet[REQUEST_BYTES..REQUEST_BYTES + bytes].copy_from_slice(&name[..bytes]);
        packet[24..28].copy_from_slice(&self.queue.to_le_bytes());
        packet[28] = self.to_us.into();
        packet.extend_from_slice(&self.frame);
        packet
    }

    /// Reads what follows the eight bytes of the request.
    pub(super) fn decode_rest(packet: &[u8]) -> Result<Self, AttachError> {
        let length = AttachError::Length(packet.len());
        let (head, frame) = packet.split_at_checked(EXPLAIN_HEADER_BYTES).ok_or(length)?;
        if !(EXPLAIN_FRAME_BYTES_MIN..=EXPLAIN_FRAME_BYTES_MAX).contains(&frame.len()) {
            return Err(length);
        }
        let name = &head[REQUEST_BYTES..REQUEST_BYTES + INTERFACE_BYTES - 1];
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        Ok(Self {
            interface: String::from_utf8_lossy(&name[..end]).into_owned(),
            queue: word(head, 24),
            to_us: head[28] != 0,
            frame: frame.into(),
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::Ask;
    use super::*;

    #[test]
    fn requests_survive_their_encoding_and_bad_lengths_do_not() {
        for (interface, frame_bytes) in [("", 14), ("eth0", 60), ("fifteen-bytes-i", 3520)] {
            let frame = vec![7; frame_bytes].into();
            let request =
                ExplainRequest { interface: interface.into(), queue: 3, to_us: true, frame };
            assert_eq!(Ask::decode(&request.encode()), Ok(Ask::Explain(request)));
        }
        let request = ExplainRequest {
            interface: "eth0".into(),
            queue: 0,
            to_us: false,
            frame: vec![0; 14].into(),
        };
        let packet = request.encode();
        for bytes in REQUEST_BYTES..packet.len() {
            assert_eq!(Ask::decode(&packet[..bytes]), Err(AttachError::Length(bytes)));
        }
        let long = ExplainRequest { frame: vec![0; 3521].into(), ..request }.encode();
        assert_eq!(Ask::decode(&long), Err(AttachError::Length(long.len())));
    }
}
