//! A ring of fixed-size entries from one producer process to one consumer process.
//!
//! ```text
//!   producer --> | stamp, sequence, words | ... |  --> consumer
//!                head: published entries      tail: taken entries   (both count up for ever)
//! ```
//!
//! Killed at any instruction, either side can be replaced by a successor that goes on where the
//! shared indices stand: an entry is either published whole or was never there, and is handed out
//! at most once, because the consumer publishes `tail` before it returns the entry. Neither side
//! believes the other: indices are bounded on every read, each side keeps its own index in private
//! memory, and every entry repeats its sequence. No operation waits.

use crate::shared::{Padded, Shared};
use crate::sync::{AtomicU64, Ordering};

/// What is wrong with a ring, or that it is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// No room: the consumer is slow or dead. Nothing was changed.
    #[error("the ring is full")]
    Full,
    /// The other side published an index that cannot be. The ring stays unusable until
    /// [`Consumer::resync`] or a new producer.
    #[error("ring indices are impossible: head {head}, tail {tail}, {slots} slots")]
    IndexOutOfBounds {
        /// Entries published.
        head: u64,
        /// Entries taken.
        tail: u64,
        /// Capacity.
        slots: u64,
    },
    /// An entry does not carry its own sequence. It was skipped.
    #[error("entry {sequence} carries sequence {found}")]
    Torn {
        /// What the entry should carry.
        sequence: u64,
        /// What it does carry.
        found: u64,
    },
}

/// One entry as the consumer gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<const WORDS: usize> {
    /// Generation of the producer that wrote it. Answers to a dead generation are to be dropped.
    pub generation: u64,
    /// Counts all entries of this ring, over all producers, from 0.
    pub sequence: u64,
    /// The payload.
    pub words: [u64; WORDS],
}

#[repr(C)]
#[derive(Debug)]
struct Slot<const WORDS: usize> {
    generation: AtomicU64,
    sequence: AtomicU64,
    words: [AtomicU64; WORDS],
}

/// The shared part. `SLOTS` is a power of two.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Ring<const SLOTS: usize, const WORDS: usize> {
    head: Padded<AtomicU64>,
    tail: Padded<AtomicU64>,
    slots: [Slot<WORDS>; SLOTS],
}

// SAFETY: repr(C) of shared words only; padding is never read.
unsafe impl<const SLOTS: usize, const WORDS: usize> Shared for Ring<SLOTS, WORDS> {}

impl<const SLOTS: usize, const WORDS: usize> Default for Ring<SLOTS, WORDS> {
    fn default() -> Self {
        Self {
            head: Padded::default(),
            tail: Padded::default(),
            slots: std::array::from_fn(|_| Slot {
                generation: AtomicU64::new(0),
                sequence: AtomicU64::new(0),
                words: std::array::from_fn(|_| AtomicU64::new(0)),
            }),
        }
    }
}

impl<const SLOTS: usize, const WORDS: usize> Ring<SLOTS, WORDS> {
    const CHECKED: () = assert!(SLOTS.is_power_of_two(), "a ring's size is a power of two");

    /// Becomes the ring's one producer. The caller knows that the one before is dead, and that
    /// `generation` is greater than its.
    pub fn producer(&self, generation: u64) -> Result<Producer<'_, SLOTS, WORDS>, RingError> {
        let () = Self::CHECKED;
        let head = self.head.0.load(Ordering::Relaxed);
        // SYNC POINT: pairs with the release store of `tail` in `pop`: the slots below `tail` have
        // been read and may be overwritten.
        let tail = self.tail.0.load_acquire();
        bounded(head, tail, SLOTS)?;
        Ok(Producer { ring: self, generation, head, tail })
    }

    /// Becomes the ring's one consumer, going on where the one before stopped. The caller knows
    /// that it is dead.
    pub fn consumer(&self) -> Consumer<'_, SLOTS, WORDS> {
        let () = Self::CHECKED;
        let tail = self.tail.0.load(Ordering::Relaxed);
        Consumer { ring: self, tail, head: tail }
    }

    /// Entries published and not yet taken, at most `SLOTS`; for reports.
    pub fn backlog(&self) -> u64 {
        let tail = self.tail.0.load(Ordering::Relaxed);
        let head = self.head.0.load(Ordering::Relaxed);
        head.saturating_sub(tail).min(SLOTS as u64)
    }

    fn slot(&self, index: u64) -> &Slot<WORDS> {
        &self.slots[index as usize & (SLOTS - 1)]
    }
}

