//! One stock of the generator: a ladder of prices with queues of orders, so that every message it
//! gives is one a venue could have sent.

use crate::feed::Symbol;
use crate::feed::itch::Side;
use crate::replay::random::Random;
use std::collections::VecDeque;

/// Prices of the ladder.
const RUNGS: usize = 256;

/// One cent.
const TICK: u32 = 100;

/// A resting order of the model.
#[derive(Clone, Copy, Debug)]
pub struct Resting {
    /// Reference number.
    pub reference: u64,
    /// Side.
    pub side: Side,
    /// Shares left.
    pub shares: u32,
    rung: u16,
}

/// The model of one book.
pub struct Stock {
    /// Its symbol.
    pub symbol: Symbol,
    base_price: u32,
    center: u16,
    rungs: Vec<VecDeque<u64>>,
    orders: Vec<Resting>,
}

impl Stock {
    /// A stock without orders, around a seeded price.
    pub fn new(symbol: Symbol, random: &mut Random) -> Self {
        let base_price = 50_000 + random.below(40_000) * TICK;
        let rungs = vec![VecDeque::new(); RUNGS];
        Self { symbol, base_price, center: RUNGS as u16 / 2, rungs, orders: Vec::new() }
    }

    /// Live orders.
    pub fn len(&self) -> usize {
        self.orders.len()
    }

    /// Price in the middle, 1e-4.
    pub fn middle(&self) -> u32 {
        self.price(self.center)
    }

    /// Price of an order, 1e-4.
    pub fn price_of(&self, order: &Resting) -> u32 {
        self.price(order.rung)
    }

    /// Moves the middle by a cent now and then.
    pub fn drift(&mut self, random: &mut Random) {
        let quarter = RUNGS as u16 / 4;
        self.center = match random.below(64) {
            0 => (self.center + 1).min(3 * quarter),
            1 => (self.center - 1).max(quarter),
            _ => self.center,
        };
    }

    /// A passive order of a random side near the inside; it never meets the other side. `None` in the
    /// rare case that the other side reaches the end of the ladder.
    pub fn add(
        &mut self,
        reference: u64,
        side: Option<Side>,
        random: &mut Random,
    ) -> Option<Resting> {
        let side = side.unwrap_or(match random.below(2) {
            0 => Side::Buy,
            _ => Side::Sell,
        });
        let away = random.run(3, 4, 60) as usize;
        let center = usize::from(self.center);
        let rung = match side {
            Side::Buy => {
                let inside =
                    self.best(Side::Sell).map_or(center, |ask| center.min(ask.wrapping_sub(1)));
                if inside >= RUNGS {
                    return None;
                }
                inside.saturating_sub(away)
            }
            Side::Sell => {
                let inside =
                    self.best(Side::Buy).map_or(center + 1, |bid| (center + 1).max(bid + 1));
                if inside >= RUNGS {
                    return None;
                }
                (inside + away).min(RUNGS - 1)
            }
        };
        let shares = match random.below(4) {
            0 => 1 + random.below(99),
            _ => 100 * (1 + random.below(10)),
        };
        let order = Resting { reference, side, shares, rung: rung as u16 };
        self.rungs[rung].push_back(reference);
        self.orders.push(order);
        Some(order)
    }

    /// A random live order.
    pub fn pick(&self, random: &mut Random) -> Option<Resting> {
        let count = u32::try_from(self.orders.len()).ok().filter(|&count| count != 0)?;
        Some(self.orders[random.below(count) as usize])
    }

    /// The order that trades next on a side: first in the queue of the best price.
    pub fn front(&self, side: Side) -> Option<Resting> {
        let reference = *self.rungs[self.best(side)?].front()?;
        self.orders.iter().find(|order| order.reference == reference).copied()
    }

    /// Takes shares off a live order; it goes with its last share.
    pub fn reduce(&mut self, reference: u64, shares: u32) {
        let Some(at) = self.orders.iter().position(|order| order.reference == reference) else {
            return;
        };
        let order = &mut self.orders[at];
        order.shares = order.shares.saturating_sub(shares);
        if order.shares == 0 {
            let order = self.orders.swap_remove(at);
            self.rungs[usize::from(order.rung)].retain(|&queued| queued != reference);
        }
    }

    fn price(&self, rung: u16) -> u32 {
        self.base_price + u32::from(rung) * TICK
    }

    fn best(&self, side: Side) -> Option<usize> {
        let rungs = self.orders.iter().filter(|order| order.side == side).map(|order| order.rung);
        match side {
            Side::Buy => rungs.max(),
            Side::Sell => rungs.min(),
        }
        .map(usize::from)
    }
}
