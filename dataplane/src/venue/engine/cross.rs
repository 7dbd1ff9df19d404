//! What is the same for all orders of a stock at once: crosses, halts, and the imbalance before them.

use super::auction::{Curve, Interest, variation};
use super::{Engine, Phase, Reject, Reply, Stock, TICK, Tape};
use crate::feed::Symbol;
use crate::feed::itch::messages::*;
use crate::feed::itch::{Code, Price4, Side, Text};

/// Someone in a cross, in the order in which they trade: no limit before a limit, the better limit,
/// the earlier.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    /// 0 without a limit; for sellers the price, for buyers what is missing to the highest.
    rank: u32,
    place: u64,
    shares: u64,
    /// The order shown, 0 for one of the cross only.
    reference: u64,
}

pub(super) fn trading_action(
    common: Common,
    symbol: Symbol,
    state: u8,
    reason: [u8; 4],
) -> [u8; StockTradingAction::BYTES] {
    StockTradingAction::encode(common, symbol, Code(state), Code(b' '), Text(reason))
}

fn rank(side: Side, limit: Option<u32>) -> u32 {
    match (side, limit) {
        (_, None) => 0,
        (Side::Buy, Some(limit)) => u32::MAX - limit,
        (Side::Sell, Some(limit)) => limit,
    }
}

/// The shown interest of both sides, a price at a time.
fn shown(stock: &Stock) -> impl Iterator<Item = Interest> {
    [Side::Buy, Side::Sell].into_iter().flat_map(|side| {
        stock.book.levels(side).map(move |level| Interest {
            side,
            limit: Some(level.price),
            shares: level.shares,
        })
    })
}

/// The interest of the cross that follows, besides what is shown, and its type.
fn hidden(stock: &Stock) -> (&[(u64, Interest)], u8) {
    match stock.phase {
        Phase::Before => (&stock.at_open, b'O'),
        Phase::Halted => (&[], b'H'),
        Phase::Open | Phase::Closed => (&stock.at_close, b'C'),
    }
}

impl Engine {
    pub(super) fn open(&mut self, locate: u16, tape: &mut Tape) -> Result<Reply, Reject> {
        self.check_phase(locate, &[Phase::Before])?;
        let reply = self.cross(locate, tape);
        self.stock_mut(locate).at_open = Vec::new();
        self.set_phase(locate, Phase::Open, (b'T', *b"    "), tape);
        Ok(reply)
    }

    pub(super) fn halt(&mut self, locate: u16, tape: &mut Tape) -> Result<Reply, Reject> {
        self.check_phase(locate, &[Phase::Open])?;
        self.set_phase(locate, Phase::Halted, (b'H', *b"T1  "), tape);
        Ok(Reply::default())
    }

    pub(super) fn resume(&mut self, locate: u16, tape: &mut Tape) -> Result<Reply, Reject> {
        self.check_phase(locate, &[Phase::Halted])?;
        let reply = self.cross(locate, tape);
        self.set_phase(locate, Phase::Open, (b'T', *b"    "), tape);
        Ok(reply)
    }

    pub(super) fn close(&mut self, locate: u16, tape: &mut Tape) -> Result<Reply, Reject> {
        self.check_phase(locate, &[Phase::Open])?;
        let reply = self.cross(locate, tape);
        let stock = self.stock_mut(locate);
        stock.at_close = Vec::new();
        stock.phase = Phase::Closed;
        Ok(reply)
    }

    pub(super) fn imbalance(&mut self, locate: u16, tape: &mut Tape) -> Result<Reply, Reject> {
        self.check_phase(locate, &[Phase::Before, Phase::Halted, Phase::Open])?;
        let stock = self.stock(locate);
        let (hidden, cross_type) = hidden(stock);
        let hidden = || hidden.iter().map(|(_, interest)| *interest);
        let last = stock.last_price;
        let all = Curve::new(shown(stock).chain(hidden()));
        let near = all.clear(last, TICK);
        let far = Curve::new(hidden()).clear(last, TICK);
        // Inside the best bid and offer, unless these cross.
        let target = near.map_or(last, |clearing| clearing.price);
        let best = |side| stock.book.best(side);
        let reference = match (best(Side::Buy), best(Side::Sell)) {
            (Some(bid), Some(offer)) if bid < offer => target.clamp(bid, offer),
            _ => target,
        };
        let at = all.at(reference);
        let (paired, imbalance, direction) = match (near, at.surplus) {
            (None, _) => (0, 0, b'O'),
            (Some(_), None) => (at.paired, 0, b'N'),
            (Some(_), Some(side)) => (at.paired, at.imbalance, side.code().0),
        };
        let price = |clearing: Option<super::auction::Clearing>| clearing.map_or(0, |at| at.price);
        tape.push(&NetOrderImbalance::encode(
            self.common(locate),
            paired,
            imbalance,
            Code(direction),
            stock.symbol,
            Price4(price(far)),
            Price4(price(near)),
            Price4(reference),
            Code(cross_type),
            Code(variation(price(near), reference)),
        ));
        Ok(Reply::default())
    }

