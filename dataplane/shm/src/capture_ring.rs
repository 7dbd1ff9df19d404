//! A ring of captured frames from one worker to the process that writes them to files.
//!
//! ```text
//!   words   | length 32, source 32 | sequence | stamp | dropped | bytes ... | length, source | ...
//!   head: words published        tail: words that are in a file        both count up for ever
//! ```
//!
//! Like [`crate::message_ring`], but: its size is chosen at run time; a full ring is a count, by the source
//! of the frame, and every record says how many of its source were dropped before it; and the consumer gives
//! words back when what they say is in a file, not when it has read them. A consumer that dies in between
//! leaves them to its successor, which reads them again: records are known by their sequence, which counts
//! what was dropped as well.
//!
//! Writers: the worker head, sequence and the counts of its sources; the consumer tail and what it has told
//! of the drops. Neither believes the other. No operation waits.

use crate::shared::{Padded, Shared};
use crate::sync::{AtomicU64, Ordering};

/// Words in front of a record's bytes.
const HEADER_WORDS: u64 = 4;

/// Sources of one worker: its queues, or interfaces, and those beside them. Too low: what comes from a
/// source without a place is dropped. Too high: memory.
pub const SOURCES_MAX: usize = 128;

/// Of one source. Single writer: the worker.
#[repr(C)]
#[derive(Debug, Default)]
struct Source {
    /// Which it is, and a bit that says that it is one.
    identity: AtomicU64,
    captured: AtomicU64,
    dropped: AtomicU64,
}

const IS_SOURCE: u64 = 1 << 32;

/// What stands in front of a ring's words.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct CaptureRingHead {
    head: Padded<AtomicU64>,
    tail: Padded<AtomicU64>,
    /// Sequence of the next record; kept here for the worker's successor.
    next: Padded<AtomicU64>,
    sources: [Source; SOURCES_MAX],
    /// Drops of a source that are in a file. Single writer: the consumer.
    told: Padded<[AtomicU64; SOURCES_MAX]>,
}

// SAFETY: repr(C) of shared words only; padding is never read.
unsafe impl Shared for CaptureRingHead {}

impl Default for CaptureRingHead {
    fn default() -> Self {
        Self {
            head: Padded::default(),
            tail: Padded::default(),
            next: Padded::default(),
            sources: std::array::from_fn(|_| Source::default()),
            told: Padded(std::array::from_fn(|_| AtomicU64::new(0))),
        }
    }
}

/// What is counted of one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceCounts {
    /// Which source, as the worker named it.
    pub identity: u32,
    /// Records published.
    pub captured: u64,
    /// Records that found the ring full.
    pub dropped: u64,
}

/// A ring, laid over words of a power of two.
#[derive(Clone, Copy, Debug)]
pub struct CaptureRing<'a> {
    head: &'a CaptureRingHead,
    words: &'a [AtomicU64],
}

impl<'a> CaptureRing<'a> {
    /// A ring of this head over these words. Panics when they are not a power of two, at least 64.
    pub fn new(head: &'a CaptureRingHead, words: &'a [AtomicU64]) -> Self {
        assert!(words.len().is_power_of_two() && words.len() >= 64, "a power of two");
        Self { head, words }
    }

