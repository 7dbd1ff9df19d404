//! The single writer of a table's shards.

use super::evict::{
    FREQUENCY_MAX, bytes_of, cells_of, coldest, evict, evict_one, expired, remembered,
};
use super::hash::KeyHash;
use super::intent::{Change, recover};
use super::layout::{
    C_EXPIRY_NS, C_LENGTH, C_META, C_VERSION, C_WRITTEN, KEY_BYTES_MAX, Layout, LayoutError, Meta,
    NIL, S_BYTES, S_FREE_CELLS, S_FREE_HEAD, S_ITEMS, S_MAIN_ENDS, S_SMALL_ENDS, S_VERSION, Shard,
    T_CELLS, T_SEED, T_SHARDS, T_VALID_UNTIL_NS, VALUE_BYTES_MAX, X_HASH, X_LAST, cells_for, lower,
    pair, upper,
};
use super::payload::Cursor;
use super::probe::{
    Item, Place, empty_slot, find, item_in, link_at, slot_cell, slot_tag, slot_word, slots,
};
use super::queue::{EMPTY, Queue};
use super::validity::{self, ChannelState, Invalid, NO_LEASE};
use super::words::{Words, load, prefetch, store};
use crate::sync::AtomicU64;

/// One value on its way into a table.
#[derive(Clone, Copy, Debug)]
pub struct Put<'a> {
    /// 1 to [`KEY_BYTES_MAX`] bytes, any content.
    pub key: &'a [u8],
    /// 0 to [`VALUE_BYTES_MAX`] bytes.
    pub value: &'a [u8],
    /// The client's; stored and returned.
    pub flags: u32,
    /// `CLOCK_MONOTONIC` nanoseconds after which the value is a miss; 0 = never.
    pub expiry_ns: u64,
    /// 0 for a client, else the feed channel whose state the value depends on.
    pub channel: u8,
    /// 16 bits of the caller's, stored and returned: the ones'-complement sum of the text that the
    /// value is answered with, so that a reply need not be added up.
    pub text_sum: u16,
}

/// Why a value was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// The key is empty or longer than [`KEY_BYTES_MAX`].
    #[error("a key has 1 to 250 bytes")]
    KeyLength,
    /// The value is longer than [`VALUE_BYTES_MAX`] or than the shard's memory.
    #[error("object too large for cache")]
    TooLarge,
    /// A client may not write a key that a feed publishes.
    #[error("the key belongs to a feed")]
    FeedOwned,
}

/// What became of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// The key is gone.
    Yes,
    /// There was none.
    NotFound,
    /// A client may not delete a key that a feed publishes.
    FeedOwned,
}

/// A value found by the writer. Good until its next change.
#[derive(Clone, Copy, Debug)]
pub struct Hit {
    /// The client's flags.
    pub flags: u32,
    /// Length of the value in bytes.
    pub value_bytes: u32,
    /// Version of the value, unique and rising in its shard: memcached's CAS unique.
    pub version: u64,
    /// 0 = client-owned.
    pub channel: u8,
    /// As given with the value.
    pub text_sum: u16,
    shard: u32,
    value: Cursor,
}

/// What happened in the writer since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriterCounts {
    /// Items evicted to make room.
    pub evictions_count: u64,
    /// Items evicted because both buckets of a new key were full.
    pub slot_evictions_count: u64,
    /// Look-ups that found a value whose feed channel is suspect.
    pub suspects_count: u64,
}

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

/// The writer of all shards of one table: the active worker. It keeps nothing of the table outside
/// the table, so a standby that attaches after a kill has all there is.
#[derive(Debug)]
pub struct TableWriter<W> {
    memory: W,
    layout: Layout,
    /// Where each shard is, so that no look-up computes it.
    shards: Box<[Shard]>,
    seed: u64,
    counts: WriterCounts,
}

