//! The engine as others see it between two commands: snapshots, and the books as text.

use super::book::{Book, Level};
use super::{Engine, Stock};
use crate::feed::Symbol;
use crate::feed::glimpse::{RestingOrder, StockState, VenueState};
use crate::feed::itch::messages::SystemEvent;
use crate::feed::itch::{Price4, Side};
use std::fmt::Write;

/// The engine before message `next_sequence` of its session, for a snapshot.
pub struct At<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// Number of the first message it has not sent.
    pub next_sequence: u64,
}

impl VenueState for At<'_> {
    fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    fn system_event(&self) -> Option<[u8; SystemEvent::BYTES]> {
        self.engine.system_event
    }

    fn locates(&self) -> impl Iterator<Item = u16> {
        1..=self.engine.stock_count()
    }

    fn stock(&self, locate: u16) -> StockState {
        let Stock { symbol, directory, trading_action, reg_sho, .. } = *self.engine.stock(locate);
        StockState { symbol, directory, trading_action, reg_sho }
    }

    fn visit_orders(&self, locate: u16, mut visit: impl FnMut(RestingOrder)) {
        for order in [Side::Buy, Side::Sell].map(|side| self.engine.orders(locate, side)) {
            order.for_each(|order| {
                visit(RestingOrder {
                    reference: order.reference,
                    side: order.side,
                    shares: order.shares,
                    price: Price4(order.price),
                    attribution: order.attribution,
                    timestamp: order.timestamp,
                });
            });
        }
    }
}

/// Appends one stock's book as text: its best bid and offer, and then every price, best first, with
/// shares and orders.
///
/// ```text
/// AAPL bid 150.9300 400 3 offer 150.9500 100 1
/// AAPL buy 150.9300 400 3
/// AAPL sell 150.9500 100 1
/// ```
pub fn stock_text(
    out: &mut String,
    symbol: Symbol,
    bids: impl Iterator<Item = Level>,
    offers: impl Iterator<Item = Level>,
) {
    let sides = [bids.collect::<Vec<_>>(), offers.collect::<Vec<_>>()];
    let mut line =
        |text: std::fmt::Arguments<'_>| out.write_fmt(text).expect("a String takes everything");
    line(format_args!("{symbol}"));
    for (name, levels) in ["bid", "offer"].into_iter().zip(&sides) {
        match levels.first() {
            None => line(format_args!(" {name} none")),
            Some(Level { price, shares, orders }) => {
                line(format_args!(" {name} {} {shares} {orders}", Price4(*price)));
            }
        }
    }
    line(format_args!("\n"));
    for (name, levels) in ["buy", "sell"].into_iter().zip(&sides) {
        for Level { price, shares, orders } in levels {
            line(format_args!("{symbol} {name} {} {shares} {orders}\n", Price4(*price)));
        }
    }
}

/// The books of all stocks as text, in the order of their locates.
pub fn books_text(engine: &Engine) -> String {
    let mut out = String::new();
    for locate in 1..=engine.stock_count() {
        let book: &Book = engine.book(locate);
        let [bids, offers] = [Side::Buy, Side::Sell].map(|side| book.levels(side));
        stock_text(&mut out, engine.symbol(locate), bids, offers);
    }
    out
}
