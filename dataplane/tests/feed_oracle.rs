//! Books against an independent, naive model: a map of orders, and for each side a BTreeMap of queues.

mod support;

use nautilus_dataplane::feed::book::{Bbo, BookLimits, Books, Level, Problem};
use nautilus_dataplane::feed::itch::{Message, Side};
use nautilus_dataplane::replay::binary_file::BinaryFile;
use nautilus_dataplane::replay::generate::{Generator, GeneratorSpec};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use support::market_data;

#[derive(Clone, Copy)]
struct Order {
    locate: u16,
    side: Side,
    price: u32,
    shares: u32,
}

/// The model. Only what is written in the documentation of the books, in the plainest form.
#[derive(Default)]
struct Model {
    orders: HashMap<u64, Order>,
    /// References at each price, oldest first.
    queues: HashMap<(u16, Side), BTreeMap<u32, Vec<u64>>>,
    unknown: u64,
}

impl Model {
    fn add(&mut self, reference: u64, order: Order) {
        if order.shares == 0 || self.orders.contains_key(&reference) {
            return;
        }
        self.orders.insert(reference, order);
        let queues = self.queues.entry((order.locate, order.side)).or_default();
        queues.entry(order.price).or_default().push(reference);
    }

    fn remove(&mut self, reference: u64) -> Option<Order> {
        let Some(order) = self.orders.remove(&reference) else {
            self.unknown += 1;
            return None;
        };
        let queues = self.queues.get_mut(&(order.locate, order.side)).unwrap();
        let queue = queues.get_mut(&order.price).unwrap();
        queue.retain(|&queued| queued != reference);
        if queue.is_empty() {
            queues.remove(&order.price);
        }
        Some(order)
    }

    /// Keeps its place in the queue while shares are left.
    fn reduce(&mut self, reference: u64, shares: u32) {
        match self.orders.get_mut(&reference) {
            // An execution of nothing changes nothing.
            Some(_) if shares == 0 => {}
            Some(order) if order.shares > shares => order.shares -= shares,
            _ => {
                self.remove(reference);
            }
        }
    }

    fn apply(&mut self, message: &Message<'_>) {
        let locate = message.common().stock_locate;
        let order = |side, price, shares| Order { locate, side, price, shares };
        match message {
            Message::AddOrder(m) => {
                if let Some(side) = Side::from_code(m.side()) {
                    self.add(m.order(), order(side, m.price().0, m.shares()));
                }
            }
            Message::AddOrderAttributed(m) => {
                if let Some(side) = Side::from_code(m.side()) {
                    self.add(m.order(), order(side, m.price().0, m.shares()));
                }
            }
            Message::OrderExecuted(m) => self.reduce(m.order(), m.shares()),
            Message::OrderExecutedWithPrice(m) => self.reduce(m.order(), m.shares()),
            Message::OrderCancel(m) => self.reduce(m.order(), m.shares()),
            Message::OrderDelete(m) => {
                self.remove(m.order());
            }
            Message::OrderReplace(m) => {
                if let Some(old) = self.remove(m.order()) {
                    let (price, shares) = (m.price().0, m.shares());
                    self.add(m.new_order(), Order { price, shares, ..old });
                }
            }
            _ => {}
        }
    }

    fn level(&self, price: u32, queue: &[u64]) -> Level {
        let shares = queue.iter().map(|reference| u64::from(self.orders[reference].shares)).sum();
        Level { price, orders: queue.len() as u32, shares }
    }

    /// Prices with their queues, best first.
    fn queues(&self, locate: u16, side: Side) -> Vec<(u32, &[u64])> {
        let queues = self.queues.get(&(locate, side)).into_iter().flatten();
        let mut queues: Vec<_> = queues.map(|(&price, queue)| (price, queue.as_slice())).collect();
        if side == Side::Buy {
            queues.reverse();
        }
        queues
    }

    fn bbo(&self, locate: u16) -> Bbo {
        let best = |side| {
            let queues = self.queues.get(&(locate, side))?;
            let (&price, queue) = match side {
                Side::Buy => queues.last_key_value()?,
                Side::Sell => queues.first_key_value()?,
            };
            Some(self.level(price, queue))
        };
        Bbo { bid: best(Side::Buy), ask: best(Side::Sell) }
    }

    fn assert_equal(&self, books: &Books) {
        assert_eq!(books.order_count() as usize, self.orders.len());
        let used: usize = self.queues.values().map(BTreeMap::len).sum();
        assert_eq!(books.level_count() as usize, used);
        let locates: BTreeSet<u16> = self.queues.keys().map(|(locate, _)| *locate).collect();
        for locate in locates {
            for side in [Side::Buy, Side::Sell] {
                self.assert_side(books, locate, side);
            }
        }
    }