impl<W: Words> TableWriter<W> {
    /// Lays out an empty table in zeroed memory. `seed` should be random.
    pub fn create(memory: W, shards: u32, seed: u64) -> Result<Self, LayoutError> {
        if !memory.writable() {
            return Err(LayoutError::ReadOnly);
        }
        let words = memory.words();
        let layout = Layout::fit(words.len(), shards)?;
        for index in 0..shards {
            let shard = layout.shard(index);
            for cell in 0..shard.cells {
                let next = if cell + 1 < shard.cells { cell + 1 } else { NIL };
                store(words, link_at(&shard, cell), pair(0, next));
            }
            store(words, shard.base + S_FREE_HEAD, 0);
            store(words, shard.base + S_FREE_CELLS, shard.cells.into());
            store(words, shard.base + S_SMALL_ENDS, EMPTY);
            store(words, shard.base + S_MAIN_ENDS, EMPTY);
        }
        store(words, T_VALID_UNTIL_NS, NO_LEASE);
        store(words, T_SEED, seed);
        store(words, T_CELLS, layout.cells_per_shard.into());
        store(words, T_SHARDS, shards.into());
        let (shards, counts) = (layout.all_shards(), WriterCounts::default());
        Ok(Self { memory, layout, shards, seed, counts })
    }

    /// Takes over the table of a writer whose process has ended, completing what it had
    /// committed. Takes at most one intent record a shard, whatever the table's size.
    pub fn attach(memory: W) -> Result<Self, LayoutError> {
        if !memory.writable() {
            return Err(LayoutError::ReadOnly);
        }
        let (layout, seed) = attach_layout(memory.words())?;
        for index in 0..layout.shards {
            recover(memory.words(), &layout.shard(index))?;
        }
        let (shards, counts) = (layout.all_shards(), WriterCounts::default());
        Ok(Self { memory, layout, shards, seed, counts })
    }

    /// The measures of the table.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The memory of the table.
    pub fn memory(&self) -> &W {
        &self.memory
    }

    /// What happened since the writer was made.
    pub fn counts(&self) -> WriterCounts {
        self.counts
    }

    /// What is in the table. A few loads a shard.
    pub fn usage(&self) -> Usage {
        let words = self.memory.words();
        let mut usage = Usage::default();
        for shard in &self.shards {
            usage.items_count += load(words, shard.base + S_ITEMS);
            usage.payload_bytes += load(words, shard.base + S_BYTES);
            let free = load(words, shard.base + S_FREE_CELLS);
            usage.used_cells_count += u64::from(shard.cells) - free;
            usage.cells_count += u64::from(shard.cells);
        }
        usage
    }

