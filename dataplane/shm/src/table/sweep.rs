//! Memory of items whose time is over. A look-up judges the deadline itself, to the nanosecond; the
//! sweep only gives their cells back, a few buckets at a time, and rests while nothing can expire.

use super::evict::{evict, expired};
use super::hot::HotSet;
use super::layout::{BUCKET_WORDS, C_EXPIRY_NS};
use super::probe::{is_item, slot_cell, slots};
use super::words::{Words, load};
use super::writer::TableWriter;
use crate::prefetch;

/// Where the sweep is.
#[derive(Debug)]
pub(super) struct Sweep {
    shard: usize,
    bucket: u32,
    /// A deadline was seen in this round, or set since it began.
    seen: bool,
    /// False once a whole round has seen no deadline.
    armed: bool,
}

impl Default for Sweep {
    /// Armed: what a predecessor has stored may expire.
    fn default() -> Self {
        Self { shard: 0, bucket: 0, seen: false, armed: true }
    }
}

impl Sweep {
    /// A sweep whose first shard is this.
    pub fn beginning(shard: u32) -> Self {
        Self { shard: shard as usize, ..Self::default() }
    }

    /// A deadline was set.
    #[inline]
    pub fn arm(&mut self, expiry_ns: u64) {
        if expiry_ns != 0 {
            (self.seen, self.armed) = (true, true);
        }
    }
}

impl<W: Words, H: HotSet> TableWriter<W, H> {
    /// Looks at the next `buckets` buckets of 7 items and removes what has expired. Returns how many
    /// items that were. Bounded; costs nothing while no item has a deadline.
    pub fn sweep(&mut self, now_ns: u64, buckets: u32) -> u32 {
        let words = self.memory.words();
        let mut removed = 0;
        let owned = self.owned.start as usize..self.owned.end as usize;
        for _ in 0..buckets {
            if !self.sweep.armed || owned.is_empty() {
                break;
            }
            let shard = &self.shards[self.sweep.shard];
            for slot in slots(shard, self.sweep.bucket) {
                let word = load(words, slot);
                if !is_item(word) {
                    continue;
                }
                let cell = slot_cell(word);
                let expiry_ns = load(words, shard.cell(cell) + C_EXPIRY_NS);
                self.sweep.seen |= expiry_ns != 0;
                if expired(expiry_ns, now_ns) {
                    evict(words, shard, &mut self.hot, cell);
                    self.counts.expirations_count += 1;
                    removed += 1;
                }
            }
            self.sweep.bucket += 1;
            if self.sweep.bucket == shard.buckets {
                self.sweep.bucket = 0;
                self.sweep.shard += 1;
            }
            if self.sweep.shard == owned.end {
                self.sweep.shard = owned.start;
                self.sweep.armed = std::mem::take(&mut self.sweep.seen);
            }
            let next = self.shards[self.sweep.shard].bucket(self.sweep.bucket);
            prefetch(words, next + BUCKET_WORDS);
        }
        removed
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::model_test::small_table;
    use super::super::{Mutation, Op, check};
    use super::*;

    #[test]
    fn what_has_expired_gives_its_memory_back_and_nothing_else_does() {
        let mut table = small_table(256, 3);
        for number in 0..150_u64 {
            let key = format!("key{number}").into_bytes();
            let expiry_ns = if number % 3 == 0 { 0 } else { 1_000 + number % 3 };
            let set = Mutation { expiry_ns, ..Mutation::new(&key, Op::Set(b"value")) };
            table.apply(table.hash(&key), &set, 1).unwrap();
        }
        let round =
            |table: &mut TableWriter<_>, now_ns| (0..80).map(|_| table.sweep(now_ns, 3)).sum();
        let removed: u32 = round(&mut table, 1_000);
        assert_eq!((removed, table.usage().items_count), (0, 150));
        let removed: u32 = round(&mut table, 1_001);
        assert_eq!((removed, table.usage().items_count), (50, 100));
        let removed: u32 = round(&mut table, 1_002);
        assert_eq!((removed, table.usage().items_count), (50, 50));
        assert_eq!(table.counts().expirations_count, 100);
        assert_eq!(table.counts().evictions_count, 0);
        check(table.memory().words()).unwrap();
        // Nothing left that could expire: after one more round it rests until a deadline is set.
        let _: u32 = round(&mut table, 1_003) + round(&mut table, 1_003);
        assert!(!table.sweep.armed);
        let touch = Mutation { expiry_ns: 2_000, ..Mutation::new(b"key0", Op::Touch) };
        table.apply(table.hash(b"key0"), &touch, 1_500).unwrap();
        let removed: u32 = round(&mut table, 2_000);
        assert_eq!((removed, table.usage().items_count), (1, 49));
    }
}
