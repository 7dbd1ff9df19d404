//! What feeds publish into a cache's table.

use nautilus_shm::table::{
    self as shm_table, ApplyError, HotSet, KEY_BYTES_MAX, Mutation, Op, Words,
};

use super::CacheApp;
use crate::app::keyspace::{ChannelState, Keyspace, PutError};
use crate::memcached::reply::text_sum;

/// What a feed publishes goes into the same table, under its channel.
impl<W: Words, H: HotSet> Keyspace for CacheApp<W, H> {
    fn begin_channel(&mut self, channel: u8) {
        self.core.table.begin_channel(channel);
    }

    fn put(&mut self, key: &[u8], value: &[u8], channel: u8, now_ns: u64) -> Result<(), PutError> {
        let fits = (1..=KEY_BYTES_MAX).contains(&key.len());
        if !fits || key.iter().any(|&byte| byte <= b' ' || byte == 0x7f) {
            return Err(PutError::BadKey);
        }
        let table = &mut self.core.table;
        let hash = table.hash(key);
        if !table.owns(hash) {
            // Keys of one venue are one worker's, that of its feeds.
            return Err(PutError::BadKey);
        }
        let text_sum = text_sum(key, 0, value);
        let put = Mutation { channel, text_sum, ..Mutation::new(key, Op::Set(value)) };
        match table.apply(hash, &put, now_ns) {
            Ok(_) => Ok(()),
            Err(ApplyError::KeyLength) => Err(PutError::BadKey),
            Err(ApplyError::TooLarge) => Err(PutError::TooLong),
            Err(ApplyError::FeedOwned | ApplyError::NotFound) => Err(PutError::NoRoom),
        }
    }

    fn set_channel(&mut self, channel: u8, state: ChannelState) {
        let state = match state {
            ChannelState::Suspect => shm_table::ChannelState::Suspect,
            // The table's deadline is the first instant that is too late.
            ChannelState::LiveUntil(last_ns) => {
                shm_table::ChannelState::Live { valid_until_ns: last_ns.saturating_add(1) }
            }
        };
        self.core.table.set_channel(channel, state);
    }
}
