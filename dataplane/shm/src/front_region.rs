//! The front region: how the front hands commands to the worker, and gets its answers.
//!
//! ```text
//!   header | front cell | worker cell | requests (4 MiB) | answers (4 MiB)
//!
//!   front  -- requests: permissions [connection][cache][command with its data]  -> worker
//!   front  -- requests: snapshot [attempt][channel][piece] --------------------> worker
//!   front  -- requests: books wanted [attempt][channel] ----------------------> worker
//!   front  <- answers:  books [attempt][channel][piece] ------------------------ worker
//!   front  <- answers:  [connection][front generation][sequence][text] --------- worker
//!   front  -- wake (eventfd), only when the worker announced that it sleeps ---> worker
//! ```
//!
//! One memfd, made by the supervisor, writable by workers and front. Writers: the supervisor the front
//! cell; the active worker the worker cell and the head of `answers`; the front the head of `requests`.
//! Each side reads the other's half and believes nothing of it.
//!
//! Both ends can be replaced at any instruction. A new worker says first how far the request ring was
//! taken before it ([`Answer::Taken`]): what is below and unanswered has an unknown outcome, what is
//! above is still to be executed. A new front has a greater generation, and what belongs to an older one
//! is dropped.

use std::ffi::CStr;
use std::io;
use std::mem::offset_of;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::message_ring::MessageRing;
use crate::region::{Access, REGION_HEADER_BYTES, Region, RegionError, RegionSpec, layout_hash};
use crate::shared::{Padded, Shared};
use crate::sleep::Sleep;
use crate::sync::{AtomicU64, Ordering};

mod feeds;

pub use feeds::{
    SNAPSHOT_HEADER_BYTES, SnapshotContent, SnapshotMessage, books_wanted, is_books_wanted,
    is_snapshot, read_books_wanted,
};

/// "NAUTFRNT" in the bytes of memory on a little-endian machine.
pub const FRONT_MAGIC: u64 = u64::from_le_bytes(*b"NAUTFRNT");

/// Counts deliberate changes of the layout.
pub const FRONT_LAYOUT_VERSION: u32 = 2;

/// Words of either ring. Too low: a value of 1 MiB and its command do not fit, or leave no room beside
/// them. Too high: memory that is never touched.
pub const FRONT_RING_WORDS: usize = 1 << 19;

/// Longest command with its data: a value of 1 MiB and its line, and room to spare.
pub const COMMAND_BYTES_MAX: usize = (1 << 20) + (8 << 10);

/// Longest answer: a value of 1 MiB and the lines around it, and room to spare.
pub const ANSWER_BYTES_MAX: usize = (1 << 20) + (8 << 10);

/// A ring between front and worker.
pub type FrontRing = MessageRing<FRONT_RING_WORDS>;

const _: () =
    assert!(2 * COMMAND_BYTES_MAX < FrontRing::MESSAGE_BYTES_MAX, "two fit beside each other");
const _: () =
    assert!(2 * ANSWER_BYTES_MAX < FrontRing::MESSAGE_BYTES_MAX, "two fit beside each other");

/// Bytes in front of a command in the request ring: see [`RequestHeader`].
pub const REQUEST_HEADER_BYTES: usize = 16;

/// Bytes in front of an answer's text: connection, front generation, sequence of the request.
pub const ANSWER_HEADER_BYTES: usize = 24;

/// Set in the tag of a request that says what its source may do.
const TAG_HAS_PERMISSIONS: u32 = 1 << 8;

/// Tag of a request: the bits of what its source may do with the cache.
pub const fn request_tag(permissions: u32) -> u32 {
    TAG_HAS_PERMISSIONS | permissions & 0xff
}

/// The bits of a request's tag. A front that knows no list of a cache says nothing, and its sources may do
/// everything.
pub const fn request_permissions(tag: u32) -> u32 {
    if tag & TAG_HAS_PERMISSIONS == 0 { 0xff } else { tag & 0xff }
}

