//! A ring of messages of any length from one producer process to one consumer process.
//!
//! ```text
//!   words   | length 32, tag 32 | generation | sequence | payload ... | length, tag | ...
//!   head: words published        tail: words taken        both count up for ever
//! ```
//!
//! For what does not fit the fixed entries of [`crate::spsc`]: commands with their values, and their
//! answers. The same rules hold. Killed at any instruction, either side can be replaced by a successor
//! that goes on where the shared indices stand: a message is published whole or not at all, and handed
//! out at most once, because `tail` is published before the message is returned. Neither side believes
//! the other: lengths and indices are bounded whenever they are read, and every message repeats its
//! sequence. A message may wrap around the end. No operation waits.

use crate::shared::{Padded, Shared};
use crate::sync::{AtomicU64, Ordering};

/// Words in front of a payload.
const HEADER_WORDS: u64 = 3;

/// What is wrong with a ring, or that it is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// No room at the moment: the consumer is slow or dead. Nothing was changed.
    #[error("the ring is full")]
    Full,
    /// The message would not fit an empty ring, or its length 32 bits.
    #[error("a message of {bytes} bytes does not fit the ring")]
    TooLong {
        /// Length of the payload.
        bytes: usize,
    },
    /// The other side published an index, length or sequence that cannot be. The consumer has dropped
    /// everything that was published and goes on behind it.
    #[error("the ring was damaged at word {at}")]
    Damaged {
        /// Where.
        at: u64,
    },
    /// The message is longer than the consumer's buffer; it was dropped.
    #[error("a message of {bytes} bytes is longer than the buffer")]
    BufferTooSmall {
        /// Length of the payload.
        bytes: usize,
    },
}

/// The shared part of `WORDS` payload words, a power of two.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct MessageRing<const WORDS: usize> {
    head: Padded<AtomicU64>,
    tail: Padded<AtomicU64>,
    /// Sequence of the next message, the producer's; kept here for its successor.
    next: Padded<AtomicU64>,
    words: [AtomicU64; WORDS],
}

// SAFETY: repr(C) of shared words only; padding is never read.
unsafe impl<const WORDS: usize> Shared for MessageRing<WORDS> {}

impl<const WORDS: usize> Default for MessageRing<WORDS> {
    fn default() -> Self {
        Self {
            head: Padded::default(),
            tail: Padded::default(),
            next: Padded::default(),
            words: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

/// What came with a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// The producer's word of its own.
    pub tag: u32,
    /// Generation of the producer that wrote it. Answers to a dead generation are to be dropped.
    pub generation: u64,
    /// Counts the messages of this ring, over all producers, from 0.
    pub sequence: u64,
    /// Length of the payload, now at the front of the consumer's buffer.
    pub bytes: usize,
}

impl<const WORDS: usize> MessageRing<WORDS> {
    const CHECKED: () = assert!(WORDS.is_power_of_two() && WORDS >= 8, "a power of two");

    /// Longest payload in bytes that fits an empty ring.
    pub const MESSAGE_BYTES_MAX: usize = (WORDS - HEADER_WORDS as usize) * 8;

    /// Becomes the ring's one producer. The caller knows that the one before is dead, and that
    /// `generation` is greater than its.
    pub fn producer(&self, generation: u64) -> MessageProducer<'_, WORDS> {
        let () = Self::CHECKED;
        let head = self.head.0.load(Ordering::Relaxed);
        let sequence = self.next.0.load(Ordering::Relaxed);
        MessageProducer { ring: self, generation, head, sequence }
    }

    /// Becomes the ring's one consumer, going on where the one before stopped. The caller knows that
    /// it is dead.
    pub fn consumer(&self) -> MessageConsumer<'_, WORDS> {
        let () = Self::CHECKED;
        MessageConsumer { ring: self, tail: self.tail.0.load(Ordering::Relaxed) }
    }

    #[inline]
    fn word(&self, index: u64) -> &AtomicU64 {
        &self.words[index as usize & (WORDS - 1)]
    }

    fn used(head: u64, tail: u64) -> Option<u64> {
        head.checked_sub(tail).filter(|used| *used <= WORDS as u64)
    }
}

/// The writing end.
#[derive(Debug)]
pub struct MessageProducer<'a, const WORDS: usize> {
    ring: &'a MessageRing<WORDS>,
    generation: u64,
    head: u64,
    sequence: u64,
}

