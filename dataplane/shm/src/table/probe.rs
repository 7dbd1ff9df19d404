//! Slots and buckets: how a key is found.
//!
//! A key lives in its first bucket, or in its second if the first was full when it came. A bucket
//! counts the keys that went on from it (its *overflow*), so that a probe for a key that is nowhere
//! ends at the first bucket unless something did go on. A key never moves while it lives. The other
//! half of a bucket's first word counts the changes of its slots; it is stored before each change, so
//! two equal readings around a probe mean that the probe saw all slots as they were at one instant.

use super::hash::KeyHash;
use super::intent::Change;
use super::layout::{BUCKET_WORDS, C_LINK, C_META, Shard, lower};
use super::meta::{Meta, generation};
use super::payload::Cursor;
use super::words::load;
use crate::sync::AtomicU64;

const OVERFLOW_MASK: u64 = (1 << 28) - 1;
const CHANGE: u64 = 1 << 28;

/// How many keys went on from a bucket, from its first word.
pub(super) fn overflow(bucket_word: u64) -> u64 {
    bucket_word & OVERFLOW_MASK
}

pub(super) fn slot_word(hash: KeyHash, generation: u16, cell: u32) -> u64 {
    hash.tag() << 48 | u64::from(generation) << 32 | u64::from(cell + 1)
}

/// Whether a slot holds an item; else it is empty, or remembers a key that was evicted.
pub(super) fn is_item(word: u64) -> bool {
    lower(word) != 0
}

/// What an evicted key leaves in its slot.
pub(super) fn ghost_word(hash: KeyHash, eviction: u16) -> u64 {
    hash.tag() << 48 | u64::from(eviction) << 32
}

pub(super) fn slot_tag(word: u64) -> u64 {
    word >> 48
}

pub(super) fn slot_generation(word: u64) -> u16 {
    (word >> 32) as u16
}

/// Set in a slot whose hot copy is being changed: what is in the table is not yet, or no longer, what
/// the hot set shows.
pub(super) const SLOT_BUSY: u64 = 1 << 31;

const CELL_MASK: u32 = (1 << 29) - 1;

/// The cell of a slot that is not empty.
pub(super) fn slot_cell(word: u64) -> u32 {
    (lower(word) & CELL_MASK).wrapping_sub(1)
}

/// Where a key's slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub bucket: u32,
    /// Index of the slot's word in the table.
    pub slot: usize,
}

/// An item that was found by its writer, and where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub place: Place,
    pub item: Item,
}

/// A live item of a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub cell: u32,
    pub meta: Meta,
    /// The start of the value.
    pub value: Cursor,
}

/// The buckets a probe looks at: the first, and the second if anything went on.
pub(super) fn buckets(words: &[AtomicU64], shard: &Shard, hash: KeyHash) -> (u32, Option<u32>) {
    let first = hash.first_bucket(shard);
    let second = hash.second_bucket(shard);
    let went_on = overflow(load(words, shard.bucket(first))) > 0 && second != first;
    (first, went_on.then_some(second))
}

pub(super) fn slots(shard: &Shard, bucket: u32) -> std::ops::Range<usize> {
    let at = shard.bucket(bucket);
    at + 1..at + BUCKET_WORDS
}

/// Finds a key. Only for the shard's writer: nothing is validated.
#[inline]
pub(super) fn find(words: &[AtomicU64], shard: &Shard, hash: KeyHash, key: &[u8]) -> Option<Found> {
    let (first, second) = buckets(words, shard, hash);
    find_in(words, shard, first, hash, key).or_else(|| find_in(words, shard, second?, hash, key))
}

fn find_in(
    words: &[AtomicU64],
    shard: &Shard,
    bucket: u32,
    hash: KeyHash,
    key: &[u8],
) -> Option<Found> {
    slots(shard, bucket).find_map(|slot| {
        let item = item_in(words, shard, slot, hash, key)?;
        Some(Found { place: Place { bucket, slot }, item })
    })
}

/// The item in a slot if it is the key's. Only for the shard's writer.
#[inline]
pub(super) fn item_in(
    words: &[AtomicU64],
    shard: &Shard,
    slot: usize,
    hash: KeyHash,
    key: &[u8],
) -> Option<Item> {
    let word = load(words, slot);
    if slot_tag(word) != hash.tag() || !is_item(word) {
        return None;
    }
    let cell = slot_cell(word);
    let meta = Meta::unpack(load(words, shard.cell(cell) + C_META));
    let mut value = Cursor::first(shard, cell);
    let same =
        usize::from(meta.key_bytes) == key.len() && value.matches(words, shard, key) == Ok(true);
    same.then_some(Item { cell, meta, value })
}

/// The slot that holds a live cell, by its hash. Only for the shard's writer.
pub(super) fn place_of(
    words: &[AtomicU64],
    shard: &Shard,
    hash: KeyHash,
    cell: u32,
) -> Option<Place> {
    [hash.first_bucket(shard), hash.second_bucket(shard)].into_iter().find_map(|bucket| {
        let slot = slots(shard, bucket).find(|&slot| {
            let word = load(words, slot);
            is_item(word) && slot_cell(word) == cell
        })?;
        Some(Place { bucket, slot })
    })
}

/// The generation of a cell, as far as a slot carries it, is the slot's.
pub(super) fn same_generation(link_word: u64, slot_word: u64) -> bool {
    generation(link_word) == slot_generation(slot_word)
}

/// The first cell's link word of an item.
pub(super) fn link_at(shard: &Shard, cell: u32) -> usize {
    shard.cell(cell) + C_LINK
}

impl Change<'_> {
    /// Puts a new word into a slot. The bucket's change count goes first; see the module.
    pub fn publish(&mut self, shard: &Shard, place: Place, word: u64) {
        self.add(shard.bucket(place.bucket), CHANGE);
        self.set(place.slot, word);
    }

    /// Counts a key that goes on from its first bucket to another, before it appears there.
    pub fn overflow_up(&mut self, shard: &Shard, hash: KeyHash, place: Place) {
        let first = hash.first_bucket(shard);
        if first != place.bucket {
            self.add(shard.bucket(first), CHANGE + 1);
        }
    }

    /// Takes that back, after the key is gone.
    pub fn overflow_down(&mut self, shard: &Shard, hash: KeyHash, place: Place) {
        let first = hash.first_bucket(shard);
        if first != place.bucket {
            self.add(shard.bucket(first), CHANGE - 1);
        }
    }
}
