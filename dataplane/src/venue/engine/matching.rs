//! Orders in, changed and out, and the trades that come of it.

use super::auction::Interest;
use super::book::{opposite, reaches};
use super::orders::Order;
use super::{Engine, Kind, NewOrder, PRICE_MAX, Phase, Reject, Reply, SHARES_MAX, TICK, Tape};
use crate::feed::itch::messages::*;
use crate::feed::itch::{Price4, Side, Text};

/// An order, or what is left of it, that is to rest.
struct Remainder {
    locate: u16,
    side: Side,
    price: u32,
    shares: u32,
    attribution: Option<Text<4>>,
}

pub(super) fn check_price(price: u32) -> Result<(), Reject> {
    match (TICK..=PRICE_MAX).contains(&price) && price.is_multiple_of(TICK) {
        true => Ok(()),
        false => Err(Reject::Price),
    }
}

fn check_shares(shares: u32) -> Result<(), Reject> {
    match (1..=SHARES_MAX).contains(&shares) {
        true => Ok(()),
        false => Err(Reject::Shares),
    }
}

impl Engine {
    pub(super) fn enter(&mut self, order: &NewOrder, tape: &mut Tape) -> Result<Reply, Reject> {
        let NewOrder { locate, side, shares, kind, attribution } = *order;
        self.check_locate(locate)?;
        check_shares(shares)?;
        match kind {
            Kind::Limit(limit) | Kind::Immediate(limit) => check_price(limit)?,
            Kind::AtOpen(limit) | Kind::AtClose(limit) => limit.map_or(Ok(()), check_price)?,
            Kind::Market => {}
        }
        let phase = self.phase(locate);
        let interest = |limit| Interest { side, limit, shares: u64::from(shares) };
        match (kind, phase) {
            (Kind::Limit(price), Phase::Open) => {
                let left = self.take(locate, side, Some(price), shares, tape);
                let mut reply =
                    Reply { resting: None, traded: u64::from(shares) - u64::from(left) };
                if left != 0 {
                    let rest = Remainder { locate, side, price, shares: left, attribution };
                    reply.resting = Some(self.rest(&rest, tape));
                }
                Ok(reply)
            }
            (Kind::Limit(price), Phase::Before | Phase::Halted) => {
                let rest = Remainder { locate, side, price, shares, attribution };
                Ok(Reply { resting: Some(self.rest(&rest, tape)), traded: 0 })
            }
            (Kind::Immediate(_) | Kind::Market, Phase::Open) => {
                let limit = match kind {
                    Kind::Immediate(limit) => Some(limit),
                    _ => None,
                };
                let left = self.take(locate, side, limit, shares, tape);
                Ok(Reply { resting: None, traded: u64::from(shares) - u64::from(left) })
            }
            (Kind::AtOpen(limit), Phase::Before) => {
                let place = self.next_place();
                self.stock_mut(locate).at_open.push((place, interest(limit)));
                Ok(Reply::default())
            }
            (Kind::AtClose(limit), Phase::Before | Phase::Open | Phase::Halted) => {
                let place = self.next_place();
                self.stock_mut(locate).at_close.push((place, interest(limit)));
                Ok(Reply::default())
            }
            (Kind::Immediate(_) | Kind::Market | Kind::AtOpen(_), _) | (_, Phase::Closed) => {
                Err(Reject::Phase)
            }
        }
    }

    /// Trades with the other side up to `limit` and returns the shares left.
    fn take(
        &mut self,
        locate: u16,
        side: Side,
        limit: Option<u32>,
        shares: u32,
        tape: &mut Tape,
    ) -> u32 {
        let mut left = shares;
        while left != 0 {
            let Some(handle) = self.stock(locate).book.front(opposite(side)) else { break };
            let Order { reference, price, shares: resting, .. } = *self.orders.get(handle);
            if limit.is_some_and(|limit| !reaches(side, limit, price)) {
                break;
            }
            let traded = left.min(resting);
            left -= traded;
            let match_number = self.next_match(locate);
            tape.push(&OrderExecuted::encode(self.common(locate), reference, traded, match_number));
            let stock = &mut self.stocks[usize::from(locate) - 1];
            stock.book.reduce(&mut self.orders, handle, traded);
            stock.last_price = price;
        }
        left
    }