    /// Becomes the ring's one producer. The caller knows that the one before is dead.
    pub fn producer(self) -> CaptureProducer<'a> {
        // SYNC POINT: pairs with the release store of `tail` in `commit`, as in `push`.
        let tail = self.head.tail.0.load_acquire();
        let head = self.head.head.0.load(Ordering::Relaxed);
        CaptureProducer { ring: self, head, tail, next: self.head.next.0.load(Ordering::Relaxed) }
    }

    /// Becomes the ring's one consumer, going on behind what is in a file. The caller knows that the one
    /// before is dead.
    pub fn consumer(self) -> CaptureConsumer<'a> {
        let tail = self.head.tail.0.load(Ordering::Relaxed);
        let told = std::array::from_fn(|source| self.head.told.0[source].load(Ordering::Relaxed));
        CaptureConsumer { ring: self, tail, at: tail, told: Box::new(told), told_at: [0; 2] }
    }

    /// What is counted of each source; for reports.
    pub fn counts(self) -> impl Iterator<Item = SourceCounts> + 'a {
        self.head.sources.iter().filter_map(|source| {
            let identity = source.identity.load(Ordering::Relaxed);
            (identity & IS_SOURCE != 0).then(|| SourceCounts {
                identity: identity as u32,
                captured: source.captured.load(Ordering::Relaxed),
                dropped: source.dropped.load(Ordering::Relaxed),
            })
        })
    }

    #[inline]
    fn word(&self, index: u64) -> &AtomicU64 {
        &self.words[index as usize & (self.words.len() - 1)]
    }

    fn used(&self, head: u64, tail: u64) -> Option<u64> {
        head.checked_sub(tail).filter(|used| *used <= self.words.len() as u64)
    }
}

/// The writing end.
#[derive(Debug)]
pub struct CaptureProducer<'a> {
    ring: CaptureRing<'a>,
    head: u64,
    /// The last `tail` seen: the shared one is read again only when the ring looks full.
    tail: u64,
    next: u64,
}

/// A source's place in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourcePlace(u8);

impl CaptureProducer<'_> {
    /// The place of a source, which is given one when it has none; `None` when there is no room for more.
    pub fn place(&self, identity: u32) -> Option<SourcePlace> {
        let named = IS_SOURCE | u64::from(identity);
        for (place, source) in self.ring.head.sources.iter().enumerate() {
            match source.identity.load(Ordering::Relaxed) {
                0 => source.identity.store(named, Ordering::Relaxed),
                known if known == named => {}
                _ => continue,
            }
            return Some(SourcePlace(place as u8));
        }
        None
    }

    /// Publishes one record, its bytes the parts in order. `false`: it found no room, and is counted.
    #[inline]
    pub fn push(&mut self, place: SourcePlace, stamp_ns: u64, parts: &[&[u8]]) -> bool {
        let ring = self.ring;
        let source = &ring.head.sources[usize::from(place.0) % SOURCES_MAX];
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let words = HEADER_WORDS + bytes.div_ceil(8) as u64;
        let sequence = self.next;
        self.next += 1;
        // Before `head`: a successor must not give a published sequence again.
        ring.head.next.0.store(self.next, Ordering::Relaxed);
        if !self.has_room(words) {
            count(&source.dropped);
            return false;
        }
        let store = |index: u64, value| ring.word(index).store(value, Ordering::Relaxed);
        store(self.head, (bytes as u64) << 32 | u64::from(place.0));
        store(self.head + 1, sequence);
        store(self.head + 2, stamp_ns);
        store(self.head + 3, source.dropped.load(Ordering::Relaxed));
        let mut at = self.head + HEADER_WORDS;
        let (mut word, mut held) = ([0; 8], 0);
        for mut part in parts.iter().copied() {
            while !part.is_empty() {
                if held == 0
                    && let Some((whole, rest)) = part.split_first_chunk::<8>()
                {
                    store(at, u64::from_le_bytes(*whole));
                    (at, part) = (at + 1, rest);
                    continue;
                }
                let taken = part.len().min(8 - held);
                word[held..held + taken].copy_from_slice(&part[..taken]);
                (held, part) = (held + taken, &part[taken..]);
                if held == 8 {
                    store(at, u64::from_le_bytes(word));
                    (at, held) = (at + 1, 0);
                }
            }
        }
        if held > 0 {
            word[held..].fill(0);
            store(at, u64::from_le_bytes(word));
        }
        count(&source.captured);
        self.head += words;
        // SYNC POINT: pairs with the acquire load of `head` in `next`: who sees the index sees the record.
        ring.head.head.0.store(self.head, Ordering::Release);
        true
    }

    #[inline]
    fn has_room(&mut self, words: u64) -> bool {
        let fits = |used: Option<u64>| {
            used.is_some_and(|used| used + words <= self.ring.words.len() as u64)
        };
        if fits(self.ring.used(self.head, self.tail)) {
            return true;
        }
        // SYNC POINT: pairs with the release store of `tail` in `commit`: what is below it has been read.
        let tail = self.ring.head.tail.0.load_acquire();
        let has_room = fits(self.ring.used(self.head, tail));
        self.tail = tail;
        has_room
    }
}