impl<const WORDS: usize> MessageProducer<'_, WORDS> {
    /// The sequence that the next [`Self::push`] gives.
    pub fn next_sequence(&self) -> u64 {
        self.sequence
    }

    /// Words published so far, over all producers: behind the last message. A consumer whose
    /// [`MessageConsumer::position`] is not below has taken that message.
    pub fn position(&self) -> u64 {
        self.head
    }

    /// Whether a message of `bytes` fits at the moment.
    #[inline]
    pub fn has_room(&self, bytes: usize) -> bool {
        let words = HEADER_WORDS + bytes.div_ceil(8) as u64;
        // SYNC POINT: pairs with the release store of `tail` in `pop`, as in `push`.
        let tail = self.ring.tail.0.load_acquire();
        let used = MessageRing::<WORDS>::used(self.head, tail);
        used.is_some_and(|used| used + words <= WORDS as u64)
    }

    /// Publishes one message, its payload the parts in order, and returns its sequence.
    pub fn push(&mut self, tag: u32, parts: &[&[u8]]) -> Result<u64, MessageError> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        if bytes > MessageRing::<WORDS>::MESSAGE_BYTES_MAX || u32::try_from(bytes).is_err() {
            return Err(MessageError::TooLong { bytes });
        }
        let words = HEADER_WORDS + bytes.div_ceil(8) as u64;
        // SYNC POINT: pairs with the release store of `tail` in `pop`: what is below it has been read.
        let tail = self.ring.tail.0.load_acquire();
        let used = MessageRing::<WORDS>::used(self.head, tail);
        let used = used.ok_or(MessageError::Damaged { at: tail })?;
        if used + words > WORDS as u64 {
            return Err(MessageError::Full);
        }
        let store = |index: u64, value| self.ring.word(index).store(value, Ordering::Relaxed);
        store(self.head, (bytes as u64) << 32 | u64::from(tag));
        store(self.head + 1, self.generation);
        store(self.head + 2, self.sequence);
        let mut at = self.head + HEADER_WORDS;
        let mut word = [0; 8];
        let mut held = 0;
        for mut part in parts.iter().copied() {
            while !part.is_empty() {
                if held == 0
                    && let Some((whole, rest)) = part.split_first_chunk::<8>()
                {
                    store(at, u64::from_le_bytes(*whole));
                    (at, part) = (at + 1, rest);
                    continue;
                }
                let count = part.len().min(8 - held);
                word[held..held + count].copy_from_slice(&part[..count]);
                (held, part) = (held + count, &part[count..]);
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
        let sequence = self.sequence;
        self.sequence += 1;
        // Before `head`: a successor must not give a published sequence again.
        self.ring.next.0.store(self.sequence, Ordering::Release);
        self.head += words;
        // SYNC POINT: pairs with the acquire load of `head` in `pop`: who sees the index sees the
        // message.
        self.ring.head.0.store(self.head, Ordering::Release);
        Ok(sequence)
    }
}

/// The reading end.
#[derive(Debug)]
pub struct MessageConsumer<'a, const WORDS: usize> {
    ring: &'a MessageRing<WORDS>,
    tail: u64,
}

impl<const WORDS: usize> MessageConsumer<'_, WORDS> {
    /// Whether there is anything; one load.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ring.head.0.load(Ordering::Relaxed) == self.tail
    }

    /// Words taken so far, over all consumers.
    pub fn position(&self) -> u64 {
        self.tail
    }

    /// Takes the next message, `None` when there is none; its payload goes to the front of `out`.
    pub fn pop(&mut self, out: &mut [u8]) -> Result<Option<Message>, MessageError> {
        // SYNC POINT: pairs with the release store of `head` in `push`.
        let head = self.ring.head.0.load_acquire();
        let at = self.tail;
        if head == at {
            return Ok(None);
        }
        let load = |index: u64| self.ring.word(index).load(Ordering::Relaxed);
        let first = load(at);
        let bytes = (first >> 32) as usize;
        let words = HEADER_WORDS + bytes.div_ceil(8) as u64;
        let whole = MessageRing::<WORDS>::used(head, at).is_some_and(|used| words <= used);
        if !whole {
            self.publish(head);
            return Err(MessageError::Damaged { at });
        }
        let message =
            Message { tag: first as u32, generation: load(at + 1), sequence: load(at + 2), bytes };
        let Some(out) = out.get_mut(..bytes) else {
            self.publish(at + words);
            return Err(MessageError::BufferTooSmall { bytes });
        };
        for (from, chunk) in (at + HEADER_WORDS..).zip(out.chunks_mut(8)) {
            chunk.copy_from_slice(&load(from).to_le_bytes()[..chunk.len()]);
        }
        self.publish(at + words);
        Ok(Some(message))
    }

    fn publish(&mut self, tail: u64) {
        self.tail = tail;
        // SYNC POINT: pairs with the acquire load of `tail` in `push`: everything below has been
        // copied. It also makes the message ours before anyone acts on it.
        self.ring.tail.0.store(tail, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
