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

use super::layout::{C_META, Meta, Shard};
use super::payload::Cursor;
use super::words::load;
use crate::sync::AtomicU64;

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
    /// Shows a new value of a key it holds, or nothing if the value does not fit.
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
    fn publish(&mut self, _key: &[u8], _value: &HotValue<'_>) {}
    fn empty(&mut self, _key: &[u8]) {}
    fn set_channel(&mut self, _channel: u8, _valid_until_ns: u64) {}
    fn set_channel_epoch(&mut self, _channel: u8, _epoch: u64) {}
    fn set_flush_epoch(&mut self, _epoch: u64) {}
    fn set_valid_until(&mut self, _valid_until_ns: u64) {}
}

/// The key of an item if it is short enough to be hot.
pub(super) struct ShortKey {
    bytes: [u8; HOT_KEY_BYTES_MAX],
    length: usize,
}

impl ShortKey {
    pub fn of(words: &[AtomicU64], shard: &Shard, cell: u32) -> Option<Self> {
        let meta = Meta::unpack(load(words, shard.cell(cell) + C_META));
        let length = usize::from(meta.key_bytes);
        let mut key = Self { bytes: [0; HOT_KEY_BYTES_MAX], length };
        let bytes = key.bytes.get_mut(..length)?;
        Cursor::first(cell).read(words, shard, bytes).ok()?;
        Some(key)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}
