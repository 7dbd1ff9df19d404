//! One stock's book: the prices of both sides, and at each the orders in order of time.

use super::orders::{Order, Orders, Queue};
use crate::feed::itch::Side;
use std::collections::BTreeMap;

/// One price of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Price, 1e-4.
    pub price: u32,
    /// Orders, never 0.
    pub orders: u32,
    /// The sum of their shares.
    pub shares: u64,
}

/// The book. The orders themselves lie in the engine's pool.
#[derive(Default)]
pub struct Book {
    sides: [BTreeMap<u32, Queue>; 2],
}

/// The other side.
pub fn opposite(side: Side) -> Side {
    match side {
        Side::Buy => Side::Sell,
        Side::Sell => Side::Buy,
    }
}

/// Whether an order of `side` that may trade up to `limit` trades with the opposite price `price`.
pub fn reaches(side: Side, limit: u32, price: u32) -> bool {
    match side {
        Side::Buy => limit >= price,
        Side::Sell => limit <= price,
    }
}

impl Book {
    /// The best price of a side.
    pub fn best(&self, side: Side) -> Option<u32> {
        let prices = &self.sides[side as usize];
        match side {
            Side::Buy => prices.last_key_value(),
            Side::Sell => prices.first_key_value(),
        }
        .map(|(price, _)| *price)
    }

    /// The order of a side that trades first.
    pub fn front(&self, side: Side) -> Option<u32> {
        self.best(side).and_then(|price| self.sides[side as usize][&price].first())
    }

    /// The prices of a side and their orders, best first.
    pub fn queues(&self, side: Side) -> impl Iterator<Item = (u32, &Queue)> {
        let mut ascending = self.sides[side as usize].iter();
        std::iter::from_fn(move || match side {
            Side::Buy => ascending.next_back(),
            Side::Sell => ascending.next(),
        })
        .map(|(price, queue)| (*price, queue))
    }

    /// The prices of a side, best first.
    pub fn levels(&self, side: Side) -> impl Iterator<Item = Level> {
        self.queues(side).map(|(price, queue)| Level {
            price,
            orders: queue.orders,
            shares: queue.shares,
        })
    }

    /// The orders of a side in the order in which they trade.
    pub fn orders<'a>(&'a self, side: Side, orders: &'a Orders) -> impl Iterator<Item = &'a Order> {
        self.queues(side).flat_map(|(_, queue)| orders.iter(queue))
    }

    /// Puts an order behind those of its price.
    pub fn add(&mut self, orders: &mut Orders, order: Order) {
        orders.push(self.sides[order.side as usize].entry(order.price).or_default(), order);
    }

    /// Takes an order out, and its price if it was the last there.
    pub fn remove(&mut self, orders: &mut Orders, handle: u32) -> Order {
        let Order { side, price, .. } = *orders.get(handle);
        let prices = &mut self.sides[side as usize];
        let queue = prices.get_mut(&price).expect("an order in the pool is in its book");
        let order = orders.remove(queue, handle);
        if queue.orders == 0 {
            prices.remove(&price);
        }
        order
    }

    /// Takes `shares` off an order, all it has or fewer, which leaves its place as it is.
    pub fn reduce(&mut self, orders: &mut Orders, handle: u32, shares: u32) {
        let Order { side, price, shares: left, .. } = *orders.get(handle);
        if shares == left {
            self.remove(orders, handle);
            return;
        }
        let queue = self.sides[side as usize].get_mut(&price);
        orders.reduce(queue.expect("an order in the pool is in its book"), handle, shares);
    }
}
