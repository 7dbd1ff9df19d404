//! Packets out of a byte stream that comes in any pieces, and packets into one.
//!
//! A packet that lies whole in the bytes received is shown where it lies; one that does not is put
//! together in a buffer that was made at the start and never grows.

use super::SoupError;

/// Bytes of the length in front of every packet.
const LENGTH_BYTES: usize = 2;

/// The longest packet the protocol can say: type and payload.
pub const PACKET_BYTES_MAX: usize = u16::MAX as usize;

/// One packet: its type and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The type byte.
    pub kind: u8,
    /// What follows the type.
    pub payload: &'a [u8],
}

/// The receiving half of one connection.
pub struct Frames {
    /// Length and packet that are not whole yet.
    buffer: Box<[u8]>,
    filled: usize,
    /// The buffer's packet was shown and is to be forgotten.
    shown: bool,
    failed: Option<SoupError>,
}

impl Frames {
    /// A stream from its first byte, of packets of at most `packet_bytes_max` bytes (type and payload,
    /// 1 to 65,535), which is also the memory taken.
    pub fn new(packet_bytes_max: usize) -> Self {
        assert!((1..=PACKET_BYTES_MAX).contains(&packet_bytes_max), "{packet_bytes_max} bytes");
        let buffer = vec![0; LENGTH_BYTES + packet_bytes_max].into_boxed_slice();
        Self { buffer, filled: 0, shown: false, failed: None }
    }

    /// Takes the next packet from the front of `input`, which then begins behind it. `None` when
    /// `input` is used up and the packet is not whole. After an error the stream has no boundaries any
    /// more: every further call gives the same error.
    pub fn next<'b, 'a: 'b>(
        &'b mut self,
        input: &mut &'a [u8],
    ) -> Result<Option<Frame<'b>>, SoupError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if std::mem::take(&mut self.shown) {
            self.filled = 0;
        }
        if self.filled == 0 {
            match self.whole(input) {
                Ok(Some((frame, rest))) => {
                    *input = rest;
                    return Ok(Some(frame));
                }
                Ok(None) => {}
                Err(error) => {
                    self.failed = Some(error);
                    return Err(error);
                }
            }
        }
        self.fill(LENGTH_BYTES, input);
        if self.filled < LENGTH_BYTES {
            return Ok(None);
        }
        let bytes = usize::from(u16::from_be_bytes([self.buffer[0], self.buffer[1]]));
        if let Err(error) = self.check(bytes) {
            self.failed = Some(error);
            return Err(error);
        }
        let end = LENGTH_BYTES + bytes;
        self.fill(end, input);
        if self.filled < end {
            return Ok(None);
        }
        self.shown = true;
        let packet = &self.buffer[LENGTH_BYTES..end];
        Ok(Some(Frame { kind: packet[0], payload: &packet[1..] }))
    }

    /// The packet at the front of `input` if all of it is there, and what follows it.
    fn whole<'a>(&self, input: &'a [u8]) -> Result<Option<(Frame<'a>, &'a [u8])>, SoupError> {
        let Some((length, rest)) = input.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let bytes = usize::from(u16::from_be_bytes(*length));
        self.check(bytes)?;
        Ok(rest
            .split_at_checked(bytes)
            .map(|(packet, rest)| (Frame { kind: packet[0], payload: &packet[1..] }, rest)))
    }

    fn check(&self, bytes: usize) -> Result<(), SoupError> {
        let limit_bytes = self.buffer.len() - LENGTH_BYTES;
        match bytes {
            0 => Err(SoupError::NoType),
            _ if bytes > limit_bytes => Err(SoupError::TooLong { bytes, limit_bytes }),
            _ => Ok(()),
        }
    }

    /// Moves bytes from `input` until the buffer holds `end` of them or there are no more.
    fn fill(&mut self, end: usize, input: &mut &[u8]) {
        let wanted = end.saturating_sub(self.filled).min(input.len());
        let (taken, rest) = input.split_at(wanted);
        self.buffer[self.filled..self.filled + wanted].copy_from_slice(taken);
        self.filled += wanted;
        *input = rest;
    }
}

/// Appends one packet, whose payload is `payload`, at most 65,534 bytes.
///
/// Panics when it is longer: what is sent is bounded where it is made.
pub fn write_packet(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    assert!(payload.len() < PACKET_BYTES_MAX, "a payload of {} bytes", payload.len());
    let length = payload.len() as u16 + 1;
    out.extend_from_slice(&length.to_be_bytes());
    out.push(kind);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stream(packets: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        packets.iter().for_each(|(kind, payload)| write_packet(&mut bytes, *kind, payload));
        bytes
    }

    /// Everything `frames` gives for `pieces` in turn.
    fn read(frames: &mut Frames, pieces: &[&[u8]]) -> Result<Vec<(u8, Vec<u8>)>, SoupError> {
        let mut read = Vec::new();
        for piece in pieces {
            let mut input = *piece;
            while let Some(frame) = frames.next(&mut input)? {
                read.push((frame.kind, frame.payload.to_vec()));
            }
            assert!(input.is_empty());
        }
        Ok(read)
    }

    proptest! {
        #[test]
        fn any_pieces_give_the_same_packets(
            packets in prop::collection::vec(
                (any::<u8>(), prop::collection::vec(any::<u8>(), 0..70)), 0..20),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
        ) {
            let bytes = stream(&packets);
            let mut places: Vec<usize> =
                cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
            places.sort_unstable();
            let pieces: Vec<&[u8]> =
                places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(read(&mut Frames::new(71), &pieces), Ok(packets.clone()));
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(read(&mut Frames::new(71), &single), Ok(packets));
        }

        #[test]
        fn no_bytes_make_it_panic(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..90), 0..12),
            limit in 1usize..300,
        ) {
            let mut frames = Frames::new(limit);
            for piece in &pieces {
                let mut input = &piece[..];
                while let Ok(Some(frame)) = frames.next(&mut input) {
                    prop_assert!(frame.payload.len() < limit);
                }
            }
        }
    }

    #[test]
    fn a_bad_length_ends_the_stream_for_good() {
        let long = SoupError::TooLong { bytes: 9, limit_bytes: 8 };
        for (bytes, error) in [(&b"\0\0"[..], SoupError::NoType), (b"\0\x09", long)] {
            for pieces in [vec![bytes], bytes.chunks(1).collect()] {
                let mut frames = Frames::new(8);
                assert_eq!(read(&mut frames, &pieces), Err(error));
                assert_eq!(frames.next(&mut &b"\0\x01H"[..]), Err(error));
            }
        }
        assert_eq!(
            read(&mut Frames::new(8), &[b"\0\x08S1234567"]),
            Ok(vec![(b'S', b"1234567".to_vec())])
        );
    }

    #[test]
    fn the_longest_packet_fits() {
        let packets = vec![(b'S', vec![7; PACKET_BYTES_MAX - 1])];
        let bytes = stream(&packets);
        assert_eq!(bytes[..3], [0xff, 0xff, b'S']);
        let (front, back) = bytes.split_at(30_000);
        assert_eq!(read(&mut Frames::new(PACKET_BYTES_MAX), &[front, back]), Ok(packets));
    }
}
