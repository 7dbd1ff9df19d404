//! A matching engine: one limit order book by price and time per stock, and ITCH 5.0 out.
//!
//! ```text
//!   Command --> Engine --> matching (enter, cancel, replace)  --> books --> Tape: messages in order
//!                     \--> cross (open, halt, resume, close)  -->   /
//! ```
//!
//! # Rules
//!
//! - The better price trades first, at one price the earlier order. A trade has the price of the order
//!   that rested.
//! - A stock is matched while it is [`Phase::Open`] only. Before, and while it is halted, orders rest,
//!   may cross each other, and can be changed and cancelled; the cross that follows uncrosses them
//!   ([`auction`]). So while a stock is open its book is neither crossed nor locked after any command.
//! - A replacement that only takes shares off keeps its place in time and its reference (`X`). Every
//!   other one is a new order behind those of its price, with a new reference: `U` when it rests whole,
//!   `D` and then the trades and an `A` or `F` of the rest when it trades at once.
//! - What a market or immediate order does not trade at once is gone, and never shown.
//! - Orders for a cross are not shown and cannot be cancelled; what the cross leaves of them is gone.
//!
//! Deterministic: the same commands give the same bytes. Written by the thread that owns the venue;
//! snapshots read it between two commands.

pub mod auction;
pub mod book;
mod cross;
mod matching;
pub mod orders;
mod state;

use crate::feed::Symbol;
use crate::feed::itch::messages::*;
use crate::feed::itch::{Code, Nanoseconds, Side, Text};
use auction::Interest;
use book::Book;
use orders::{Order, Orders};
use std::collections::VecDeque;

pub use state::{At, books_text, stock_text};

/// Every price is a multiple of it: one cent.
pub const TICK: u32 = 100;

/// Highest price, $199,999.99, the highest ITCH 5.0 has.
pub const PRICE_MAX: u32 = 1_999_999_900;

/// Most shares of one order.
pub const SHARES_MAX: u32 = 999_999;

/// Most stocks.
pub const STOCKS_MAX: usize = u16::MAX as usize;

/// The most recent matches that can still be broken.
const MATCHES_MAX: usize = 1 << 16;

/// A stock to trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StockSpec {
    /// Its symbol.
    pub symbol: Symbol,
    /// Yesterday's closing price: a multiple of [`TICK`] up to [`PRICE_MAX`], and not 0.
    pub reference_price: u32,
}

/// What may happen to a stock's orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before the opening cross: orders rest.
    Before,
    /// Orders are matched.
    Open,
    /// Orders rest.
    Halted,
    /// After the closing cross: orders can be cancelled.
    Closed,
}

/// How an order wants to trade. Prices are 1e-4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// At this price or better, today.
    Limit(u32),
    /// At this price or better, at once.
    Immediate(u32),
    /// At any price, at once.
    Market,
    /// In the opening cross, at this price or better, or at any.
    AtOpen(Option<u32>),
    /// The same in the closing cross.
    AtClose(Option<u32>),
}

/// An order to enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewOrder {
    /// Stock, from 1.
    pub locate: u16,
    /// Side.
    pub side: Side,
    /// Shares, 1 to [`SHARES_MAX`].
    pub shares: u32,
    /// How it wants to trade.
    pub kind: Kind,
    /// Participant to show with it.
    pub attribution: Option<Text<4>>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Announce a point of the day: `O S Q M E C`.
    System(u8),
    /// Enter an order.
    Enter(NewOrder),
    /// Take shares off an order; it is gone when it has no more than these.
    Cancel {
        /// The order.
        reference: u64,
        /// Shares, not 0.
        shares: u32,
    },
    /// Take an order out.
    Delete {
        /// The order.
        reference: u64,
    },
    /// Give an order other shares and another price.
    Replace {
        /// The order.
        reference: u64,
        /// Shares from now on.
        shares: u32,
        /// Price from now on.
        price: u32,
    },
    /// Opening cross, then matching.
    Open {
        /// The stock.
        locate: u16,
    },
    /// No matching until it is resumed.
    Halt {
        /// The stock.
        locate: u16,
    },
    /// Halt cross, then matching.
    Resume {
        /// The stock.
        locate: u16,
    },
    /// Closing cross, then nothing.
    Close {
        /// The stock.
        locate: u16,
    },
    /// Tell the imbalance before the next cross.
    Imbalance {
        /// The stock.
        locate: u16,
    },
    /// Break a trade. No book changes.
    Break {
        /// The match, one of the last 65,536.
        match_number: u64,
    },
}

