//! How a change is carried out: the only code that changes what a table holds.

use super::evict::{
    Evicted, bytes_of, coldest, commit_removal, evict, evict_one, expired, free_slot, ghost_of,
    shape_of,
};
use super::free::{Free, have_cells, room_for};
use super::hash::KeyHash;
use super::hot::{HotSet, HotValue};
use super::intent::Change;
use super::layout::{
    C_EXPIRY_NS, C_LENGTH, C_LINK, C_META, C_VERSION, C_WRITTEN, KEY_BYTES_MAX, RUN, S_BYTES,
    S_FREE_CELLS, S_FREE_HEAD, S_FREE_RUNS, S_ITEMS, S_RUN_HEAD, S_VERSION, Shape, Shard,
    VALUE_BYTES_MAX, length_word, lower, pair, upper,
};
use super::meta::{Meta, access_time, generation, link_word};
use super::mutation::{ApplyError, Mutation, Op};
use super::payload::Cursor;
use super::probe::{Found, Item, Place, find, is_item, link_at, slot_word};
use super::queue::Queue;
use super::validity::{self, Invalid};
use super::words::{Words, load, store};
use super::writer::{TableWriter, WriterCounts, shard_of, usable};
use crate::sync::AtomicU64;

impl<W: Words, H: HotSet> TableWriter<W, H> {
    /// Carries out a change and returns the version of its result. `hash` is the key's. When this
    /// returns, every reader on every path sees it.
    pub fn apply(
        &mut self,
        hash: KeyHash,
        mutation: &Mutation<'_>,
        now_ns: u64,
    ) -> Result<u64, ApplyError> {
        if !(1..=KEY_BYTES_MAX).contains(&mutation.key.len()) {
            return Err(ApplyError::KeyLength);
        }
        let words = self.memory.words();
        let shard = shard_of(&self.shards, hash);
        let found = find(words, shard, hash, mutation.key);
        let owned = found.is_some_and(|found| owned(words, shard, &found.item, now_ns));
        if mutation.channel == 0 && owned {
            return Err(ApplyError::FeedOwned);
        }
        let version = match mutation.version {
            0 => load(words, shard.base + S_VERSION) + 1,
            given => given,
        };
        let usable = found.is_some_and(|found| usable(words, shard, &found.item, now_ns));
        match (mutation.op, found) {
            (Op::Set(value), found) => {
                // A table has always room for what fits when all its groups have become cells.
                let value_bytes = value.len().min(VALUE_BYTES_MAX);
                let room = Shape::with_runs(mutation.key.len(), value_bytes, 0).cells;
                if value.len() > VALUE_BYTES_MAX || room > shard.cells {
                    return Err(ApplyError::TooLarge);
                }
                self.set(hash, mutation, value, (version, now_ns), found);
                Ok(version)
            }
            (_, None) => Err(ApplyError::NotFound),
            (Op::Delete, Some(found)) => {
                let expiry_ns = load(words, shard.cell(found.item.cell) + C_EXPIRY_NS);
                self.counts.expirations_count += u64::from(expired(expiry_ns, now_ns));
                let mut change = Change::new(words);
                let removed = (found.place, found.item.cell);
                change.remove(words, shard, hash, removed, None);
                change.set(shard.base + S_VERSION, version);
                commit_removal(change, words, shard, &mut self.hot, removed);
                if usable { Ok(version) } else { Err(ApplyError::NotFound) }
            }
            (_, Some(_)) if !usable => Err(ApplyError::NotFound),
            (Op::Touch, Some(found)) => {
                self.sweep.arm(mutation.expiry_ns);
                let at = shard.cell(found.item.cell);
                let mut change = Change::new(words);
                change.publish(shard, found.place, load(words, found.place.slot));
                change.set(at + C_EXPIRY_NS, mutation.expiry_ns);
                // A hot copy has a deadline of its own: rather none than another.
                commit_removal(change, words, shard, &mut self.hot, (found.place, found.item.cell));
                Ok(load(words, at + C_VERSION))
            }
            (Op::Invalidate, Some(found)) => {
                self.sweep.arm(mutation.expiry_ns);
                let at = shard.cell(found.item.cell);
                let meta = Meta { stale: true, won: false, ..found.item.meta };
                let mut change = Change::new(words);
                change.publish(shard, found.place, load(words, found.place.slot));
                change.set(at + C_META, meta.pack());
                change.set(at + C_VERSION, version);
                change.set(at + C_EXPIRY_NS, mutation.expiry_ns);
                change.set(shard.base + S_VERSION, version);
                commit_removal(change, words, shard, &mut self.hot, (found.place, found.item.cell));
                Ok(version)
            }
        }
    }

