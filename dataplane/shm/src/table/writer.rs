//! The single writer of a table's shards.

use std::ops::Range;

use super::evict::expired;
use super::fold::{Folding, used_if_new};
use super::free::free_all;
use super::hash::KeyHash;
use super::hot::{HotKey, HotSet};
use super::intent::recover;
use super::layout::{
    C_EXPIRY_NS, C_LENGTH, C_LINK, C_META, C_VERSION, C_WRITTEN, Layout, LayoutError, S_MAIN_ENDS,
    S_SMALL_ENDS, SHARDS_MAX, Shard, T_CELLS, T_SEED, T_SHARDS, T_VALID_UNTIL_NS, upper,
    value_bytes,
};
use super::meta::{Meta, access_of, access_second};
use super::payload::Cursor;
use super::probe::{Item, find, is_item, item_in, slot_cell, slot_tag, slots};
use super::queue::EMPTY;
use super::sweep::Sweep;
use super::validity::{self, ChannelState, Invalid, NO_LEASE};
use super::words::{Words, load, store};
use crate::prefetch;
use crate::sync::AtomicU64;

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
    /// Deadline, `CLOCK_MONOTONIC` nanoseconds; 0 = never.
    pub expiry_ns: u64,
    /// When it was stored, `CLOCK_MONOTONIC` microseconds.
    pub written_us: u64,
    /// Whether it was asked for before, since it was stored.
    pub was_fetched: bool,
    /// Whether it has been invalidated.
    pub is_stale: bool,
    /// Whether a reader has been told to fetch it anew.
    pub is_won: bool,
    shard: u32,
    cell: u32,
    access: u32,
    value: Cursor,
}

impl Hit {
    /// Second of `CLOCK_MONOTONIC` in which the value was last asked for before this look-up, or stored.
    /// `now_ns` is the look-up's. Exact to 34 s, as memcached is to 60; modulo 104 days.
    pub fn last_access_s(&self, now_ns: u64) -> u32 {
        access_second(self.access, now_ns)
    }
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
    /// Items removed because their time was over: by the sweep, by an eviction, or by a change of
    /// their key.
    pub expirations_count: u64,
    /// Uses that the front told of, a sample.
    pub sampled_front_count: u64,
    /// Uses that other workers told of, a sample.
    pub sampled_workers_count: u64,
    /// Uses that same-host readers told of, a sample.
    pub sampled_readers_count: u64,
    /// What was told of no value that is there: it went since, or the hash is made up.
    pub sampled_stray_count: u64,
    /// Times a ring was written over before it was looked at.
    pub sampled_overruns_count: u64,
}

/// The writer of some shards of one table, or of all: an active worker. It keeps nothing of the table
/// outside the table, so a standby that attaches after a kill has all there is. Every change, and every
/// look-up, must be of a key that it [owns](Self::owns). Who owns the first shard is the owner of the
/// cache: it alone flushes, and sets the lease; who owns a channel's keys, the channel.
#[derive(Debug)]
pub struct TableWriter<W, H = ()> {
    pub(super) memory: W,
    layout: Layout,
    /// Where each shard is, so that no look-up computes it.
    pub(super) shards: Box<[Shard]>,
    /// Which of them it writes.
    pub(super) owned: Range<u32>,
    seed: u64,
    pub(super) counts: WriterCounts,
    pub(super) hot: H,
    pub(super) sweep: Sweep,
    pub(super) folding: Folding,
}

impl<W: Words> TableWriter<W> {
    /// [`Self::create_with`] without a hot set.
    pub fn create(memory: W, shards: u32, seed: u64) -> Result<Self, LayoutError> {
        Self::create_with(memory, shards, seed, ())
    }

    /// [`Self::attach_with`] without a hot set.
    pub fn attach(memory: W) -> Result<Self, LayoutError> {
        Self::attach_with(memory, ())
    }
}

