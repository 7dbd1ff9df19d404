//! The words that say whether a hot reply may be used: the same as in the header of the cache's table,
//! where the program can see them. Whoever takes something away (a flush, a gap, a lease given up)
//! stores here before it stores there; whoever gives, after.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::intf::{HOT_CACHES, HOT_CHANNELS, HotChannel, HotWordsValue};
use crate::mapping::Mapping;
use crate::steering::{SteeringError, check_hot_map};

const VALUE_WORDS: usize = size_of::<HotWordsValue>() / 8;
const VALID_UNTIL: usize = 0;
const FLUSH_EPOCH: usize = 1;
const HALTED: usize = 2;
const CHANNELS: usize = 8;
const CHANNEL_WORDS: usize = size_of::<HotChannel>() / 8;

/// The `hot_words` map, mapped to be written. Each word has one writer: the holder of the lease, the
/// cache's owner, the worker that owns the channel's feed, the supervisor for the kill switch. All methods take a cache below
/// [`HOT_CACHES`] and panic above.
#[derive(Debug)]
pub struct HotWords {
    mapping: Mapping,
}

impl HotWords {
    /// From the descriptor of `hot_words`, which is no longer needed afterwards.
    pub fn map(words: BorrowedFd<'_>) -> Result<Self, SteeringError> {
        check_hot_map(words, 1)?;
        let words_count = usize::from(HOT_CACHES) * VALUE_WORDS;
        Ok(Self { mapping: Mapping::new(words, words_count).map_err(SteeringError::Descriptor)? })
    }

    fn word(&self, cache: u16, word: usize) -> &AtomicU64 {
        assert!(cache < HOT_CACHES, "cache {cache} has no words");
        &self.mapping.words()[usize::from(cache) * VALUE_WORDS + word]
    }

    fn channel(&self, cache: u16, channel: u8, word: usize) -> &AtomicU64 {
        self.word(cache, CHANNELS + usize::from(channel) * CHANNEL_WORDS + word)
    }

    /// Refuses every reply of the cache and forgets all its words but the kill switch: what a new cache of this
    /// index starts from. It opens with [`Self::set_valid_until`].
    pub fn close(&self, cache: u16) {
        self.set_valid_until(cache, 0);
        for channel in 0..HOT_CHANNELS {
            self.channel(cache, channel as u8, 0).store(0, Ordering::Release);
            self.channel(cache, channel as u8, 1).store(0, Ordering::Release);
        }
        self.set_flush_epoch(cache, 0);
    }

    /// Until when replies of the cache may be used, `CLOCK_MONOTONIC` nanoseconds: its lease, or
    /// `u64::MAX` if it needs none.
    pub fn set_valid_until(&self, cache: u16, valid_until_ns: u64) {
        self.word(cache, VALID_UNTIL).store(valid_until_ns, Ordering::Release);
    }

    /// What [`Self::set_valid_until`] stored.
    pub fn valid_until(&self, cache: u16) -> u64 {
        self.word(cache, VALID_UNTIL).load(Ordering::Acquire)
    }

    /// Whether nothing of a feed is answered, of any cache: those that there are, and those to come.
    pub fn set_halted(&self, halted: bool) {
        (0..HOT_CACHES)
            .for_each(|cache| self.word(cache, HALTED).store(halted.into(), Ordering::Release));
    }

    /// What [`Self::set_halted`] stored.
    pub fn is_halted(&self, cache: u16) -> bool {
        self.word(cache, HALTED).load(Ordering::Acquire) != 0
    }

    /// How often everything in the cache was forgotten: replies of another epoch are not used.
    pub fn set_flush_epoch(&self, cache: u16, epoch: u64) {
        self.word(cache, FLUSH_EPOCH).store(epoch, Ordering::Release);
    }

    /// What [`Self::set_flush_epoch`] stored.
    pub fn flush_epoch(&self, cache: u16) -> u64 {
        self.word(cache, FLUSH_EPOCH).load(Ordering::Acquire)
    }

    /// Until when values of a feed's channel may be used, `CLOCK_MONOTONIC` nanoseconds: 0 is suspect,
    /// `u64::MAX` without a limit. Panics for channel 0, the clients', which has none.
    pub fn set_channel(&self, cache: u16, channel: u8, valid_until_ns: u64) {
        assert!(channel != 0, "channel 0 is the clients'");
        // SYNC POINT: a reply published before this store is seen by whoever sees the channel live.
        self.channel(cache, channel, 0).store(valid_until_ns, Ordering::Release);
    }

    /// What [`Self::set_channel`] stored.
    pub fn channel_valid_until(&self, cache: u16, channel: u8) -> u64 {
        self.channel(cache, channel, 0).load(Ordering::Acquire)
    }

    /// How often the channel was begun anew, or for channel 0 how often the clients' values were
    /// flushed: replies of another epoch are not used.
    pub fn set_channel_epoch(&self, cache: u16, channel: u8, epoch: u64) {
        self.channel(cache, channel, 1).store(epoch, Ordering::Release);
    }

    /// What [`Self::set_channel_epoch`] stored.
    pub fn channel_epoch(&self, cache: u16, channel: u8) -> u64 {
        self.channel(cache, channel, 1).load(Ordering::Acquire)
    }
}