fn bounded(head: u64, tail: u64, slots: usize) -> Result<u64, RingError> {
    match head.checked_sub(tail) {
        Some(used) if used <= slots as u64 => Ok(used),
        _ => Err(RingError::IndexOutOfBounds { head, tail, slots: slots as u64 }),
    }
}

/// The writing end.
#[derive(Debug)]
pub struct Producer<'a, const SLOTS: usize, const WORDS: usize> {
    ring: &'a Ring<SLOTS, WORDS>,
    generation: u64,
    head: u64,
    /// The last `tail` seen: the shared one is read again only when the ring looks full.
    tail: u64,
}

impl<const SLOTS: usize, const WORDS: usize> Producer<'_, SLOTS, WORDS> {
    /// The sequence that the next [`Self::push`] gives.
    pub fn next_sequence(&self) -> u64 {
        self.head
    }

    /// Publishes one entry and returns its sequence.
    pub fn push(&mut self, words: &[u64; WORDS]) -> Result<u64, RingError> {
        if self.head - self.tail == SLOTS as u64 {
            // SYNC POINT: pairs with the release store of `tail` in `pop`.
            let tail = self.ring.tail.0.load_acquire();
            if bounded(self.head, tail, SLOTS)? == SLOTS as u64 {
                return Err(RingError::Full);
            }
            self.tail = tail;
        }
        let sequence = self.head;
        let slot = self.ring.slot(sequence);
        slot.generation.store(self.generation, Ordering::Relaxed);
        slot.sequence.store(sequence, Ordering::Relaxed);
        for (to, from) in slot.words.iter().zip(words) {
            to.store(*from, Ordering::Relaxed);
        }
        self.head = sequence + 1;
        // SYNC POINT: pairs with the acquire load of `head` in `pop`: who sees the index sees the
        // entry.
        self.ring.head.0.store(self.head, Ordering::Release);
        Ok(sequence)
    }
}

/// The reading end.
#[derive(Debug)]
pub struct Consumer<'a, const SLOTS: usize, const WORDS: usize> {
    ring: &'a Ring<SLOTS, WORDS>,
    tail: u64,
    /// The last `head` seen: the shared one is read again only when the ring looks empty.
    head: u64,
}

impl<const SLOTS: usize, const WORDS: usize> Consumer<'_, SLOTS, WORDS> {
    /// Takes the next entry, `None` when there is none. After [`RingError::Torn`] the next call goes
    /// on with the entry behind it.
    pub fn pop(&mut self) -> Result<Option<Entry<WORDS>>, RingError> {
        if self.tail == self.head {
            // SYNC POINT: pairs with the release store of `head` in `push`.
            let head = self.ring.head.0.load_acquire();
            if bounded(head, self.tail, SLOTS)? == 0 {
                return Ok(None);
            }
            self.head = head;
        }
        let slot = self.ring.slot(self.tail);
        let entry = Entry {
            generation: slot.generation.load(Ordering::Relaxed),
            sequence: slot.sequence.load(Ordering::Relaxed),
            words: std::array::from_fn(|index| slot.words[index].load(Ordering::Relaxed)),
        };
        let sequence = self.tail;
        self.tail += 1;
        // SYNC POINT: pairs with the acquire loads of `tail` in `push` and `producer`: the slot was
        // copied before its index is given back. It also makes the entry ours, before anyone acts on
        // it: a successor does not get it again.
        self.ring.tail.0.store(self.tail, Ordering::Release);
        if entry.sequence != sequence {
            return Err(RingError::Torn { sequence, found: entry.sequence });
        }
        Ok(Some(entry))
    }

    /// Drops everything published so far and goes on at the producer's index, whatever it says: the
    /// way out of [`RingError::IndexOutOfBounds`]. Returns the new index.
    pub fn resync(&mut self) -> u64 {
        // SYNC POINT: pairs with the release store of `head` in `push`.
        self.tail = self.ring.head.0.load_acquire();
        self.head = self.tail;
        // SYNC POINT: as in `pop`.
        self.ring.tail.0.store(self.tail, Ordering::Release);
        self.tail
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