    /// The hash of a key in this table.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        KeyHash::new(self.seed, key)
    }

    /// First stage of a batch: asks for the key's bucket.
    #[inline]
    pub fn prefetch_bucket(&self, hash: KeyHash) {
        let shard = shard_of(&self.shards, hash);
        prefetch(self.memory.words(), shard.bucket(hash.first_bucket(shard)));
    }

    /// Second stage of a batch: asks for the cell the bucket seems to name, and says in which slot
    /// that was, for [`Self::get_near`].
    #[inline]
    pub fn prefetch_cell(&self, hash: KeyHash) -> Guess {
        let words = self.memory.words();
        let shard = shard_of(&self.shards, hash);
        for slot in slots(shard, hash.first_bucket(shard)) {
            let word = load(words, slot);
            if slot_tag(word) == hash.tag() && word != 0 {
                let at = shard.cell(slot_cell(word));
                prefetch(words, at);
                prefetch(words, at + 8);
                return Guess { slot };
            }
        }
        Guess::default()
    }

    /// Looks a key up; `hash` is its hash. Counts as a use. `None` when there is no value that may be
    /// used at `now_ns`.
    #[inline]
    pub fn get(&mut self, hash: KeyHash, key: &[u8], now_ns: u64) -> Option<Hit> {
        self.get_near(hash, Guess::default(), key, now_ns)
    }

    /// [`Self::get`] that looks into a guessed slot before it searches.
    #[inline]
    pub fn get_near(
        &mut self,
        hash: KeyHash,
        guess: Guess,
        key: &[u8],
        now_ns: u64,
    ) -> Option<Hit> {
        let words = self.memory.words();
        let shard = shard_of(&self.shards, hash);
        let near =
            (guess.slot != 0).then(|| item_in(words, shard, guess.slot, hash, key)).flatten();
        let item = match near {
            Some(item) => item,
            None => find(words, shard, hash, key)?.item,
        };
        if !usable(words, shard, &item, now_ns) {
            let state = validity::check(words, item.meta.epoch, item.meta.channel, now_ns);
            self.counts.suspects_count += u64::from(state == Err(Invalid::Suspect));
            return None;
        }
        let at = shard.cell(item.cell);
        if item.meta.frequency < FREQUENCY_MAX {
            let meta = Meta { frequency: item.meta.frequency + 1, ..item.meta };
            store(words, at + C_META, meta.pack());
        }
        let length = load(words, at + C_LENGTH);
        Some(Hit {
            flags: upper(length),
            value_bytes: lower(length),
            version: load(words, at + C_VERSION),
            channel: item.meta.channel,
            text_sum: load(words, at + C_WRITTEN) as u16,
            shard: shard.index,
            value: item.value,
        })
    }

    /// A reader of the value's bytes, for copies in several pieces.
    #[inline]
    pub fn value(&self, hit: &Hit) -> ValueReader {
        ValueReader { shard: hit.shard, cursor: hit.value, left: hit.value_bytes as usize }
    }

    /// Copies the next bytes of a value into `out`; returns how many there were.
    #[inline]
    pub fn read(&self, reader: &mut ValueReader, out: &mut [u8]) -> usize {
        let count = out.len().min(reader.left);
        let shard = &self.shards[reader.shard as usize];
        let copied = reader.cursor.read(self.memory.words(), shard, &mut out[..count]);
        debug_assert!(copied.is_ok(), "the writer's own chains are whole");
        reader.left -= count;
        count
    }

    /// Stores a value and returns its version. When this returns, every reader sees it.
    pub fn put(&mut self, hash: KeyHash, put: &Put<'_>, now_ns: u64) -> Result<u64, PutError> {
        if !(1..=KEY_BYTES_MAX).contains(&put.key.len()) {
            return Err(PutError::KeyLength);
        }
        let shard = shard_of(&self.shards, hash);
        let cells = cells_for(put.key.len(), put.value.len().min(VALUE_BYTES_MAX));
        if put.value.len() > VALUE_BYTES_MAX || cells > shard.cells {
            return Err(PutError::TooLarge);
        }
        let words = self.memory.words();
        let mut found = find(words, shard, hash, put.key);
        if put.channel == 0 && found.is_some_and(|found| owned(words, shard, &found.item, now_ns)) {
            return Err(PutError::FeedOwned);
        }
        while load(words, shard.base + S_FREE_CELLS) < cells.into() {
            let evicted = evict_one(words, shard, now_ns);
            assert!(evicted, "an empty shard has all its cells free");
            self.counts.evictions_count += 1;
            // What was evicted may have been this key, what was spared has another queue now.
            found = found.filter(|found| load(words, found.place.slot) != 0);
        }
        let meta =
            found.map(|found| Meta::unpack(load(words, shard.cell(found.item.cell) + C_META)));
        let version = load(words, shard.base + S_VERSION) + 1;
        match found.zip(meta) {
            Some((found, meta)) => {
                let queue = Queue::of(meta);
                let times = (version, now_ns);
                let last = fill(words, shard, hash, put, times, queue, meta.frequency);
                let old = (found.place, found.item.cell);
                replace(words, shard, hash, old, (cells, last), version);
            }
            None => {
                let place = free_place(words, shard, hash, &mut self.counts);
                let seen = remembered(words, shard, hash);
                let queue = if seen { Queue::Main } else { Queue::Small };
                let last = fill(words, shard, hash, put, (version, now_ns), queue, 0);
                insert(words, shard, hash, place, (cells, last), (queue, seen), version);
            }
        }
        Ok(version)
    }

    /// Removes a key on a client's behalf. An expired one counts as not found, and is removed.
    pub fn delete(&mut self, hash: KeyHash, key: &[u8], now_ns: u64) -> Deleted {
        let words = self.memory.words();
        let shard = shard_of(&self.shards, hash);
        let Some(found) = find(words, shard, hash, key) else { return Deleted::NotFound };
        if owned(words, shard, &found.item, now_ns) {
            return Deleted::FeedOwned;
        }
        let usable = usable(words, shard, &found.item, now_ns);
        let mut change = Change::new(words);
        change.remove(words, shard, found.item.cell, found.place);
        change.commit(shard);
        if usable { Deleted::Yes } else { Deleted::NotFound }
    }

    /// Declares a feed channel live or suspect, with one store. Channel 0 is the clients'.
    pub fn set_channel(&mut self, channel: u8, state: ChannelState) {
        validity::set_channel(self.memory.words(), channel, state);
    }

    /// Forgets every item of a feed channel and leaves it suspect, in two stores.
    pub fn begin_channel(&mut self, channel: u8) {
        validity::begin_channel(self.memory.words(), channel);
    }

    /// Turns every item that is in the table into a miss, with one store.
    pub fn flush(&mut self) {
        validity::flush(self.memory.words());
    }

    /// Sets the lease deadline, [`NO_LEASE`] for none.
    pub fn set_valid_until(&mut self, valid_until_ns: u64) {
        validity::set_valid_until(self.memory.words(), valid_until_ns);
    }
}

