//! Waiting for a key without a system call and without a word from its writer: what its buckets
//! looked like, and whether they still do.

use super::hash::KeyHash;
use super::layout::{BUCKET_WORDS, Shard};
use super::probe::buckets;
use super::reader::TableReader;
use super::words::{Words, load};
use crate::sync::AtomicU64;

/// What the buckets of a key held at one time. Taken before a [`TableReader::get`], it differs from
/// what they hold once the key has changed after that get. It may differ without a change of the key:
/// a bucket holds seven. It says nothing of what changes no bucket: expiry, flushes, leases, channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    hash: KeyHash,
    seen: u64,
}

impl<W: Words> TableReader<W> {
    /// What the buckets of `key` hold now.
    pub fn watch(&self, key: &[u8]) -> Watch {
        let hash = KeyHash::new(self.seed, key);
        Watch { hash, seen: digest(self.memory.words(), self.shard_of(hash), hash) }
    }

    /// Whether they hold something else than at `watch`, which is of this table.
    pub fn changed(&self, watch: &Watch) -> bool {
        digest(self.memory.words(), self.shard_of(watch.hash), watch.hash) != watch.seen
    }

    /// How long ago the memory's owner was last heard; 0 where it has none. A get says
    /// [`super::ReadError::Detached`] above [`super::DETACHED_AGE_NS`].
    pub fn heartbeat_age_ns(&self, now_ns: u64) -> u64 {
        self.memory.heartbeat_ns().map_or(0, |heartbeat_ns| now_ns.saturating_sub(heartbeat_ns))
    }
}

/// All words of the buckets folded into one. The change counts alone would not do: they move before
/// the slot does, and a look between the two would see the old value and then wait for nothing.
fn digest(words: &[AtomicU64], shard: &Shard, hash: KeyHash) -> u64 {
    let (first, second) = buckets(words, shard, hash);
    let mut folded = 0_u64;
    for bucket in [Some(first), second].into_iter().flatten() {
        let at = shard.bucket(bucket);
        for index in at..at + BUCKET_WORDS {
            // Odd, so no word's change is lost; the rotation tells the words' places apart.
            folded =
                (folded.rotate_left(9) ^ load(words, index)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }
    folded
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::*;

    #[test]
    fn a_watch_sees_every_change_of_its_key() {
        let mut table = model_test::small_table(64, 1);
        model_test::put(&mut table, b"other", b"there all the time").unwrap();
        let words: std::sync::Arc<[crate::sync::AtomicU64]> = table
            .memory()
            .iter()
            .map(|word| crate::sync::AtomicU64::new(word.load(crate::sync::Ordering::Relaxed)))
            .collect();
        let mut table = TableWriter::attach(words.clone()).unwrap();
        let reader = TableReader::attach(words).unwrap();
        for round in 0..40_u8 {
            let watch = reader.watch(b"key");
            assert!(!reader.changed(&watch), "nothing has happened");
            model_test::put(&mut table, b"key", &[round]).unwrap();
            assert!(reader.changed(&watch), "a write in round {round}");
            let watch = reader.watch(b"key");
            assert!(reader.get(b"key", 1, &mut [0; 8]).is_ok());
            assert!(!reader.changed(&watch), "a read changes nothing");
            table.apply(table.hash(b"key"), &Mutation::new(b"key", Op::Delete), 1).unwrap();
            assert!(reader.changed(&watch), "a deletion in round {round}");
        }
    }

    #[test]
    fn a_look_between_the_stores_of_a_write_does_not_miss_the_end_of_it() {
        // The writer is stopped after each of its stores; a reader that looks then and sees the old
        // value must find its watch changed when the write is complete.
        for stores in 0.. {
            let mut table = model_test::small_table(16, 1);
            model_test::put(&mut table, b"key", b"old").unwrap();
            let words: std::sync::Arc<[crate::sync::AtomicU64]> = table
                .memory()
                .iter()
                .map(|word| crate::sync::AtomicU64::new(word.load(crate::sync::Ordering::Relaxed)))
                .collect();
            let reader = TableReader::attach(words.clone()).unwrap();
            let mut table = TableWriter::attach(words.clone()).unwrap();
            let outcome = crate::sync::kill_after(stores, || {
                model_test::put(&mut table, b"key", b"new").unwrap();
            });
            let watch = reader.watch(b"key");
            let mut out = [0; 8];
            reader.get(b"key", 1, &mut out).unwrap();
            let saw_old = &out[..3] == b"old";
            if outcome == crate::sync::Outcome::Finished(()) {
                assert!(!saw_old);
                return;
            }
            // The next writer completes what was committed, or the write never happened.
            drop(TableWriter::attach(words).unwrap());
            reader.get(b"key", 1, &mut out).unwrap();
            if saw_old && &out[..3] == b"new" {
                assert!(reader.changed(&watch), "stopped after {stores} stores");
            }
        }
    }
}
