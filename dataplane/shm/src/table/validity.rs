//! The words every read path checks after copying a value and before using it.

use super::layout::{
    CHANNELS, T_CHANNEL_EPOCHS, T_CHANNELS, T_FLUSH_EPOCH, T_HALTED, T_VALID_UNTIL_NS,
};
use super::words::{Words, load};
use crate::sync::{AtomicU64, Ordering};

/// The lease word of a cache that needs no lease.
pub const NO_LEASE: u64 = u64::MAX;

/// Whether the values of one feed channel may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelState {
    /// Something is missing: every key of the channel is suspect.
    Suspect,
    /// Good until this `CLOCK_MONOTONIC` time unless it is extended before: the time the feed was
    /// last heard plus its silence limit.
    Live {
        /// Nanoseconds; `u64::MAX` for a feed without a silence limit.
        valid_until_ns: u64,
    },
}

impl ChannelState {
    pub(super) fn word(self) -> u64 {
        match self {
            Self::Suspect => 0,
            Self::Live { valid_until_ns } => valid_until_ns,
        }
    }
}

/// Why a value that is in the table may not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Invalid {
    /// Written before the last flush: as good as deleted.
    Flushed,
    /// The channel's feed has a gap or is silent, or the node's kill switch is on.
    Suspect,
    /// The leader's lease has run out.
    LeaseExpired,
}

/// Checks the three words, and for a feed's value the kill switch. A channel is one word: suspect is 0, live is the deadline, so that a gap
/// takes one store and silence none.
pub(super) fn check(
    words: &[AtomicU64],
    epoch: u32,
    channel: u8,
    now_ns: u64,
) -> Result<(), Invalid> {
    if now_ns >= load(words, T_VALID_UNTIL_NS) {
        return Err(Invalid::LeaseExpired);
    }
    if epoch != self::epoch(words, channel) {
        return Err(Invalid::Flushed);
    }
    let doubted = |channel: u8| now_ns >= load(words, T_CHANNELS + usize::from(channel));
    if channel != 0 && (load(words, T_HALTED) != 0 || doubted(channel)) {
        return Err(Invalid::Suspect);
    }
    Ok(())
}

/// The epoch of items written now: how often everything and how often their channel was forgotten.
/// Both only grow, so their sum tells whether either has.
pub(super) fn epoch(words: &[AtomicU64], channel: u8) -> u32 {
    let channel_epoch = load(words, T_CHANNEL_EPOCHS + usize::from(channel));
    load(words, T_FLUSH_EPOCH).wrapping_add(channel_epoch) as u32
}

/// How often a channel was forgotten.
pub(super) fn channel_epoch(words: &[AtomicU64], channel: u8) -> u64 {
    load(words, T_CHANNEL_EPOCHS + usize::from(channel))
}

/// A channel's word.
pub(super) fn channel_word(words: &[AtomicU64], channel: u8) -> u64 {
    load(words, T_CHANNELS + usize::from(channel))
}

/// How often everything was forgotten.
pub(super) fn flush_epoch(words: &[AtomicU64]) -> u64 {
    load(words, T_FLUSH_EPOCH)
}

/// The lease deadline.
pub(super) fn valid_until(words: &[AtomicU64]) -> u64 {
    load(words, T_VALID_UNTIL_NS)
}

/// Turns every item of a channel into a miss and the channel suspect. A kill between the two stores
/// leaves it suspect, and whoever takes the channel over begins it again.
pub(super) fn begin_channel(words: &[AtomicU64], channel: u8) {
    set_channel(words, channel, ChannelState::Suspect);
    forget_channel(words, channel);
}

/// Turns every item of a channel into a miss; those of channel 0 are the clients'.
pub(super) fn forget_channel(words: &[AtomicU64], channel: u8) {
    let at = T_CHANNEL_EPOCHS + usize::from(channel);
    words[at].store(load(words, at).wrapping_add(1), Ordering::Release);
}

/// Writes a channel's word. Its writer is the worker that owns the feed session.
pub(super) fn set_channel(words: &[AtomicU64], channel: u8, state: ChannelState) {
    assert!(channel != 0 && usize::from(channel) < CHANNELS, "channel 0 is the clients'");
    // SYNC POINT: a value put before this store is visible to whoever sees the channel live.
    words[T_CHANNELS + usize::from(channel)].store(state.word(), Ordering::Release);
}

/// Makes every item older than this call a miss. Its writer is the cache's owner.
pub(super) fn flush(words: &[AtomicU64]) {
    let next = load(words, T_FLUSH_EPOCH) + 1;
    words[T_FLUSH_EPOCH].store(next, Ordering::Release);
}

/// Turns every value of a feed suspect, whatever its channel says, or leaves that to the channels again. Single
/// writer: the supervisor. Panics when the memory is mapped to be read.
pub fn set_halted(memory: &impl Words, halted: bool) {
    assert!(memory.writable(), "only who owns the memory halts it");
    memory.words()[T_HALTED].store(halted.into(), Ordering::Release);
}

/// Writes the lease deadline. Its writer is the holder of the lease.
pub(super) fn set_valid_until(words: &[AtomicU64], valid_until_ns: u64) {
    words[T_VALID_UNTIL_NS].store(valid_until_ns, Ordering::Release);
}