/// The shard of a key, of all of a table's.
#[inline(always)]
fn shard_of(shards: &[Shard], hash: KeyHash) -> &Shard {
    &shards[hash.shard(shards.len() as u32) as usize]
}

/// Where a key seemed to be when its bucket was last looked at; 0 says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Guess {
    slot: usize,
}

/// A slot for a new key, made by eviction if there is none.
fn free_place(
    words: &[AtomicU64],
    shard: &Shard,
    hash: KeyHash,
    counts: &mut WriterCounts,
) -> Place {
    let first = hash.first_bucket(shard);
    let place = empty_slot(words, shard, first)
        .or_else(|| empty_slot(words, shard, hash.second_bucket(shard)));
    place.unwrap_or_else(|| {
        evict(words, shard, coldest(words, shard, first));
        counts.evictions_count += 1;
        counts.slot_evictions_count += 1;
        empty_slot(words, shard, first).expect("the evicted item's slot")
    })
}

/// A place in a value; see [`TableWriter::value`].
#[derive(Clone, Copy, Debug)]
pub struct ValueReader {
    shard: u32,
    cursor: Cursor,
    left: usize,
}

impl ValueReader {
    /// Bytes not read yet.
    pub fn left_bytes(&self) -> usize {
        self.left
    }
}

/// Layout and seed of the table that is in this memory.
pub(super) fn attach_layout(words: &[AtomicU64]) -> Result<(Layout, u64), LayoutError> {
    let header = |index: usize| words.get(index).map_or(0, AtomicU64::load_acquire);
    let shards = header(T_SHARDS);
    let valid = u32::try_from(shards).map_err(|_| LayoutError::Shards { shards })?;
    let layout = Layout::fit(words.len(), valid)?;
    let cells = header(T_CELLS);
    if cells != u64::from(layout.cells_per_shard) {
        return Err(LayoutError::Header { cells, expected: layout.cells_per_shard });
    }
    Ok((layout, header(T_SEED)))
}

#[inline]
fn usable(words: &[AtomicU64], shard: &Shard, item: &Item, now_ns: u64) -> bool {
    let expiry_ns = load(words, shard.cell(item.cell) + C_EXPIRY_NS);
    !expired(expiry_ns, now_ns)
        && validity::check(words, item.meta.epoch, item.meta.channel, now_ns).is_ok()
}

