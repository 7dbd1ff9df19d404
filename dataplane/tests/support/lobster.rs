//! Order flow with the book after every event (LOBSTER's format) as ITCH messages.
//!
//! A message row is `time, type, order, size, price, direction`; a book row is, for ten levels,
//! `ask price, ask size, bid price, bid size`. Prices are 1e-4 in both. Row i of the book is the book
//! after row i of the messages.
//!
//! Row 0 seeds the book: the orders that later rows touch, and one filler order a level for the rest of
//! its size. Events outside ten levels are not in the file, so after each event the levels 6 to 10 are
//! learnt from the book row as adds and deletes of fillers; the best five are never corrected. An order
//! that is touched later but was added out of view is seeded when its level has room for it.

use nautilus_dataplane::feed::Symbol;
use nautilus_dataplane::feed::itch::messages::{
    AddOrder, OrderCancel, OrderDelete, OrderExecuted, Trade,
};
use nautilus_dataplane::feed::itch::{Common, Nanoseconds, Price4, Side};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

/// Stock locate of the converted stock.
pub const LOCATE: u16 = 13;

/// First reference of a filler order.
const FILLERS: u64 = 1 << 40;

/// Price and size of one level, best first.
pub type Levels = Vec<(u32, u64)>;

/// One book row.
#[derive(Clone, Debug)]
pub struct BookRow {
    /// The ten best offers.
    pub asks: Levels,
    /// The ten best bids.
    pub bids: Levels,
}

/// What one row becomes.
pub struct Event {
    /// The event itself; for row 0 the seed.
    pub messages: Vec<Vec<u8>>,
    /// What has to be learnt about the levels 6 to 10.
    pub learnt: Vec<Vec<u8>>,
    /// The book after `messages`; the best five levels of each side must be equal.
    pub book: BookRow,
}

struct Row {
    time_ns: u64,
    kind: u8,
    order: u64,
    size: u32,
    price: u32,
    side: Side,
}

#[derive(Clone, Copy)]
struct Order {
    side: Side,
    price: u32,
    size: u32,
}

/// What the converter knows of the book it makes.
#[derive(Default)]
struct Converter {
    orders: HashMap<u64, Order>,
    /// Orders touched later and not seeded yet, in the order of their first touch.
    pending: Vec<(u64, Order)>,
    /// Those seeded, in that order too, as they were.
    seeded: Vec<(u64, Order)>,
    /// The last row that touches an order, and the row being converted.
    last_touch: HashMap<u64, usize>,
    row: usize,
    fillers: BTreeMap<(bool, u32), u64>,
    next_filler: u64,
    match_number: u64,
}

fn rows(path: &Path) -> Vec<Row> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            let (seconds, fraction) = fields[0].split_once('.').unwrap();
            let nanoseconds: u64 = format!("{fraction:0<9}").parse().unwrap();
            Row {
                time_ns: seconds.parse::<u64>().unwrap() * 1_000_000_000 + nanoseconds,
                kind: fields[1].parse().unwrap(),
                order: fields[2].parse().unwrap(),
                size: fields[3].parse().unwrap(),
                price: fields[4].parse().unwrap(),
                side: if fields[5] == "1" { Side::Buy } else { Side::Sell },
            }
        })
        .collect()
}

fn books(path: &Path) -> Vec<BookRow> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| {
            let values: Vec<u64> = line.split(',').map(|value| value.parse().unwrap()).collect();
            let level = |four: &[u64], at: usize| (four[at] as u32, four[at + 1]);
            BookRow {
                asks: values.chunks(4).map(|four| level(four, 0)).collect(),
                bids: values.chunks(4).map(|four| level(four, 2)).collect(),
            }
        })
        .collect()
}

impl Converter {
    fn common(time_ns: u64) -> Common {
        Common { stock_locate: LOCATE, tracking_number: 0, timestamp: Nanoseconds(time_ns) }
    }

    fn add(&mut self, time_ns: u64, reference: u64, order: Order, out: &mut Vec<Vec<u8>>) {
        self.orders.insert(reference, order);
        let stock = Symbol::new("AAPL").unwrap();
        let (side, price) = (order.side.code(), Price4(order.price));
        let common = Self::common(time_ns);
        out.push(AddOrder::encode(common, reference, side, order.size, stock, price).to_vec());
    }

    fn reduce(&mut self, reference: u64, size: u32) {
        self.seeded.retain(|(seeded, _)| *seeded != reference);
        let order = self.orders.get_mut(&reference).expect("a known order");
        order.size = order.size.checked_sub(size).expect("never more than was left");
        if order.size == 0 {
            self.orders.remove(&reference);
        }
    }

    fn size_at(&self, side: Side, price: u32) -> u64 {
        let here = self.orders.values().filter(|order| order.side == side && order.price == price);
        here.map(|order| u64::from(order.size)).sum()
    }