/// Tag of an answer.
const TAG_ANSWER: u32 = 1;
/// Tag of a new worker's first message.
const TAG_TAKEN: u32 = 2;
/// Tag of a message that asks for a snapshot.
const TAG_WANTED: u32 = 3;
/// Tag of a piece of a worker's own books.
const TAG_BOOKS: u32 = 4;

/// Bytes of a message that asks for a snapshot.
const WANTED_BYTES: usize = 24;

/// What stands in front of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// The connection's number; comes back with the answer.
    pub connection: u64,
    /// Place of the cache.
    pub cache: u32,
    /// Generation of the cache: a place that is used again has another.
    pub cache_generation: u32,
}

impl RequestHeader {
    /// Its bytes.
    pub fn encode(&self) -> [u8; REQUEST_HEADER_BYTES] {
        let mut header = [0; REQUEST_HEADER_BYTES];
        header[..8].copy_from_slice(&self.connection.to_le_bytes());
        header[8..12].copy_from_slice(&self.cache.to_le_bytes());
        header[12..].copy_from_slice(&self.cache_generation.to_le_bytes());
        header
    }

    /// Reads one and what follows it; `None` when the message is shorter.
    pub fn decode(message: &[u8]) -> Option<(Self, &[u8])> {
        let (connection, rest) = message.split_first_chunk::<8>()?;
        let (cache, rest) = rest.split_first_chunk::<4>()?;
        let (cache_generation, command) = rest.split_first_chunk::<4>()?;
        let header = Self {
            connection: u64::from_le_bytes(*connection),
            cache: u32::from_le_bytes(*cache),
            cache_generation: u32::from_le_bytes(*cache_generation),
        };
        Some((header, command))
    }
}

/// A message of the answer ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// What became of one request.
    Answer {
        /// The connection's number, as the request had it.
        connection: u64,
        /// Generation of the front that asked.
        front_generation: u64,
        /// Sequence of the request.
        sequence: u64,
        /// What the client is told; empty for a command that wants no reply.
        text: &'a [u8],
    },
    /// A worker has taken over: requests up to this position of the ring were taken before it.
    Taken {
        /// Position; see [`crate::message_ring::MessageConsumer::position`].
        position: u64,
    },
    /// The worker wants a snapshot of a feed, in [`SnapshotMessage`]s; an attempt that is asked for ends the
    /// one before.
    SnapshotWanted {
        /// Number of the channel.
        channel: u8,
        /// Which attempt it is.
        attempt: u64,
        /// The session it is to be of.
        session: [u8; 10],
    },
    /// A piece of the books that the front wanted, with the front's attempt.
    Books(SnapshotMessage<'a>),
}

impl<'a> Answer<'a> {
    /// Tag, header and what follows it, of a piece of a worker's own books.
    pub fn books(piece: &SnapshotMessage<'a>) -> (u32, [u8; SNAPSHOT_HEADER_BYTES], &'a [u8]) {
        let (_, header, rest) = piece.encode();
        (TAG_BOOKS, header, rest)
    }

    /// Tag and header of an answer, in front of its text.
    pub fn header(connection: u64, front_generation: u64, sequence: u64) -> (u32, [u8; 24]) {
        let mut header = [0; ANSWER_HEADER_BYTES];
        let words = [connection, front_generation, sequence];
        for (place, word) in header.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        (TAG_ANSWER, header)
    }

    /// Tag and payload of a new worker's first message.
    pub fn taken(position: u64) -> (u32, [u8; 8]) {
        (TAG_TAKEN, position.to_le_bytes())
    }

    /// Tag and payload of a message that asks for a snapshot.
    pub fn snapshot_wanted(channel: u8, attempt: u64, session: [u8; 10]) -> (u32, [u8; 24]) {
        let mut payload = [0; WANTED_BYTES];
        payload[..8].copy_from_slice(&attempt.to_le_bytes());
        payload[8] = channel;
        payload[9..19].copy_from_slice(&session);
        (TAG_WANTED, payload)
    }

