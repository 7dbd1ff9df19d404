//! What C1 compares our books with: `itch5`, a std `HashMap` of orders, and a std `BTreeMap` of levels
//! for each side of each stock. It keeps no queues.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use itch5::messages as m5;

use super::BookSum;
use super::day::{Day, STOCKS};
use super::theirs::side;

/// Orders the map has room for before it grows, as many as ours have.
const ORDERS: usize = super::ours::LIMITS.orders_max as usize;

#[derive(Clone, Copy)]
struct Order {
    locate: u16,
    side: u8,
    price: u32,
    shares: u32,
}

#[derive(Clone, Copy, Default)]
struct Level {
    orders: u32,
    shares: u64,
}

#[derive(Clone, Default)]
struct Stock {
    bids: BTreeMap<u32, Level>,
    asks: BTreeMap<u32, Level>,
}

impl Stock {
    fn levels(&mut self, side: u8) -> &mut BTreeMap<u32, Level> {
        if side == b'B' { &mut self.bids } else { &mut self.asks }
    }
}

/// The book. By stock locate, which is a plain index.
pub struct PlainBook {
    orders: HashMap<u64, Order>,
    stocks: Vec<Stock>,
    unknown: u64,
}

impl Default for PlainBook {
    /// Empty, with its memory taken.
    fn default() -> Self {
        let stocks = vec![Stock::default(); usize::from(STOCKS) + 1];
        Self { orders: HashMap::with_capacity(ORDERS), stocks, unknown: 0 }
    }
}

impl PlainBook {
    /// Decodes a day and keeps its books. Returns how many messages named an unknown order.
    pub fn keep(&mut self, day: &Day) -> anyhow::Result<u64> {
        itch5::Parser::new(&day.file).parse_stream(self)?;
        Ok(self.unknown)
    }

    /// What the books hold at the end.
    pub fn sum(&self) -> BookSum {
        let levels = |stock: &Stock| (stock.bids.len() + stock.asks.len()) as u64;
        let mut sum = BookSum {
            orders: self.orders.len() as u64,
            levels: self.stocks.iter().map(levels).sum(),
            ..BookSum::default()
        };
        for (locate, stock) in (0..).zip(&self.stocks) {
            let best = [stock.bids.last_key_value(), stock.asks.first_key_value()];
            for (price, level) in best.into_iter().flatten() {
                sum.add_best(locate, *price, level.orders, level.shares);
            }
        }
        sum
    }

    /// Tells it one message.
    pub fn apply(&mut self, message: &[u8]) -> anyhow::Result<()> {
        let mut block = (message.len() as u16).to_be_bytes().to_vec();
        block.extend_from_slice(message);
        Ok(itch5::Parser::new(&block).parse_stream(self)?)
    }

    /// The levels of a side, best first: price, orders, shares.
    pub fn levels_of(&self, locate: u16, is_bid: bool) -> Vec<(u32, u32, u64)> {
        let stock = &self.stocks[usize::from(locate)];
        let words = |(price, level): (&u32, &Level)| (*price, level.orders, level.shares);
        if is_bid {
            stock.bids.iter().rev().map(words).collect()
        } else {
            stock.asks.iter().map(words).collect()
        }
    }

    fn add(&mut self, reference: u64, order: Order) {
        self.orders.insert(reference, order);
        let levels = self.stocks[usize::from(order.locate)].levels(order.side);
        let level = levels.entry(order.price).or_default();
        level.orders += 1;
        level.shares += u64::from(order.shares);
    }

    fn remove(&mut self, reference: u64) -> Option<Order> {
        let Some(order) = self.orders.remove(&reference) else {
            self.unknown += 1;
            return None;
        };
        self.take(order, order.shares, 1);
        Some(order)
    }

    fn reduce(&mut self, reference: u64, shares: u32) {
        let Some(order) = self.orders.get_mut(&reference) else {
            self.unknown += 1;
            return;
        };
        if shares < order.shares {
            order.shares -= shares;
            let order = *order;
            self.take(order, shares, 0);
        } else {
            self.remove(reference);
        }
    }

    fn take(&mut self, order: Order, shares: u32, orders: u32) {
        let levels = self.stocks[usize::from(order.locate)].levels(order.side);
        let Some(level) = levels.get_mut(&order.price) else { return };
        level.orders -= orders;
        level.shares -= u64::from(shares);
        if level.orders == 0 {
            levels.remove(&order.price);
        }
    }
}

const NEXT: ControlFlow<()> = ControlFlow::Continue(());

impl itch5::MessageHandler for PlainBook {
    fn on_add_order_no_mpid_attribution(
        &mut self,
        m: &m5::AddOrderNoMPIDAttribution,
    ) -> ControlFlow<()> {
        let (locate, side) = (m.stock_locate(), side(m.buy_sell_indicator()));
        let order = Order { locate, side, price: m.price().into_u32(), shares: m.shares() };
        self.add(m.order_reference_number(), order);
        NEXT
    }

    fn on_add_order_with_mpid_attribution(
        &mut self,
        m: &m5::AddOrderWithMPIDAttribution,
    ) -> ControlFlow<()> {
        let (locate, side) = (m.stock_locate(), side(m.buy_sell_indicator()));
        let order = Order { locate, side, price: m.price().into_u32(), shares: m.shares() };
        self.add(m.order_reference_number(), order);
        NEXT
    }

    fn on_order_executed(&mut self, m: &m5::OrderExecuted) -> ControlFlow<()> {
        self.reduce(m.order_reference_number(), m.executed_shares());
        NEXT
    }

    fn on_order_executed_with_price(&mut self, m: &m5::OrderExecutedWithPrice) -> ControlFlow<()> {
        self.reduce(m.order_reference_number(), m.executed_shares());
        NEXT
    }

    fn on_order_cancel(&mut self, m: &m5::OrderCancel) -> ControlFlow<()> {
        self.reduce(m.order_reference_number(), m.cancelled_shares());
        NEXT
    }

    fn on_order_delete(&mut self, m: &m5::OrderDelete) -> ControlFlow<()> {
        self.remove(m.order_reference_number());
        NEXT
    }

    fn on_order_replace(&mut self, m: &m5::OrderReplace) -> ControlFlow<()> {
        if let Some(old) = self.remove(m.original_order_reference_number()) {
            let order = Order { price: m.price().into_u32(), shares: m.shares(), ..old };
            self.add(m.new_order_reference_number(), order);
        }
        NEXT
    }
}
