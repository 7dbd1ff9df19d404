//! What a feed of the node file takes at start, for an operator.

use std::fmt;

use crate::config::Feed;
use crate::feed::distribution::Distribution;
use crate::feed::held::HeldLimits;
use crate::feed::publisher::Publisher;

/// Bytes that the worker that owns a feed takes for it, and its standby once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedMemory {
    /// Books or quotes, and what is published of them.
    pub books_bytes: u64,
    /// Packets that wait for their turn.
    pub queue_bytes: u64,
    /// Messages that receivers of what is given out again can ask for.
    pub history_bytes: u64,
    /// Subscribers and their messages.
    pub subscribers_bytes: u64,
}

impl FeedMemory {
    /// Of one feed.
    pub fn of(feed: &Feed) -> Self {
        let queue = feed.recovery.as_ref().map(|recovery| (recovery.queue_mb as usize) << 20);
        let history = feed.republish.as_ref().map(|republish| (republish.history_mb as u64) << 20);
        let distribution = feed.distribution.as_ref().map(|distribution| {
            let history_bytes = (distribution.history_kb as usize) << 10;
            Distribution::memory_bytes(distribution.max_subscribers as usize, history_bytes)
        });
        Self {
            books_bytes: Publisher::memory_bytes(feed.protocol, &feed.book_limits(0)),
            queue_bytes: queue.unwrap_or(HeldLimits::default().bytes_max) as u64,
            history_bytes: history.unwrap_or(0),
            subscribers_bytes: distribution.unwrap_or(0),
        }
    }

    /// All of it.
    pub fn total_bytes(&self) -> u64 {
        self.books_bytes + self.queue_bytes + self.history_bytes + self.subscribers_bytes
    }
}

impl fmt::Display for FeedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        write!(
            f,
            "{} MiB in its worker, and in the standby: books {}, queue {}",
            mib(self.total_bytes()),
            mib(self.books_bytes),
            mib(self.queue_bytes)
        )?;
        for (name, bytes) in
            [("history", self.history_bytes), ("subscribers", self.subscribers_bytes)]
        {
            if bytes > 0 {
                write!(f, ", {name} {}", mib(bytes))?;
            }
        }
        Ok(())
    }
}
