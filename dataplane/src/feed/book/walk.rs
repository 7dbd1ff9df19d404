//! A walk over every order of all books, some at a time, while the books go on changing.
//!
//! ```text
//!   stock, side, price        passed: every order that rests there is known to whoever walks
//!   1 B 9.95  o o o
//!   1 B 9.94  o o [last] . .  <- the walk     passed as far as `last`; who comes now joins the queue behind it
//!   1 B 9.93  . .             not passed: told when the walk comes there, as it is then
//! ```
//!
//! Orders come stock by stock, bids before offers, the best price first and of a price the oldest first: as they
//! would trade. A change of what was passed is to be told by whoever makes it; of what was not, not.
//! Each step takes a bounded time.

use super::ladder::key;
use super::orders::{NONE, Order};
use super::{Books, LOCATES};
use crate::feed::itch::Side;

/// Where a walk stands. Of one [`Books`], since it was cleared last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// The stock, above all locates at the end.
    locate: u32,
    /// It has been told.
    is_told: bool,
    side: Side,
    /// Levels before this key are passed. Above every key when all are.
    key: u64,
    /// Place of the last order passed of the level of that key, [`NONE`] for none.
    last: u32,
}

/// What one step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A stock, before its orders.
    Stock(u16),
    /// The next order.
    Order(&'a Order),
    /// Nothing: the end of a level, a side, or a stock.
    Nothing,
    /// Everything is passed.
    Over,
}

impl Default for Walk {
    fn default() -> Self {
        Self { locate: 0, is_told: false, side: Side::Buy, key: 0, last: NONE }
    }
}

impl Walk {
    /// Whether an order that is put behind the others of this price rests among those that were passed.
    #[inline]
    pub fn has_passed(&self, locate: u16, side: Side, price: u32) -> bool {
        let there = (u32::from(locate), side as u8, u64::from(key(side, price)));
        there < (self.locate, self.side as u8, self.key)
    }

    /// An order is about to be taken out of the books.
    #[inline]
    pub fn note_removal(&mut self, books: &Books, reference: u64) {
        if self.last != NONE
            && let Some(found) = books.orders.find(reference)
            && found.place == self.last
        {
            self.last = books.orders.previous(found.place);
        }
    }

    /// Goes on to the next order, or some way towards it.
    pub fn step<'a>(&mut self, books: &'a Books) -> Step<'a> {
        let Some(locate) = u16::try_from(self.locate).ok().filter(|_| self.locate < LOCATES as u32)
        else {
            return Step::Over;
        };
        let Some(book) = books.book(locate) else {
            *self = Self { locate: self.locate + 1, ..Self::default() };
            return Step::Nothing;
        };
        if !self.is_told {
            self.is_told = true;
            return Step::Stock(locate);
        }
        if self.last != NONE {
            match books.orders.next(self.last) {
                NONE => (self.key, self.last) = (self.key + 1, NONE),
                next => {
                    self.last = next;
                    return Step::Order(books.orders.get(next));
                }
            }
        }
        let ladder = &book.ladders[self.side as usize];
        let from = u32::try_from(self.key).ok();
        match from.and_then(|from| ladder.at_or_behind(&books.levels, self.side, from)) {
            Some(level) => {
                self.key = key(self.side, books.levels.get(level).price).into();
                self.last = books.levels.first_order(level);
                Step::Order(books.orders.get(self.last))
            }
            None => {
                let next = Self { locate: self.locate + 1, ..Self::default() };
                *self = match self.side {
                    Side::Buy => Self { side: Side::Sell, key: 0, last: NONE, ..*self },
                    Side::Sell => next,
                };
                Step::Nothing
            }
        }
    }
}
