//! The messages of one session by number, as far back as a fixed memory reaches.
//!
//! ```text
//!   bytes:   | ...newest | (end not used) ||| oldest ... |      one ring, no message is cut in two
//!   places:  number % places -> where its message begins and how long it is
//! ```
//!
//! Numbers may be left out: what was never there is as gone as what was pushed out.
//!
//! Written by the one that publishes the session; read by whoever answers for it, which is the same
//! thread or one that holds a lock on it.

use super::pack::BLOCK_OVERHEAD_BYTES;
use std::collections::VecDeque;
use std::ops::Range;

/// Shortest message that a history is laid out for. When messages are shorter, it is the places that
/// run out first, not the bytes.
const MESSAGE_BYTES_LEAST: usize = 12;

/// Runs of numbers left out that are remembered. When there are more, what is before the oldest is forgotten.
const HOLES_MAX: usize = 64;

#[derive(Clone, Copy, Default)]
struct Place {
    /// Where the message begins, counted from the first byte ever appended.
    start: u64,
    bytes: u16,
}

/// The most recent messages.
pub struct History {
    bytes: Box<[u8]>,
    places: Box<[Place]>,
    first_sequence: u64,
    next_sequence: u64,
    /// Where the next message may begin, counted as in [`Place`].
    end: u64,
    /// Numbers left out behind the first message, oldest first.
    holes: VecDeque<Range<u64>>,
}

/// Why a message is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It was there, and newer ones took its room, or it was before the first of this history, or left out.
    Gone,
    /// It has not been published.
    NotYet,
}

impl History {
    /// An empty history whose first message will have number `first_sequence`, with room for
    /// `capacity_bytes` of messages and their index. Makes all of it now.
    ///
    /// Panics when `capacity_bytes` is less than 1,024.
    pub fn new(capacity_bytes: usize, first_sequence: u64) -> Self {
        Self::of_messages(capacity_bytes, first_sequence, MESSAGE_BYTES_LEAST)
    }

    /// The same for messages that mostly have `message_bytes` or more: fewer places, and more room for bytes.
    pub fn of_messages(capacity_bytes: usize, first_sequence: u64, message_bytes: usize) -> Self {
        assert!(capacity_bytes >= 1_024, "a history of {capacity_bytes} bytes");
        // Bytes and places for messages of that length fill the capacity together.
        let count = capacity_bytes / (message_bytes + size_of::<Place>());
        let bytes = capacity_bytes - count * size_of::<Place>();
        Self {
            // Not zero, so that the pages are written here and not faulted in by the run loop.
            bytes: vec![1; bytes].into_boxed_slice(),
            places: vec![Place { start: 1, bytes: 0 }; count].into_boxed_slice(),
            first_sequence,
            next_sequence: first_sequence,
            end: 0,
            holes: VecDeque::with_capacity(HOLES_MAX),
        }
    }

    /// Forgets everything: the next message will have number `first_sequence`.
    pub fn restart(&mut self, first_sequence: u64) {
        (self.first_sequence, self.next_sequence) = (first_sequence, first_sequence);
        self.holes.clear();
    }

    /// Leaves numbers out: the next message will have this one, unless it is not ahead.
    pub fn skip_to(&mut self, sequence: u64) {
        if sequence <= self.next_sequence {
            return;
        }
        if self.is_empty() || sequence - self.next_sequence >= self.places.len() as u64 {
            return self.restart(sequence);
        }
        if self.holes.len() == HOLES_MAX
            && let Some(oldest) = self.holes.front()
        {
            self.forget_before(oldest.end);
        }
        self.holes.push_back(self.next_sequence..sequence);
        self.next_sequence = sequence;
        self.forget_before((sequence + 1).saturating_sub(self.places.len() as u64));
    }

    /// Number of the oldest message that is there; [`Self::next_sequence`] when there is none.
    pub fn first_sequence(&self) -> u64 {
        self.first_sequence
    }

    /// Number of the next message.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Messages that are there.
    pub fn len(&self) -> u64 {
        let left_out: u64 = self.holes.iter().map(|hole| hole.end - hole.start).sum();
        self.next_sequence - self.first_sequence - left_out
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.first_sequence == self.next_sequence
    }

