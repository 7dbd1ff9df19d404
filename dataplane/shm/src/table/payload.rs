//! The bytes of an item, spread over a chain of cells.

use super::layout::{C_LINK, CELL_WORDS, FIRST_PAYLOAD, NEXT_PAYLOAD, Shard, lower};
use super::words::{load, store};
use crate::sync::AtomicU64;

/// A link led out of the table: the reader has lost a race with a writer that reuses the cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Torn;

/// A place in the payload of an item. Never leaves the table, whatever the cells hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    cell: u32,
    word: usize,
    byte: usize,
}

impl Cursor {
    /// The start of an item's key.
    pub fn first(cell: u32) -> Self {
        Self { cell, word: FIRST_PAYLOAD, byte: 0 }
    }

    /// Moves into the next cell when this one is used up.
    #[inline(always)]
    fn settle(&mut self, words: &[AtomicU64], shard: &Shard) -> Result<usize, Torn> {
        if self.word == CELL_WORDS {
            self.cell = lower(load(words, shard.cell(self.cell) + C_LINK));
            if self.cell >= shard.cells {
                return Err(Torn);
            }
            self.word = NEXT_PAYLOAD;
        }
        Ok(shard.cell(self.cell) + self.word)
    }

    /// Copies the next `out.len()` bytes.
    pub fn read(
        &mut self,
        words: &[AtomicU64],
        shard: &Shard,
        mut out: &mut [u8],
    ) -> Result<(), Torn> {
        while self.byte != 0 && !out.is_empty() {
            // A copy that ended inside a word goes on there.
            let at = self.settle(words, shard)?;
            let bytes = load(words, at).to_le_bytes();
            let count = out.len().min(8 - self.byte);
            out[..count].copy_from_slice(&bytes[self.byte..self.byte + count]);
            self.advance(count);
            out = &mut out[count..];
        }
        while out.len() >= 8 {
            let at = self.settle(words, shard)?;
            let run = (CELL_WORDS - self.word).min(out.len() / 8);
            let (front, rest) = out.split_at_mut(run * 8);
            for (chunk, word) in front.chunks_exact_mut(8).zip(&words[at..at + run]) {
                let value = word.load(crate::sync::Ordering::Relaxed);
                chunk.copy_from_slice(&value.to_le_bytes());
            }
            self.word += run;
            out = rest;
        }
        if !out.is_empty() {
            let at = self.settle(words, shard)?;
            let bytes = load(words, at).to_le_bytes();
            out.copy_from_slice(&bytes[..out.len()]);
            self.byte = out.len();
        }
        Ok(())
    }

    fn advance(&mut self, bytes: usize) {
        self.byte += bytes;
        if self.byte == 8 {
            self.byte = 0;
            self.word += 1;
        }
    }

    /// Whether the item's key is `key`, given that it has its length. Leaves the cursor at the value.
    pub fn matches(
        &mut self,
        words: &[AtomicU64],
        shard: &Shard,
        key: &[u8],
    ) -> Result<bool, Torn> {
        let (chunks, rest) = key.as_chunks::<8>();
        for chunk in chunks {
            let at = self.settle(words, shard)?;
            if load(words, at) != u64::from_le_bytes(*chunk) {
                return Ok(false);
            }
            self.word += 1;
        }
        if !rest.is_empty() {
            let at = self.settle(words, shard)?;
            if load(words, at) != padded(rest) {
                return Ok(false);
            }
            self.word += 1;
        }
        Ok(true)
    }

    /// Writes bytes and zeroes up to the next multiple of 8. Writer only, into free cells, which are
    /// already chained. The chain is long enough by the caller's count of free cells.
    pub fn write(&mut self, words: &[AtomicU64], shard: &Shard, bytes: &[u8]) {
        let (chunks, rest) = bytes.as_chunks::<8>();
        for chunk in chunks {
            self.write_word(words, shard, u64::from_le_bytes(*chunk));
        }
        if !rest.is_empty() {
            self.write_word(words, shard, padded(rest));
        }
    }

    fn write_word(&mut self, words: &[AtomicU64], shard: &Shard, value: u64) {
        let at = self.settle(words, shard).expect("the free list has the cells that were counted");
        store(words, at, value);
        self.word += 1;
    }

    /// The cell the cursor is in.
    pub fn cell(&self) -> u32 {
        self.cell
    }
}

fn padded(rest: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes[..rest.len()].copy_from_slice(rest);
    u64::from_le_bytes(bytes)
}
