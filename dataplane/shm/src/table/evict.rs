//! Which item leaves: S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP
//! 2023) inside one shard.
//!
//! ```text
//!   new key ----> small (1/10 of the used cells) -- asked for again --> main -- asked for: once round
//!     |             | else                                               | else
//!     |             v                                                    v
//!     '- seen? <- ghosts (hashes only)                                  gone
//!         yes: straight to main
//! ```
//!
//! Ghosts are a direct-mapped array of 32-bit fingerprints with the number of the eviction that made
//! them: to remember is one store, and an entry is stale once as many more were made as the shard has
//! items.

use super::hash::KeyHash;
use super::hot::{HotKey, HotSet};
use super::intent::Change;
use super::layout::{
    C_EXPIRY_NS, C_LENGTH, C_META, Meta, NIL, S_BYTES, S_FREE_CELLS, S_FREE_HEAD, S_GHOSTS,
    S_ITEMS, Shard, X_HASH, X_LAST, cells_for, lower, pair, upper,
};
use super::probe::{Place, link_at, place_of, slots};
use super::queue::Queue;
use super::words::load;
use crate::sync::AtomicU64;

/// Highest frequency an item remembers (2 bits, as in the paper).
pub(super) const FREQUENCY_MAX: u8 = 3;
/// Hits in the small queue that make an item worth keeping. Two, as in the paper's code, lose to LRU at
/// two sizes of the cloudPhysics trace, whose objects often come back once; one wins at all eight.
const KEEP_FREQUENCY: u8 = 1;
/// The small queue's share of the used cells, as its divisor (10 %, as in the paper).
const SMALL_SHARE: u64 = 10;
/// Items one eviction may spare before it takes the next whatever its frequency. Too low: warm items
/// go when many are warm. Too high: one write holds up the run loop for a walk over the queue.
const SPARED_MAX: usize = 64;
/// Evictions a ghost is remembered for at least.
const GHOST_AGE_MIN: u64 = 16;

/// Cells of the item whose first cell is `cell`.
pub(super) fn cells_of(words: &[AtomicU64], shard: &Shard, cell: u32) -> u32 {
    cells_for(key_bytes_of(words, shard, cell), value_bytes_of(words, shard, cell))
}

fn key_bytes_of(words: &[AtomicU64], shard: &Shard, cell: u32) -> usize {
    Meta::unpack(load(words, shard.cell(cell) + C_META)).key_bytes.into()
}

fn value_bytes_of(words: &[AtomicU64], shard: &Shard, cell: u32) -> usize {
    lower(load(words, shard.cell(cell) + C_LENGTH)) as usize
}

/// Key and value bytes of an item, as the shard accounts for them.
pub(super) fn bytes_of(words: &[AtomicU64], shard: &Shard, cell: u32) -> u64 {
    (key_bytes_of(words, shard, cell) + value_bytes_of(words, shard, cell)) as u64
}

/// Whether a deadline (0 = never) has passed.
pub(super) fn expired(expiry_ns: u64, now_ns: u64) -> bool {
    expiry_ns != 0 && expiry_ns <= now_ns
}

impl Change<'_> {
    /// Ends the life of an item's cells and puts them in front of the free list. `free` is the list's
    /// first cell without them. The generation moves on in the first store, so that a reader that
    /// sees anything of their next use also sees this.
    pub fn retire(&mut self, words: &[AtomicU64], shard: &Shard, cell: u32, free: u32) {
        let last = lower(load(words, shard.side(cell) + X_LAST));
        let link = load(words, link_at(shard, cell));
        let generation = upper(link).wrapping_add(1);
        if last == cell {
            self.set(link_at(shard, cell), pair(generation, free));
        } else {
            self.set(link_at(shard, cell), pair(generation, lower(link)));
            let last_link = load(words, link_at(shard, last));
            self.set(link_at(shard, last), pair(upper(last_link), free));
        }
        self.set(shard.base + S_FREE_HEAD, cell.into());
    }

    /// Takes a live item out of everything.
    pub fn remove(&mut self, words: &[AtomicU64], shard: &Shard, cell: u32, place: Place) {
        let hash = KeyHash(load(words, shard.side(cell) + X_HASH));
        let meta = Meta::unpack(load(words, shard.cell(cell) + C_META));
        let cells = cells_of(words, shard, cell);
        self.publish(shard, place, 0);
        self.overflow_down(shard, hash, place);
        let free = lower(self.get(shard.base + S_FREE_HEAD));
        self.retire(words, shard, cell, free);
        self.add(shard.base + S_FREE_CELLS, cells.into());
        self.unlink(shard, Queue::of(meta), cell, cells);
        self.add(shard.base + S_ITEMS, 1_u64.wrapping_neg());
        self.add(shard.base + S_BYTES, bytes_of(words, shard, cell).wrapping_neg());
    }

    fn remember(&mut self, shard: &Shard, hash: KeyHash) {
        let number = self.get(shard.base + S_GHOSTS).wrapping_add(1);
        self.set(hash.ghost(shard), pair(lower(hash.0), number as u32));
        self.set(shard.base + S_GHOSTS, number);
    }
}

