//! Best bid and offer and last trade of every stock of a channel, by its symbol.
//!
//! ```text
//!   symbol --> index (open addressing) --> place, 0.. in the order in which stocks are heard of
//!                                            |
//!                                          slot: symbol, quote, last trade
//! ```
//!
//! TOPS numbers no stocks, so a place is what a stock locate is elsewhere, for one session. Fixed memory; nothing
//! is allocated after start. Written by the worker that owns the channel.

use crate::feed::Symbol;

/// Stocks of one session. Too low: the channel is suspect once there are more. Too high: memory, some 150
/// bytes each.
pub const STOCKS_MAX: usize = 1 << 16;

/// Twice the stocks, so that a probe ends soon.
const INDEX_ENTRIES: usize = 2 * STOCKS_MAX;

/// The best bid and offer of a stock. A side without orders has price and size 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quote {
    /// Best bid, 1e-4.
    pub bid_price: u64,
    /// Best offer, 1e-4.
    pub ask_price: u64,
    /// Shares at the best bid.
    pub bid_size: u32,
    /// Shares at the best offer.
    pub ask_size: u32,
    /// Halted, paused, or for another reason not to be traded at the venue.
    pub is_unavailable: bool,
    /// Before or after the regular market session.
    pub is_off_hours: bool,
}

impl Quote {
    /// Whether the best bid is not below the best offer.
    pub fn is_crossed(&self) -> bool {
        self.bid_size != 0 && self.ask_size != 0 && self.bid_price >= self.ask_price
    }
}

/// A trade of a stock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopsTrade {
    /// Price, 1e-4.
    pub price: u64,
    /// Shares.
    pub size: u32,
    /// As in [`super::tops::TradeReport::conditions`].
    pub conditions: u8,
    /// The venue has broken it.
    pub broken: bool,
    /// Its number.
    pub trade_id: u64,
    /// When, nanoseconds since midnight of the exchange's day.
    pub exchange_ns: u64,
}

#[derive(Clone, Copy)]
struct Slot {
    symbol: Symbol,
    quote: Quote,
    trade: Option<TopsTrade>,
}

#[derive(Clone, Copy)]
struct Entry {
    symbol: u64,
    epoch: u32,
    place: u16,
}

/// The quotes of one channel.
pub struct Quotes {
    index: Box<[Entry]>,
    slots: Box<[Slot]>,
    count: usize,
    epoch: u32,
    seed: u64,
}

impl Quotes {
    /// Bytes taken at start.
    pub const BYTES: u64 =
        (INDEX_ENTRIES * size_of::<Entry>() + STOCKS_MAX * size_of::<Slot>()) as u64;

    /// No stock. Allocates all there will ever be and touches it; `seed` makes the places of symbols in the index
    /// unpredictable to a sender.
    pub fn new(seed: u64) -> Self {
        // Not all zero, so that the pages are written here and not faulted in by the run loop.
        let entry = Entry { symbol: 1, epoch: 0, place: 0 };
        let slot = Slot { symbol: Symbol([b' '; 8]), quote: Quote::default(), trade: None };
        Self {
            index: vec![entry; INDEX_ENTRIES].into_boxed_slice(),
            slots: vec![slot; STOCKS_MAX].into_boxed_slice(),
            count: 0,
            epoch: 1,
            seed,
        }
    }

    /// Forgets every stock.
    pub fn clear(&mut self) {
        self.count = 0;
        self.epoch += 1;
    }

