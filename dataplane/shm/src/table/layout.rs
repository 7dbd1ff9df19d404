//! Where everything of a cache table lies, as indices of 8-byte words.
//!
//! ```text
//! table   | header 1024 words | shard 0 | shard 1 | ...
//! shard   | header 128 | buckets 8 x B | groups 272 x N / 16 |
//! bucket  | changes 36 bits, overflow 28 bits | 7 slots |
//! slot    | tag 16 | generation 16 | busy 1 | 2 | cell + 1, 29 bits |
//!         | tag 16 | eviction 16 | 0, 32 bits |                a key that was evicted; 0 = nothing
//! group   | links 16 | 16 cells |                             or, for long values, one run:
//!         | last run 32, next run 32 | 271 words |
//! links   | newer 32, older 32 |              of a first cell; of a second one: 0, last cell of the item
//! cell, first of an item     | access low 16, generation 16, next 32 | epoch 32, access high 8, marks 8,
//!                              channel 8, key bytes 8 | version | expiry ns | flags 32, runs 11, value bytes 21 |
//!                              written us 48, text sum 16 | 10 words |
//! cell, further of an item   | 16, generation 16, next 32 | 15 words |
//! ```
//!
//! `next` of a cell names the item's next cell, or with its highest bit the item's first run; a run's
//! names its next run. What follows an item's last cell or run is of no use to it: its length says where
//! it ends. The payload of an item is its key, padded with zeroes to 8 bytes, then its value, padded the same.

use super::meta::ACCESS_SHIFT;

/// Bytes of the longest key, as in memcached's `doc/protocol.txt`.
pub const KEY_BYTES_MAX: usize = 250;
/// Bytes of the largest value.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Largest number of shards of one table.
pub const SHARDS_MAX: u32 = 64;
/// Channels a table can hold; 0 means that clients own the key.
pub const CHANNELS: usize = 256;

/// In a cell's `next`: the rest is the number of a group that is a run.
pub(super) const RUN: u32 = 1 << 31;
/// Cells of a group.
pub(super) const GROUP_CELLS: u32 = 16;
/// "No cell", "no run" in links.
pub(super) const NIL: u32 = u32::MAX;
pub(super) const HEADER_WORDS: usize = 1024;
pub(super) const SHARD_HEADER_WORDS: usize = 128;
pub(super) const CELL_WORDS: usize = 16;
pub(super) const GROUP_WORDS: usize = GROUP_CELLS as usize * (1 + CELL_WORDS);
pub(super) const BUCKET_WORDS: usize = 8;
/// Cells per bucket of 7 slots. Too low: index memory. Too high: both buckets of a key are full more
/// often and a warm item is evicted for want of a slot (at 4, below 0.5 % of inserts into a table of
/// one-cell items that is full).
const CELLS_PER_BUCKET: u32 = 4;
/// Words of memory a cell costs: itself, its links, its share of the index.
const WORDS_PER_CELL: usize = CELL_WORDS + 1 + BUCKET_WORDS / CELLS_PER_BUCKET as usize;
/// The same in bytes.
pub const BYTES_PER_CELL: u64 = 8 * WORDS_PER_CELL as u64;
/// Words that rounding may take of a shard: a bucket for fewer cells than it could have, and the places
/// of buckets and groups, and the links of a last group of fewer cells.
const SLACK_WORDS: usize = BUCKET_WORDS + 3 * 16;
/// Bits of an eviction's number, of 16 in a ghost, that count as many evictions as there are cells. Too
/// low: ages are coarse. Too high: the count comes round, and a ghost that nobody took is young again.
const GHOST_AGE_BITS: u32 = 12;
const CELLS_MIN: u32 = 4;
const CELLS_MAX: u32 = 1 << 28;

// Words of the table header.
pub(super) const T_SHARDS: usize = 0;
pub(super) const T_CELLS: usize = 1;
pub(super) const T_SEED: usize = 2;
pub(super) const T_VALID_UNTIL_NS: usize = 16;
/// Beside the lease, on the line that every check reads.
pub(super) const T_HALTED: usize = T_VALID_UNTIL_NS + 1;
pub(super) const T_FLUSH_EPOCH: usize = 32;
pub(super) const T_CHANNELS: usize = 64;
pub(super) const T_CHANNEL_EPOCHS: usize = T_CHANNELS + CHANNELS;