    /// Stores a value; that it can be stored has been checked.
    fn set(
        &mut self,
        hash: KeyHash,
        mutation: &Mutation<'_>,
        value: &[u8],
        (version, now_ns): (u64, u64),
        mut found: Option<Found>,
    ) {
        let words = self.memory.words();
        let shard = shard_of(&self.shards, hash);
        let (hot, counts) = (&mut self.hot, &mut self.counts);
        self.sweep.arm(mutation.expiry_ns);
        if let Some(found) = found {
            let expiry_ns = load(words, shard.cell(found.item.cell) + C_EXPIRY_NS);
            counts.expirations_count += u64::from(expired(expiry_ns, now_ns));
        }
        let shape = loop {
            if let Some(shape) = room_for(words, shard, mutation.key.len(), value.len()) {
                break shape;
            }
            match evict_one(words, shard, hot, now_ns) {
                Evicted::Nothing => unreachable!("an empty shard has all its cells free"),
                Evicted::Usable => counts.evictions_count += 1,
                Evicted::Expired => counts.expirations_count += 1,
            }
            // What was evicted may have been this key, what was spared has another queue now.
            found = found.filter(|found| is_item(load(words, found.place.slot)));
        };
        have_cells(words, shard, shape.cells);
        let item = |queue, frequency| NewItem { mutation, value, shape, version, queue, frequency };
        match found {
            Some(found) => {
                let meta = Meta::unpack(load(words, shard.cell(found.item.cell) + C_META));
                let item = item(Queue::of(meta), meta.frequency);
                let filled = fill(words, shard, &item, now_ns);
                let old = (found.place, found.item.cell);
                let change = replacement(words, shard, hash, old, filled, version);
                if H::IS_THERE && hot.holds(mutation.key) {
                    let &Mutation { flags, expiry_ns, channel, text_sum, .. } = mutation;
                    let epoch = validity::epoch(words, channel);
                    let value =
                        HotValue { value, flags, version, expiry_ns, epoch, channel, text_sum };
                    let silent = mutation.marks.stale || mutation.marks.won;
                    let publish = || match silent {
                        true => hot.empty(mutation.key),
                        false => hot.publish(mutation.key, &value),
                    };
                    change.commit_hot(shard, found.place.slot, found.item.cell, publish);
                } else {
                    change.commit(shard);
                }
            }
            None => {
                let ghost = ghost_of(words, shard, hash);
                let queue = if ghost.is_some() { Queue::Main } else { Queue::Small };
                let place = ghost.unwrap_or_else(|| free_place(words, shard, hash, hot, counts));
                let filled = fill(words, shard, &item(queue, 0), now_ns);
                insert(words, shard, hash, place, filled, queue, version);
            }
        }
    }
}

/// Whether a feed publishes this key. Suspect values are still the feed's.
fn owned(words: &[AtomicU64], shard: &Shard, item: &Item, now_ns: u64) -> bool {
    let expiry_ns = load(words, shard.cell(item.cell) + C_EXPIRY_NS);
    let state = validity::check(words, item.meta.epoch, item.meta.channel, now_ns);
    item.meta.channel != 0 && state != Err(Invalid::Flushed) && !expired(expiry_ns, now_ns)
}

/// A slot for a new key, made by eviction if there is none.
fn free_place(
    words: &[AtomicU64],
    shard: &Shard,
    hash: KeyHash,
    hot: &mut impl HotSet,
    counts: &mut WriterCounts,
) -> Place {
    let first = hash.first_bucket(shard);
    let place = free_slot(words, shard, first)
        .or_else(|| free_slot(words, shard, hash.second_bucket(shard)));
    place.unwrap_or_else(|| {
        evict(words, shard, hot, coldest(words, shard, first));
        counts.evictions_count += 1;
        counts.slot_evictions_count += 1;
        free_slot(words, shard, first).expect("the evicted item's slot")
    })
}

/// What [`fill`] writes.
struct NewItem<'a> {
    mutation: &'a Mutation<'a>,
    value: &'a [u8],
    shape: Shape,
    version: u64,
    queue: Queue,
    frequency: u8,
}

/// An item that is written and not published.
#[derive(Clone, Copy)]
struct Filled {
    shape: Shape,
    /// Its first cell, and run if it has any.
    first: Free,
    last_cell: u32,
    /// Where the free lists begin without it.
    free: Free,
}

