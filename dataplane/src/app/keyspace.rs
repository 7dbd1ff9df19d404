//! How a feed publishes: keys it owns, and one word per channel that says whether they hold true.

use crate::feed::record::About;

/// Longest key, as memcached has it.
pub const KEY_BYTES_MAX: usize = 250;

/// Whether the keys of a channel may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelState {
    /// Nothing published on the channel is to be used: a plain `get` misses.
    Suspect,
    /// Published values hold true up to and including this `CLOCK_MONOTONIC` instant. A channel is
    /// renewed while its feed speaks, so silence and the death of the worker both turn it suspect
    /// without a store.
    LiveUntil(u64),
}

/// Why a value was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// The key is empty, longer than [`KEY_BYTES_MAX`] or holds a space or control byte.
    #[error("the key is not one a cache can hold")]
    BadKey,
    /// The value does not fit the cache's largest item.
    #[error("the value is too long")]
    TooLong,
    /// No room, even after eviction.
    #[error("no room for the value")]
    NoRoom,
}

/// The writer's side of one keyspace. Called from the run loop: must not allocate, lock or enter the
/// kernel.
pub trait Keyspace {
    /// Forgets everything ever published on a channel and leaves the channel suspect, in time that
    /// does not depend on how much there is (an epoch per channel). Called when a worker takes a
    /// channel over, since it does not know what its predecessor published, and when a session begins,
    /// since symbols of the session before may not come again.
    fn begin_channel(&mut self, channel: u8);

    /// Publishes a value. `channel` is not 0, which stands for keys that clients own; a key that
    /// clients own becomes the feed's. `now_ns` is `CLOCK_MONOTONIC`, when the value came about: its age
    /// is counted from there.
    fn put(&mut self, key: &[u8], value: &[u8], channel: u8, now_ns: u64) -> Result<(), PutError>;

    /// Publishes a record of a feed: [`Self::put`], for which it does not matter what the record is about.
    #[inline]
    fn put_record(
        &mut self,
        _about: &About,
        key: &[u8],
        record: &[u8],
        channel: u8,
        now_ns: u64,
    ) -> Result<(), PutError> {
        self.put(key, record, channel, now_ns)
    }

    /// Publishes the state of a channel with one store. Every channel starts suspect.
    fn set_channel(&mut self, channel: u8, state: ChannelState);
}
