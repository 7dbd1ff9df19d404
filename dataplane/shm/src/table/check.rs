//! Rebuilds a shard from its cells and says where it disagrees with itself.
//!
//! For tests and for operators' tools: it walks the whole table and allocates. The table must have no
//! writer meanwhile, and no unfinished change (attach a writer first, which completes it).

use std::cell::RefCell;
use std::collections::HashMap;

use super::evict::{bytes_of, last_of, shape_of};
use super::hash::KeyHash;
use super::layout::{
    BUCKET_WORDS, C_META, C_VERSION, GROUP_CELLS, Layout, LayoutError, NIL, RUN, S_BYTES,
    S_FREE_CELLS, S_FREE_HEAD, S_FREE_RUNS, S_INTENT, S_ITEMS, S_RUN_HEAD, S_VERSION, Shape, Shard,
    lower, upper,
};
use super::meta::Meta;
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
    // Every cell belongs to one thing, and every run as the cells it is made of.
    let owner: RefCell<HashMap<u32, String>> = RefCell::default();
    let claim = |cell: u32, by: String| {
        if cell >= shard.cells {
            return Err(format!("{by} reaches cell {cell} of {}", shard.cells));
        }
        match owner.borrow_mut().insert(cell, by.clone()) {
            None => Ok(()),
            Some(before) => Err(format!("cell {cell} belongs to {before} and to {by}")),
        }
    };
    let claim_run = |group: u32, by: String| {
        if group >= shard.groups {
            return Err(format!("{by} reaches run {group} of {}", shard.groups));
        }
        let first = group * GROUP_CELLS;
        (first..first + GROUP_CELLS).try_for_each(|cell| claim(cell, format!("a run of {by}")))
    };
    let items = index(words, layout, shard, seed)?;
    let mut bytes = 0;
    for &cell in items.keys() {
        let Shape { cells, runs } = shape_of(words, shard, cell);
        let mut at = cell;
        for number in 0..cells {
            claim(at, format!("item {cell}"))?;
            if number + 1 < cells {
                at = lower(load(words, link_at(shard, at)));
            }
        }
        let mut group = lower(load(words, link_at(shard, at))) ^ RUN;
        let last_run = if runs > 0 { upper(load(words, shard.run(group))) } else { NIL };
        for number in 0..runs {
            claim_run(group, format!("item {cell}"))?;
            same(&format!("last run of item {cell}"), group == last_run, number + 1 == runs)?;
            group = lower(load(words, shard.run(group)));
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
    let mut group = lower(load(words, shard.base + S_RUN_HEAD));
    for _ in 0..load(words, shard.base + S_FREE_RUNS) {
        claim_run(group, "the list of runs".into())?;
        group = lower(load(words, shard.run(group)));
        free += u64::from(GROUP_CELLS);
    }
    same("cells owned", owner.borrow().len(), shard.cells as usize)?;
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
            let read = Cursor::first(shard, cell).read(words, shard, &mut key);
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
        cells += u64::from(shape_of(words, shard, cell).weight());
        length += 1;
        newer = cell;
        cell = lower(links);
    }
    same(&format!("oldest of queue {queue:?}"), lower(ends), newer)?;
    same(&format!("cells of queue {queue:?}"), load(words, queue.cells(shard)), cells)?;
    Ok(length)
}
