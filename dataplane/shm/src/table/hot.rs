//! The table's side of the hot set: copies of a few values that are answered before a packet reaches
//! the worker (`ebpf/README.md`).
//!
//! ```text
//!   change of a hot key:  record committed -> slot marked busy -> hot copy -> table -> acknowledgement
//! ```
//!
//! Readers of a busy slot try again, so nobody sees the old value after somebody has seen the new one.
//! A writer that dies in between leaves a committed record that says so: the successor empties the hot
//! slot and completes the change.

use super::layout::{C_META, Shard};
use super::meta::Meta;
use super::payload::Cursor;
use super::validity;
use super::words::{Words, load};
use super::writer::{Hit, TableWriter};
use crate::sync::AtomicU64;

/// Longest value that can be hot: a reply has less room for it.
const HOT_VALUE_BYTES_MAX: usize = 208;

/// Longest key that can be hot.
pub const HOT_KEY_BYTES_MAX: usize = 32;

/// A value as the hot set is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotValue<'a> {
    /// The bytes.
    pub value: &'a [u8],
    /// As in [`super::Mutation`].
    pub flags: u32,
    /// Of the value.
    pub version: u64,
    /// As in [`super::Mutation`].
    pub expiry_ns: u64,
    /// The sum of flush and channel epoch it was written in.
    pub epoch: u32,
    /// As in [`super::Mutation`].
    pub channel: u8,
    /// As in [`super::Mutation`].
    pub text_sum: u16,
}

/// Where hot values are published. Its writer is the table's.
pub trait HotSet {
    /// Whether there is one at all; without it no change looks for its key.
    const IS_THERE: bool;
    /// Whether a change of this key must be told.
    fn holds(&self, key: &[u8]) -> bool;
    /// Counts a look-up of a key (by its table's hash) that the worker has answered. True when the
    /// value should be shown from now on: [`super::TableWriter::show`].
    fn asked(&mut self, hash: u64, key: &[u8], hit: &Hit) -> bool;
    /// Begins what begins with time. Bounded.
    fn housekeeping(&mut self, now_ns: u64);
    /// Looks at the next slot: a key in it that was answered from it since the last look.
    fn next_used(&mut self) -> Option<HotKey>;
    /// Shows a value of a key, in place of whatever its slot showed; nothing if it does not fit.
    fn publish(&mut self, key: &[u8], value: &HotValue<'_>);
    /// Forgets a key, if it holds it.
    fn empty(&mut self, key: &[u8]);
    /// Mirrors a channel's deadline.
    fn set_channel(&mut self, channel: u8, valid_until_ns: u64);
    /// Mirrors a channel's epoch.
    fn set_channel_epoch(&mut self, channel: u8, epoch: u64);
    /// Mirrors the flush epoch.
    fn set_flush_epoch(&mut self, epoch: u64);
    /// Mirrors the lease.
    fn set_valid_until(&mut self, valid_until_ns: u64);
}

/// No hot set.
impl HotSet for () {
    const IS_THERE: bool = false;
    #[inline(always)]
    fn holds(&self, _key: &[u8]) -> bool {
        false
    }
    #[inline(always)]
    fn asked(&mut self, _hash: u64, _key: &[u8], _hit: &Hit) -> bool {
        false
    }
    fn housekeeping(&mut self, _now_ns: u64) {}
    fn next_used(&mut self) -> Option<HotKey> {
        None
    }
    fn publish(&mut self, _key: &[u8], _value: &HotValue<'_>) {}
    fn empty(&mut self, _key: &[u8]) {}
    fn set_channel(&mut self, _channel: u8, _valid_until_ns: u64) {}
    fn set_channel_epoch(&mut self, _channel: u8, _epoch: u64) {}
    fn set_flush_epoch(&mut self, _epoch: u64) {}
    fn set_valid_until(&mut self, _valid_until_ns: u64) {}
}

/// One that is only there where the port has one.
impl<H: HotSet> HotSet for Option<H> {
    const IS_THERE: bool = H::IS_THERE;