    /// Reads a message; `None` for one that no worker writes.
    pub fn decode(tag: u32, payload: &'a [u8]) -> Option<Self> {
        match tag {
            TAG_TAKEN => {
                Some(Self::Taken { position: u64::from_le_bytes(payload.try_into().ok()?) })
            }
            TAG_WANTED => {
                let payload: &[u8; WANTED_BYTES] = payload.try_into().ok()?;
                let (attempt, rest) = payload.split_first_chunk::<8>()?;
                let (session, _) = rest[1..].split_first_chunk::<10>()?;
                let attempt = u64::from_le_bytes(*attempt);
                Some(Self::SnapshotWanted { channel: rest[0], attempt, session: *session })
            }
            TAG_BOOKS => SnapshotMessage::decode(payload).map(Self::Books),
            TAG_ANSWER => {
                let (header, text) = payload.split_first_chunk::<ANSWER_HEADER_BYTES>()?;
                let &[connection, front_generation, sequence] = header.as_chunks::<8>().0 else {
                    return None;
                };
                Some(Self::Answer {
                    connection: u64::from_le_bytes(connection),
                    front_generation: u64::from_le_bytes(front_generation),
                    sequence: u64::from_le_bytes(sequence),
                    text,
                })
            }
            _ => None,
        }
    }
}

/// The region behind its header.
#[repr(C, align(128))]
#[derive(Debug)]
struct Layout {
    /// Generation of the front that runs, or is about to; 0 before the first.
    front_generation: Padded<AtomicU64>,
    /// Of the worker. The front alone wakes it here.
    sleep: Sleep,
    requests: FrontRing,
    answers: FrontRing,
}

// SAFETY: repr(C) of shared structures only; padding is never read.
unsafe impl Shared for Layout {}

const LAYOUT_HASH: u64 = layout_hash(&[
    size_of::<Layout>() as u64,
    offset_of!(Layout, sleep) as u64,
    offset_of!(Layout, requests) as u64,
    offset_of!(Layout, answers) as u64,
    ANSWER_HEADER_BYTES as u64,
    REQUEST_HEADER_BYTES as u64,
]);

/// What all sides of a front region agree on.
pub const fn front_spec() -> RegionSpec {
    RegionSpec {
        magic: FRONT_MAGIC,
        layout_version: FRONT_LAYOUT_VERSION,
        layout_hash: LAYOUT_HASH,
        bytes: REGION_HEADER_BYTES + size_of::<Layout>(),
        huge_pages: false,
    }
}

/// The front region, mapped for writing.
#[derive(Debug)]
pub struct FrontRegion(Region);

impl FrontRegion {
    /// Makes the region of a new node.
    pub fn create(name: &CStr) -> Result<Self, RegionError> {
        let region = Self(Region::create(name, &front_spec())?);
        region.0.view::<Layout>(REGION_HEADER_BYTES)?;
        Ok(region)
    }

    /// Attaches to a received descriptor.
    pub fn attach(fd: OwnedFd) -> Result<Self, RegionError> {
        let region = Self(Region::attach(fd, &front_spec(), Access::ReadWrite)?);
        region.0.view::<Layout>(REGION_HEADER_BYTES)?;
        Ok(region)
    }

    fn layout(&self) -> &Layout {
        self.0.view(REGION_HEADER_BYTES).expect("checked when it was attached")
    }

    /// The descriptor, to be passed on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd()
    }

    /// A second descriptor of the same region.
    pub fn try_clone(&self) -> io::Result<OwnedFd> {
        self.0.fd().try_clone_to_owned()
    }

    /// Generation of the front that runs, or is about to; 0 before the first.
    pub fn front_generation(&self) -> u64 {
        self.layout().front_generation.0.load(Ordering::Relaxed)
    }

    /// Moves the generation on by one and returns it. Single writer: the supervisor, before it starts a
    /// front and after the death of the one before.
    pub fn advance_front(&self) -> u64 {
        let generation = self.front_generation() + 1;
        self.layout().front_generation.0.store(generation, Ordering::Relaxed);
        generation
    }

    /// Commands. Producer the front, consumer the active worker.
    pub fn requests(&self) -> &FrontRing {
        &self.layout().requests
    }

    /// Answers. Producer the active worker, consumer the front.
    pub fn answers(&self) -> &FrontRing {
        &self.layout().answers
    }

    /// The announcements of the worker.
    #[inline]
    pub fn sleep(&self) -> &Sleep {
        &self.layout().sleep
    }
}