/// What a command did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// Reference of the order that rests because of it.
    pub resting: Option<u64>,
    /// Shares traded.
    pub traded: u64,
}

/// Why a command did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// No such stock.
    #[error("no such stock")]
    UnknownStock,
    /// No such order, any more.
    #[error("no such order")]
    UnknownOrder,
    /// No such match, any more, or it is broken already.
    #[error("no such match")]
    UnknownMatch,
    /// Shares outside the limits.
    #[error("1 to {SHARES_MAX} shares")]
    Shares,
    /// A price outside the limits, or between two ticks.
    #[error("a price is a multiple of {TICK} from {TICK} to {PRICE_MAX}")]
    Price,
    /// Not in this phase of the stock's day.
    #[error("not in this phase of the day")]
    Phase,
}

/// Messages in order, one behind the other.
#[derive(Clone, Debug, Default)]
pub struct Tape {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Tape {
    /// Forgets all messages.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The messages, the earliest first.
    pub fn messages(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[*start..*end])
    }

    /// Appends a message.
    pub fn push(&mut self, message: &[u8]) {
        self.bytes.extend_from_slice(message);
        self.ends.push(self.bytes.len());
    }
}

/// One stock.
struct Stock {
    symbol: Symbol,
    phase: Phase,
    book: Book,
    /// Price of the last trade, or yesterday's.
    last_price: u32,
    /// Interest in the opening and the closing cross, in order of time, with its place in it.
    at_open: Vec<(u64, Interest)>,
    at_close: Vec<(u64, Interest)>,
    directory: [u8; StockDirectory::BYTES],
    trading_action: [u8; StockTradingAction::BYTES],
    reg_sho: [u8; RegShoRestriction::BYTES],
}

/// The engine.
pub struct Engine {
    orders: Orders,
    stocks: Vec<Stock>,
    system_event: Option<[u8; SystemEvent::BYTES]>,
    reference: u64,
    match_number: u64,
    place: u64,
    /// The last matches: whose they are, `None` once broken. The last is number `match_number`.
    matches: VecDeque<Option<u16>>,
    now: Nanoseconds,
}

impl Engine {
    /// The stocks with locates 1, 2, ... in this order; their directory, trading action and Reg SHO
    /// messages go to `tape`.
    ///
    /// Panics with no stock or more than [`STOCKS_MAX`], or with a reference price out of bounds.
    pub fn new(specs: &[StockSpec], now: Nanoseconds, tape: &mut Tape) -> Self {
        assert!((1..=STOCKS_MAX).contains(&specs.len()), "{} stocks", specs.len());
        let stocks: Vec<Stock> =
            (1..).zip(specs).map(|(locate, spec)| stock(locate, spec, now)).collect();
        stocks.iter().for_each(|stock| tape.push(&stock.directory));
        for stock in &stocks {
            tape.push(&stock.trading_action);
            tape.push(&stock.reg_sho);
        }
        Self {
            orders: Orders::default(),
            stocks,
            system_event: None,
            reference: 0,
            match_number: 0,
            place: 0,
            matches: VecDeque::with_capacity(MATCHES_MAX),
            now,
        }
    }

    /// Carries out a command at `now`, which never runs backwards. What it changed is appended to
    /// `tape`; a command that is rejected appends nothing.
    pub fn apply(
        &mut self,
        command: &Command,
        now: Nanoseconds,
        tape: &mut Tape,
    ) -> Result<Reply, Reject> {
        self.now = now;
        match *command {
            Command::System(code) => {
                let event = SystemEvent::encode(self.common(0), Code(code));
                self.system_event = Some(event);
                tape.push(&event);
                Ok(Reply::default())
            }
            Command::Enter(order) => self.enter(&order, tape),
            Command::Cancel { reference, shares } => self.cancel(reference, shares, tape),
            Command::Delete { reference } => self.delete(reference, tape),
            Command::Replace { reference, shares, price } => {
                self.replace(reference, shares, price, tape)
            }
            Command::Open { locate } => self.open(locate, tape),
            Command::Halt { locate } => self.halt(locate, tape),
            Command::Resume { locate } => self.resume(locate, tape),
            Command::Close { locate } => self.close(locate, tape),
            Command::Imbalance { locate } => self.imbalance(locate, tape),
            Command::Break { match_number } => self.break_trade(match_number, tape),
        }
    }

