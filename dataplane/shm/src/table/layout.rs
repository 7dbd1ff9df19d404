//! Where everything of a cache table lies, as indices of 8-byte words.
//!
//! ```text
//! table   | header 1024 words | shard 0 | shard 1 | ...
//! shard   | header 128 | buckets 8 x B | links N | cells 16 x N |
//! bucket  | changes 36 bits, overflow 28 bits | 7 slots |
//! slot    | tag 16 | generation 16 | busy 1 | 2 | cell + 1, 29 bits |
//!         | tag 16 | eviction 16 | 0, 32 bits |                a key that was evicted; 0 = nothing
//! links   | newer 32, older 32 |              of a first cell; of a second one: 0, last cell of the item
//! cell, first of an item     | access low 16, generation 16, next 32 | epoch 32, access high 8, marks 8,
//!                              channel 8, key bytes 8 | version | expiry ns | flags 32, value bytes 32 |
//!                              written us 48, text sum 16 | 10 words |
//! cell, further of an item   | 16, generation 16, next 32 | 15 words |
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
/// Cells per bucket of 7 slots. Too low: index memory. Too high: both buckets of a key are full more
/// often and a warm item is evicted for want of a slot (at 4, below 0.5 % of inserts into a table of
/// one-cell items that is full).
const CELLS_PER_BUCKET: u32 = 4;
/// Words of memory a cell costs: itself, its links, its share of the index.
const WORDS_PER_CELL: usize = CELL_WORDS + 1 + BUCKET_WORDS / CELLS_PER_BUCKET as usize;
/// The same in bytes.
pub const BYTES_PER_CELL: u64 = 8 * WORDS_PER_CELL as u64;
/// Words that rounding may take of a shard: a bucket for fewer cells than it could have, and the places
/// of buckets, links and cells.
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
pub const LAYOUT_NUMBERS: [u64; 10] = [
    HEADER_WORDS as u64,
    SHARD_HEADER_WORDS as u64,
    CELL_WORDS as u64,
    BUCKET_WORDS as u64,
    CELLS_PER_BUCKET as u64,
    ACCESS_SHIFT as u64,
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
        assert!(last.cells_at + cells * CELL_WORDS <= words, "the last cell lies in the memory");
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
        let links_at = (buckets_at + buckets as usize * BUCKET_WORDS).next_multiple_of(16);
        let cells_at = (links_at + cells as usize).next_multiple_of(16);
        Shard {
            index,
            base,
            end: base + self.shard_words,
            cells,
            buckets,
            ghost_shift: (u32::BITS - cells.leading_zeros()).saturating_sub(GHOST_AGE_BITS),
            buckets_at,
            links_at,
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
    /// Evictions are counted in steps of 2 to this in ghosts.
    pub ghost_shift: u32,
    pub buckets_at: usize,
    pub links_at: usize,
    pub cells_at: usize,
}

impl Shard {
    pub fn bucket(&self, bucket: u32) -> usize {
        self.buckets_at + bucket as usize * BUCKET_WORDS
    }

    pub fn cell(&self, cell: u32) -> usize {
        self.cells_at + cell as usize * CELL_WORDS
    }

    /// Of a first cell: its neighbours in its queue. Of an item's second cell: its last. Only the
    /// writer looks.
    pub fn links(&self, cell: u32) -> usize {
        self.links_at + cell as usize
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
    /// The upper 8 of 24 bits of the time of the last use; see [`access_time`].
    pub access: u8,
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
        let [key_bytes, channel, marks, access, ..] = word.to_le_bytes();
        Self {
            epoch: upper(word),
            access,
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
        let low = [self.key_bytes, self.channel, marks, self.access];
        pair(self.epoch, u32::from_le_bytes(low))
    }
}

/// Times of use are kept in steps of 2^29 ns (0.54 s), modulo 2^24 of them (104 days).
const ACCESS_SHIFT: u32 = 29;
const ACCESS_MASK: u32 = (1 << 24) - 1;
/// Steps (34 s) for which a use is not written down again: memcached allows itself 60 s. Too low: every
/// look-up of a busy key stores. Too high: what `mg` says of the last use is too old.
const ACCESS_KEPT: u32 = 64;

/// The time of a use, as it is kept: 16 bits in the item's link word, 8 in its meta word, both in the
/// line that a look-up has.
#[inline]
pub(super) const fn access_time(now_ns: u64) -> u32 {
    (now_ns >> ACCESS_SHIFT) as u32 & ACCESS_MASK
}

/// The time of use an item's two words hold.
#[inline]
pub(super) const fn access_of(link_word: u64, meta: &Meta) -> u32 {
    (meta.access as u32) << 16 | (link_word >> 48) as u32
}

/// Whether a use at `now_ns` must be written down.
#[inline]
pub(super) const fn access_is_old(access: u32, now_ns: u64) -> bool {
    access_time(now_ns).wrapping_sub(access) & ACCESS_MASK >= ACCESS_KEPT
}

/// The second in which the step of a use ended, or in which `now_ns` is, if that is earlier.
pub(super) fn access_second(access: u32, now_ns: u64) -> u32 {
    let steps = access_time(now_ns).wrapping_sub(access) & ACCESS_MASK;
    let step = (now_ns >> ACCESS_SHIFT).saturating_sub(steps.into());
    (now_ns.min(((step + 1) << ACCESS_SHIFT) - 1) / 1_000_000_000) as u32
}

/// An item's link word.
#[inline]
pub(super) const fn link_word(access: u32, generation: u16, next: u32) -> u64 {
    pair(access << 16 | generation as u32, next)
}

/// The generation in a cell's link word.
#[inline]
pub(super) const fn generation(link_word: u64) -> u16 {
    (link_word >> 32) as u16
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
            let (epoch, access, queue, frequency) = (u32::MAX, 77, 2, 3);
            let (channel, key_bytes) = (255, 250);
            let meta =
                Meta { epoch, access, queue, frequency, fetched, stale, won, channel, key_bytes };
            assert_eq!(Meta::unpack(meta.pack()), meta);
        }
    }
}