#[cfg(all(test, not(loom), not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_their_encoding() {
        let header =
            RequestHeader { connection: 1 << 63 | 5, cache: 7, cache_generation: u32::MAX };
        let message = [&header.encode()[..], b"get k\r\n"].concat();
        assert_eq!(RequestHeader::decode(&message), Some((header, &b"get k\r\n"[..])));
        assert_eq!(RequestHeader::decode(&message[..REQUEST_HEADER_BYTES - 1]), None);
    }

    #[test]
    fn answers_survive_their_encoding_and_nonsense_does_not() {
        let (tag, header) = Answer::header(7, 2, 99);
        let payload = [&header[..], b"STORED\r\n"].concat();
        let expected = Answer::Answer {
            connection: 7,
            front_generation: 2,
            sequence: 99,
            text: b"STORED\r\n",
        };
        assert_eq!(Answer::decode(tag, &payload), Some(expected));
        let (tag, payload) = Answer::taken(1 << 40);
        assert_eq!(Answer::decode(tag, &payload), Some(Answer::Taken { position: 1 << 40 }));
        for (tag, bytes) in
            [(TAG_TAKEN, 7), (TAG_TAKEN, 9), (TAG_ANSWER, 23), (0, 24), (3, 0), (4, 24)]
        {
            assert_eq!(Answer::decode(tag, &vec![0; bytes]), None, "{tag} {bytes}");
        }
    }

    #[test]
    fn snapshots_are_asked_for_and_come_in_pieces() {
        let (tag, payload) = Answer::snapshot_wanted(7, 1 << 40 | 3, *b"000000MON1");
        let wanted =
            Answer::SnapshotWanted { channel: 7, attempt: 1 << 40 | 3, session: *b"000000MON1" };
        assert_eq!(Answer::decode(tag, &payload), Some(wanted));
        for content in [
            SnapshotContent::Begin(*b"000000MON1"),
            SnapshotContent::Messages(b"\0\x01x"),
            SnapshotContent::End(u64::MAX),
            SnapshotContent::Failed,
        ] {
            let piece = SnapshotMessage { channel: 255, attempt: 9, content };
            let (tag, header, rest) = piece.encode();
            let message = [&header, rest].concat();
            assert!(is_snapshot(tag) && !is_snapshot(request_tag(0xff)));
            assert_eq!(SnapshotMessage::decode(&message), Some(piece));
            assert_eq!(SnapshotMessage::decode(&message[..SNAPSHOT_HEADER_BYTES - 1]), None);
        }
        assert_eq!(SnapshotMessage::decode(&[0; SNAPSHOT_HEADER_BYTES]), None);
    }

    #[test]
    fn a_request_says_what_its_source_may_do() {
        for permissions in 0..8 {
            assert_eq!(request_permissions(request_tag(permissions)), permissions);
        }
        assert_eq!(request_permissions(0) & 7, 7, "said nothing");
    }

    #[test]
    fn both_processes_see_one_region() {
        let front = FrontRegion::create(c"nautilus-front").unwrap();
        let worker = FrontRegion::attach(front.try_clone().unwrap()).unwrap();
        assert_eq!((front.advance_front(), worker.front_generation()), (1, 1));
        let mut requests = front.requests().producer(1);
        let value = vec![b'v'; COMMAND_BYTES_MAX];
        requests.push(0, &[&[0; REQUEST_HEADER_BYTES], &value]).unwrap();
        let mut out = vec![0; COMMAND_BYTES_MAX + REQUEST_HEADER_BYTES];
        let message = worker.requests().consumer().pop(&mut out).unwrap().unwrap();
        assert_eq!(
            (message.bytes, message.generation),
            (COMMAND_BYTES_MAX + REQUEST_HEADER_BYTES, 1)
        );
        assert!(!front.sleep().must_wake());
        worker.sleep().announce(5);
        assert!(front.sleep().must_wake());
        worker.sleep().woke();
        assert!(!front.sleep().must_wake());
    }
}
