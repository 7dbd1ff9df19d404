//! Feeds from user space: what their owner has applied, so that the steering program may drop copies of it.
//!
//! ```text
//!   owner: publish, advance(next) ─────────► program: a copy of what lies before next? dropped, recorded
//!   owner: drain(count it) ◄──────────────── records, each once and in order
//! ```
//!
//! The protocol, and why nothing torn is believed, stands in `feed.h`. A slot has one owner at a time: the
//! worker that applies the feed. It maps that slot alone, and all it does here is stores and loads. The
//! supervisor says in `feed_lines` which group and port is which line of which slot.

mod lines;
mod shown;

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering, fence};

pub use lines::FeedLineAt;
pub(crate) use shown::FeedShown;

use crate::intf::{FEED_RECORDS, FEEDS_MAX, FeedRecordValue, FeedSlotValue};
use crate::mapping::Mapping;
use crate::steering::{SteeringError, check_feeds_map};

const SLOT_WORDS: usize = size_of::<FeedSlotValue>() / 8;
const RECORD_WORDS: usize = size_of::<FeedRecordValue>() / 8;

const VERSION: usize = 0;
const SESSION_HEAD: usize = 1;
const SESSION_TAIL: usize = 2;
const FROM: usize = 3;
const NEXT: usize = 4;
const TAIL: usize = std::mem::offset_of!(FeedSlotValue, tail) / 8;
const RECORDS: usize = std::mem::offset_of!(FeedSlotValue, records) / 8;

/// One packet that the program has dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedRecord {
    /// Of the slot when the packet was judged: [`FeedSlot::version`] of the publication that covered it.
    pub version: u64,
    /// Number of its first message.
    pub sequence: u64,
    /// How many messages it had, 1 to 65,534.
    pub message_count: u16,
    /// Which line of the feed it came on.
    pub line: u16,
}

/// The slot of one feed in `feeds`, mapped to be written by its owner. Dropping it unmaps it; what was said
/// last stays true until a successor takes it back.
#[derive(Debug)]
pub struct FeedSlot {
    mapping: Mapping,
}

impl FeedSlot {
    /// From the descriptor of `feeds`, which is no longer needed afterwards. Refused for a feed there cannot
    /// be.
    pub fn map(feeds: BorrowedFd<'_>, feed: u32) -> Result<Self, SteeringError> {
        check_feeds_map(feeds)?;
        if feed >= FEEDS_MAX {
            return Err(SteeringError::Refused(format!("there is no feed {feed}")));
        }
        let mapping = Mapping::part(feeds, feed as usize * SLOT_WORDS, SLOT_WORDS);
        Ok(Self { mapping: mapping.map_err(SteeringError::Descriptor)? })
    }

    fn word(&self, word: usize) -> &AtomicU64 {
        &self.mapping.words()[word]
    }

    /// Counts publications; odd while nothing is said. The owner's own value.
    pub fn version(&self) -> u64 {
        self.word(VERSION).load(Ordering::Relaxed)
    }

    /// Says nothing from now on: whatever the program reads after this returns, it drops nothing. What a
    /// new owner begins with.
    pub fn retract(&mut self) {
        self.word(VERSION).store(self.version() | 1, Ordering::Release);
        // The store has left this processor when this returns.
        fence(Ordering::SeqCst);
    }

    /// Says that every message of `from..next` of a session was applied. Call after that is so.
    pub fn publish(&mut self, session: [u8; 10], from: u64, next: u64) {
        let odd = self.version() | 1;
        self.word(VERSION).store(odd, Ordering::Relaxed);
        // No word of the next publication may be seen under the version of the last.
        fence(Ordering::Release);
        let [head @ .., a, b] = session;
        self.word(SESSION_HEAD).store(u64::from_ne_bytes(head), Ordering::Relaxed);
        self.word(SESSION_TAIL).store(u16::from_ne_bytes([a, b]).into(), Ordering::Relaxed);
        self.word(FROM).store(from, Ordering::Relaxed);
        self.word(NEXT).store(next, Ordering::Relaxed);
        // SYNC POINT: pairs with the loads of the version in feed.h, which x86-64 keeps in order.
        self.word(VERSION).store(odd.wrapping_add(1), Ordering::Release);
    }

    /// Says that the run that was published last now ends before `next`, which is higher. Call after its
    /// messages were applied.
    #[inline]
    pub fn advance(&mut self, next: u64) {
        debug_assert!(
            self.version().is_multiple_of(2) && self.version() != 0,
            "nothing was published"
        );
        debug_assert!(next >= self.word(NEXT).load(Ordering::Relaxed));
        // SYNC POINT: pairs with the load of `next` in feed.h.
        self.word(NEXT).store(next, Ordering::Release);
    }

    /// Takes out what the program has dropped since the last call, at most [`FEED_RECORDS`].
    #[inline]
    pub fn drain(&mut self, mut count: impl FnMut(FeedRecord)) {
        let words = self.mapping.words();
        let first = words[TAIL].load(Ordering::Relaxed);
        let mut tail = first;
        for _ in 0..FEED_RECORDS {
            let place = (tail % u64::from(FEED_RECORDS)) as usize;
            let record = &words[RECORDS + place * RECORD_WORDS..][..RECORD_WORDS];
            // SYNC POINT: pairs with the store of the stamp in feed.h.
            if record[0].load(Ordering::Acquire) != tail.wrapping_add(1) {
                break;
            }
            let [version, sequence, rest] =
                [1, 2, 3].map(|word| record[word].load(Ordering::Relaxed));
            count(FeedRecord {
                version,
                sequence,
                message_count: rest as u16,
                line: (rest >> 16) as u16,
            });
            tail = tail.wrapping_add(1);
        }
        if tail != first {
            // SYNC POINT: pairs with the load of the tail in feed.h, which gives the places away again.
            words[TAIL].store(tail, Ordering::Release);
        }
    }
}