// Words of a shard header.
pub(super) const S_FREE_HEAD: usize = 0;
pub(super) const S_FREE_CELLS: usize = 1;
pub(super) const S_SMALL_ENDS: usize = 2;
pub(super) const S_SMALL_CELLS: usize = 3;
pub(super) const S_MAIN_ENDS: usize = 4;
pub(super) const S_MAIN_CELLS: usize = 5;
pub(super) const S_ITEMS: usize = 6;
pub(super) const S_BYTES: usize = 7;
pub(super) const S_VERSION: usize = 8;
/// Evictions from the small queue so far.
pub(super) const S_GHOSTS: usize = 9;
pub(super) const S_RUN_HEAD: usize = 10;
pub(super) const S_FREE_RUNS: usize = 11;
pub(super) const S_INTENT: usize = 16;

// Words of an item's first cell.
pub(super) const C_LINK: usize = 0;
pub(super) const C_META: usize = 1;
pub(super) const C_VERSION: usize = 2;
pub(super) const C_EXPIRY_NS: usize = 3;
pub(super) const C_LENGTH: usize = 4;
pub(super) const C_WRITTEN: usize = 5;
pub(super) const FIRST_PAYLOAD: usize = 6;
pub(super) const NEXT_PAYLOAD: usize = 1;

const _: () = assert!(T_CHANNEL_EPOCHS + CHANNELS <= HEADER_WORDS, "channels fit the table header");

/// Numbers that change whenever the layout does; for the region's layout hash.
pub const LAYOUT_NUMBERS: [u64; 12] = [
    HEADER_WORDS as u64,
    SHARD_HEADER_WORDS as u64,
    CELL_WORDS as u64,
    GROUP_WORDS as u64,
    BUCKET_WORDS as u64,
    CELLS_PER_BUCKET as u64,
    ACCESS_SHIFT as u64,
    FIRST_PAYLOAD as u64,
    NEXT_PAYLOAD as u64,
    S_INTENT as u64,
    T_CHANNELS as u64,
    T_HALTED as u64,
];

/// Why a table cannot be laid out, or an existing one cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// No shard, or too many.
    #[error("{shards} shards: a cache table has 1 to {SHARDS_MAX}")]
    Shards {
        /// Shards asked for.
        shards: u64,
    },
    /// The memory does not hold a useful table.
    #[error("{bytes} bytes hold no table of {shards} shards: raise max_memory_mb or lower shards")]
    TooSmall {
        /// Memory given.
        bytes: usize,
        /// Shards asked for.
        shards: u32,
    },
    /// One shard cannot address that much.
    #[error("a shard holds at most 2^28 cells (about 47 GB): raise shards")]
    TooLarge,
    /// The header of an existing table does not fit its memory.
    #[error("the table header says {cells} cells a shard, its memory holds {expected}")]
    Header {
        /// What the header says.
        cells: u64,
        /// What the memory gives.
        expected: u32,
    },
    /// A writer was given memory it may only read.
    #[error("the table's memory is mapped read-only")]
    ReadOnly,
    /// An intent record names words that are not of its shard: the table must be made anew.
    #[error("the intent record of shard {shard} is damaged")]
    Intent {
        /// Which shard.
        shard: u32,
    },
}

/// The measures of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Number of shards.
    pub shards: u32,
    /// Cells of 128 bytes in each shard.
    pub cells_per_shard: u32,
    shard_words: usize,
}

impl Layout {
    /// The largest table in `words` words of 8 bytes.
    pub fn fit(words: usize, shards: u32) -> Result<Self, LayoutError> {
        if !(1..=SHARDS_MAX).contains(&shards) {
            return Err(LayoutError::Shards { shards: shards.into() });
        }
        let shard_words = words.saturating_sub(HEADER_WORDS) / shards as usize / 16 * 16;
        let spare = shard_words.saturating_sub(SHARD_HEADER_WORDS + SLACK_WORDS);
        let cells = spare / WORDS_PER_CELL;
        if cells < CELLS_MIN as usize {
            return Err(LayoutError::TooSmall { bytes: words * 8, shards });
        }
        if cells > CELLS_MAX as usize {
            return Err(LayoutError::TooLarge);
        }
        let layout = Self { shards, cells_per_shard: cells as u32, shard_words };
        let last = layout.shard(shards - 1);
        assert!(
            last.cell(last.cells - 1) + CELL_WORDS <= words,
            "the last cell lies in the memory"
        );
        Ok(layout)
    }

    /// Words of the smallest memory in which [`Self::fit`] finds `cells` cells a shard.
    pub const fn words_for(cells: u32, shards: u32) -> usize {
        let shard = SHARD_HEADER_WORDS + SLACK_WORDS + WORDS_PER_CELL * cells as usize;
        HEADER_WORDS + shards as usize * shard.next_multiple_of(16)
    }

    /// The places of all shards, in order.
    pub(super) fn all_shards(&self) -> Box<[Shard]> {
        (0..self.shards).map(|index| self.shard(index)).collect()
    }

