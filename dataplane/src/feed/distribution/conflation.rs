//! What has changed for a conflated subscriber since it was last sent something.
//!
//! One word a stock: which kinds of records, and how many were left out. A stock is in the queue once.

use super::wire::Records;
use std::collections::VecDeque;

/// Stock locates there are.
const LOCATES: usize = 1 << 16;

/// Bits of a word for the kinds; the rest count.
const KIND_BITS: u32 = 8;

/// Most that a word counts as left out.
const LEFT_OUT_MAX: u32 = (1 << (32 - KIND_BITS)) - 1;

/// What is to be sent of one stock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub locate: u16,
    pub records: Records,
    /// Records of the same kinds that others took the place of.
    pub left_out: u32,
}

/// The changes of one subscriber. Makes all it will ever need.
pub(super) struct Changes {
    words: Box<[u32]>,
    queue: VecDeque<u16>,
    /// Kinds of the venue's own records.
    venue: Records,
}

impl Changes {
    /// Bytes taken at start.
    pub const BYTES: usize = LOCATES * (size_of::<u32>() + size_of::<u16>());

    pub fn new() -> Self {
        // Written, not only reserved: the run loop must not fault pages in.
        let mut words = vec![1; LOCATES].into_boxed_slice();
        words.fill(0);
        let mut queue = VecDeque::with_capacity(LOCATES);
        queue.resize(LOCATES, 0);
        queue.clear();
        Self { words, queue, venue: Records::default() }
    }

    /// How many stocks have changed.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// A record of a stock has changed.
    #[inline]
    pub fn note(&mut self, locate: u16, record: Records) {
        let word = &mut self.words[usize::from(locate)];
        let (kinds, left_out) = (*word & ((1 << KIND_BITS) - 1), *word >> KIND_BITS);
        if kinds == 0 {
            // Within capacity: it is not in the queue.
            self.queue.push_back(locate);
        }
        let is_again = kinds & u32::from(record.0) != 0;
        let left_out = (left_out + u32::from(is_again)).min(LEFT_OUT_MAX);
        *word = (left_out << KIND_BITS) | kinds | u32::from(record.0);
    }

    /// A record of the venue has changed.
    pub fn note_venue(&mut self, record: Records) {
        self.venue.0 |= record.0;
    }

    /// The oldest change, which is then none any more.
    pub fn take(&mut self) -> Option<Change> {
        let locate = self.queue.pop_front()?;
        let word = std::mem::take(&mut self.words[usize::from(locate)]);
        Some(Change { locate, records: Records(word as u8), left_out: word >> KIND_BITS })
    }

    /// What has changed of the venue.
    pub fn take_venue(&mut self) -> Records {
        std::mem::take(&mut self.venue)
    }

    /// Nothing has changed.
    pub fn clear(&mut self) {
        while self.take().is_some() {}
        self.take_venue();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stock_waits_once_and_what_it_skipped_is_counted() {
        let mut changes = Changes::new();
        changes.note(65_535, Records(1));
        changes.note(7, Records(2));
        for _ in 0..3 {
            changes.note(65_535, Records(1));
        }
        changes.note(65_535, Records(4));
        assert_eq!(changes.len(), 2);
        let change = |locate, records, left_out| {
            Some(Change { locate, records: Records(records), left_out })
        };
        assert_eq!(changes.take(), change(65_535, 5, 3));
        changes.note(65_535, Records(1));
        assert_eq!(changes.take(), change(7, 2, 0));
        assert_eq!(changes.take(), change(65_535, 1, 0));
        assert_eq!(changes.take(), None);
        changes.note(1, Records(1));
        changes.note_venue(Records(0x20));
        changes.clear();
        assert_eq!((changes.take(), changes.take_venue()), (None, Records(0)));
    }

    #[test]
    fn every_stock_may_wait_at_once_and_the_count_stops_at_its_end() {
        let mut changes = Changes::new();
        let capacity = changes.queue.capacity();
        for locate in 0..=u16::MAX {
            changes.note(locate, Records(1));
        }
        assert_eq!((changes.len(), changes.queue.capacity()), (LOCATES, capacity));
        changes.words[3] |= LEFT_OUT_MAX << KIND_BITS;
        changes.note(3, Records(1));
        assert_eq!(changes.words[3] >> KIND_BITS, LEFT_OUT_MAX);
    }
}
