//! The bytes of an item, spread over a chain of cells and then of runs.

use super::layout::{CELL_WORDS, FIRST_PAYLOAD, GROUP_WORDS, NEXT_PAYLOAD, RUN, Shard, lower};
use super::words::{load, store};
use crate::sync::AtomicU64;

/// A link led out of the table: the reader has lost a race with a writer that reuses the cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Torn;

/// A place in the payload of an item. Never leaves the table, whatever the cells hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    /// The next word.
    at: usize,
    /// The end of the cell or run it is in, and how long that is.
    end: usize,
    size: u32,
    byte: u32,
}

impl Cursor {
    /// The start of the key of the item whose first cell is `cell`.
    #[inline]
    pub fn first(shard: &Shard, cell: u32) -> Self {
        Self { at: shard.cell(cell) + FIRST_PAYLOAD, ..Self::cell(shard, cell) }
    }

    fn cell(shard: &Shard, cell: u32) -> Self {
        let at = shard.cell(cell);
        Self { at: at + NEXT_PAYLOAD, end: at + CELL_WORDS, size: CELL_WORDS as u32, byte: 0 }
    }

    /// The start of a run.
    pub fn run(shard: &Shard, group: u32) -> Self {
        let at = shard.run(group);
        Self { at: at + NEXT_PAYLOAD, end: at + GROUP_WORDS, size: GROUP_WORDS as u32, byte: 0 }
    }

    /// Moves into the next cell or run when this one is used up.
    #[inline(always)]
    fn settle(&mut self, words: &[AtomicU64], shard: &Shard) -> Result<usize, Torn> {
        if self.at == self.end {
            *self = self.next(words, shard)?;
        }
        Ok(self.at)
    }

    fn next(&self, words: &[AtomicU64], shard: &Shard) -> Result<Self, Torn> {
        let next = lower(load(words, self.start()));
        if self.size == CELL_WORDS as u32 && next & RUN == 0 {
            return if next < shard.cells { Ok(Self::cell(shard, next)) } else { Err(Torn) };
        }
        let group = next & !RUN;
        if group < shard.groups { Ok(Self::run(shard, group)) } else { Err(Torn) }
    }

    /// Where the cell or run it is in begins.
    pub fn start(&self) -> usize {
        self.end - self.size as usize
    }

    /// Copies the next `out.len()` bytes.
    #[inline]
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
            let begun = self.byte as usize;
            let count = out.len().min(8 - begun);
            out[..count].copy_from_slice(&bytes[begun..begun + count]);
            self.advance(count);
            out = &mut out[count..];
        }
        while out.len() >= 8 {
            let at = self.settle(words, shard)?;
            let run = (self.end - at).min(out.len() / 8);
            let (front, rest) = out.split_at_mut(run * 8);
            for (chunk, word) in front.chunks_exact_mut(8).zip(&words[at..at + run]) {
                let value = word.load(crate::sync::Ordering::Relaxed);
                chunk.copy_from_slice(&value.to_le_bytes());
            }
            self.at += run;
            out = rest;
        }
        if !out.is_empty() {
            let at = self.settle(words, shard)?;
            let bytes = load(words, at).to_le_bytes();
            out.copy_from_slice(&bytes[..out.len()]);
            self.byte = out.len() as u32;
        }
        Ok(())
    }

    fn advance(&mut self, bytes: usize) {
        self.byte += bytes as u32;
        if self.byte == 8 {
            self.byte = 0;
            self.at += 1;
        }
    }

    /// Whether the item's key is `key`, given that it has its length. Leaves the cursor at the value.
    #[inline]
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
            self.at += 1;
        }
        if !rest.is_empty() {
            let at = self.settle(words, shard)?;
            if load(words, at) != padded(rest) {
                return Ok(false);
            }
            self.at += 1;
        }
        Ok(true)
    }

    /// Writes bytes and zeroes up to the next multiple of 8. Writer only, into free cells or runs, which
    /// are already chained. The chain is long enough by the caller's count of what is free.
    pub fn write(&mut self, words: &[AtomicU64], shard: &Shard, bytes: &[u8]) {
        let (mut chunks, rest) = bytes.as_chunks::<8>();
        while !chunks.is_empty() {
            let at = self.settle_free(words, shard);
            let (front, further) = chunks.split_at((self.end - at).min(chunks.len()));
            for (index, chunk) in front.iter().enumerate() {
                store(words, at + index, u64::from_le_bytes(*chunk));
            }
            self.at += front.len();
            chunks = further;
        }
        if !rest.is_empty() {
            let at = self.settle_free(words, shard);
            store(words, at, padded(rest));
            self.at += 1;
        }
    }

    fn settle_free(&mut self, words: &[AtomicU64], shard: &Shard) -> usize {
        self.settle(words, shard).expect("the free lists have what was counted")
    }
}

#[inline]
fn padded(rest: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes[..rest.len()].copy_from_slice(rest);
    u64::from_le_bytes(bytes)
}
