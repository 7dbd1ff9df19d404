//! Reading several keys: all of their memory is asked for before any of it is waited for.
//!
//! ```text
//!   bucket of a, b, c ... (prefetch)  ->  cell of a, b, c ... (prefetch_cell)  ->  get a, b, c ...
//! ```
//!
//! The writer has a stage more: the second cell of each, where the value does not fit the first.

use super::hash::KeyHash;
use super::hot::HotSet;
use super::layout::{
    C_LENGTH, C_LINK, C_META, CELL_WORDS, FIRST_PAYLOAD, Shard, key_words, lower, value_bytes,
};
use super::meta::Meta;
use super::probe::{is_item, slot_cell, slot_tag, slots};
use super::reader::TableReader;
use super::words::{Words, load};
use super::writer::{Guess, TableWriter, shard_of};
use crate::prefetch;

/// A key whose bucket has been asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead(KeyHash);

impl<W: Words> TableReader<W> {
    #[inline]
    pub(super) fn shard_of(&self, hash: KeyHash) -> &Shard {
        &self.shards[hash.shard(self.shards.len() as u32) as usize]
    }

    /// First stage: asks for the bucket of a key.
    #[inline]
    pub fn prefetch(&self, key: &[u8]) -> Ahead {
        let hash = KeyHash::new(self.seed, key);
        let shard = self.shard_of(hash);
        prefetch(self.memory.words(), shard.bucket(hash.first_bucket(shard)));
        Ahead(hash)
    }

    /// Second stage: asks for the cell that the bucket seems to name. A hint: whatever the slot holds,
    /// nothing outside the table is touched.
    #[inline]
    pub fn prefetch_cell(&self, Ahead(hash): Ahead) {
        let words = self.memory.words();
        let shard = self.shard_of(hash);
        for slot in slots(shard, hash.first_bucket(shard)) {
            let word = load(words, slot);
            if slot_tag(word) == hash.tag() && is_item(word) {
                let at = shard.cell(slot_cell(word));
                prefetch(words, at);
                prefetch(words, at.saturating_add(8));
                return;
            }
        }
    }
}

impl<W: Words, H: HotSet> TableWriter<W, H> {
    /// Third stage of a batch, after `prefetch_cell`: asks for the second cell of a value that has one. What
    /// lies beyond is read in order and asked for by the processor.
    #[inline]
    pub fn prefetch_rest(&self, hash: KeyHash, guess: Guess) {
        let Some(cell) = guess.cell(self.memory.words()) else { return };
        let (words, shard) = (self.memory.words(), shard_of(&self.shards, hash));
        // Where others write the shard, the slot may have changed since.
        if cell >= shard.cells {
            return;
        }
        let at = shard.cell(cell);
        let key_bytes = Meta::unpack(load(words, at + C_META)).key_bytes;
        let value_words = (value_bytes(load(words, at + C_LENGTH)) as usize).div_ceil(8);
        let goes_on = key_words(key_bytes.into()) + value_words > CELL_WORDS - FIRST_PAYLOAD;
        // A run is no cell: what is that long is read in order.
        let next = lower(load(words, at + C_LINK));
        if goes_on && next < shard.cells {
            let at = shard.cell(next);
            prefetch(words, at);
            prefetch(words, at + 8);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::*;
    use crate::sync::{AtomicU64, Ordering};

    #[test]
    fn any_content_is_only_hinted_at() {
        let mut table = model_test::small_table(64, 1);
        model_test::put(&mut table, b"key", b"value").unwrap();
        let words = table.memory();
        let reader = TableReader::attach(words).unwrap();
        let ahead = reader.prefetch(b"key");
        reader.prefetch_cell(ahead);
        assert!(reader.get(b"key", 1, &mut [0; 8]).is_ok());
        // Every slot names a cell that is nowhere, under every tag.
        for tag in 0..=u16::MAX {
            if cfg!(miri) && tag > 4 {
                break;
            }
            for word in &words[1024 + 128..] {
                AtomicU64::store(word, u64::from(tag) << 48 | u64::MAX >> 16, Ordering::Relaxed);
            }
            reader.prefetch_cell(ahead);
        }
    }
}