impl<W: Words, H: HotSet> TableWriter<W, H> {
    /// Lays out an empty table in zeroed memory. `seed` should be random. The hot set holds nothing.
    pub fn create_with(memory: W, shards: u32, seed: u64, hot: H) -> Result<Self, LayoutError> {
        if !memory.writable() {
            return Err(LayoutError::ReadOnly);
        }
        let words = memory.words();
        let layout = Layout::fit(words.len(), shards)?;
        for index in 0..shards {
            let shard = layout.shard(index);
            free_all(words, &shard);
            store(words, shard.base + S_SMALL_ENDS, EMPTY);
            store(words, shard.base + S_MAIN_ENDS, EMPTY);
        }
        store(words, T_VALID_UNTIL_NS, NO_LEASE);
        store(words, T_SEED, seed);
        store(words, T_CELLS, layout.cells_per_shard.into());
        store(words, T_SHARDS, shards.into());
        Ok(Self::over(memory, layout, seed, hot))
    }

    fn over(memory: W, layout: Layout, seed: u64, hot: H) -> Self {
        let folding = Folding::new(&memory);
        Self {
            memory,
            layout,
            shards: layout.all_shards(),
            owned: 0..layout.shards,
            seed,
            counts: WriterCounts::default(),
            hot,
            sweep: Sweep::default(),
            folding,
        }
    }

    /// Takes over the table of a writer whose process has ended, completing what it had
    /// committed. Takes at most one intent record a shard, whatever the table's size.
    pub fn attach_with(memory: W, hot: H) -> Result<Self, LayoutError> {
        Self::attach_shards(memory, hot, 0..SHARDS_MAX)
    }

    /// The same for some of the shards, whose writer has ended; what is beyond the table's last one is
    /// left out. Others may write theirs meanwhile.
    pub fn attach_shards(memory: W, mut hot: H, owned: Range<u32>) -> Result<Self, LayoutError> {
        if !memory.writable() {
            return Err(LayoutError::ReadOnly);
        }
        let (layout, seed) = attach_layout(memory.words())?;
        let owned = owned.start.min(layout.shards)..owned.end.min(layout.shards);
        for index in owned.clone() {
            recover(memory.words(), &layout.shard(index), &mut hot)?;
        }
        let mut this = Self { owned, ..Self::over(memory, layout, seed, hot) };
        this.sweep = Sweep::beginning(this.owned.start);
        this.mirror_validity();
        Ok(this)
    }

    /// Whether this writer is the one of the key's shard.
    #[inline]
    pub fn owns(&self, hash: KeyHash) -> bool {
        self.owned.contains(&self.shard_index(hash))
    }

    /// Whether it owns the first shard, and with it the cache: flushes and the lease are its to write.
    pub fn owns_first(&self) -> bool {
        self.owned.contains(&0)
    }

