//! What one channel counts. Plain integers of the worker that owns the channel; the run loop copies
//! them to shared memory.

use super::book::Problem;

/// Counts since the channel was made. None is ever reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams addressed to the channel.
    pub packets: u64,
    /// Messages applied.
    pub messages: u64,
    /// Heartbeats.
    pub heartbeats: u64,
    /// Packets that announced the end of a session.
    pub ends: u64,
    /// Sessions that began.
    pub sessions: u64,
    /// Datagrams dropped whole because they are not MoldUDP64.
    pub malformed_packets: u64,
    /// Packets of an earlier session.
    pub stale_packets: u64,
    /// Gaps.
    pub gaps: u64,
    /// Messages missing in those gaps.
    pub gap_messages: u64,
    /// Messages that had been applied already.
    pub duplicate_messages: u64,
    /// Messages of a type this version of ITCH does not have.
    pub unknown_messages: u64,
    /// Messages of a known type with a wrong length.
    pub malformed_messages: u64,
    /// Changes of orders that are not in the book.
    pub unknown_orders: u64,
    /// Orders under a reference in use.
    pub duplicate_orders: u64,
    /// Executions and cancels of more shares than were left.
    pub over_reductions: u64,
    /// Orders, executions and cancels of 0 shares.
    pub zero_shares: u64,
    /// Messages with an impossible side, or under another symbol's locate.
    pub invalid_messages: u64,
    /// Messages the books had no room for.
    pub no_room: u64,
    /// Changes of books whose symbol is not known, or cannot stand in a key.
    pub unnamed: u64,
    /// Records published.
    pub published: u64,
    /// Records the keyspace refused.
    pub publish_failures: u64,
    /// Times the channel turned from live to suspect for another reason than silence.
    pub suspects: u64,
}

impl Counters {
    /// Counts what a message could not do.
    pub fn count(&mut self, problem: Problem) {
        let counter = match problem {
            Problem::UnknownOrder => &mut self.unknown_orders,
            Problem::DuplicateOrder => &mut self.duplicate_orders,
            Problem::OverReduction => &mut self.over_reductions,
            Problem::ZeroShares => &mut self.zero_shares,
            Problem::BadSide | Problem::SymbolConflict => &mut self.invalid_messages,
            Problem::OrdersFull | Problem::LevelsFull => &mut self.no_room,
        };
        *counter += 1;
    }
}