    /// The place of shard `index`, which is below [`Self::shards`].
    pub(super) fn shard(&self, index: u32) -> Shard {
        let cells = self.cells_per_shard;
        let base = HEADER_WORDS + index as usize * self.shard_words;
        let buckets = cells.div_ceil(CELLS_PER_BUCKET);
        let buckets_at = base + SHARD_HEADER_WORDS;
        let groups_at = (buckets_at + buckets as usize * BUCKET_WORDS).next_multiple_of(16);
        Shard {
            index,
            base,
            end: base + self.shard_words,
            cells,
            buckets,
            ghost_shift: (u32::BITS - cells.leading_zeros()).saturating_sub(GHOST_AGE_BITS),
            buckets_at,
            groups_at,
            groups: cells / GROUP_CELLS,
        }
    }
}

/// The place of one shard. Copied around; it holds no state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shard {
    pub index: u32,
    pub base: usize,
    pub end: usize,
    pub cells: u32,
    pub buckets: u32,
    /// Evictions are counted in steps of 2 to this in ghosts.
    pub ghost_shift: u32,
    pub buckets_at: usize,
    pub groups_at: usize,
    /// Whole ones, which can be runs.
    pub groups: u32,
}

impl Shard {
    pub fn bucket(&self, bucket: u32) -> usize {
        self.buckets_at + bucket as usize * BUCKET_WORDS
    }

    pub fn cell(&self, cell: u32) -> usize {
        // One more for the links of each group up to this cell's.
        self.groups_at + CELL_WORDS * (cell as usize + (cell / GROUP_CELLS) as usize + 1)
    }

    /// Of a first cell: its neighbours in its queue. Of an item's second cell: its last. Only the
    /// writer looks.
    pub fn links(&self, cell: u32) -> usize {
        self.run(cell / GROUP_CELLS) + (cell % GROUP_CELLS) as usize
    }

    /// The first word of a group: a run's link.
    pub fn run(&self, group: u32) -> usize {
        self.groups_at + group as usize * GROUP_WORDS
    }

    /// The cell that begins at this word.
    pub fn cell_at(&self, at: usize) -> u32 {
        let cells = at.wrapping_sub(self.groups_at) / CELL_WORDS;
        cells.wrapping_sub(1 + cells / (GROUP_CELLS as usize + 1)) as u32
    }

    /// The group that begins at this word.
    pub fn group_at(&self, at: usize) -> u32 {
        (at.wrapping_sub(self.groups_at) / GROUP_WORDS) as u32
    }
}

/// Two 32-bit halves of a word, upper first.
pub(super) const fn pair(upper: u32, lower: u32) -> u64 {
    (upper as u64) << 32 | lower as u64
}

pub(super) const fn upper(word: u64) -> u32 {
    (word >> 32) as u32
}

pub(super) const fn lower(word: u64) -> u32 {
    word as u32
}

/// Payload words of a key of this length.
pub(super) const fn key_words(key_bytes: usize) -> usize {
    key_bytes.div_ceil(8)
}

/// Cells' worth of memory that an item takes while there are whole groups for it, which are 16 cells
/// each: at least one.
pub const fn cells_for(key_bytes: usize, value_bytes: usize) -> u32 {
    Shape::with_runs(key_bytes, value_bytes, Shape::runs_max(key_bytes, value_bytes)).weight()
}

/// Payload words of an item's first cell, of a further one, of a run.
const FIRST_WORDS: usize = CELL_WORDS - FIRST_PAYLOAD;
const NEXT_WORDS: usize = CELL_WORDS - NEXT_PAYLOAD;
const RUN_WORDS: usize = GROUP_WORDS - NEXT_PAYLOAD;

/// What an item consists of: cells first, then runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub cells: u32,
    pub runs: u32,
}

impl Shape {
    /// An item that has so many runs, of at most [`Self::runs_max`].
    pub const fn with_runs(key_bytes: usize, value_bytes: usize, runs: u32) -> Self {
        let words = key_words(key_bytes) + value_bytes.div_ceil(8) - runs as usize * RUN_WORDS;
        let further = words.saturating_sub(FIRST_WORDS).div_ceil(NEXT_WORDS);
        Self { cells: 1 + further as u32, runs }
    }

    /// Runs that an item can fill, its key being in cells.
    pub const fn runs_max(key_bytes: usize, value_bytes: usize) -> u32 {
        let key_words = key_words(key_bytes);
        let front = if key_words > FIRST_WORDS { key_words } else { FIRST_WORDS };
        let words = key_words + value_bytes.div_ceil(8);
        (words.saturating_sub(front) / RUN_WORDS) as u32
    }

