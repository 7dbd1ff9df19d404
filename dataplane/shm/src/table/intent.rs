//! Changes of several words that a kill cannot split.
//!
//! ```text
//!   fill free cells      plain stores; nobody can see them
//!   write the record     address, new value; address, new value; ...
//!   commit               record length, one release store      <- the change has happened
//!   apply                each value to its address, in order   <- readers see the slot change here
//!   clear                record length 0
//! ```
//!
//! A change of a hot key ([`super::hot`]) says so in its record and publishes between commit and
//! apply, while its slot is marked busy. The record's first word is its length (8 bits), whether the key
//! is hot (1 bit), and the item's cell (upper 32 bits), from which a successor learns the key.
//!
//! A writer that is killed before the commit has changed nothing; after it, [`recover`] stores the
//! record's values again, which is harmless any number of times. Both take at most
//! [`RECORD_ENTRIES_MAX`] stores, whatever the table's size. Every store of a change is a release
//! store, so the compiler keeps the order above, and a kill stops a core between two instructions.

use super::hot::{HotKey, HotSet};
use super::layout::{LayoutError, S_INTENT, SHARD_HEADER_WORDS, Shard, upper};
use super::probe::SLOT_BUSY;
use super::words::{load, store};
use crate::misorder::{self, Misorder};
use crate::sync::{AtomicU64, Ordering, fence};

/// The longest change: an insertion of an item in its second bucket takes 15.
pub(super) const RECORD_ENTRIES_MAX: usize = 24;

const _: () = assert!(S_INTENT + 1 + 2 * RECORD_ENTRIES_MAX <= SHARD_HEADER_WORDS);

/// In a record's first word: the key is hot.
const HOT: u64 = 1 << 8;

/// A change that is being put together. Reads see the change's own stores.
pub(super) struct Change<'a> {
    words: &'a [AtomicU64],
    entries: [(usize, u64); RECORD_ENTRIES_MAX],
    count: usize,
}

impl<'a> Change<'a> {
    pub fn new(words: &'a [AtomicU64]) -> Self {
        Self { words, entries: [(0, 0); RECORD_ENTRIES_MAX], count: 0 }
    }

    /// The word as it will be.
    pub fn get(&self, at: usize) -> u64 {
        let pending = self.entries[..self.count].iter().find(|&&(address, _)| address == at);
        pending.map_or_else(|| load(self.words, at), |&(_, value)| value)
    }

    /// Adds a store. A second store to one word takes the place of the first.
    pub fn set(&mut self, at: usize, value: u64) {
        match self.entries[..self.count].iter_mut().find(|(address, _)| *address == at) {
            Some(entry) => entry.1 = value,
            None => {
                self.entries[self.count] = (at, value);
                self.count += 1;
            }
        }
    }

    /// Adds to a counter word; wraps when `by` is the two's complement of a negative number.
    pub fn add(&mut self, at: usize, by: u64) {
        let value = self.get(at).wrapping_add(by);
        self.set(at, value);
    }

    /// Makes the change.
    #[inline]
    pub fn commit(self, shard: &Shard) {
        self.write(shard, 0);
        self.apply(shard);
    }

    /// Makes the change of an item whose key is hot: `publish` tells the hot set while the item's
    /// `slot` is busy.
    pub fn commit_hot(self, shard: &Shard, slot: usize, cell: u32, publish: impl FnOnce()) {
        self.write(shard, HOT | u64::from(cell) << 32);
        if Misorder::TableFirst.is_wanted() {
            self.apply(shard);
            misorder::rest();
            return publish();
        }
        let unmarked = Misorder::Unmarked.is_wanted();
        let busy = if unmarked { 0 } else { SLOT_BUSY };
        let word = load(self.words, slot);
        // SYNC POINT: pairs with the acquire load of the slot in `TableReader`; whoever sees the new
        // hot copy, and then looks here, finds the slot busy or changed.
        self.words[slot].store(word | busy, Ordering::Release);
        fence(Ordering::Release);
        publish();
        if unmarked {
            misorder::rest();
        }
        fence(Ordering::Release);
        self.apply(shard);
    }

    fn write(&self, shard: &Shard, marks: u64) {
        if Misorder::Unrecorded.is_wanted() {
            return;
        }
        let record = shard.base + S_INTENT;
        for (index, &(at, value)) in self.entries[..self.count].iter().enumerate() {
            store(self.words, record + 1 + 2 * index, at as u64);
            store(self.words, record + 2 + 2 * index, value);
        }
        self.words[record].store(self.count as u64 | marks, Ordering::Release);
    }

    fn apply(&self, shard: &Shard) {
        let record = shard.base + S_INTENT;
        for &(at, value) in &self.entries[..self.count] {
            // SYNC POINT: pairs with the acquire loads and fences of `TableReader`.
            self.words[at].store(value, Ordering::Release);
        }
        clear(self.words, record);
    }
}

/// Completes the change a killed writer had committed. Returns how many words it stored: 0 if there
/// was none. Fails when the record could not have been written by a writer of this shard.
pub(super) fn recover(
    words: &[AtomicU64],
    shard: &Shard,
    hot: &mut impl HotSet,
) -> Result<usize, LayoutError> {
    let record = shard.base + S_INTENT;
    let damaged = LayoutError::Intent { shard: shard.index };
    let first = words[record].load_acquire();
    let (count, cell) = ((first & 0xff) as usize, upper(first));
    let is_hot = first & HOT != 0;
    let known = first & (0xff | HOT | u64::MAX << 32) == first;
    if count > RECORD_ENTRIES_MAX || !known || (!is_hot && cell != 0) || cell >= shard.cells {
        return Err(damaged);
    }
    let entry = |index: usize| {
        let at = load(words, record + 1 + 2 * index) as usize;
        let ours =
            (shard.base..record).contains(&at) || (shard.buckets_at..shard.end).contains(&at);
        ours.then(|| (at, load(words, record + 2 + 2 * index))).ok_or(damaged)
    };
    for index in 0..count {
        entry(index)?;
    }
    if is_hot {
        // The hot copy may be the old or the new one; without it the table alone says what holds.
        let key = HotKey::of(words, shard, cell).ok_or(damaged)?;
        hot.empty(key.bytes());
        fence(Ordering::Release);
    }
    for index in 0..count {
        let (at, value) = entry(index)?;
        words[at].store(value, Ordering::Release);
    }
    clear(words, record);
    Ok(count)
}

fn clear(words: &[AtomicU64], record: usize) {
    words[record].store(0, Ordering::Release);
    // Nothing of the next change, the filling of cells this one has freed included, moves above.
    fence(Ordering::Release);
}