    /// Brings one level to a size, by its filler and by orders that are touched only later.
    fn fill(&mut self, time_ns: u64, side: Side, price: u32, size: u64, out: &mut Vec<Vec<u8>>) {
        let here = |order: &Order| order.side == side && order.price == price;
        let waiting = self.pending.iter().any(|(_, order)| here(order));
        if self.size_at(side, price) == size && !waiting {
            return;
        }
        let key = (side == Side::Buy, price);
        if let Some(reference) = self.fillers.remove(&key) {
            self.delete(time_ns, reference, out);
        }
        // What went while the level was out of view: no later row touches it.
        let mut gone: Vec<u64> = self
            .orders
            .iter()
            .filter(|(reference, order)| here(order) && !self.is_touched_later(**reference))
            .map(|(reference, _)| *reference)
            .collect();
        gone.sort_unstable();
        while self.size_at(side, price) > size
            && let Some(reference) = gone.pop()
        {
            self.delete(time_ns, reference, out);
        }
        // What was taken for there already, and cannot have been.
        while self.size_at(side, price) > size {
            let last = self.seeded.iter().rposition(|(_, order)| here(order));
            let (reference, order) = self.seeded.remove(last.expect("a seeded order to take back"));
            assert_eq!(self.orders[&reference].size, order.size, "taken back untouched");
            self.delete(time_ns, reference, out);
            self.pending.insert(0, (reference, order));
        }
        for (reference, order) in std::mem::take(&mut self.pending) {
            if here(&order) && self.size_at(side, price) + u64::from(order.size) <= size {
                self.add(time_ns, reference, order, out);
                self.seeded.push((reference, order));
            } else {
                self.pending.push((reference, order));
            }
        }
        let rest = size - self.size_at(side, price);
        if rest != 0 {
            let reference = FILLERS + self.next_filler;
            self.next_filler += 1;
            self.fillers.insert(key, reference);
            self.add(time_ns, reference, Order { side, price, size: rest as u32 }, out);
        }
    }

    fn is_touched_later(&self, reference: u64) -> bool {
        self.last_touch.get(&reference).is_some_and(|last| *last > self.row)
    }

    fn delete(&mut self, time_ns: u64, reference: u64, out: &mut Vec<Vec<u8>>) {
        if self.orders.remove(&reference).is_some() {
            out.push(OrderDelete::encode(Self::common(time_ns), reference).to_vec());
        }
    }

    fn learn(&mut self, time_ns: u64, book: &BookRow) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        for (side, levels) in [(Side::Sell, &book.asks), (Side::Buy, &book.bids)] {
            let within = |price: u32| match side {
                Side::Sell => price > levels[4].0 && price <= levels[9].0,
                Side::Buy => price < levels[4].0 && price >= levels[9].0,
            };
            let known: HashSet<u32> = self
                .orders
                .values()
                .filter(|order| order.side == side && within(order.price))
                .map(|order| order.price)
                .collect();
            let mut gone: Vec<u32> = known
                .into_iter()
                .filter(|price| !levels.iter().any(|level| level.0 == *price))
                .collect();
            gone.sort_unstable();
            for price in gone {
                self.fill(time_ns, side, price, 0, &mut out);
            }
            for &(price, size) in &levels[5..] {
                self.fill(time_ns, side, price, size, &mut out);
            }
        }
        out
    }

    fn event(&mut self, row: &Row) -> Vec<Vec<u8>> {
        let common = Self::common(row.time_ns);
        let mut out = Vec::new();
        match row.kind {
            1 => {
                let order = Order { side: row.side, price: row.price, size: row.size };
                self.add(row.time_ns, row.order, order, &mut out);
            }
            2 => {
                self.reduce(row.order, row.size);
                out.push(OrderCancel::encode(common, row.order, row.size).to_vec());
            }
            3 => {
                self.reduce(row.order, row.size);
                assert!(!self.orders.contains_key(&row.order), "a deleted order has nothing left");
                out.push(OrderDelete::encode(common, row.order).to_vec());
            }
            4 => {
                self.match_number += 1;
                self.reduce(row.order, row.size);
                let number = self.match_number;
                out.push(OrderExecuted::encode(common, row.order, row.size, number).to_vec());
            }
            5 => {
                self.match_number += 1;
                let (side, price) = (row.side.code(), Price4(row.price));
                let (stock, number) = (Symbol::new("AAPL").unwrap(), self.match_number);
                let trade = Trade::encode(common, 0, side, row.size, stock, price, number);
                out.push(trade.to_vec());
            }
            kind => panic!("event type {kind}"),
        }
        out
    }
}

/// Converts the two files of one stock.
pub fn convert(messages: &Path, orderbook: &Path) -> Vec<Event> {
    let (rows, books) = (rows(messages), books(orderbook));
    assert_eq!(rows.len(), books.len());
    let mut converter = Converter::default();

    // Orders that are touched but never added were there before: as large as what is taken off them.
    let mut added = HashSet::new();
    for (index, row) in rows.iter().enumerate().skip(1) {
        if (2..=4).contains(&row.kind) {
            converter.last_touch.insert(row.order, index);
        }
        match row.kind {
            1 => {
                added.insert(row.order);
            }
            2..=4 if !added.contains(&row.order) => {
                let pending = &mut converter.pending;
                match pending.iter_mut().find(|(reference, _)| *reference == row.order) {
                    Some((_, order)) => order.size += row.size,
                    None => {
                        let order = Order { side: row.side, price: row.price, size: row.size };
                        pending.push((row.order, order));
                    }
                }
            }
            _ => {}
        }
    }
    let time_ns = rows[0].time_ns;
    let mut seed = Vec::new();
    for (side, levels) in [(Side::Sell, &books[0].asks), (Side::Buy, &books[0].bids)] {
        for &(price, size) in levels {
            converter.fill(time_ns, side, price, size, &mut seed);
        }
    }
    let mut events = vec![Event { messages: seed, learnt: Vec::new(), book: books[0].clone() }];
    for (index, (row, book)) in rows.iter().zip(&books).enumerate().skip(1) {
        converter.row = index;
        let messages = converter.event(row);
        let learnt = converter.learn(row.time_ns, book);
        events.push(Event { messages, learnt, book: book.clone() });
    }
    events
}
