//! How much of a table is in use.

use std::ops::Range;

use super::hot::HotSet;
use super::layout::{GROUP_CELLS, S_BYTES, S_FREE_CELLS, S_FREE_RUNS, S_ITEMS};
use super::words::{Words, load};
use super::writer::TableWriter;

/// What is in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Items, expired ones that nobody has asked for included.
    pub items_count: u64,
    /// Key and value bytes of the items.
    pub payload_bytes: u64,
    /// Cells in use, of [`Self::cells_count`].
    pub used_cells_count: u64,
    /// All cells.
    pub cells_count: u64,
}

impl<W: Words, H: HotSet> TableWriter<W, H> {
    /// What is in the shards that it owns. A few loads a shard.
    pub fn usage(&self) -> Usage {
        self.usage_of(self.owned.clone())
    }

    /// What is in the whole table, as of no single moment where others write, too.
    pub fn table_usage(&self) -> Usage {
        self.usage_of(0..self.layout().shards)
    }

    /// Shards of the whole table.
    pub fn shards(&self) -> u32 {
        self.layout().shards
    }

    fn usage_of(&self, shards: Range<u32>) -> Usage {
        let words = self.memory.words();
        let mut usage = Usage::default();
        for shard in &self.shards[shards.start as usize..shards.end as usize] {
            usage.items_count += load(words, shard.base + S_ITEMS);
            usage.payload_bytes += load(words, shard.base + S_BYTES);
            let free_runs = load(words, shard.base + S_FREE_RUNS);
            let free = load(words, shard.base + S_FREE_CELLS) + free_runs * u64::from(GROUP_CELLS);
            usage.used_cells_count += u64::from(shard.cells) - free;
            usage.cells_count += u64::from(shard.cells);
        }
        usage
    }
}