/// Writes an item into the first cells and runs of the free lists, where nobody looks. They stay on the
/// lists, chained as they are: a kill before the commit leaves them free.
fn fill(words: &[AtomicU64], shard: &Shard, item: &NewItem<'_>, now_ns: u64) -> Filled {
    let (mutation, shape) = (item.mutation, item.shape);
    let first = Free::of(words, shard);
    let mut cursor = Cursor::first(shard, first.cell);
    cursor.write(words, shard, mutation.key);
    let in_runs = if shape.runs > 0 {
        let key_bytes = mutation.key.len().next_multiple_of(8);
        let (in_cells, in_runs) = item.value.split_at(shape.bytes_in_cells() - key_bytes);
        cursor.write(words, shard, in_cells);
        in_runs
    } else {
        cursor.write(words, shard, item.value);
        &[]
    };
    let meta = Meta {
        epoch: validity::epoch(words, mutation.channel),
        access: (access_time(now_ns) >> 16) as u8,
        queue: item.queue as u8,
        frequency: item.frequency,
        fetched: mutation.marks.fetched,
        stale: mutation.marks.stale,
        won: mutation.marks.won,
        channel: mutation.channel,
        key_bytes: mutation.key.len() as u8,
    };
    let at = shard.cell(first.cell);
    store(words, at + C_META, meta.pack());
    store(words, at + C_VERSION, item.version);
    store(words, at + C_EXPIRY_NS, mutation.expiry_ns);
    let length = length_word(mutation.flags, shape.runs, item.value.len() as u32);
    store(words, at + C_LENGTH, length);
    store(words, at + C_WRITTEN, (now_ns / 1_000) << 16 | u64::from(mutation.text_sum));
    let link = load(words, at + C_LINK);
    store(words, at + C_LINK, link_word(access_time(now_ns), generation(link), lower(link)));
    let last_cell = shard.cell_at(cursor.start());
    if last_cell != first.cell {
        store(words, shard.links(lower(link)), last_cell.into());
    }
    let mut free = Free { cell: lower(load(words, link_at(shard, last_cell))), run: first.run };
    if shape.runs > 0 {
        let mut cursor = Cursor::run(shard, first.run);
        cursor.write(words, shard, in_runs);
        let last_run = shard.group_at(cursor.start());
        let link = load(words, shard.run(first.run));
        store(words, shard.run(first.run), pair(last_run, lower(link)));
        free.run = lower(load(words, shard.run(last_run)));
    }
    Filled { shape, first, last_cell, free }
}

impl Change<'_> {
    /// Takes what an item was written into from the free lists; where those then begin is the caller's.
    fn take(&mut self, words: &[AtomicU64], shard: &Shard, filled: &Filled) {
        let Filled { shape, first, last_cell, .. } = *filled;
        if shape.runs > 0 {
            let link = load(words, link_at(shard, last_cell));
            self.set(link_at(shard, last_cell), pair(upper(link), RUN | first.run));
        }
        self.add(shard.base + S_FREE_CELLS, u64::from(shape.cells).wrapping_neg());
        self.add(shard.base + S_FREE_RUNS, u64::from(shape.runs).wrapping_neg());
    }
}

/// The change that publishes a filled item in the slot of an older one, which takes its place on the
/// free lists.
fn replacement<'a>(
    words: &'a [AtomicU64],
    shard: &Shard,
    hash: KeyHash,
    (place, old): (Place, u32),
    filled: Filled,
    version: u64,
) -> Change<'a> {
    let new = filled.first.cell;
    let (weight, old_weight) = (filled.shape.weight(), shape_of(words, shard, old).weight());
    let generation = generation(load(words, link_at(shard, new)));
    let queue = Queue::of(Meta::unpack(load(words, shard.cell(old) + C_META)));
    let mut change = Change::new(words);
    change.take(words, shard, &filled);
    change.publish(shard, place, slot_word(hash, generation, new));
    change.retire(words, shard, old, filled.free);
    change.swap(shard, queue, (old, old_weight), (new, weight));
    let bytes = bytes_of(words, shard, new).wrapping_sub(bytes_of(words, shard, old));
    change.add(shard.base + S_BYTES, bytes);
    change.set(shard.base + S_VERSION, version);
    change
}

/// Publishes a filled item in a slot without an item.
fn insert(
    words: &[AtomicU64],
    shard: &Shard,
    hash: KeyHash,
    place: Place,
    filled: Filled,
    queue: Queue,
    version: u64,
) {
    let new = filled.first.cell;
    let generation = generation(load(words, link_at(shard, new)));
    let mut change = Change::new(words);
    change.take(words, shard, &filled);
    change.overflow_up(shard, hash, place);
    change.publish(shard, place, slot_word(hash, generation, new));
    change.set(shard.base + S_FREE_HEAD, filled.free.cell.into());
    change.set(shard.base + S_RUN_HEAD, filled.free.run.into());
    change.push(shard, queue, new, filled.shape.weight());
    change.add(shard.base + S_ITEMS, 1);
    change.add(shard.base + S_BYTES, bytes_of(words, shard, new));
    change.set(shard.base + S_VERSION, version);
    change.commit(shard);
}
