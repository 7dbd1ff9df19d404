//! Where everything of a cache table lies, as indices of 8-byte words.
//!
//! ```text
//! table   | header 1024 words | shard 0 | shard 1 | ...
//! shard   | header 128 | buckets 8 x B | ghosts N | side 3 x N | cells 16 x N |
//! bucket  | changes 36 bits, overflow 28 bits | 7 slots |
//! slot    | tag 16 | generation 16 | busy 1 | 2 | cell + 1, 29 bits |          0 = empty
//! side    | newer 32, older 32 | key hash | last access s 32, last cell of the chain 32 |
//! cell, first of an item     | generation 32, next 32 | epoch 32, access stamp 8, marks 8, channel 8,
//!                              key bytes 8 | version | expiry ns | flags 32, value bytes 32 |
//!                              written us 48, text sum 16 | 10 words |
//! cell, further of an item   | generation 32, next 32 | 15 words |
//! ```
//!
//! The payload of an item is its key, padded with zeroes to 8 bytes, then its value, padded the same.

/// Bytes of the longest key, as in memcached's `doc/protocol.txt`.
pub const KEY_BYTES_MAX: usize = 250;
/// Bytes of the largest value.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Largest number of shards of one table.
pub const SHARDS_MAX: u32 = 64;
/// Channels a table can hold; 0 means that clients own the key.
pub const CHANNELS: usize = 256;

/// "No cell" in links.
pub(super) const NIL: u32 = u32::MAX;
pub(super) const HEADER_WORDS: usize = 1024;
pub(super) const SHARD_HEADER_WORDS: usize = 128;
pub(super) const CELL_WORDS: usize = 16;
pub(super) const BUCKET_WORDS: usize = 8;
pub(super) const SIDE_WORDS: usize = 3;
/// Cells per bucket of 7 slots. Too low: index memory. Too high: both buckets of a key are full more
/// often and a warm item is evicted for want of a slot (at 4, below 0.5 % of inserts into a table of
/// one-cell items that is full).
const CELLS_PER_BUCKET: u32 = 4;
const CELLS_MIN: u32 = 4;
const CELLS_MAX: u32 = 1 << 28;

// Words of the table header.
pub(super) const T_SHARDS: usize = 0;
pub(super) const T_CELLS: usize = 1;
pub(super) const T_SEED: usize = 2;
pub(super) const T_VALID_UNTIL_NS: usize = 16;
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
pub(super) const S_GHOSTS: usize = 9;
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

// Words of a cell's side entry, which only the writer uses.
pub(super) const X_LINKS: usize = 0;
pub(super) const X_HASH: usize = 1;
pub(super) const X_LAST: usize = 2;

const _: () = assert!(T_CHANNEL_EPOCHS + CHANNELS <= HEADER_WORDS, "channels fit the table header");

