//! What front and worker say to each other of feeds: pieces of snapshots, one way and the other.

/// Tag of a message in the request ring that is a piece of a snapshot, see [`SnapshotMessage`].
const TAG_SNAPSHOT: u32 = 1 << 9;

/// Whether a message of the request ring is a piece of a snapshot, and no command.
pub const fn is_snapshot(tag: u32) -> bool {
    tag == TAG_SNAPSHOT
}

/// Tag of a message in the request ring that asks for the books of a channel, see [`books_wanted`].
const TAG_BOOKS_WANTED: u32 = 1 << 10;

/// Bytes of such a message.
const BOOKS_WANTED_BYTES: usize = 16;

/// Tag and payload of a message that asks for the books of a channel, which come in [`Answer::Books`]; of an
/// attempt that is asked for again nothing more comes.
pub fn books_wanted(channel: u8, attempt: u64) -> (u32, [u8; BOOKS_WANTED_BYTES]) {
    let mut payload = [0; BOOKS_WANTED_BYTES];
    payload[..8].copy_from_slice(&attempt.to_le_bytes());
    payload[8] = channel;
    (TAG_BOOKS_WANTED, payload)
}

/// Whether a message of the request ring asks for books.
pub const fn is_books_wanted(tag: u32) -> bool {
    tag == TAG_BOOKS_WANTED
}

/// Reads a message that asks for books: channel and attempt; `None` for one that no front writes.
pub fn read_books_wanted(payload: &[u8]) -> Option<(u8, u64)> {
    let payload: &[u8; BOOKS_WANTED_BYTES] = payload.try_into().ok()?;
    let (attempt, rest) = payload.split_first_chunk::<8>()?;
    Some((rest[0], u64::from_le_bytes(*attempt)))
}

/// Bytes in front of a piece of a snapshot: attempt, channel, kind, and what the kind says.
pub const SNAPSHOT_HEADER_BYTES: usize = 32;

/// A piece of a snapshot of a feed, which the front fetches for the worker that asked for it. No answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotMessage<'a> {
    /// Number of the channel.
    pub channel: u8,
    /// Which attempt it is of.
    pub attempt: u64,
    /// What it says.
    pub content: SnapshotContent<'a>,
}

/// What a piece of a snapshot says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotContent<'a> {
    /// It is about to come, of this session.
    Begin([u8; 10]),
    /// Messages, each behind its length (big-endian, 2 bytes).
    Messages(&'a [u8]),
    /// All of it has come: every message before this number is in it.
    End(u64),
    /// No more of it comes.
    Failed,
}

impl<'a> SnapshotMessage<'a> {
    /// Tag, header and what follows it.
    pub fn encode(&self) -> (u32, [u8; SNAPSHOT_HEADER_BYTES], &'a [u8]) {
        let mut header = [0; SNAPSHOT_HEADER_BYTES];
        header[..8].copy_from_slice(&self.attempt.to_le_bytes());
        header[8] = self.channel;
        let (kind, rest): (u8, &[u8]) = match self.content {
            SnapshotContent::Begin(session) => {
                header[16..26].copy_from_slice(&session);
                (1, &[])
            }
            SnapshotContent::Messages(blocks) => (2, blocks),
            SnapshotContent::End(next_sequence) => {
                header[16..24].copy_from_slice(&next_sequence.to_le_bytes());
                (3, &[])
            }
            SnapshotContent::Failed => (4, &[]),
        };
        header[9] = kind;
        (TAG_SNAPSHOT, header, rest)
    }

    /// Reads a message; `None` for one that no front writes.
    pub fn decode(message: &'a [u8]) -> Option<Self> {
        let (header, rest) = message.split_first_chunk::<SNAPSHOT_HEADER_BYTES>()?;
        let (attempt, after) = header.split_first_chunk::<8>()?;
        let (number, _) = header[16..].split_first_chunk::<8>()?;
        let (session, _) = header[16..].split_first_chunk::<10>()?;
        let content = match after[1] {
            1 => SnapshotContent::Begin(*session),
            2 => SnapshotContent::Messages(rest),
            3 => SnapshotContent::End(u64::from_le_bytes(*number)),
            4 => SnapshotContent::Failed,
            _ => return None,
        };
        Some(Self { channel: after[0], attempt: u64::from_le_bytes(*attempt), content })
    }
}

#[cfg(all(test, not(loom), not(miri)))]
mod tests {
    use super::super::Answer;
    use super::*;

    #[test]
    fn what_is_said_of_books_survives_its_encoding() {
        let (tag, payload) = books_wanted(7, 1 << 40);
        assert!(is_books_wanted(tag) && !is_snapshot(tag));
        assert_eq!(read_books_wanted(&payload), Some((7, 1 << 40)));
        assert_eq!(read_books_wanted(&payload[1..]), None);
        let content = SnapshotContent::Messages(b"\0\x01x");
        let piece = SnapshotMessage { channel: 9, attempt: 5, content };
        let (tag, header, rest) = Answer::books(&piece);
        let payload = [&header[..], rest].concat();
        assert_eq!(Answer::decode(tag, &payload), Some(Answer::Books(piece)));
        assert_eq!(Answer::decode(tag, &payload[..9]), None);
    }
}
