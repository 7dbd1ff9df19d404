//! The messages of one session by number, as far back as a fixed memory reaches.
//!
//! ```text
//!   bytes:   | ...newest | (end not used) ||| oldest ... |      one ring, no message is cut in two
//!   places:  number % places -> where its message begins and how long it is
//! ```
//!
//! Written by the one that publishes the session; read by whoever answers for it, which is the same
//! thread or one that holds a lock on it.

/// Shortest message that a history is laid out for. When messages are shorter, it is the places that
/// run out first, not the bytes.
const MESSAGE_BYTES_LEAST: usize = 12;

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
}

/// Why a message is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It was there, and newer ones took its room, or it was before the first of this history.
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
            bytes: vec![0; bytes].into_boxed_slice(),
            places: vec![Place::default(); count].into_boxed_slice(),
            first_sequence,
            next_sequence: first_sequence,
            end: 0,
        }
    }

    /// Forgets every message; the next one has number `first_sequence`.
    pub fn restart(&mut self, first_sequence: u64) {
        self.first_sequence = first_sequence;
        self.next_sequence = first_sequence;
        self.end = 0;
    }

    /// Number of the oldest message that is there; [`Self::next_sequence`] when there is none.
    pub fn first_sequence(&self) -> u64 {
        self.first_sequence
    }

    /// Number of the next message.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Takes in the next message and gives it its number. The oldest make room for it. A message
    /// longer than the whole history, or than 65,535 bytes, leaves the history empty behind it.
    pub fn append(&mut self, message: &[u8]) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let capacity = self.bytes.len() as u64;
        let length = message.len() as u64;
        let (Ok(bytes), true) = (u16::try_from(message.len()), length <= capacity) else {
            self.first_sequence = self.next_sequence;
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
            self.first_sequence += 1;
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
        if sequence < self.first_sequence {
            return Err(Missing::Gone);
        }
        let place = self.place(sequence);
        let at = (place.start % self.bytes.len() as u64) as usize;
        Ok(&self.bytes[at..at + usize::from(place.bytes)])
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