    /// Puts an order into the book, behind those of its price, and shows it.
    fn rest(&mut self, rest: &Remainder, tape: &mut Tape) -> u64 {
        let (common, symbol) = (self.common(rest.locate), self.symbol(rest.locate));
        let reference = self.next_reference();
        let (side, price) = (rest.side.code(), Price4(rest.price));
        match rest.attribution {
            None => {
                tape.push(&AddOrder::encode(common, reference, side, rest.shares, symbol, price))
            }
            Some(mpid) => tape.push(&AddOrderAttributed::encode(
                common,
                reference,
                side,
                rest.shares,
                symbol,
                price,
                mpid,
            )),
        }
        self.store(reference, rest);
        reference
    }

    fn store(&mut self, reference: u64, rest: &Remainder) {
        let order = Order {
            reference,
            locate: rest.locate,
            side: rest.side,
            price: rest.price,
            shares: rest.shares,
            attribution: rest.attribution,
            timestamp: self.now,
            place: self.next_place(),
        };
        self.stocks[usize::from(rest.locate) - 1].book.add(&mut self.orders, order);
    }

    pub(super) fn cancel(
        &mut self,
        reference: u64,
        shares: u32,
        tape: &mut Tape,
    ) -> Result<Reply, Reject> {
        let handle = self.orders.find(reference).ok_or(Reject::UnknownOrder)?;
        let Order { locate, shares: left, .. } = *self.orders.get(handle);
        match shares {
            0 => return Err(Reject::Shares),
            _ if shares >= left => return self.delete(reference, tape),
            _ => {}
        }
        tape.push(&OrderCancel::encode(self.common(locate), reference, shares));
        self.stocks[usize::from(locate) - 1].book.reduce(&mut self.orders, handle, shares);
        Ok(Reply { resting: Some(reference), traded: 0 })
    }

    pub(super) fn delete(&mut self, reference: u64, tape: &mut Tape) -> Result<Reply, Reject> {
        let handle = self.orders.find(reference).ok_or(Reject::UnknownOrder)?;
        let locate = self.orders.get(handle).locate;
        tape.push(&OrderDelete::encode(self.common(locate), reference));
        self.stocks[usize::from(locate) - 1].book.remove(&mut self.orders, handle);
        Ok(Reply::default())
    }

    pub(super) fn replace(
        &mut self,
        reference: u64,
        shares: u32,
        price: u32,
        tape: &mut Tape,
    ) -> Result<Reply, Reject> {
        let handle = self.orders.find(reference).ok_or(Reject::UnknownOrder)?;
        check_shares(shares)?;
        check_price(price)?;
        let old = *self.orders.get(handle);
        let Order { locate, side, attribution, .. } = old;
        let phase = self.phase(locate);
        if phase == Phase::Closed {
            return Err(Reject::Phase);
        }
        if price == old.price && shares == old.shares {
            return Ok(Reply { resting: Some(reference), traded: 0 });
        }
        if price == old.price && shares < old.shares {
            return self.cancel(reference, old.shares - shares, tape);
        }
        let against = self.stock(locate).book.best(opposite(side));
        if phase == Phase::Open && against.is_some_and(|best| reaches(side, price, best)) {
            self.delete(reference, tape)?;
            let kind = Kind::Limit(price);
            return self.enter(&NewOrder { locate, side, shares, kind, attribution }, tape);
        }
        let new = self.next_reference();
        let common = self.common(locate);
        tape.push(&OrderReplace::encode(common, reference, new, shares, Price4(price)));
        self.stocks[usize::from(locate) - 1].book.remove(&mut self.orders, handle);
        self.store(new, &Remainder { locate, side, price, shares, attribution });
        Ok(Reply { resting: Some(new), traded: 0 })
    }
}
