//! C1: a day of ITCH 5.0, and what it is decoded and kept by: ours, `itch5`, `itchy`, and a plain book
//! of std maps.
//!
//! ```text
//!   day.rs --> BinaryFILE --> theirs.rs (itch5, itchy) --> plain_book.rs
//!          \-> packets    --> ours.rs (the product's own framing, decoder, books)
//! ```

pub mod day;
pub mod ours;
pub mod plain_book;
pub mod theirs;

/// What a decoder read, added up so that nothing can be left out: every number, symbol, attribution,
/// side and printable flag of every message. The same of every decoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Adds a number.
    #[inline(always)]
    pub fn add(&mut self, value: impl Into<u64>) {
        self.0 = self.0.wrapping_add(value.into());
    }

    /// Adds the fields all messages share.
    #[inline(always)]
    pub fn add_common(&mut self, locate: u16, tracking: u16, timestamp_ns: u64) {
        self.add(locate);
        self.add(tracking);
        self.add(timestamp_ns);
    }

    /// Adds text of four bytes.
    #[inline(always)]
    pub fn add_text4(&mut self, text: [u8; 4]) {
        self.add(u32::from_be_bytes(text));
    }

    /// Adds text of eight bytes.
    #[inline(always)]
    pub fn add_symbol(&mut self, symbol: [u8; 8]) {
        self.add(u64::from_be_bytes(symbol));
    }
}

/// Best bid and offer of every stock and all that rests, added up: price, orders, shares of each best
/// level, then orders and levels over all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BookSum {
    /// Over the best levels, each weighted by its stock.
    pub best: u64,
    /// Live orders.
    pub orders: u64,
    /// Price levels.
    pub levels: u64,
}

impl BookSum {
    /// Adds a best level.
    pub fn add_best(&mut self, locate: u16, price: u32, orders: u32, shares: u64) {
        let level = (u64::from(price) << 32) ^ (u64::from(orders) << 20) ^ shares;
        self.best = self.best.wrapping_add(level.wrapping_mul(2 * u64::from(locate) + 1));
    }
}
