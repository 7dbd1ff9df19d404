//! Books by order: one per stock locate, all of a channel in one pool of orders and one of levels.
//! Capacity is chosen at start; nothing is allocated afterwards.
//!
//! ```text
//!   message --> index (by reference) --> order <--> its queue          --> place in it
//!                                          |
//!                                        level (price, orders, shares) --> depth
//!                                          |
//!                                        ladder of the book and side   --> best bid/offer
//! ```
//!
//! Orders of a level stand in time priority. An order that is executed or cancelled in part keeps its
//! place; one that is replaced goes to the end of its new level, whatever the price.
//!
//! Written by the worker that owns the channel. Messages are applied as they are: an order that was
//! never added, a reference used twice, an execution of more than was left are counted, and the book
//! goes on. A count is not a reason to distrust the book, a lack of room is; [`Problem::spoils`]
//! tells them apart.

mod ahead;
mod apply;
pub mod index;
pub mod ladder;
pub mod levels;
pub mod orders;
mod walk;

use super::Symbol;
use super::itch::Side;
use ladder::Ladder;
use levels::Levels;
use orders::Orders;

pub use ahead::AHEAD_MAX;
pub use levels::Level;
pub use orders::Order;
pub use walk::{Step, Walk};

/// Stock locates are 16 bits.
const LOCATES: usize = 1 << 16;

/// How much a channel's books may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BookLimits {
    /// Live orders, at most [`index::PLACES_MAX`]. Too low: the channel turns suspect on a busy day. Too
    /// high: memory, 32 bytes each and 8 an entry of the index, which is at most two thirds full.
    pub orders_max: u32,
    /// Price levels over all books and both sides. Same failure, 64 bytes each.
    pub levels_max: u32,
    /// Makes the order table's probes unpredictable to a sender; any value.
    pub hash_seed: u64,
}

/// The last trade of one stock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastTrade {
    /// Message type it came from: `E`, `C`, `P` or `Q`.
    pub kind: u8,
    /// Side of the resting order; `None` for a cross.
    pub side: Option<Side>,
    /// Whether a broken-trade message named it later.
    pub broken: bool,
    /// Price, 1e-4.
    pub price: u32,
    /// Shares.
    pub shares: u64,
    /// Match number of the day.
    pub match_number: u64,
    /// Exchange time, nanoseconds since midnight.
    pub exchange_ns: u64,
}

/// What a message could not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The order is not in the book.
    UnknownOrder,
    /// The reference of a new order is in use; the new order is ignored.
    DuplicateOrder,
    /// More shares executed or cancelled than were left; the order is gone.
    OverReduction,
    /// An order, execution or cancel of 0 shares; ignored.
    ZeroShares,
    /// Neither `B` nor `S`; ignored.
    BadSide,
    /// The stock locate belongs to another symbol; ignored.
    SymbolConflict,
    /// No room for the order.
    OrdersFull,
    /// No room for its price.
    LevelsFull,
    /// No room for another stock.
    BooksFull,
}

impl Problem {
    /// Whether the book is no longer what the venue's is.
    pub fn spoils(self) -> bool {
        match self {
            Self::BadSide
            | Self::SymbolConflict
            | Self::OrdersFull
            | Self::LevelsFull
            | Self::BooksFull => true,
            Self::UnknownOrder | Self::DuplicateOrder | Self::OverReduction | Self::ZeroShares => {
                false
            }
        }
    }
}

/// What one message did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Whose book: that of the order if there is one, else the message's own.
    pub locate: u16,
    /// Levels may have changed.
    pub book: bool,
    /// The last trade changed.
    pub trade: bool,
}

/// Best bid and offer. A side without orders is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bbo {
    /// Highest price to buy at.
    pub bid: Option<Level>,
    /// Lowest price to sell at.
    pub ask: Option<Level>,
}

impl Bbo {
    /// Whether the best bid is not below the best offer.
    pub fn is_crossed(&self) -> bool {
        matches!((self.bid, self.ask), (Some(bid), Some(ask)) if bid.price >= ask.price)
    }
}

/// Where an order stands in the queue of its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuePosition {
    /// The order itself.
    pub order: Order,
    /// Orders that trade before it at its price.
    pub orders_ahead: u32,
    /// Their shares.
    pub shares_ahead: u64,
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Book {
    symbol: Option<Symbol>,
    epoch: u32,
    ladders: [Ladder; 2],
}

/// The books of one channel.
pub struct Books {
    orders: Orders,
    levels: Levels,
    books: Box<[Book]>,
    /// Last trade by locate; only of this session where the book is.
    trades: Box<[Option<LastTrade>]>,
    book_count: u32,
    epoch: u32,
}

impl Books {
    /// Bytes that books of these limits take at start.
    pub const fn bytes_for(limits: &BookLimits) -> u64 {
        Orders::bytes_for(limits.orders_max)
            + Levels::bytes_for(limits.levels_max)
            + (LOCATES * (size_of::<Book>() + size_of::<Option<LastTrade>>())) as u64
    }

