//! A keyspace whose feed records also go to subscribers.

use super::Distribution;
use crate::app::{ChannelState, Keyspace, PutError};
use crate::feed::record::About;

/// What a channel publishes into: its keyspace, and its subscribers where it has any.
pub struct Outlet<'a, K> {
    keyspace: &'a mut K,
    distribution: Option<&'a mut Distribution>,
}

impl<'a, K: Keyspace> Outlet<'a, K> {
    /// Of one channel.
    pub fn new(keyspace: &'a mut K, distribution: Option<&'a mut Distribution>) -> Self {
        Self { keyspace, distribution }
    }
}

impl<K: Keyspace> Keyspace for Outlet<'_, K> {
    fn begin_channel(&mut self, channel: u8) {
        self.keyspace.begin_channel(channel);
        if let Some(distribution) = &mut self.distribution {
            distribution.begin_session();
        }
    }

    #[inline]
    fn put(&mut self, key: &[u8], value: &[u8], channel: u8, now_ns: u64) -> Result<(), PutError> {
        self.keyspace.put(key, value, channel, now_ns)
    }

    /// A record that the keyspace has no room for is as true as any.
    #[inline]
    fn put_record(
        &mut self,
        about: &About,
        key: &[u8],
        record: &[u8],
        channel: u8,
        now_ns: u64,
    ) -> Result<(), PutError> {
        let result = self.keyspace.put(key, record, channel, now_ns);
        if let Some(distribution) = &mut self.distribution {
            distribution.publish(about, record);
        }
        result
    }

    #[inline]
    fn set_channel(&mut self, channel: u8, state: ChannelState) {
        self.keyspace.set_channel(channel, state);
        if let Some(distribution) = &mut self.distribution {
            distribution.set_state(state);
        }
    }
}
