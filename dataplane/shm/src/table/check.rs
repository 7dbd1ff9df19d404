//! Rebuilds a shard from its cells and says where it disagrees with itself.
//!
//! For tests and for operators' tools: it walks the whole table and allocates. The table must have no
//! writer meanwhile, and no unfinished change (attach a writer first, which completes it).

use std::collections::HashMap;

use super::evict::{bytes_of, cells_of, last_of};
use super::hash::KeyHash;
use super::layout::{
    BUCKET_WORDS, C_META, C_VERSION, Layout, LayoutError, Meta, NIL, S_BYTES, S_FREE_CELLS,
    S_FREE_HEAD, S_INTENT, S_ITEMS, S_VERSION, Shard, lower, upper,
};
use super::payload::Cursor;
use super::probe::{
    SLOT_BUSY, is_item, link_at, overflow, same_generation, slot_cell, slot_tag, slots,
};
use super::queue::Queue;
use super::words::load;
use super::writer::attach_layout;
use crate::sync::AtomicU64;

/// What the check found to be wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// There is no table.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Something in a shard contradicts something else.
    #[error("shard {shard}: {what}")]
    Inconsistent {
        /// Which shard.
        shard: u32,
        /// What contradicts what.
        what: String,
    },
}

/// What the check counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Items in the index.
    pub items_count: u64,
    /// Free cells.
    pub free_cells_count: u64,
}

/// Checks every shard of the table in these words.
pub fn check(words: &[AtomicU64]) -> Result<Checked, CheckError> {
    let (layout, seed) = attach_layout(words)?;
    let mut checked = Checked::default();
    for index in 0..layout.shards {
        check_shard(words, layout, &layout.shard(index), seed, &mut checked)
            .map_err(|what| CheckError::Inconsistent { shard: index, what })?;
    }
    Ok(checked)
}

/// `Err` with the two values when they differ.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, one: T, other: T) -> Result<(), String> {
    if one == other { Ok(()) } else { Err(format!("{what}: {one:?} against {other:?}")) }
}

fn check_shard(
    words: &[AtomicU64],
    layout: Layout,
    shard: &Shard,
    seed: u64,
    checked: &mut Checked,
) -> Result<(), String> {
    same("length of the intent record", load(words, shard.base + S_INTENT), 0)?;
    // Every cell belongs to one thing.
    let mut owner: HashMap<u32, String> = HashMap::new();
    let mut claim = |cell: u32, by: String| {
        if cell >= shard.cells {
            return Err(format!("{by} reaches cell {cell} of {}", shard.cells));
        }
        match owner.insert(cell, by.clone()) {
            None => Ok(()),
            Some(before) => Err(format!("cell {cell} belongs to {before} and to {by}")),
        }
    };
    let items = index(words, layout, shard, seed)?;
    let mut bytes = 0;
    for &cell in items.keys() {
        let cells = cells_of(words, shard, cell);
        let mut at = cell;
        for number in 0..cells {
            claim(at, format!("item {cell}"))?;
            if number + 1 < cells {
                at = lower(load(words, link_at(shard, at)));
            }
        }
        same(&format!("last cell of item {cell}"), at, last_of(words, shard, cell, cells))?;
        bytes += bytes_of(words, shard, cell);
    }
    let mut free = 0;
    let mut at = lower(load(words, shard.base + S_FREE_HEAD));
    while free < load(words, shard.base + S_FREE_CELLS) {
        claim(at, "the free list".into())?;
        at = lower(load(words, link_at(shard, at)));
        free += 1;
    }
    same("cells owned", owner.len(), shard.cells as usize)?;
    same("items", items.len() as u64, load(words, shard.base + S_ITEMS))?;
    same("payload bytes", bytes, load(words, shard.base + S_BYTES))?;
    let small = queue(words, shard, Queue::Small, &items)?;
    let main = queue(words, shard, Queue::Main, &items)?;
    same("items in queues", small + main, items.len())?;
    checked.items_count += items.len() as u64;
    checked.free_cells_count += free;
    Ok(())
}

/// All items the buckets name, first cell to hash, with everything in a bucket checked.
fn index(
    words: &[AtomicU64],
    layout: Layout,
    shard: &Shard,
    seed: u64,
) -> Result<HashMap<u32, KeyHash>, String> {
    let mut items = HashMap::new();
    let mut keys = HashMap::new();
    let mut went_on = vec![0_u64; shard.buckets as usize];
    for bucket in 0..shard.buckets {
        for slot in slots(shard, bucket) {
            let word = load(words, slot);
            if !is_item(word) {
                continue;
            }
            let cell = slot_cell(word);
            if cell >= shard.cells {
                return Err(format!("bucket {bucket} names cell {cell} of {}", shard.cells));
            }
            let name = format!("item {cell} in bucket {bucket}");
            same(&format!("{name}: busy"), word & SLOT_BUSY, 0)?;
            if !same_generation(load(words, link_at(shard, cell)), word) {
                return Err(format!("{name}: its generation is not the slot's"));
            }
            let meta = Meta::unpack(load(words, shard.cell(cell) + C_META));
            let mut key = vec![0; meta.key_bytes.into()];
            let read = Cursor::first(cell).read(words, shard, &mut key);
            same(&format!("{name}: chain of the key"), read, Ok(()))?;
            let hash = KeyHash::new(seed, &key);
            same(&format!("{name}: tag"), hash.tag(), slot_tag(word))?;
            same(&format!("{name}: shard"), hash.shard(layout.shards), shard.index)?;
            let first = hash.first_bucket(shard);
            if bucket != first {
                same(&format!("{name}: bucket"), hash.second_bucket(shard), bucket)?;
                went_on[first as usize] += 1;
            }
            let version = load(words, shard.cell(cell) + C_VERSION);
            if version > load(words, shard.base + S_VERSION) {
                return Err(format!("{name}: version {version} was never given out"));
            }
            if items.insert(cell, hash).is_some() {
                return Err(format!("{name}: a second slot names its cell"));
            }
            if let Some(other) = keys.insert(key, cell) {
                return Err(format!("{name}: item {other} has the same key"));
            }
        }
    }
    for bucket in 0..shard.buckets {
        let counted = overflow(load(words, shard.buckets_at + bucket as usize * BUCKET_WORDS));
        same(&format!("overflow of bucket {bucket}"), went_on[bucket as usize], counted)?;
    }
    Ok(items)
}

/// Walks a queue from its new to its old end and returns its length.
fn queue(
    words: &[AtomicU64],
    shard: &Shard,
    queue: Queue,
    items: &HashMap<u32, KeyHash>,
) -> Result<usize, String> {
    let ends = load(words, queue.ends(shard));
    let (mut newer, mut cell, mut length, mut cells) = (NIL, upper(ends), 0, 0);
    while cell != NIL {
        let name = format!("item {cell} in queue {queue:?}");
        if !items.contains_key(&cell) || length >= items.len() {
            return Err(format!("{name}: not in the index, or the queue is a ring"));
        }
        let meta = Meta::unpack(load(words, shard.cell(cell) + C_META));
        same(&format!("{name}: own opinion"), Queue::of(meta), queue)?;
        let links = load(words, shard.links(cell));
        same(&format!("{name}: newer neighbour"), upper(links), newer)?;
        cells += u64::from(cells_of(words, shard, cell));
        length += 1;
        newer = cell;
        cell = lower(links);
    }
    same(&format!("oldest of queue {queue:?}"), lower(ends), newer)?;
    same(&format!("cells of queue {queue:?}"), load(words, queue.cells(shard)), cells)?;
    Ok(length)
}