    /// How many stocks there are; their locates are 1 to this.
    pub fn stock_count(&self) -> u16 {
        self.stocks.len() as u16
    }

    /// How many orders rest in all books.
    pub fn order_count(&self) -> usize {
        self.orders.len()
    }

    /// The live order of this reference.
    pub fn order(&self, reference: u64) -> Option<&Order> {
        self.orders.find(reference).map(|handle| self.orders.get(handle))
    }

    /// The orders of one side in the order in which they trade.
    ///
    /// Panics when there is no such stock, as do the following.
    pub fn orders(&self, locate: u16, side: Side) -> impl Iterator<Item = &Order> {
        self.stock(locate).book.orders(side, &self.orders)
    }

    /// A stock's book.
    pub fn book(&self, locate: u16) -> &Book {
        &self.stock(locate).book
    }

    /// A stock's symbol.
    pub fn symbol(&self, locate: u16) -> Symbol {
        self.stock(locate).symbol
    }

    /// Where a stock's day stands.
    pub fn phase(&self, locate: u16) -> Phase {
        self.stock(locate).phase
    }

    /// Price of a stock's last trade, or yesterday's.
    pub fn last_price(&self, locate: u16) -> u32 {
        self.stock(locate).last_price
    }

    /// Number of the last match, 0 before the first.
    pub fn last_match(&self) -> u64 {
        self.match_number
    }

    fn stock(&self, locate: u16) -> &Stock {
        &self.stocks[usize::from(locate) - 1]
    }

    /// The stock of a locate that [`Self::index`] has accepted.
    fn stock_mut(&mut self, locate: u16) -> &mut Stock {
        &mut self.stocks[usize::from(locate) - 1]
    }

    fn check_locate(&self, locate: u16) -> Result<(), Reject> {
        match (1..=self.stocks.len()).contains(&usize::from(locate)) {
            true => Ok(()),
            false => Err(Reject::UnknownStock),
        }
    }

    fn common(&self, locate: u16) -> Common {
        Common { stock_locate: locate, tracking_number: 0, timestamp: self.now }
    }

    fn next_place(&mut self) -> u64 {
        self.place += 1;
        self.place
    }

    fn next_reference(&mut self) -> u64 {
        self.reference += 1;
        self.reference
    }

    /// A new match of this stock.
    fn next_match(&mut self, locate: u16) -> u64 {
        if self.matches.len() == MATCHES_MAX {
            self.matches.pop_front();
        }
        self.matches.push_back(Some(locate));
        self.match_number += 1;
        self.match_number
    }

    fn break_trade(&mut self, match_number: u64, tape: &mut Tape) -> Result<Reply, Reject> {
        let before_first = self.match_number - self.matches.len() as u64;
        let index = match_number.checked_sub(before_first + 1).ok_or(Reject::UnknownMatch)?;
        let locate = usize::try_from(index)
            .ok()
            .and_then(|index| self.matches.get_mut(index))
            .and_then(Option::take)
            .ok_or(Reject::UnknownMatch)?;
        tape.push(&BrokenTrade::encode(self.common(locate), match_number));
        Ok(Reply::default())
    }
}

fn stock(locate: u16, spec: &StockSpec, now: Nanoseconds) -> Stock {
    let StockSpec { symbol, reference_price } = *spec;
    let is_price = matching::check_price(reference_price).is_ok();
    assert!(is_price, "{symbol}: reference price {reference_price}");
    let common = Common { stock_locate: locate, tracking_number: 0, timestamp: now };
    Stock {
        symbol,
        phase: Phase::Before,
        book: Book::default(),
        last_price: reference_price,
        at_open: Vec::new(),
        at_close: Vec::new(),
        directory: StockDirectory::encode(
            common,
            symbol,
            Code(b'Q'),
            Code(b'N'),
            100,
            Code(b'N'),
            Code(b'C'),
            Text(*b"Z "),
            Code(b'T'),
            Code(b'N'),
            Code(b'N'),
            Code(b'1'),
            Code(b'N'),
            0,
            Code(b'N'),
        ),
        trading_action: cross::trading_action(common, symbol, b'Q', *b"    "),
        reg_sho: RegShoRestriction::encode(common, symbol, Code(b'0')),
    }
}

#[cfg(test)]
mod tests;