    #[inline]
    fn holds(&self, key: &[u8]) -> bool {
        self.as_ref().is_some_and(|hot| hot.holds(key))
    }
    #[inline]
    fn asked(&mut self, hash: u64, key: &[u8], hit: &Hit) -> bool {
        self.as_mut().is_some_and(|hot| hot.asked(hash, key, hit))
    }
    fn housekeeping(&mut self, now_ns: u64) {
        if let Some(hot) = self {
            hot.housekeeping(now_ns);
        }
    }
    fn next_used(&mut self) -> Option<HotKey> {
        self.as_mut()?.next_used()
    }
    fn publish(&mut self, key: &[u8], value: &HotValue<'_>) {
        if let Some(hot) = self {
            hot.publish(key, value);
        }
    }
    fn empty(&mut self, key: &[u8]) {
        if let Some(hot) = self {
            hot.empty(key);
        }
    }
    fn set_channel(&mut self, channel: u8, valid_until_ns: u64) {
        if let Some(hot) = self {
            hot.set_channel(channel, valid_until_ns);
        }
    }
    fn set_channel_epoch(&mut self, channel: u8, epoch: u64) {
        if let Some(hot) = self {
            hot.set_channel_epoch(channel, epoch);
        }
    }
    fn set_flush_epoch(&mut self, epoch: u64) {
        if let Some(hot) = self {
            hot.set_flush_epoch(epoch);
        }
    }
    fn set_valid_until(&mut self, valid_until_ns: u64) {
        if let Some(hot) = self {
            hot.set_valid_until(valid_until_ns);
        }
    }
}

/// A key that is short enough to be hot.
#[derive(Clone, Copy, Debug)]
pub struct HotKey {
    bytes: [u8; HOT_KEY_BYTES_MAX],
    length: usize,
}

impl HotKey {
    /// None when it is too long.
    pub fn new(key: &[u8]) -> Option<Self> {
        let mut bytes = [0; HOT_KEY_BYTES_MAX];
        bytes.get_mut(..key.len())?.copy_from_slice(key);
        Some(Self { bytes, length: key.len() })
    }

    /// The key of an item.
    pub(super) fn of(words: &[AtomicU64], shard: &Shard, cell: u32) -> Option<Self> {
        let meta = Meta::unpack(load(words, shard.cell(cell) + C_META));
        let length = usize::from(meta.key_bytes);
        let mut key = Self { bytes: [0; HOT_KEY_BYTES_MAX], length };
        let bytes = key.bytes.get_mut(..length)?;
        Cursor::first(shard, cell).read(words, shard, bytes).ok()?;
        Some(key)
    }

    /// The key.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl<W: Words, H: HotSet> TableWriter<W, H> {
    /// Shows a value that was just found in the hot set. Changes nothing that anybody could see: both
    /// places show the same. A value that is stale or won stays out.
    pub fn show(&mut self, key: &[u8], hit: &Hit) {
        if hit.is_stale || hit.is_won {
            return;
        }
        let mut bytes = [0; HOT_VALUE_BYTES_MAX];
        let Some(value) = bytes.get_mut(..hit.value_bytes as usize) else { return };
        self.read(&mut self.value(hit), value);
        let &Hit { flags, version, expiry_ns, channel, text_sum, .. } = hit;
        let epoch = validity::epoch(self.memory.words(), channel);
        self.hot
            .publish(key, &HotValue { value, flags, version, expiry_ns, epoch, channel, text_sum });
    }

    /// Bounded work for the hot set: `slots` of it are looked at, and what was answered from them
    /// counts as asked for.
    pub fn keep_hot(&mut self, now_ns: u64, slots: u32) {
        self.hot.housekeeping(now_ns);
        for _ in 0..slots {
            if let Some(key) = self.hot.next_used() {
                self.get(self.hash(key.bytes()), key.bytes(), now_ns);
            }
        }
    }

    /// Tells the hot set all that [`validity`] says, for a successor that does not know whether its
    /// predecessor died between the two.
    pub(super) fn mirror_validity(&mut self) {
        if !H::IS_THERE {
            return;
        }
        if self.owned.start != 0 || self.owned.is_empty() {
            return;
        }
        let words = self.memory.words();
        let is_only = self.owned.len() == self.shards.len();
        for channel in 0..=u8::MAX {
            // Who takes a channel over begins it, in both places.
            if channel != 0 && !is_only {
                break;
            }
            self.hot.set_channel_epoch(channel, validity::channel_epoch(words, channel));
            if channel != 0 {
                self.hot.set_channel(channel, validity::channel_word(words, channel));
            }
        }
        self.hot.set_flush_epoch(validity::flush_epoch(words));
        self.hot.set_valid_until(validity::valid_until(words));
    }
}