/// Whether the key was evicted from the small queue a short while ago.
pub(super) fn remembered(words: &[AtomicU64], shard: &Shard, hash: KeyHash) -> bool {
    let ghost = load(words, hash.ghost(shard));
    let number = load(words, shard.base + S_GHOSTS);
    let age = (number as u32).wrapping_sub(lower(ghost));
    let age_max = load(words, shard.base + S_ITEMS).max(GHOST_AGE_MIN);
    number > 0 && ghost != 0 && upper(ghost) == lower(hash.0) && u64::from(age) < age_max
}

/// What an eviction found at the end of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evicted {
    /// Nothing: the shard is empty.
    Nothing,
    /// An item that could have been used.
    Usable,
    /// An item whose time was over.
    Expired,
}

/// Evicts one item. Expired items are not spared.
pub(super) fn evict_one(
    words: &[AtomicU64],
    shard: &Shard,
    hot: &mut impl HotSet,
    now_ns: u64,
) -> Evicted {
    for spared in 0.. {
        let small_cells = load(words, Queue::Small.cells(shard));
        let main_cells = load(words, Queue::Main.cells(shard));
        let from_small = main_cells == 0 || small_cells * SMALL_SHARE > small_cells + main_cells;
        let queue = if from_small { Queue::Small } else { Queue::Main };
        let oldest = lower(load(words, queue.ends(shard)));
        if oldest == NIL {
            return Evicted::Nothing;
        }
        let meta = Meta::unpack(load(words, shard.cell(oldest) + C_META));
        let expiry_ns = load(words, shard.cell(oldest) + C_EXPIRY_NS);
        let needed = if queue == Queue::Small { KEEP_FREQUENCY } else { 1 };
        if spared < SPARED_MAX && meta.frequency >= needed && !expired(expiry_ns, now_ns) {
            let frequency = if queue == Queue::Small { 0 } else { meta.frequency - 1 };
            let mut change = Change::new(words);
            let cells = cells_of(words, shard, oldest);
            change.requeue(shard, Queue::Main, oldest, cells, frequency);
            change.commit(shard);
            continue;
        }
        evict(words, shard, hot, oldest);
        return if expired(expiry_ns, now_ns) { Evicted::Expired } else { Evicted::Usable };
    }
    Evicted::Nothing
}

/// Evicts a live item.
pub(super) fn evict(words: &[AtomicU64], shard: &Shard, hot: &mut impl HotSet, cell: u32) {
    let hash = KeyHash(load(words, shard.side(cell) + X_HASH));
    let meta = Meta::unpack(load(words, shard.cell(cell) + C_META));
    let place = place_of(words, shard, hash, cell).expect("a queued item is in its bucket");
    let mut change = Change::new(words);
    change.remove(words, shard, cell, place);
    if Queue::of(meta) == Queue::Small {
        change.remember(shard, hash);
    }
    commit_removal(change, words, shard, hot, (place, cell));
}

/// Commits a change that removes an item, from the hot set first if it is there.
pub(super) fn commit_removal<H: HotSet>(
    change: Change<'_>,
    words: &[AtomicU64],
    shard: &Shard,
    hot: &mut H,
    (place, cell): (Place, u32),
) {
    let short = H::IS_THERE.then(|| HotKey::of(words, shard, cell)).flatten();
    let key = short.filter(|key| hot.holds(key.bytes()));
    match key {
        Some(key) => change.commit_hot(shard, place.slot, cell, || hot.empty(key.bytes())),
        None => change.commit(shard),
    }
}

/// The least asked-for item of a bucket in which every slot is taken.
pub(super) fn coldest(words: &[AtomicU64], shard: &Shard, bucket: u32) -> u32 {
    let cells = slots(shard, bucket).map(|slot| super::probe::slot_cell(load(words, slot)));
    cells
        .min_by_key(|&cell| {
            let meta = Meta::unpack(load(words, shard.cell(cell) + C_META));
            (meta.frequency, meta.queue)
        })
        .expect("a bucket has slots")
}
