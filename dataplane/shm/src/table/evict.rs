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
//! A ghost is what an evicted item leaves in its slot: the key's tag and the number of the eviction. It
//! takes no memory of its own, and none of the stores of an eviction; a new item of the bucket takes its
//! slot, the oldest ghost's first. It is stale once half as many more were made as the shard has
//! items.

use super::free::Free;
use super::hash::KeyHash;
use super::hot::{HotKey, HotSet};
use super::intent::Change;
use super::layout::{
    C_EXPIRY_NS, C_LENGTH, C_META, NIL, RUN, S_BYTES, S_FREE_CELLS, S_FREE_HEAD, S_FREE_RUNS,
    S_GHOSTS, S_ITEMS, S_RUN_HEAD, Shape, Shard, lower, pair, runs, upper, value_bytes,
};
use super::meta::{Meta, generation, link_word};
use super::probe::{
    Place, ghost_word, is_item, link_at, place_of, slot_cell, slot_generation, slot_tag, slots,
};
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
/// Evictions a ghost is remembered for, in sixteenths of the items there are. Too low: what comes back
/// late is taken for new. Too high: what comes back once in a long while fills the main queue; as many as
/// there are items, which is the paper's choice, lose at one size of the cloudPhysics trace to memcached.
const GHOST_AGE_SIXTEENTHS: u64 = 9;
/// Evictions a ghost is remembered for at least.
const GHOST_AGE_MIN: u64 = 16;

/// Shape of the item whose first cell is `cell`.
pub(super) fn shape_of(words: &[AtomicU64], shard: &Shard, cell: u32) -> Shape {
    let length = load(words, shard.cell(cell) + C_LENGTH);
    let key_bytes = key_bytes_of(words, shard, cell);
    Shape::with_runs(key_bytes, value_bytes(length) as usize, runs(length))
}

fn key_bytes_of(words: &[AtomicU64], shard: &Shard, cell: u32) -> usize {
    Meta::unpack(load(words, shard.cell(cell) + C_META)).key_bytes.into()
}

fn value_bytes_of(words: &[AtomicU64], shard: &Shard, cell: u32) -> usize {
    value_bytes(load(words, shard.cell(cell) + C_LENGTH)) as usize
}

/// The last cell of an item of so many cells.
pub(super) fn last_of(words: &[AtomicU64], shard: &Shard, cell: u32, cells: u32) -> u32 {
    if cells == 1 {
        return cell;
    }
    let second = lower(load(words, link_at(shard, cell)));
    lower(load(words, shard.links(second)))
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
    /// Ends the life of an item's cells and runs and puts them in front of the free lists. `free` is
    /// where those begin without them. The generation moves on in the first store, so that a reader that
    /// sees anything of their next use also sees this.
    pub fn retire(&mut self, words: &[AtomicU64], shard: &Shard, cell: u32, free: Free) {
        let shape = shape_of(words, shard, cell);
        let last = last_of(words, shard, cell, shape.cells);
        let link = load(words, link_at(shard, cell));
        let next_life = generation(link).wrapping_add(1);
        let next = if last == cell { free.cell } else { lower(link) };
        self.set(link_at(shard, cell), link_word(0, next_life, next));
        let last_link = load(words, link_at(shard, last));
        if last != cell {
            self.set(link_at(shard, last), pair(upper(last_link), free.cell));
        }
        self.set(shard.base + S_FREE_HEAD, cell.into());
        let first_run = if shape.runs > 0 { lower(last_link) & !RUN } else { free.run };
        if shape.runs > 0 {
            let last_run = upper(load(words, shard.run(first_run)));
            let link = load(words, shard.run(last_run));
            self.set(shard.run(last_run), pair(upper(link), free.run));
        }
        self.set(shard.base + S_RUN_HEAD, first_run.into());
        self.add(shard.base + S_FREE_CELLS, shape.cells.into());
        self.add(shard.base + S_FREE_RUNS, shape.runs.into());
    }

    /// Takes a live item out of everything; its slot is left empty or to its ghost.
    pub fn remove(
        &mut self,
        words: &[AtomicU64],
        shard: &Shard,
        hash: KeyHash,
        (place, cell): (Place, u32),
        ghost: Option<u64>,
    ) {
        let meta = Meta::unpack(load(words, shard.cell(cell) + C_META));
        let weight = shape_of(words, shard, cell).weight();
        self.publish(shard, place, ghost.unwrap_or(0));
        self.overflow_down(shard, hash, place);
        self.retire(words, shard, cell, Free::of(words, shard));
        self.unlink(shard, Queue::of(meta), cell, weight);
        self.add(shard.base + S_ITEMS, 1_u64.wrapping_neg());
        self.add(shard.base + S_BYTES, bytes_of(words, shard, cell).wrapping_neg());
    }
}

/// The number of the last eviction, as a ghost carries it.
fn eviction(words: &[AtomicU64], shard: &Shard) -> u16 {
    (load(words, shard.base + S_GHOSTS) >> shard.ghost_shift) as u16
}

/// Evictions since a ghost was made, rounded.
fn ghost_age(words: &[AtomicU64], shard: &Shard, ghost: u64) -> u64 {
    u64::from(eviction(words, shard).wrapping_sub(slot_generation(ghost))) << shard.ghost_shift
}

/// The key's ghost, if it was evicted from the small queue a short while ago. An item that was in its
/// second bucket leaves none.
pub(super) fn ghost_of(words: &[AtomicU64], shard: &Shard, hash: KeyHash) -> Option<Place> {
    let bucket = hash.first_bucket(shard);
    let items = load(words, shard.base + S_ITEMS);
    let age_max = (items * GHOST_AGE_SIXTEENTHS / 16).max(GHOST_AGE_MIN);
    let slot = slots(shard, bucket).find(|&slot| {
        let word = load(words, slot);
        let is_ghost = word != 0 && !is_item(word) && slot_tag(word) == hash.tag();
        is_ghost && ghost_age(words, shard, word) < age_max
    })?;
    Some(Place { bucket, slot })
}

/// A slot of this bucket that holds no item: one with nothing in it, or that of the oldest ghost.
pub(super) fn free_slot(words: &[AtomicU64], shard: &Shard, bucket: u32) -> Option<Place> {
    let free = slots(shard, bucket).filter(|&slot| !is_item(load(words, slot)));
    let slot = free.max_by_key(|&slot| match load(words, slot) {
        0 => u64::MAX,
        ghost => ghost_age(words, shard, ghost),
    })?;
    Some(Place { bucket, slot })
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
            let weight = shape_of(words, shard, oldest).weight();
            change.requeue(shard, Queue::Main, oldest, weight, frequency);
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
    let hash = KeyHash::of(words, shard, cell);
    let meta = Meta::unpack(load(words, shard.cell(cell) + C_META));
    let place = place_of(words, shard, hash, cell).expect("a queued item is in its bucket");
    let mut change = Change::new(words);
    let is_remembered = Queue::of(meta) == Queue::Small && place.bucket == hash.first_bucket(shard);
    if is_remembered {
        change.add(shard.base + S_GHOSTS, 1);
    }
    let ghost = is_remembered.then(|| {
        let number = change.get(shard.base + S_GHOSTS) >> shard.ghost_shift;
        ghost_word(hash, number as u16)
    });
    change.remove(words, shard, hash, (place, cell), ghost);
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
    let cells = slots(shard, bucket).map(|slot| slot_cell(load(words, slot)));
    cells
        .min_by_key(|&cell| {
            let meta = Meta::unpack(load(words, shard.cell(cell) + C_META));
            (meta.frequency, meta.queue)
        })
        .expect("a bucket has slots")
}