    /// Trades at one price what can, and reports it: `C`, not printable, for every order shown, then
    /// `Q` for the whole, which is sent without shares when nobody trades.
    fn cross(&mut self, locate: u16, tape: &mut Tape) -> Reply {
        let stock = self.stock(locate);
        let (hidden, cross_type) = hidden(stock);
        let interests = shown(stock).chain(hidden.iter().map(|(_, interest)| *interest));
        let clearing = Curve::new(interests).clear(stock.last_price, TICK);
        let (price, paired) = clearing.map_or((0, 0), |clearing| (clearing.price, clearing.paired));
        let claims = [Side::Buy, Side::Sell].map(|side| self.claims(locate, side, price));
        for claim in claims.into_iter().flat_map(|claims| shares_out(claims, paired)) {
            self.execute(locate, &claim, price, tape);
        }
        let match_number = self.next_match(locate);
        let (common, stock) = (self.common(locate), self.stock_mut(locate));
        if paired != 0 {
            stock.last_price = price;
        }
        let (symbol, cross_type) = (stock.symbol, Code(cross_type));
        let price = Price4(price);
        tape.push(&CrossTrade::encode(common, paired, symbol, price, match_number, cross_type));
        Reply { resting: None, traded: paired }
    }

    /// Who of a side trades at `price`, the first first.
    fn claims(&self, locate: u16, side: Side, price: u32) -> Vec<Claim> {
        let stock = self.stock(locate);
        let shown = stock.book.orders(side, &self.orders).map(|order| Claim {
            rank: rank(side, Some(order.price)),
            place: order.place,
            shares: u64::from(order.shares),
            reference: order.reference,
        });
        let (hidden, _) = hidden(stock);
        let hidden = hidden.iter().filter(|(_, interest)| interest.side == side);
        let mut claims: Vec<Claim> = shown
            .chain(hidden.map(|(place, interest)| Claim {
                rank: rank(side, interest.limit),
                place: *place,
                shares: interest.shares,
                reference: 0,
            }))
            .filter(|claim| claim.rank <= rank(side, Some(price)))
            .collect();
        claims.sort_unstable();
        claims
    }

    fn execute(&mut self, locate: u16, claim: &Claim, price: u32, tape: &mut Tape) {
        if claim.reference == 0 {
            return;
        }
        let match_number = self.next_match(locate);
        // No more than the order has.
        let shares = claim.shares as u32;
        tape.push(&OrderExecutedWithPrice::encode(
            self.common(locate),
            claim.reference,
            shares,
            match_number,
            Code(b'N'),
            Price4(price),
        ));
        let handle = self.orders.find(claim.reference).expect("a claim is of a live order");
        self.stocks[usize::from(locate) - 1].book.reduce(&mut self.orders, handle, shares);
    }

    fn check_phase(&self, locate: u16, phases: &[Phase]) -> Result<(), Reject> {
        self.check_locate(locate)?;
        match phases.contains(&self.phase(locate)) {
            true => Ok(()),
            false => Err(Reject::Phase),
        }
    }

    fn set_phase(
        &mut self,
        locate: u16,
        phase: Phase,
        (state, reason): (u8, [u8; 4]),
        tape: &mut Tape,
    ) {
        let common = self.common(locate);
        let stock = self.stock_mut(locate);
        stock.phase = phase;
        stock.trading_action = trading_action(common, stock.symbol, state, reason);
        tape.push(&stock.trading_action);
    }
}

/// The claims that get shares, each with what it gets.
fn shares_out(claims: Vec<Claim>, paired: u64) -> impl Iterator<Item = Claim> {
    let mut left = paired;
    claims
        .into_iter()
        .map(move |claim| {
            let shares = claim.shares.min(left);
            left -= shares;
            Claim { shares, ..claim }
        })
        .take_while(|claim| claim.shares != 0)
}