    /// Bytes of the payload that lie in the cells, padding included, when there are runs as well.
    pub const fn bytes_in_cells(self) -> usize {
        8 * (FIRST_WORDS + NEXT_WORDS * (self.cells as usize - 1))
    }

    /// Cells' worth of memory.
    pub const fn weight(self) -> u32 {
        self.cells + self.runs * GROUP_CELLS
    }
}

const VALUE_BYTES_BITS: u32 = VALUE_BYTES_MAX.ilog2() + 1;

/// The length word of an item.
pub(super) const fn length_word(flags: u32, runs: u32, value_bytes: u32) -> u64 {
    pair(flags, runs << VALUE_BYTES_BITS | value_bytes)
}

/// Bytes of the value, in a length word.
pub(super) const fn value_bytes(length_word: u64) -> u32 {
    lower(length_word) & ((1 << VALUE_BYTES_BITS) - 1)
}

/// Runs of the item, in a length word.
pub(super) const fn runs(length_word: u64) -> u32 {
    lower(length_word) >> VALUE_BYTES_BITS
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_largest_table_uses_its_memory() {
        for (mebibytes, shards) in [(1, 1), (1, 3), (64, 1), (64, 7), (1024, 64)] {
            let words = (mebibytes << 20) / 8;
            let layout = Layout::fit(words, shards).unwrap();
            let cell_words = shards as usize * layout.cells_per_shard as usize * CELL_WORDS;
            assert!(cell_words * 100 / words >= 75, "{mebibytes} MiB in {shards} shards");
            for index in 0..shards {
                let shard = layout.shard(index);
                assert!(shard.cell(shard.cells) <= shard.end);
                assert!(shard.end <= words);
                assert_eq!(shard.groups_at % 16, 0);
                let cells = [0, 15, 16, shard.cells - 1];
                assert_eq!(cells.map(|cell| shard.cell_at(shard.cell(cell))), cells);
                let groups = [0, 1, shard.groups - 1];
                assert_eq!(groups.map(|group| shard.group_at(shard.run(group))), groups);
                assert!(shard.run(shard.groups) <= shard.end);
                assert_eq!(shard.cell(15) + CELL_WORDS, shard.run(1));
            }
        }
        assert!(matches!(Layout::fit(1200, 1), Err(LayoutError::TooSmall { .. })));
        assert!(matches!(Layout::fit(1 << 20, 0), Err(LayoutError::Shards { .. })));
        assert!(matches!(Layout::fit(1 << 20, 65), Err(LayoutError::Shards { .. })));
        assert_eq!(Layout::fit(1 << 40, 1), Err(LayoutError::TooLarge));
    }

    #[test]
    fn an_item_takes_the_cells_its_bytes_need() {
        assert_eq!(cells_for(1, 0), 1);
        assert_eq!(cells_for(16, 64), 1);
        assert_eq!(cells_for(17, 64), 2);
        assert_eq!(cells_for(16, 64 + 120), 2);
        assert_eq!(cells_for(16, 64 + 121), 3);
        assert_eq!(cells_for(KEY_BYTES_MAX, VALUE_BYTES_MAX), 15 + 16 * 483);
        assert_eq!(Shape::with_runs(KEY_BYTES_MAX, VALUE_BYTES_MAX, 0).cells, 8741);
    }

    #[test]
    fn runs_take_what_they_hold_and_never_the_key() {
        let full = 72 + 8 * RUN_WORDS;
        assert_eq!((Shape::runs_max(8, full - 8), Shape::runs_max(8, full)), (0, 1));
        assert_eq!(Shape::with_runs(8, full, 1), Shape { cells: 1, runs: 1 });
        assert_eq!(Shape::with_runs(8, full + 1, 1), Shape { cells: 2, runs: 1 });
        let key = KEY_BYTES_MAX;
        assert_eq!((Shape::runs_max(key, full - 80), Shape::runs_max(key, full - 72)), (0, 1));
        let shape = Shape::with_runs(key, VALUE_BYTES_MAX, Shape::runs_max(key, VALUE_BYTES_MAX));
        assert_eq!(shape, Shape { cells: 15, runs: 483 });
        assert!(shape.bytes_in_cells() >= key);
        let word = length_word(u32::MAX, shape.runs, VALUE_BYTES_MAX as u32);
        assert_eq!((upper(word), runs(word), value_bytes(word)), (u32::MAX, 483, 1 << 20));
        // A run never holds less than the cells it is made of, so what fits in cells fits with runs.
        for value_bytes in (0..20_000).step_by(7) {
            for runs in 0..=Shape::runs_max(16, value_bytes) {
                let shape = Shape::with_runs(16, value_bytes, runs);
                assert!(shape.weight() <= Shape::with_runs(16, value_bytes, 0).cells);
            }
        }
    }
}
