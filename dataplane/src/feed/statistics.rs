//! What was added and traded in a book, and in all of a channel's together.

/// Counts of one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Orders added, with attribution and without; replacements are none.
    pub orders: u64,
    /// Trades, crosses with shares among them, less the broken ones. An execution that is not printable is
    /// none: it comes again in the bulk of a cross.
    pub trades: u64,
    /// Their shares.
    pub shares: u64,
    /// Their value: the sum of price, in 1e-4, times shares. A day's worth of a single stock at the
    /// highest price and size a message holds does not overflow it.
    pub value: u128,
    /// Trades that were broken and taken out of the three above.
    pub broken: u64,
    /// Broken trades that could not be taken out: of executions never counted, or forgotten since
    /// ([`super::trades::RecentTrades`]), or broken before.
    pub unknown_breaks: u64,
}

impl Statistics {
    /// Counts a trade.
    pub fn add(&mut self, price: u64, shares: u64) {
        self.trades += 1;
        self.shares = self.shares.saturating_add(shares);
        self.value = self.value.saturating_add(u128::from(price) * u128::from(shares));
    }

    /// Takes a broken trade out again.
    pub fn take_out(&mut self, price: u64, shares: u64) {
        self.broken += 1;
        self.trades = self.trades.saturating_sub(1);
        self.shares = self.shares.saturating_sub(shares);
        self.value = self.value.saturating_sub(u128::from(price) * u128::from(shares));
    }
}