/// Numbers that change whenever the layout does; for the region's layout hash.
pub const LAYOUT_NUMBERS: [u64; 10] = [
    HEADER_WORDS as u64,
    SHARD_HEADER_WORDS as u64,
    CELL_WORDS as u64,
    BUCKET_WORDS as u64,
    SIDE_WORDS as u64,
    CELLS_PER_BUCKET as u64,
    FIRST_PAYLOAD as u64,
    NEXT_PAYLOAD as u64,
    S_INTENT as u64,
    T_CHANNELS as u64,
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
        let index_words = BUCKET_WORDS / CELLS_PER_BUCKET as usize;
        let cell_words = CELL_WORDS + SIDE_WORDS + 1 + index_words;
        let slack_words = BUCKET_WORDS + 3 * 16;
        let cells = shard_words.saturating_sub(SHARD_HEADER_WORDS + slack_words) / cell_words;
        if cells < CELLS_MIN as usize {
            return Err(LayoutError::TooSmall { bytes: words * 8, shards });
        }
        if cells > CELLS_MAX as usize {
            return Err(LayoutError::TooLarge);
        }
        let layout = Self { shards, cells_per_shard: cells as u32, shard_words };
        let last = layout.shard(shards - 1);
        assert!(last.cells_at + cells * CELL_WORDS <= words, "the last cell lies in the memory");
        Ok(layout)
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
        let ghosts_at = (buckets_at + buckets as usize * BUCKET_WORDS).next_multiple_of(16);
        let side_at = (ghosts_at + cells as usize).next_multiple_of(16);
        let cells_at = (side_at + cells as usize * SIDE_WORDS).next_multiple_of(16);
        Shard {
            index,
            base,
            end: base + self.shard_words,
            cells,
            buckets,
            buckets_at,
            ghosts_at,
            side_at,
            cells_at,
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
    pub buckets_at: usize,
    pub ghosts_at: usize,
    pub side_at: usize,
    pub cells_at: usize,
}

impl Shard {
    pub fn bucket(&self, bucket: u32) -> usize {
        self.buckets_at + bucket as usize * BUCKET_WORDS
    }

    pub fn cell(&self, cell: u32) -> usize {
        self.cells_at + cell as usize * CELL_WORDS
    }

    pub fn side(&self, cell: u32) -> usize {
        self.side_at + cell as usize * SIDE_WORDS
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

/// Cells an item takes: at least one.
pub const fn cells_for(key_bytes: usize, value_bytes: usize) -> u32 {
    let words = key_words(key_bytes) + value_bytes.div_ceil(8);
    let first = CELL_WORDS - FIRST_PAYLOAD;
    let further = words.saturating_sub(first);
    1 + further.div_ceil(CELL_WORDS - NEXT_PAYLOAD) as u32
}

/// The second word of an item's first cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub epoch: u32,
    /// [`access_stamp`] of the last use.
    pub stamp: u8,
    /// 0 to 3.
    pub queue: u8,
    /// 0 to 3.
    pub frequency: u8,
    /// Asked for since it was stored.
    pub fetched: bool,
    /// Invalidated.
    pub stale: bool,
    /// A reader was told to fetch it anew.
    pub won: bool,
    pub channel: u8,
    pub key_bytes: u8,
}

const FETCHED: u8 = 1 << 4;
const STALE: u8 = 1 << 5;
const WON: u8 = 1 << 6;

impl Meta {
    #[inline]
    pub fn unpack(word: u64) -> Self {
        let [key_bytes, channel, marks, stamp, ..] = word.to_le_bytes();
        Self {
            epoch: upper(word),
            stamp,
            queue: marks >> 2 & 3,
            frequency: marks & 3,
            fetched: marks & FETCHED != 0,
            stale: marks & STALE != 0,
            won: marks & WON != 0,
            channel,
            key_bytes,
        }
    }

    #[inline]
    pub fn pack(self) -> u64 {
        debug_assert!(self.frequency < 4 && self.queue < 4);
        let mut marks = self.frequency | self.queue << 2;
        marks |= u8::from(self.fetched) << 4 | u8::from(self.stale) << 5 | u8::from(self.won) << 6;
        let low = [self.key_bytes, self.channel, marks, self.stamp];
        pair(self.epoch, u32::from_le_bytes(low))
    }
}

/// The time of a use in steps of 2^35 ns (34 s), modulo 256. The exact second stands in the side entry
/// and is written only when the step has changed, so that a look-up does not touch that line.
#[inline]
pub(super) const fn access_stamp(now_ns: u64) -> u8 {
    (now_ns >> 35) as u8
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
            assert!(cell_words * 100 / words >= 65, "{mebibytes} MiB in {shards} shards");
            for index in 0..shards {
                let shard = layout.shard(index);
                assert!(shard.cell(shard.cells) <= shard.end);
                assert!(shard.end <= words);
                assert_eq!(shard.cells_at % 16, 0);
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
        assert_eq!(cells_for(KEY_BYTES_MAX, VALUE_BYTES_MAX), 8741);
    }

    #[test]
    fn metadata_survives_packing() {
        for bits in 0..8 {
            let [fetched, stale, won] = [1, 2, 4].map(|bit| bits & bit != 0);
            let (epoch, stamp, queue, frequency) = (u32::MAX, 77, 2, 3);
            let (channel, key_bytes) = (255, 250);
            let meta =
                Meta { epoch, stamp, queue, frequency, fetched, stale, won, channel, key_bytes };
            assert_eq!(Meta::unpack(meta.pack()), meta);
        }
    }
}
