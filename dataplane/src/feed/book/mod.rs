//! Books by order: one per stock locate, all of a channel in one table of orders and one pool of
//! levels. Capacity is chosen at start; nothing is allocated afterwards.
//!
//! ```text
//!   message --> orders (by reference) --> levels (by price, best first) --> best bid/offer
//!                                    \--> last trade
//! ```
//!
//! Written by the worker that owns the channel. Messages are applied as they are: an order that was
//! never added, a reference used twice, an execution of more than was left are counted, and the book
//! goes on. A count is not a reason to distrust the book, a lack of room is; [`Problem::spoils`]
//! tells them apart.

pub mod levels;
pub mod orders;

use super::Symbol;
use super::itch::{Message, Side};
use levels::{LevelList, Levels};
use orders::{InsertError, Order, Orders};

pub use levels::Level;

/// Stock locates are 16 bits.
const LOCATES: usize = 1 << 16;

/// How much a channel's books may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BookLimits {
    /// Live orders. Too low: the channel turns suspect on a busy day. Too high: memory, 48 bytes each
    /// (24 a slot, the table being at most two thirds full).
    pub orders_max: u32,
    /// Price levels over all books and both sides. Same failure, 48 bytes each.
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
}

impl Problem {
    /// Whether the book is no longer what the venue's is.
    pub fn spoils(self) -> bool {
        matches!(self, Self::BadSide | Self::SymbolConflict | Self::OrdersFull | Self::LevelsFull)
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

#[derive(Clone, Copy)]
struct Book {
    lists: [LevelList; 2],
    symbol: Option<Symbol>,
    last: Option<LastTrade>,
    epoch: u32,
}

/// The books of one channel.
pub struct Books {
    orders: Orders,
    levels: Levels,
    books: Box<[Book]>,
    book_count: u32,
    epoch: u32,
}

impl Books {
    /// Empty books. Allocates all there will ever be and touches it.
    pub fn new(limits: BookLimits) -> Self {
        let lists = [LevelList::new(Side::Buy), LevelList::new(Side::Sell)];
        let book = Book { lists, symbol: None, last: None, epoch: 0 };
        Self {
            orders: Orders::new(limits.orders_max, limits.hash_seed),
            levels: Levels::new(limits.levels_max),
            books: vec![book; LOCATES].into_boxed_slice(),
            book_count: 0,
            epoch: 1,
        }
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

    /// Best bid and offer.
    pub fn bbo(&self, locate: u16) -> Bbo {
        Bbo {
            bid: self.levels(locate, Side::Buy).next().copied(),
            ask: self.levels(locate, Side::Sell).next().copied(),
        }
    }

    /// The last trade of this session.
    pub fn last_trade(&self, locate: u16) -> Option<LastTrade> {
        self.book(locate).and_then(|book| book.last)
    }

    /// The levels of one side, best first.
    pub fn levels(&self, locate: u16, side: Side) -> impl Iterator<Item = &Level> {
        let list = self.book(locate).map(|book| &book.lists[side as usize]);
        list.into_iter().flat_map(|list| self.levels.iter(list))
    }

    /// Applies one message. What could not be done is the second value; the first is what was done all
    /// the same.
    pub fn apply(&mut self, message: &Message<'_>) -> (Effect, Option<Problem>) {
        let locate = message.common().stock_locate;
        let mut effect = Effect { locate, ..Effect::default() };
        let problem = self.dispatch(message, &mut effect).err();
        (effect, problem)
    }

    fn dispatch(&mut self, message: &Message<'_>, effect: &mut Effect) -> Result<(), Problem> {
        let common = message.common();
        let locate = common.stock_locate;
        match message {
            Message::AddOrder(add) => {
                self.name(locate, add.stock())?;
                let side = Side::from_code(add.side()).ok_or(Problem::BadSide)?;
                self.add(locate, side, add.order(), add.price().0, add.shares(), effect)
            }
            Message::AddOrderAttributed(add) => {
                self.name(locate, add.stock())?;
                let side = Side::from_code(add.side()).ok_or(Problem::BadSide)?;
                self.add(locate, side, add.order(), add.price().0, add.shares(), effect)
            }
            Message::OrderExecuted(execution) => {
                let order = *self.orders.get(execution.order()).ok_or(Problem::UnknownOrder)?;
                let reduced = self.reduce(execution.order(), execution.shares(), effect);
                if execution.shares() != 0 {
                    self.trade(
                        order.locate,
                        effect,
                        LastTrade {
                            kind: b'E',
                            side: Some(order.side),
                            broken: false,
                            price: order.price,
                            shares: u64::from(execution.shares()),
                            match_number: execution.match_number(),
                            exchange_ns: common.timestamp.0,
                        },
                    );
                }
                reduced
            }
            Message::OrderExecutedWithPrice(execution) => {
                let order = self.orders.get(execution.order()).copied();
                let reduced = self.reduce(execution.order(), execution.shares(), effect);
                // An execution that is not printable comes again in the bulk of a cross.
                if execution.shares() != 0 && execution.printable().0 == b'Y' {
                    self.trade(
                        order.map_or(locate, |order| order.locate),
                        effect,
                        LastTrade {
                            kind: b'C',
                            side: order.map(|order| order.side),
                            broken: false,
                            price: execution.price().0,
                            shares: u64::from(execution.shares()),
                            match_number: execution.match_number(),
                            exchange_ns: common.timestamp.0,
                        },
                    );
                }
                reduced
            }
            Message::OrderCancel(cancel) => self.reduce(cancel.order(), cancel.shares(), effect),
            Message::OrderDelete(delete) => self.delete(delete.order(), effect).map(|_| ()),
            Message::OrderReplace(replace) => {
                let old = self.delete(replace.order(), effect)?;
                let (new, price) = (replace.new_order(), replace.price().0);
                self.add(old.locate, old.side, new, price, replace.shares(), effect)
            }
            Message::Trade(trade) => {
                self.name(locate, trade.stock())?;
                if trade.shares() == 0 {
                    return Err(Problem::ZeroShares);
                }
                self.trade(
                    locate,
                    effect,
                    LastTrade {
                        kind: b'P',
                        side: Side::from_code(trade.side()),
                        broken: false,
                        price: trade.price().0,
                        shares: u64::from(trade.shares()),
                        match_number: trade.match_number(),
                        exchange_ns: common.timestamp.0,
                    },
                );
                Ok(())
            }
            Message::CrossTrade(cross) => {
                self.name(locate, cross.stock())?;
                // A cross in which nothing matched is sent all the same, with 0 shares.
                if cross.shares() != 0 {
                    self.trade(
                        locate,
                        effect,
                        LastTrade {
                            kind: b'Q',
                            side: None,
                            broken: false,
                            price: cross.price().0,
                            shares: cross.shares(),
                            match_number: cross.match_number(),
                            exchange_ns: common.timestamp.0,
                        },
                    );
                }
                Ok(())
            }
            Message::BrokenTrade(broken) => {
                let book = self.book_mut(locate);
                if let Some(last) = &mut book.last
                    && last.match_number == broken.match_number()
                    && !last.broken
                {
                    last.broken = true;
                    effect.trade = true;
                }
                Ok(())
            }
            Message::StockDirectory(directory) => self.name(locate, directory.stock()),
            Message::StockTradingAction(action) => self.name(locate, action.stock()),
            Message::RegShoRestriction(restriction) => self.name(locate, restriction.stock()),
            Message::MarketParticipantPosition(position) => self.name(locate, position.stock()),
            Message::IpoQuotingPeriod(period) => self.name(locate, period.stock()),
            Message::LuldAuctionCollar(collar) => self.name(locate, collar.stock()),
            Message::OperationalHalt(halt) => self.name(locate, halt.stock()),
            Message::NetOrderImbalance(imbalance) => self.name(locate, imbalance.stock()),
            Message::RetailInterest(interest) => self.name(locate, interest.stock()),
            Message::DirectListing(listing) => self.name(locate, listing.stock()),
            Message::SystemEvent(_) | Message::MwcbDeclineLevel(_) | Message::MwcbStatus(_) => {
                Ok(())
            }
        }
    }

    /// Learns which symbol a stock locate stands for.
    fn name(&mut self, locate: u16, symbol: Symbol) -> Result<(), Problem> {
        let known = self.book_mut(locate).symbol.get_or_insert(symbol);
        if *known == symbol { Ok(()) } else { Err(Problem::SymbolConflict) }
    }

    fn add(
        &mut self,
        locate: u16,
        side: Side,
        reference: u64,
        price: u32,
        shares: u32,
        effect: &mut Effect,
    ) -> Result<(), Problem> {
        if shares == 0 {
            return Err(Problem::ZeroShares);
        }
        self.orders.accepts(reference).map_err(|error| match error {
            InsertError::Duplicate => Problem::DuplicateOrder,
            InsertError::Full => Problem::OrdersFull,
        })?;
        self.book_mut(locate);
        let list = &mut self.books[usize::from(locate)].lists[side as usize];
        let level = self.levels.add(list, price, shares).ok_or(Problem::LevelsFull)?;
        let stored = self.orders.insert(Order { reference, price, shares, level, locate, side });
        debug_assert_eq!(stored, Ok(()));
        effect.book = true;
        Ok(())
    }

    fn reduce(&mut self, reference: u64, shares: u32, effect: &mut Effect) -> Result<(), Problem> {
        let order = *self.orders.get(reference).ok_or(Problem::UnknownOrder)?;
        if shares == 0 {
            return Err(Problem::ZeroShares);
        }
        if shares < order.shares {
            self.orders.set_shares(reference, order.shares - shares);
            self.levels.reduce(order.level, shares);
            (effect.locate, effect.book) = (order.locate, true);
            return Ok(());
        }
        self.delete(reference, effect)?;
        if shares > order.shares { Err(Problem::OverReduction) } else { Ok(()) }
    }

    fn delete(&mut self, reference: u64, effect: &mut Effect) -> Result<Order, Problem> {
        let order = self.orders.remove(reference).ok_or(Problem::UnknownOrder)?;
        let list = &mut self.books[usize::from(order.locate)].lists[order.side as usize];
        self.levels.remove(list, order.level, order.shares);
        (effect.locate, effect.book) = (order.locate, true);
        Ok(order)
    }

    fn trade(&mut self, locate: u16, effect: &mut Effect, trade: LastTrade) {
        self.book_mut(locate).last = Some(trade);
        effect.trade = true;
    }

    fn book(&self, locate: u16) -> Option<&Book> {
        let book = &self.books[usize::from(locate)];
        (book.epoch == self.epoch).then_some(book)
    }

    fn book_mut(&mut self, locate: u16) -> &mut Book {
        let book = &mut self.books[usize::from(locate)];
        if book.epoch != self.epoch {
            let lists = [LevelList::new(Side::Buy), LevelList::new(Side::Sell)];
            *book = Book { lists, symbol: None, last: None, epoch: self.epoch };
            self.book_count += 1;
        }
        book
    }
}
