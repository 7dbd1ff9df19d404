//! What is published of one stock, and what is still to be.

use super::super::book::Bbo;
use super::super::record::Value;
use super::super::statistics::Statistics;

/// What the keyspace holds under one key of this session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stored {
    /// Nothing.
    #[default]
    Nothing,
    /// What was meant to be there.
    Current,
    /// An older value, because a write failed.
    Older,
}

impl Stored {
    /// After a write that was taken or refused.
    pub fn after(self, is_written: bool) -> Self {
        match (is_written, self) {
            (true, _) => Self::Current,
            // A first write that failed left no key behind: a miss is honest.
            (false, Self::Nothing) => Self::Nothing,
            (false, _) => Self::Older,
        }
    }
}

/// The publishing state of one stock locate.
#[derive(Clone, Copy, Default)]
pub(super) struct Publication {
    pub epoch: u32,
    /// Whether the locate is in the list of changes.
    pub listed: bool,
    /// Whether the locate is in the list of writes to try again.
    pub retried: bool,
    /// What the packet being applied changed.
    pub book_changed: bool,
    pub trade_changed: bool,
    pub status_changed: bool,
    pub book_sequence: u64,
    pub book_exchange_ns: u64,
    pub trade_sequence: u64,
    pub trade_exchange_ns: u64,
    pub bbo: Bbo,
    /// Where the best prices written last come from: not every change of a book is one of them.
    pub bbo_sequence: u64,
    pub bbo_exchange_ns: u64,
    pub statistics: Statistics,
    /// Orders that the newest record of them says.
    pub orders_written: u64,
    pub stored: [Stored; Value::KINDS],
    /// When what the newest record of each kind says was captured, 0 where there was none.
    pub captured_ns: [u64; Value::KINDS],
}