/// Whether a feed publishes this key. Suspect values are still the feed's.
fn owned(words: &[AtomicU64], shard: &Shard, item: &Item, now_ns: u64) -> bool {
    let expiry_ns = load(words, shard.cell(item.cell) + C_EXPIRY_NS);
    let state = validity::check(words, item.meta.epoch, item.meta.channel, now_ns);
    item.meta.channel != 0 && state != Err(Invalid::Flushed) && !expired(expiry_ns, now_ns)
}

/// Writes an item into the first cells of the free list, where nobody looks, and returns its last
/// cell. The cells stay on the list, chained as they are: a kill before the commit leaves them free.
fn fill(
    words: &[AtomicU64],
    shard: &Shard,
    hash: KeyHash,
    put: &Put<'_>,
    (version, now_ns): (u64, u64),
    queue: Queue,
    frequency: u8,
) -> u32 {
    let cell = lower(load(words, shard.base + S_FREE_HEAD));
    let mut cursor = Cursor::first(cell);
    cursor.write(words, shard, put.key);
    cursor.write(words, shard, put.value);
    let meta = Meta {
        epoch: validity::epoch(words, put.channel),
        queue: queue as u8,
        frequency,
        channel: put.channel,
        key_bytes: put.key.len() as u8,
    };
    let at = shard.cell(cell);
    store(words, at + C_META, meta.pack());
    store(words, at + C_VERSION, version);
    store(words, at + C_EXPIRY_NS, put.expiry_ns);
    store(words, at + C_LENGTH, pair(put.flags, put.value.len() as u32));
    store(words, at + C_WRITTEN, (now_ns / 1_000) << 16 | u64::from(put.text_sum));
    store(words, shard.side(cell) + X_HASH, hash.0);
    store(words, shard.side(cell) + X_LAST, cursor.cell().into());
    cursor.cell()
}

/// Publishes the filled cells in the slot of an older item, which takes their place on the free list.
fn replace(
    words: &[AtomicU64],
    shard: &Shard,
    hash: KeyHash,
    (place, old): (Place, u32),
    (cells, last): (u32, u32),
    version: u64,
) {
    let new = lower(load(words, shard.base + S_FREE_HEAD));
    let free = lower(load(words, link_at(shard, last)));
    let old_cells = cells_of(words, shard, old);
    let generation = upper(load(words, link_at(shard, new)));
    let queue = Queue::of(Meta::unpack(load(words, shard.cell(old) + C_META)));
    let mut change = Change::new(words);
    change.publish(shard, place, slot_word(hash, generation, new));
    change.retire(words, shard, old, free);
    change.add(shard.base + S_FREE_CELLS, u64::from(old_cells).wrapping_sub(cells.into()));
    change.swap(shard, queue, (old, old_cells), (new, cells));
    let bytes = bytes_of(words, shard, new).wrapping_sub(bytes_of(words, shard, old));
    change.add(shard.base + S_BYTES, bytes);
    change.set(shard.base + S_VERSION, version);
    change.commit(shard);
}

/// Publishes the filled cells in an empty slot.
fn insert(
    words: &[AtomicU64],
    shard: &Shard,
    hash: KeyHash,
    place: Place,
    (cells, last): (u32, u32),
    (queue, seen): (Queue, bool),
    version: u64,
) {
    let new = lower(load(words, shard.base + S_FREE_HEAD));
    let generation = upper(load(words, link_at(shard, new)));
    let mut change = Change::new(words);
    change.overflow_up(shard, hash, place);
    change.publish(shard, place, slot_word(hash, generation, new));
    change.set(shard.base + S_FREE_HEAD, lower(load(words, link_at(shard, last))).into());
    change.add(shard.base + S_FREE_CELLS, u64::from(cells).wrapping_neg());
    change.push(shard, queue, new, cells);
    change.add(shard.base + S_ITEMS, 1);
    change.add(shard.base + S_BYTES, bytes_of(words, shard, new));
    change.set(shard.base + S_VERSION, version);
    if seen {
        change.set(hash.ghost(shard), 0);
    }
    change.commit(shard);
}