    /// Takes in the next message and gives it its number. The oldest make room for it. A message
    /// longer than the whole history, or than 65,535 bytes, leaves the history empty behind it.
    pub fn append(&mut self, message: &[u8]) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let capacity = self.bytes.len() as u64;
        let length = message.len() as u64;
        let (Ok(bytes), true) = (u16::try_from(message.len()), length <= capacity) else {
            self.restart(self.next_sequence);
            return sequence;
        };
        // Not over the end of the ring.
        let offset = self.end % capacity;
        let start =
            if offset + length > capacity { self.end - offset + capacity } else { self.end };
        self.end = start + length;
        while self.first_sequence < sequence
            && (self.place(self.first_sequence).start + capacity < self.end
                || sequence - self.first_sequence >= self.places.len() as u64)
        {
            self.forget_before(self.first_sequence + 1);
        }
        let at = (start % capacity) as usize;
        self.bytes[at..at + message.len()].copy_from_slice(message);
        let index = self.index(sequence);
        self.places[index] = Place { start, bytes };
        sequence
    }

    /// The message of this number.
    pub fn get(&self, sequence: u64) -> Result<&[u8], Missing> {
        if sequence >= self.next_sequence {
            return Err(Missing::NotYet);
        }
        if sequence < self.first_sequence || self.is_left_out(sequence) {
            return Err(Missing::Gone);
        }
        let place = self.place(sequence);
        let at = (place.start % self.bytes.len() as u64) as usize;
        Ok(&self.bytes[at..at + usize::from(place.bytes)])
    }

    /// Number of the first message from this one on that is there; [`Self::next_sequence`] when there is none.
    pub fn at_or_behind(&self, sequence: u64) -> u64 {
        let sequence = sequence.max(self.first_sequence);
        let hole = self.holes.iter().find(|hole| hole.contains(&sequence));
        hole.map_or(sequence, |hole| hole.end).min(self.next_sequence)
    }

    /// Puts messages from this number on into the front of `out`, each behind its length, as many as there are
    /// and fit and not more than `count_max`. Returns how many, and their bytes.
    pub fn fill(&self, sequence: u64, count_max: u16, out: &mut [u8]) -> (u16, usize) {
        let (mut count, mut bytes) = (0, 0);
        while count < count_max
            && let Ok(message) = self.get(sequence + u64::from(count))
            && let Some(block) = out[bytes..].get_mut(..BLOCK_OVERHEAD_BYTES + message.len())
        {
            let (length, body) = block.split_at_mut(BLOCK_OVERHEAD_BYTES);
            length.copy_from_slice(&(message.len() as u16).to_be_bytes());
            body.copy_from_slice(message);
            (count, bytes) = (count + 1, bytes + block.len());
        }
        (count, bytes)
    }

    fn is_left_out(&self, sequence: u64) -> bool {
        !self.holes.is_empty() && self.holes.iter().any(|hole| hole.contains(&sequence))
    }

    /// Moves the first message on to this number, or behind the hole that it is in.
    fn forget_before(&mut self, sequence: u64) {
        self.first_sequence = self.first_sequence.max(sequence);
        while let Some(hole) = self.holes.front()
            && hole.start <= self.first_sequence
        {
            self.first_sequence = self.first_sequence.max(hole.end);
            self.holes.pop_front();
        }
    }

    fn index(&self, sequence: u64) -> usize {
        (sequence % self.places.len() as u64) as usize
    }

    fn place(&self, sequence: u64) -> Place {
        self.places[self.index(sequence)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        #[test]
        fn the_newest_messages_are_there_unchanged(
            lengths in prop::collection::vec(0usize..400, 1..200),
            first in 1u64..1_000_000,
        ) {
            let mut history = History::new(2_048, first);
            let mut all = VecDeque::new();
            for (index, length) in lengths.iter().enumerate() {
                let message: Vec<u8> = (0..*length).map(|byte| (byte * 7 + index) as u8).collect();
                prop_assert_eq!(history.append(&message), first + index as u64);
                all.push_back(message);
                let mut kept_bytes = 0;
                for (index, message) in all.iter().enumerate() {
                    match history.get(first + index as u64) {
                        Ok(found) => {
                            prop_assert_eq!(found, &message[..]);
                            kept_bytes += message.len();
                        }
                        Err(missing) => {
                            prop_assert_eq!(missing, Missing::Gone);
                            prop_assert_eq!(kept_bytes, 0, "the kept ones have no hole");
                        }
                    }
                }
                // What is wasted at the ring's end is shorter than a message.
                let total: usize = all.iter().map(Vec::len).sum();
                let bytes = history.bytes.len();
                if all.len() < history.places.len() {
                    prop_assert!(kept_bytes + 800 >= total.min(bytes), "{} {}", kept_bytes, total);
                }
                prop_assert_eq!(history.get(history.next_sequence()), Err(Missing::NotYet));
                prop_assert_eq!(history.get(first - 1), Err(Missing::Gone));
            }
        }
    }

    proptest! {
        /// Against a map of everything that was ever said: what is there is right, and reaches back as far as
        /// it would without holes.
        #[test]
        fn numbers_may_be_left_out(
            steps in prop::collection::vec((0u64..60, 0usize..40), 1..400),
            rooms in 1_024usize..4_096,
        ) {
            let mut history = History::new(rooms, 1);
            let mut said = std::collections::BTreeMap::new();
            for (skip, length) in steps {
                // Most steps leave nothing out.
                history.skip_to(history.next_sequence() + skip.saturating_sub(50));
                let message = vec![skip as u8 ^ length as u8; length];
                let sequence = history.append(&message);
                said.insert(sequence, message);
                let first = history.first_sequence();
                prop_assert!(said.contains_key(&first), "begins in a hole");
                for number in 1..history.next_sequence() {
                    match said.get(&number).filter(|_| number >= first) {
                        Some(message) => prop_assert_eq!(history.get(number), Ok(&message[..])),
                        None => prop_assert_eq!(history.get(number), Err(Missing::Gone)),
                    }
                    let next = said.range(number.max(first)..).next().map(|(next, _)| *next);
                    prop_assert_eq!(Some(history.at_or_behind(number)), next);
                }
                let kept = said.range(first..);
                prop_assert_eq!(history.len(), kept.clone().count() as u64);
                let bytes: usize = kept.clone().map(|(_, message)| message.len()).sum();
                let is_full = bytes + 80 > history.bytes.len()
                    || history.next_sequence() - first + 60 > history.places.len() as u64
                    || kept.count() < said.len() && history.holes.len() >= HOLES_MAX - 1;
                prop_assert!(is_full || first == *said.first_key_value().unwrap().0);
            }
        }
    }

    #[test]
    fn blocks_end_where_messages_or_room_do() {
        let mut history = History::new(1_024, 5);
        for message in [&b"five"[..], b"six", b""] {
            history.append(message);
        }
        history.skip_to(9);
        history.append(b"nine");
        let mut out = [0xff; 40];
        assert_eq!(history.fill(5, 9, &mut out), (3, 13));
        assert_eq!(out[..14], *b"\0\x04five\0\x03six\0\0\xff");
        assert_eq!(history.fill(5, 2, &mut out), (2, 11));
        assert_eq!(history.fill(5, 9, &mut out[..12]), (2, 11));
        assert_eq!((history.fill(8, 9, &mut out), history.fill(10, 9, &mut out)), ((0, 0), (0, 0)));
        assert_eq!(history.fill(9, 9, &mut out[..5]), (0, 0));
    }

    #[test]
    fn a_hole_as_long_as_the_history_empties_it() {
        let mut history = History::new(1_024, 1);
        history.append(b"one");
        history.skip_to(1_000_000);
        assert_eq!((history.first_sequence(), history.get(1)), (1_000_000, Err(Missing::Gone)));
        history.skip_to(7);
        assert_eq!(history.append(b"x"), 1_000_000, "not back");
    }

    #[test]
    fn short_messages_run_out_of_places() {
        let mut history = History::new(1_024, 1);
        let places = history.places.len() as u64;
        for _ in 0..1_000 {
            history.append(b"x");
        }
        assert_eq!((history.first_sequence(), history.next_sequence()), (1_001 - places, 1_001));
        assert_eq!(history.get(1_000), Ok(&b"x"[..]));
    }

    #[test]
    fn a_message_longer_than_the_history_leaves_it_empty() {
        let mut history = History::new(1_024, 1);
        history.append(b"one");
        assert_eq!(history.append(&[0; 1_024]), 2);
        assert_eq!((history.get(1), history.get(2)), (Err(Missing::Gone), Err(Missing::Gone)));
        assert_eq!(history.append(b"three"), 3);
        assert_eq!((history.get(3), history.first_sequence()), (Ok(&b"three"[..]), 3));
    }
}