    /// The number of a key's shard.
    #[inline]
    pub fn shard_index(&self, hash: KeyHash) -> u32 {
        hash.shard(self.layout.shards)
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
            if slot_tag(word) == hash.tag() && is_item(word) {
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
        let hit = hit(words, shard, &item);
        used_if_new(words, shard, &item, now_ns);
        Some(hit)
    }

    /// Looks a key up without counting it as a use.
    pub fn peek(&self, hash: KeyHash, key: &[u8], now_ns: u64) -> Option<Hit> {
        let words = self.memory.words();
        let shard = shard_of(&self.shards, hash);
        let item = find(words, shard, hash, key)?.item;
        usable(words, shard, &item, now_ns).then(|| hit(words, shard, &item))
    }

    /// The value of a key whose feed is suspect: what [`Self::get`] and [`Self::peek`] do not give.
    pub fn suspect(&self, hash: KeyHash, key: &[u8], now_ns: u64) -> Option<Hit> {
        let words = self.memory.words();
        let shard = shard_of(&self.shards, hash);
        let item = find(words, shard, hash, key)?.item;
        let expiry_ns = load(words, shard.cell(item.cell) + C_EXPIRY_NS);
        let state = validity::check(words, item.meta.epoch, item.meta.channel, now_ns);
        let suspect = state == Err(Invalid::Suspect) && !expired(expiry_ns, now_ns);
        suspect.then(|| hit(words, shard, &item))
    }

    /// Notes that a reader of this value was told to fetch it anew. One store; it is no change of the
    /// value, and is forgotten with it. A hot copy, whose answers could not say so, goes first.
    pub fn mark_won(&mut self, hit: &Hit) {
        let words = self.memory.words();
        let shard = &self.shards[hit.shard as usize];
        if H::IS_THERE
            && let Some(key) = HotKey::of(words, shard, hit.cell)
        {
            self.hot.empty(key.bytes());
        }
        let at = shard.cell(hit.cell) + C_META;
        store(words, at, Meta { won: true, ..Meta::unpack(load(words, at)) }.pack());
    }

    /// The hot set.
    pub fn hot(&self) -> &H {
        &self.hot
    }

    /// The hot set, for admissions: showing what the table shows changes nothing.
    pub fn hot_mut(&mut self) -> &mut H {
        &mut self.hot
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

    /// Declares a feed channel live or suspect, with one store. Channel 0 is the clients'.
    pub fn set_channel(&mut self, channel: u8, state: ChannelState) {
        let words = self.memory.words();
        // What takes away goes to the hot set first, what gives goes there last: no path may still
        // show what another has ceased to.
        if state == ChannelState::Suspect {
            self.hot.set_channel(channel, 0);
            validity::set_channel(words, channel, state);
        } else {
            validity::set_channel(words, channel, state);
            self.hot.set_channel(channel, state.word());
        }
    }

    /// Forgets every item of a feed channel and leaves it suspect, in two stores.
    pub fn begin_channel(&mut self, channel: u8) {
        let words = self.memory.words();
        self.hot.set_channel(channel, 0);
        self.hot.set_channel_epoch(channel, validity::channel_epoch(words, channel) + 1);
        validity::begin_channel(words, channel);
    }

    /// Turns every item that is in the table into a miss, with one store for every path.
    pub fn flush(&mut self) {
        let words = self.memory.words();
        self.hot.set_flush_epoch(validity::flush_epoch(words) + 1);
        validity::flush(words);
    }

    /// Turns every item that clients own into a miss, with one store; what feeds publish stays.
    pub fn flush_clients(&mut self) {
        let words = self.memory.words();
        self.hot.set_channel_epoch(0, validity::channel_epoch(words, 0) + 1);
        validity::forget_channel(words, 0);
    }

    /// Sets the lease deadline, [`NO_LEASE`] for none.
    pub fn set_valid_until(&mut self, valid_until_ns: u64) {
        let words = self.memory.words();
        let shortens = valid_until_ns < validity::valid_until(words);
        if shortens {
            self.hot.set_valid_until(valid_until_ns);
        }
        validity::set_valid_until(words, valid_until_ns);
        if !shortens {
            self.hot.set_valid_until(valid_until_ns);
        }
    }
}

/// The shard of a key, of all of a table's.
#[inline(always)]
pub(super) fn shard_of(shards: &[Shard], hash: KeyHash) -> &Shard {
    &shards[hash.shard(shards.len() as u32) as usize]
}

/// Where a key seemed to be when its bucket was last looked at; 0 says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Guess {
    slot: usize,
}

impl Guess {
    /// The cell that the slot names, if there is a guess.
    #[inline]
    pub(super) fn cell(self, words: &[AtomicU64]) -> Option<u32> {
        (self.slot != 0).then(|| slot_cell(load(words, self.slot)))
    }
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
pub(super) fn usable(words: &[AtomicU64], shard: &Shard, item: &Item, now_ns: u64) -> bool {
    let expiry_ns = load(words, shard.cell(item.cell) + C_EXPIRY_NS);
    !expired(expiry_ns, now_ns)
        && validity::check(words, item.meta.epoch, item.meta.channel, now_ns).is_ok()
}

/// What is told of an item that was found.
#[inline]
fn hit(words: &[AtomicU64], shard: &Shard, item: &Item) -> Hit {
    let at = shard.cell(item.cell);
    let length = load(words, at + C_LENGTH);
    let written = load(words, at + C_WRITTEN);
    Hit {
        flags: upper(length),
        value_bytes: value_bytes(length),
        version: load(words, at + C_VERSION),
        channel: item.meta.channel,
        text_sum: written as u16,
        expiry_ns: load(words, at + C_EXPIRY_NS),
        written_us: written >> 16,
        was_fetched: item.meta.fetched,
        is_stale: item.meta.stale,
        is_won: item.meta.won,
        shard: shard.index,
        cell: item.cell,
        access: access_of(load(words, at + C_LINK), &item.meta),
        value: item.value,
    }
}
