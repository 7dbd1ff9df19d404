//! What each message does to the books.

use super::ladder::key;
use super::orders::{Found, InsertError, Order};
use super::{Books, Effect, LastTrade, Problem};
use crate::feed::Symbol;
use crate::feed::itch::{Message, Side};

impl Books {
    /// Applies one message. What could not be done is the second value; the first is what was done all
    /// the same.
    #[inline]
    pub fn apply(&mut self, message: &Message<'_>) -> (Effect, Option<Problem>) {
        let locate = message.common().stock_locate;
        let mut effect = Effect { locate, ..Effect::default() };
        let problem = self.dispatch(message, &mut effect).err();
        (effect, problem)
    }

    #[inline(always)]
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
                let found = self.find(execution.order())?;
                let order = *self.orders.get(found.place);
                let reduced = self.reduce(found, execution.shares(), effect);
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
                let found = self.find(execution.order());
                let order = found.ok().map(|found| *self.orders.get(found.place));
                let reduced =
                    found.and_then(|found| self.reduce(found, execution.shares(), effect));
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
            Message::OrderCancel(cancel) => {
                let found = self.find(cancel.order())?;
                self.reduce(found, cancel.shares(), effect)
            }
            Message::OrderDelete(delete) => {
                let found = self.find(delete.order())?;
                self.delete(found, effect);
                Ok(())
            }
            Message::OrderReplace(replace) => {
                let found = self.find(replace.order())?;
                let old = self.delete(found, effect);
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
                self.book_mut(locate);
                if let Some(last) = &mut self.trades[usize::from(locate)]
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

    #[inline(always)]
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
        let vacancy = self.orders.vacancy(reference).map_err(|error| match error {
            InsertError::Duplicate => Problem::DuplicateOrder,
            InsertError::Full => Problem::OrdersFull,
        })?;
        self.book_mut(locate);
        let ladder = &mut self.books[usize::from(locate)].ladders[side as usize];
        let level = ladder
            .find_or_insert(&mut self.levels, side, key(side, price))
            .ok_or(Problem::LevelsFull)?;
        let last = self.levels.last_order(level);
        let order = Order { reference, price, shares, level, locate, side };
        let place = self.orders.insert(vacancy, order, last);
        self.levels.push(level, place, shares);
        effect.book = true;
        Ok(())
    }

    /// Takes shares off an order, which goes with its last share.
    #[inline(always)]
    fn reduce(&mut self, found: Found, shares: u32, effect: &mut Effect) -> Result<(), Problem> {
        let order = *self.orders.get(found.place);
        if shares == 0 {
            return Err(Problem::ZeroShares);
        }
        if shares < order.shares {
            self.orders.set_shares(found.place, order.shares - shares);
            self.levels.reduce(order.level, shares);
            (effect.locate, effect.book) = (order.locate, true);
            return Ok(());
        }
        self.delete(found, effect);
        if shares > order.shares { Err(Problem::OverReduction) } else { Ok(()) }
    }

    /// Takes an order out of its book.
    #[inline(always)]
    fn delete(&mut self, found: Found, effect: &mut Effect) -> Order {
        let order = *self.orders.get(found.place);
        let neighbours = self.orders.remove(found);
        if self.levels.take_off(order.level, neighbours, order.shares) {
            let ladder = &mut self.books[usize::from(order.locate)].ladders[order.side as usize];
            ladder.remove(&mut self.levels, order.side, key(order.side, order.price));
        }
        (effect.locate, effect.book) = (order.locate, true);
        order
    }

    #[inline(always)]
    fn find(&self, reference: u64) -> Result<Found, Problem> {
        self.orders.find(reference).ok_or(Problem::UnknownOrder)
    }

    fn trade(&mut self, locate: u16, effect: &mut Effect, trade: LastTrade) {
        self.book_mut(locate);
        self.trades[usize::from(locate)] = Some(trade);
        effect.trade = true;
    }
}
