//! What a channel knows of its stocks and its venue beside the books: status, and what was traded.
//!
//! Owned by the channel's publisher.

use super::super::statistics::Statistics;
use super::super::status::Statuses;
use super::super::trades::{Counted, RecentTrades};

/// Trades that a broken-trade message can still take out of the statistics. Too low: one that is broken later
/// stays in them, which is counted. Too high: memory, 40 bytes each.
const RECENT_TRADES: u32 = 1 << 16;

/// The facts of one channel.
pub(super) struct Facts {
    pub statuses: Statuses,
    /// Of the venue.
    pub statistics: Statistics,
    trades: RecentTrades,
}

impl Facts {
    /// Nothing is known. Allocates all there will ever be and touches it.
    pub fn new() -> Self {
        Self {
            statuses: Statuses::new(),
            statistics: Statistics::default(),
            trades: RecentTrades::new(RECENT_TRADES),
        }
    }

    /// Bytes taken at start.
    pub const BYTES: u64 = Statuses::BYTES + RecentTrades::memory_bytes(RECENT_TRADES);

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.statuses.clear();
        self.statistics = Statistics::default();
        self.trades.clear();
    }

    /// A trade was made in a book whose statistics these are.
    #[inline]
    pub fn trade(&mut self, match_number: u64, counted: Counted, of_stock: &mut Statistics) {
        let Counted { price, shares, .. } = counted;
        of_stock.add(price, shares);
        self.statistics.add(price, shares);
        self.trades.remember(match_number, counted);
    }

    /// A trade was broken; `None` when it was never counted, or longer ago than is remembered.
    pub fn take_broken(&mut self, match_number: u64) -> Option<Counted> {
        let counted = self.trades.take(match_number);
        match counted {
            Some(Counted { price, shares, .. }) => self.statistics.take_out(price, shares),
            None => self.statistics.unknown_breaks += 1,
        }
        counted
    }
}