    /// Stocks heard of in this session.
    pub fn len(&self) -> u32 {
        self.count as u32
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The place of a stock, which is given one if it has none; `None` when there is no more.
    pub fn place_of(&mut self, symbol: Symbol) -> Option<u16> {
        let at = self.probe(symbol);
        let entry = &mut self.index[at];
        if entry.epoch == self.epoch {
            return Some(entry.place);
        }
        let place = u16::try_from(self.count).ok()?;
        *entry = Entry { symbol: u64::from_le_bytes(symbol.0), epoch: self.epoch, place };
        self.slots[self.count] = Slot { symbol, quote: Quote::default(), trade: None };
        self.count += 1;
        Some(place)
    }

    /// The place of a stock that has one.
    pub fn find(&self, symbol: Symbol) -> Option<u16> {
        let entry = &self.index[self.probe(symbol)];
        (entry.epoch == self.epoch).then_some(entry.place)
    }

    /// The symbol in a place.
    pub fn symbol(&self, place: u16) -> Option<Symbol> {
        self.slot(place).map(|slot| slot.symbol)
    }

    /// The best bid and offer in a place; nothing where nothing was said.
    pub fn quote(&self, place: u16) -> Quote {
        self.slot(place).map_or_else(Quote::default, |slot| slot.quote)
    }

    /// The last trade in a place.
    pub fn trade(&self, place: u16) -> Option<TopsTrade> {
        self.slot(place).and_then(|slot| slot.trade)
    }

    /// A quote update for a place that [`Self::place_of`] has given.
    pub fn set_quote(&mut self, place: u16, quote: Quote) {
        self.slots[usize::from(place)].quote = quote;
    }

    /// A trade in such a place.
    pub fn set_trade(&mut self, place: u16, trade: TopsTrade) {
        self.slots[usize::from(place)].trade = Some(trade);
    }

    fn slot(&self, place: u16) -> Option<&Slot> {
        self.slots[..self.count].get(usize::from(place))
    }

    /// Where a symbol lies in the index, or would.
    fn probe(&self, symbol: Symbol) -> usize {
        let symbol = u64::from_le_bytes(symbol.0);
        let mixed = (symbol ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mut at = (mixed >> 32) as usize % INDEX_ENTRIES;
        // Ends: at most half of the entries are of this epoch.
        while self.index[at].epoch == self.epoch && self.index[at].symbol != symbol {
            at = (at + 1) % INDEX_ENTRIES;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(number: u64) -> Symbol {
        Symbol(number.to_le_bytes())
    }

    #[test]
    fn each_stock_has_a_place_of_its_own_until_the_session_is_over() {
        let mut quotes = Quotes::new(7);
        for number in 0..STOCKS_MAX as u64 {
            assert_eq!(quotes.find(symbol(number)), None);
            assert_eq!(quotes.place_of(symbol(number)), Some(number as u16));
        }
        assert_eq!(quotes.place_of(symbol(1 << 40)), None, "no more places");
        for number in 0..STOCKS_MAX as u64 {
            assert_eq!(quotes.place_of(symbol(number)), Some(number as u16));
            assert_eq!(quotes.symbol(number as u16), Some(symbol(number)));
        }
        let quote = Quote { bid_price: 1, bid_size: 2, ..Quote::default() };
        quotes.set_quote(3, quote);
        quotes.set_trade(3, TopsTrade { price: 9, ..TopsTrade::default() });
        assert_eq!((quotes.quote(3), quotes.trade(3).unwrap().price), (quote, 9));
        assert_eq!((quotes.quote(4), quotes.trade(4)), (Quote::default(), None));

        quotes.clear();
        assert_eq!((quotes.len(), quotes.symbol(3), quotes.quote(3)), (0, None, Quote::default()));
        assert_eq!(quotes.place_of(symbol(9)), Some(0));
        assert_eq!((quotes.quote(0), quotes.trade(0)), (Quote::default(), None));
    }

    #[test]
    fn a_quote_is_crossed_only_where_both_sides_are_there() {
        let quote =
            Quote { bid_price: 10, ask_price: 9, bid_size: 1, ask_size: 1, ..Quote::default() };
        assert!(quote.is_crossed());
        assert!(Quote { ask_price: 10, ..quote }.is_crossed(), "locked");
        assert!(!Quote { ask_price: 11, ..quote }.is_crossed());
        assert!(!Quote { ask_price: 0, ask_size: 0, ..quote }.is_crossed());
    }
}