    fn assert_side(&self, books: &Books, locate: u16, side: Side) {
        let queues = self.queues(locate, side);
        let found: Vec<_> = books.levels(locate, side).copied().collect();
        let expected: Vec<_> =
            queues.iter().map(|(price, queue)| self.level(*price, queue)).collect();
        assert_eq!(found, expected, "{locate} {side:?}");
        // Every order, in the order in which they would trade.
        let found: Vec<_> = books.orders(locate, side).collect();
        let references: Vec<u64> = found.iter().map(|order| order.reference).collect();
        let expected: Vec<u64> = queues.iter().flat_map(|(_, queue)| *queue).copied().collect();
        assert_eq!(references, expected, "{locate} {side:?}");
        for order in found {
            let known = self.orders[&order.reference];
            assert_eq!((order.price, order.shares), (known.price, known.shares));
            assert_eq!((order.locate, order.side), (locate, side));
        }
        for (_, queue) in queues {
            let mut shares_ahead = 0;
            for (orders_ahead, reference) in (0..).zip(queue) {
                let position = books.queue_position(*reference).unwrap();
                assert_eq!(position.order.reference, *reference);
                assert_eq!(
                    (position.orders_ahead, position.shares_ahead),
                    (orders_ahead, shares_ahead)
                );
                shares_ahead += u64::from(self.orders[reference].shares);
            }
        }
    }
}

fn books(orders_max: u32, levels_max: u32) -> Books {
    Books::new(BookLimits { orders_max, levels_max, hash_seed: 0x5eed })
}

/// How much the long tests run: `NAUTILUS_TEST_SCALE` times as much, 1 unless set.
fn scale() -> u64 {
    std::env::var("NAUTILUS_TEST_SCALE").map_or(1, |scale| scale.parse().expect("a number"))
}