fn count(word: &AtomicU64) {
    word.store(word.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// What came with a record's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Which source it is of.
    pub identity: u32,
    /// Counts what the worker wanted captured, over all sources, from 0; what was dropped as well.
    pub sequence: u64,
    /// The worker's stamp.
    pub stamp_ns: u64,
    /// Records of the same source that were dropped before it and are not told yet.
    pub dropped: u64,
}

/// The other side published an index, length or source that cannot be. What was published is lost, and the
/// consumer goes on behind it; to be committed like a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ring was damaged at word {0}")]
pub struct Damaged(pub u64);

/// The reading end.
#[derive(Debug)]
pub struct CaptureConsumer<'a> {
    ring: CaptureRing<'a>,
    /// What is below is in a file.
    tail: u64,
    /// What is below has been read.
    at: u64,
    told: Box<[u64; SOURCES_MAX]>,
    /// Places whose drops were read since the last commit, a bit each.
    told_at: [u64; 2],
}

impl CaptureConsumer<'_> {
    /// Reads the next record, its bytes into `out`, which is emptied first; `None` when there is none.
    pub fn next(&mut self, out: &mut Vec<u8>) -> Result<Option<Captured>, Damaged> {
        out.clear();
        // SYNC POINT: pairs with the release store of `head` in `push`.
        let head = self.ring.head.head.0.load_acquire();
        if head == self.at {
            return Ok(None);
        }
        let load = |index: u64| self.ring.word(index).load(Ordering::Relaxed);
        let first = load(self.at);
        let (bytes, place) = ((first >> 32) as usize, first as u32 as usize);
        let words = HEADER_WORDS + bytes.div_ceil(8) as u64;
        let is_whole = self.ring.used(head, self.at).is_some_and(|used| words <= used);
        if !is_whole || place >= SOURCES_MAX {
            let at = self.at;
            self.at = head;
            return Err(Damaged(at));
        }
        let (sequence, stamp_ns, dropped) =
            (load(self.at + 1), load(self.at + 2), load(self.at + 3));
        for index in self.at + HEADER_WORDS..self.at + words {
            out.extend_from_slice(&load(index).to_le_bytes());
        }
        out.truncate(bytes);
        self.at += words;
        let untold = dropped.saturating_sub(self.told[place]);
        self.told[place] = self.told[place].max(dropped);
        self.told_at[place / 64] |= 1 << (place % 64);
        let identity = self.ring.head.sources[place].identity.load(Ordering::Relaxed) as u32;
        Ok(Some(Captured { identity, sequence, stamp_ns, dropped: untold }))
    }

    /// Everything read so far is in a file.
    pub fn commit(&mut self) {
        for place in 0..SOURCES_MAX {
            if self.told_at[place / 64] & 1 << (place % 64) != 0 {
                // Before `tail`: a successor may tell of a drop not at all, but never twice.
                self.ring.head.told.0[place].store(self.told[place], Ordering::Relaxed);
            }
        }
        self.told_at = [0; 2];
        self.tail = self.at;
        // SYNC POINT: pairs with the acquire loads of `tail` in `push` and `producer`: everything below has
        // been copied.
        self.ring.head.tail.0.store(self.tail, Ordering::Release);
    }

    /// Goes back to what is not in a file yet.
    pub fn rewind(&mut self) {
        self.at = self.tail;
        for (told, shared) in self.told.iter_mut().zip(&self.ring.head.told.0) {
            *told = shared.load(Ordering::Relaxed);
        }
        self.told_at = [0; 2];
    }

    /// Whether there is nothing to read; one load.
    pub fn is_empty(&self) -> bool {
        self.ring.head.head.0.load(Ordering::Relaxed) == self.at
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
