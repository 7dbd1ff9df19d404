//! What moved a worker's feeds beside the packets: the clock, snapshots, a worker's beginning.
//!
//! A replay gives the same packets and events to the same code in the same order, and gets the same records.
//! An event is captured only if it had an effect; its stamp is the time that the code was given. In a file it
//! is a packet of link type 147 (`LINKTYPE_USER0`).
//!
//! ```text
//!   kind u8 | cache u8 | channel u8 | piece u8 | count u32 | attempt u64 | number u64, or session | bytes
//! ```
//! Little-endian, 32 bytes and what follows; `cache` is the place of the cache that the feeds publish into.

use crate::feed::channel::SnapshotPiece;
use crate::feed::moldudp64::Session;

/// Bytes in front of those of a snapshot's messages, or of the channels of a beginning.
pub const EVENT_HEADER_BYTES: usize = 32;

/// Bytes of one channel of a beginning: its number, and the number of its first attempt.
const CHANNEL_BYTES: usize = 9;

/// Channels of one worker and cache.
pub const EVENT_CHANNELS_MAX: usize = crate::config::FEEDS_MAX;

/// A channel as its worker begins it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Its number.
    pub channel: u8,
    /// The number from which its attempts to get a snapshot are counted; 0 without recovery.
    pub generation: u64,
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A worker took these channels over: what was published on them is forgotten.
    Begin(Channels<'a>),
    /// Packets that were held, or symbols of a snapshot, had their turn.
    Turn,
    /// Limits, failed writes, records that are due now and then.
    Housekeeping,
    /// Requests to the venue's servers. Of all caches.
    Ask,
    /// A piece of a snapshot came.
    Snapshot {
        /// Number of the channel.
        channel: u8,
        /// Which attempt it is of.
        attempt: u64,
        /// The piece.
        piece: SnapshotPiece<'a>,
    },
}

/// The channels of a beginning, as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels<'a>(&'a [u8]);

impl<'a> Channels<'a> {
    /// Writes them into `room`; those beyond [`EVENT_CHANNELS_MAX`] are left out.
    pub fn new(
        begun: impl Iterator<Item = Begun>,
        room: &'a mut [u8; CHANNEL_BYTES * EVENT_CHANNELS_MAX],
    ) -> Self {
        let mut bytes = 0;
        for (place, begun) in room.chunks_exact_mut(CHANNEL_BYTES).zip(begun) {
            place[0] = begun.channel;
            place[1..].copy_from_slice(&begun.generation.to_le_bytes());
            bytes += CHANNEL_BYTES;
        }
        Self(&room[..bytes])
    }

    /// Room for as many as there can be.
    pub const fn room() -> [u8; CHANNEL_BYTES * EVENT_CHANNELS_MAX] {
        [0; CHANNEL_BYTES * EVENT_CHANNELS_MAX]
    }

    /// Each.
    pub fn iter(&self) -> impl Iterator<Item = Begun> + 'a {
        let (entries, _) = self.0.as_chunks::<CHANNEL_BYTES>();
        entries.iter().map(|&[channel, a, b, c, d, e, f, g, h]| Begun {
            channel,
            generation: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        })
    }
}

impl<'a> Event<'a> {
    /// Header and what follows it; `cache` is the place of the cache.
    pub fn encode(&self, cache: u8) -> ([u8; EVENT_HEADER_BYTES], &'a [u8]) {
        let mut header = [0; EVENT_HEADER_BYTES];
        header[1] = cache;
        let (kind, bytes): (u8, &[u8]) = match *self {
            Self::Begin(channels) => (1, channels.0),
            Self::Turn => (2, &[]),
            Self::Housekeeping => (3, &[]),
            Self::Ask => (4, &[]),
            Self::Snapshot { channel, attempt, piece } => {
                header[2] = channel;
                header[8..16].copy_from_slice(&attempt.to_le_bytes());
                let (number, bytes): (u8, &[u8]) = match piece {
                    SnapshotPiece::Begin(session) => {
                        header[16..26].copy_from_slice(&session.0);
                        (1, &[])
                    }
                    SnapshotPiece::Messages(blocks) => (2, blocks),
                    SnapshotPiece::End(next_sequence) => {
                        header[16..24].copy_from_slice(&next_sequence.to_le_bytes());
                        (3, &[])
                    }
                    SnapshotPiece::Failed => (4, &[]),
                };
                header[3] = number;
                (5, bytes)
            }
        };
        header[0] = kind;
        (header, bytes)
    }

    /// Reads one and the place of its cache; `None` for what no worker writes.
    pub fn decode(packet: &'a [u8]) -> Option<(u8, Self)> {
        let (header, bytes) = packet.split_first_chunk::<EVENT_HEADER_BYTES>()?;
        let (attempt, rest) = header[8..].split_first_chunk::<8>()?;
        let (number, _) = rest.split_first_chunk::<8>()?;
        let (session, _) = rest.split_first_chunk::<10>()?;
        let event = match header[0] {
            1 if bytes.len().is_multiple_of(CHANNEL_BYTES) => Self::Begin(Channels(bytes)),
            2 => Self::Turn,
            3 => Self::Housekeeping,
            4 => Self::Ask,
            5 => Self::Snapshot {
                channel: header[2],
                attempt: u64::from_le_bytes(*attempt),
                piece: match header[3] {
                    1 => SnapshotPiece::Begin(Session(*session)),
                    2 => SnapshotPiece::Messages(bytes),
                    3 => SnapshotPiece::End(u64::from_le_bytes(*number)),
                    4 => SnapshotPiece::Failed,
                    _ => return None,
                },
            },
            _ => return None,
        };
        Some((header[1], event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_their_encoding_and_nonsense_does_not() {
        let begun =
            [(7, 1 << 40), (255, 0)].map(|(channel, generation)| Begun { channel, generation });
        let mut room = Channels::room();
        let channels = Channels::new(begun.into_iter(), &mut room);
        assert_eq!(channels.iter().collect::<Vec<_>>(), begun);
        let piece = |piece| Event::Snapshot { channel: 9, attempt: u64::MAX, piece };
        for event in [
            Event::Begin(channels),
            Event::Turn,
            Event::Housekeeping,
            Event::Ask,
            piece(SnapshotPiece::Begin(Session(*b"000000MON1"))),
            piece(SnapshotPiece::Messages(b"\0\x01x")),
            piece(SnapshotPiece::End(1 << 50)),
            piece(SnapshotPiece::Failed),
        ] {
            let (header, bytes) = event.encode(3);
            let packet = [&header, bytes].concat();
            assert_eq!(Event::decode(&packet), Some((3, event)));
            assert_eq!(Event::decode(&packet[..EVENT_HEADER_BYTES - 1]), None);
        }
        for (kind, piece) in [(0, 0), (6, 0), (5, 0), (5, 5)] {
            let mut packet = [0; EVENT_HEADER_BYTES];
            (packet[0], packet[3]) = (kind, piece);
            assert_eq!(Event::decode(&packet), None);
        }
    }
}