    /// Empty books. Allocates all there will ever be and touches it.
    pub fn new(limits: BookLimits) -> Self {
        let book = Book { symbol: None, epoch: 0, ladders: [Ladder::EMPTY; 2] };
        // Not all zero, so that the pages are written here and not faulted in by the run loop.
        let trade = LastTrade {
            kind: b'P',
            side: None,
            broken: false,
            price: 0,
            shares: 0,
            match_number: 0,
            exchange_ns: 0,
        };
        Self {
            orders: Orders::new(limits.orders_max, limits.hash_seed),
            levels: Levels::new(limits.levels_max),
            books: vec![book; LOCATES].into_boxed_slice(),
            trades: vec![Some(trade); LOCATES].into_boxed_slice(),
            book_count: 0,
            epoch: 1,
        }
    }

    /// Of a channel whose protocol has no orders: they know no stock, and no message may be applied.
    pub fn none() -> Self {
        Self {
            orders: Orders::new(1, 0),
            levels: Levels::new(1),
            books: Box::default(),
            trades: Box::default(),
            book_count: 0,
            epoch: 1,
        }
    }

    /// Bytes that books of these limits take.
    pub const fn memory_bytes(limits: &BookLimits) -> u64 {
        let of_stocks = LOCATES * (size_of::<Book>() + size_of::<Option<LastTrade>>());
        Orders::memory_bytes(limits.orders_max)
            + Levels::memory_bytes(limits.levels_max)
            + of_stocks as u64
    }

    /// Forgets everything: a new session begins. Takes no time that depends on the books' size.
    pub fn clear(&mut self) {
        self.orders.clear();
        self.levels.clear();
        self.book_count = 0;
        self.epoch += 1;
    }

    /// Stock locates heard of in this session.
    pub fn book_count(&self) -> u32 {
        self.book_count
    }

    /// Live orders over all books.
    pub fn order_count(&self) -> u32 {
        self.orders.len()
    }

    /// Price levels over all books.
    pub fn level_count(&self) -> u32 {
        self.levels.len()
    }

    /// The symbol this stock locate stands for in this session.
    pub fn symbol(&self, locate: u16) -> Option<Symbol> {
        self.book(locate).and_then(|book| book.symbol)
    }

    /// Every stock locate of this session whose symbol is known, in the order of their numbers.
    pub fn symbols(&self) -> impl Iterator<Item = (u16, Symbol)> {
        (0..=u16::MAX).filter_map(|locate| Some((locate, self.symbol(locate)?)))
    }

    /// Best bid and offer.
    pub fn bbo(&self, locate: u16) -> Bbo {
        let best = |book: &Book, side| {
            book.ladders[side as usize].best().map(|handle| *self.levels.get(handle))
        };
        self.book(locate).map_or_else(Bbo::default, |book| Bbo {
            bid: best(book, Side::Buy),
            ask: best(book, Side::Sell),
        })
    }

    /// The last trade of this session.
    pub fn last_trade(&self, locate: u16) -> Option<LastTrade> {
        self.book(locate).and_then(|_| self.trades[usize::from(locate)])
    }

    /// The levels of one side, best first.
    pub fn levels(&self, locate: u16, side: Side) -> impl Iterator<Item = &Level> {
        self.handles(locate, side).map(|handle| self.levels.get(handle))
    }

    /// The orders of one side in the order in which they would trade: best level first, in each the
    /// oldest first.
    pub fn orders(&self, locate: u16, side: Side) -> impl Iterator<Item = &Order> {
        self.handles(locate, side)
            .flat_map(|handle| self.orders.queue(self.levels.first_order(handle)))
    }

    /// The live order of this reference.
    pub fn order(&self, reference: u64) -> Option<&Order> {
        self.orders.find(reference).map(|found| self.orders.get(found.place))
    }

    /// Where an order stands. Takes as many steps as orders stand before it.
    pub fn queue_position(&self, reference: u64) -> Option<QueuePosition> {
        let place = self.orders.find(reference)?.place;
        let (mut orders_ahead, mut shares_ahead) = (0, 0);
        for ahead in self.orders.ahead_of(place) {
            orders_ahead += 1;
            shares_ahead += u64::from(ahead.shares);
        }
        Some(QueuePosition { order: *self.orders.get(place), orders_ahead, shares_ahead })
    }

    fn handles(&self, locate: u16, side: Side) -> impl Iterator<Item = u32> {
        let ladder = self.book(locate).map(|book| &book.ladders[side as usize]);
        ladder.into_iter().flat_map(|ladder| ladder.iter(&self.levels))
    }

    #[inline(always)]
    fn book(&self, locate: u16) -> Option<&Book> {
        self.books.get(usize::from(locate)).filter(|book| book.epoch == self.epoch)
    }

    #[inline(always)]
    fn book_mut(&mut self, locate: u16) -> &mut Book {
        if self.books[usize::from(locate)].epoch != self.epoch {
            self.begin_book(locate);
        }
        &mut self.books[usize::from(locate)]
    }

    #[inline(never)]
    fn begin_book(&mut self, locate: u16) {
        let at = usize::from(locate);
        self.books[at] = Book { symbol: None, epoch: self.epoch, ladders: [Ladder::EMPTY; 2] };
        self.trades[at] = None;
        self.book_count += 1;
    }
}