#[test]
fn generated_flow_is_never_invalid_and_the_model_agrees() {
    for seed in 1..=3 {
        let messages = 150_000 * scale();
        let spec = GeneratorSpec { seed, symbols: 40, messages, rate: 100_000 };
        let mut generator = Generator::new(spec).unwrap();
        let (mut books, mut model) = (books(1 << 14, 1 << 14), Model::default());
        let mut codes = BTreeSet::new();
        let (mut count, mut stamp) = (0, 0);
        while let Some(bytes) = generator.next_message() {
            let message = Message::decode(bytes).unwrap();
            let (effect, problem) = books.apply(&message);
            assert_eq!(problem, None, "message {count}: {message:?}");
            model.apply(&message);
            let locate = message.common().stock_locate;
            assert_eq!(effect.locate, locate);
            let bbo = books.bbo(locate);
            assert_eq!(bbo, model.bbo(locate), "message {count}: {message:?}");
            if let Bbo { bid: Some(bid), ask: Some(ask) } = bbo {
                assert!(bid.price < ask.price, "crossed by message {count}: {message:?}");
            }
            assert!(message.common().timestamp.0 >= stamp, "message {count}");
            stamp = message.common().timestamp.0;
            codes.insert(message.code());
            count += 1;
            if count % 10_000 == 0 {
                model.assert_equal(&books);
            }
        }
        assert_eq!(count, messages);
        assert_eq!(model.unknown, 0);
        assert!(model.orders.len() > 500, "{} orders live at the end", model.orders.len());
        assert_eq!(codes.len(), 23, "every type occurs: {codes:?}");
        model.assert_equal(&books);
        books.clear();
        Model::default().assert_equal(&books);
        assert_eq!(books.bbo(1), Bbo::default());
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    let day = |seed| {
        let spec = GeneratorSpec { seed, symbols: 7, messages: 5_000, rate: 1_000 };
        let mut generator = Generator::new(spec).unwrap();
        let mut bytes = Vec::new();
        while let Some(message) = generator.next_message() {
            bytes.extend_from_slice(message);
        }
        bytes
    };
    assert_eq!(day(42), day(42));
    assert_ne!(day(42), day(43));
}

#[test]
fn the_binary_file_replays_whole_through_the_book() {
    let Some(data) = market_data("the_binary_file_replays_whole_through_the_book") else { return };
    let path = data.join("itch-binaryfile/ex20101224.TEST_ITCH_50");
    let mut file = BinaryFile::open(&path).unwrap();
    let (mut books, mut model) = (books(1 << 14, 1 << 14), Model::default());
    let (mut count, mut unknown, mut other) = (0, 0, 0);
    while let Some(bytes) = file.next_message().unwrap() {
        let message = Message::decode(bytes).unwrap();
        let (_, problem) = books.apply(&message);
        unknown += u64::from(problem == Some(Problem::UnknownOrder));
        other += u64::from(problem.is_some_and(Problem::spoils));
        model.apply(&message);
        let locate = message.common().stock_locate;
        assert_eq!(books.bbo(locate), model.bbo(locate), "message {count}: {message:?}");
        count += 1;
    }
    assert_eq!((count, other), (12_012, 0));
    assert!(unknown > 0, "the file has events for orders never added");
    assert_eq!(unknown, model.unknown);
    model.assert_equal(&books);
}

/// Messages of the right shape with wild contents: few references, prices and stocks, so that they
/// collide, and any byte where the value hardly matters.
fn wild_message() -> impl Strategy<Value = Vec<u8>> {
    let code = prop::sample::select(b"AAAAFECXDUUPQB".to_vec());
    (code, any::<[u8; 50]>(), 0u8..40, 0u8..40, 0u8..5, 0u8..24, 0u8..2).prop_map(
        |(code, mut bytes, reference, other, shares, price, locate)| {
            let bytes = &mut bytes[..nautilus_dataplane::feed::itch::length_of(code).unwrap()];
            bytes[0] = code;
            bytes[1..3].copy_from_slice(&[0, locate]);
            bytes[11..19].copy_from_slice(&u64::from(reference).to_be_bytes());
            match code {
                b'A' | b'F' => {
                    bytes[19] = b"BSBSBSX"[usize::from(other) % 7];
                    bytes[20..24].copy_from_slice(&[0, 0, 0, shares]);
                    bytes[24..32].copy_from_slice(&[b'A' + locate, 32, 32, 32, 32, 32, 32, 32]);
                    bytes[32..36].copy_from_slice(&[0, 0, 0, price]);
                }
                b'E' | b'C' | b'X' => bytes[19..23].copy_from_slice(&[0, 0, 0, shares]),
                b'U' => {
                    bytes[19..27].copy_from_slice(&u64::from(other).to_be_bytes());
                    bytes[27..31].copy_from_slice(&[0, 0, 0, shares]);
                    bytes[31..35].copy_from_slice(&[0, 0, 0, price]);
                }
                _ => {}
            }
            bytes.to_vec()
        },
    )
}

/// What keeps an order's place and what does not, in one level.
#[test]
fn a_replaced_order_goes_to_the_end_and_a_reduced_one_stays() {
    use nautilus_dataplane::feed::Symbol;
    use nautilus_dataplane::feed::itch::messages::*;
    use nautilus_dataplane::feed::itch::{Nanoseconds, Price4};
    let common = Common { stock_locate: 9, tracking_number: 0, timestamp: Nanoseconds(1) };
    let symbol = Symbol(*b"ZAAA    ");
    let mut books = books(16, 16);
    let mut apply = |bytes: &[u8]| {
        assert_eq!(books.apply(&Message::decode(bytes).unwrap()).1, None);
        let orders = books.orders(9, Side::Buy);
        let orders: Vec<_> = orders.map(|order| (order.reference, order.shares)).collect();
        let position = books.queue_position(3).map(|at| (at.orders_ahead, at.shares_ahead));
        (orders, position)
    };
    for (order, price) in [(1, 100), (2, 100), (3, 100), (4, 200)] {
        let side = Side::Buy.code();
        apply(&AddOrder::encode(common, order, side, 10, symbol, Price4(price)));
    }
    let (orders, position) = apply(&OrderExecuted::encode(common, 1, 4, 77));
    assert_eq!(orders, [(4, 10), (1, 6), (2, 10), (3, 10)]);
    assert_eq!(position, Some((2, 16)));
    let (orders, position) = apply(&OrderCancel::encode(common, 2, 9));
    assert_eq!((orders, position), (vec![(4, 10), (1, 6), (2, 1), (3, 10)], Some((2, 7))));
    // The same price and as many shares: at the end all the same.
    let (orders, position) = apply(&OrderReplace::encode(common, 1, 5, 6, Price4(100)));
    assert_eq!((orders, position), (vec![(4, 10), (2, 1), (3, 10), (5, 6)], Some((1, 1))));
    let (orders, position) = apply(&OrderDelete::encode(common, 2));
    assert_eq!((orders, position), (vec![(4, 10), (3, 10), (5, 6)], Some((0, 0))));
    let (_, position) = apply(&OrderDelete::encode(common, 3));
    assert_eq!(position, None);
    assert_eq!(books.symbols().collect::<Vec<_>>(), [(9, symbol)]);
    assert_eq!(books.order(5).map(|order| order.shares), Some(6));
}

proptest! {
    #[test]
    fn wild_messages_agree_with_the_model(
        messages in prop::collection::vec(wild_message(), 0..400)
    ) {
        let (mut books, mut model) = (books(64, 64), Model::default());
        for bytes in &messages {
            let message = Message::decode(bytes).unwrap();
            books.look_ahead(messages.iter().map(Vec::as_slice));
            let (_, problem) = books.apply(&message);
            // A trade message may name another symbol under the locate; orders never do.
            prop_assert!(!matches!(problem, Some(Problem::OrdersFull | Problem::LevelsFull)));
            if problem != Some(Problem::SymbolConflict) {
                model.apply(&message);
            }
            model.assert_equal(&books);
        }
    }
}
