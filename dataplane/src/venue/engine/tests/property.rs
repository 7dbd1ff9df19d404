//! Random order streams: the engine, the plain engine, the feed's books and a list of orders kept from
//! the messages alone must agree after every command, and every message must be possible by itself.

use super::super::*;
use super::reference::{CENTS_MAX, Plain, Resting};
use crate::feed::book::{BookLimits, Books};
use crate::feed::glimpse::{SnapshotItem, SnapshotReader, write_snapshot};
use proptest::prelude::*;
use std::collections::BTreeMap;

const STOCKS: u16 = 2;
const LAST_CENTS: u32 = 30;

/// A command before it is known which orders there are.
#[derive(Clone, Debug)]
enum Op {
    Enter(NewOrder),
    Cancel(prop::sample::Index, u32),
    Delete(prop::sample::Index),
    Replace(prop::sample::Index, u32, u32),
    Change(u16, u8),
    Break(prop::sample::Index),
}

fn price() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 20..40u32, 1 => 1..CENTS_MAX].prop_map(|cents| cents * TICK)
}

fn op() -> impl Strategy<Value = Op> {
    let kind = prop_oneof![
        12 => price().prop_map(Kind::Limit),
        2 => price().prop_map(Kind::Immediate),
        1 => Just(Kind::Market),
        1 => prop::option::of(price()).prop_map(Kind::AtOpen),
        1 => prop::option::of(price()).prop_map(Kind::AtClose),
    ];
    let shares = 1..200u32;
    let order = (1..=STOCKS, any::<bool>(), shares, kind, prop::option::weighted(0.2, Just(())));
    let order = order.prop_map(|(locate, buys, shares, kind, attributed)| NewOrder {
        locate,
        side: if buys { Side::Buy } else { Side::Sell },
        shares,
        kind,
        attribution: attributed.map(|()| Text(*b"NAUT")),
    });
    let index = any::<prop::sample::Index>;
    prop_oneof![
        20 => order.prop_map(Op::Enter),
        3 => (index(), 0..200u32).prop_map(|(index, shares)| Op::Cancel(index, shares)),
        4 => index().prop_map(Op::Delete),
        6 => (index(), 0..200u32, price()).prop_map(|(i, shares, price)| Op::Replace(i, shares, price)),
        3 => (1..=STOCKS, 0..5u8).prop_map(|(locate, change)| Op::Change(locate, change)),
        1 => index().prop_map(Op::Break),
    ]
}

/// Orders as the messages alone tell them: by side, then price and arrival.
#[derive(Default)]
struct Mirror {
    orders: BTreeMap<(u16, bool, u32, u64), Resting>,
    arrivals: u64,
}

impl Mirror {
    fn add(&mut self, locate: u16, buys: bool, resting: Resting) {
        self.arrivals += 1;
        let rank = if buys { u32::MAX - resting.cents } else { resting.cents };
        self.orders.insert((locate, buys, rank, self.arrivals), resting);
    }

    fn key(&self, reference: u64) -> (u16, bool, u32, u64) {
        *self.orders.iter().find(|(_, order)| order.reference == reference).unwrap().0
    }

    /// `first` says that the order must be the one of its side that trades first.
    fn reduce(&mut self, reference: u64, shares: u32, first: bool) {
        let key = self.key(reference);
        if first {
            let front = self.orders.range((key.0, key.1, 0, 0)..).next().unwrap();
            assert_eq!(front.1.reference, reference, "traded before its turn");
        }
        let order = self.orders.get_mut(&key).unwrap();
        order.shares = order.shares.checked_sub(u64::from(shares)).unwrap();
        if order.shares == 0 {
            self.orders.remove(&key);
        }
    }

    fn apply(&mut self, message: &Message<'_>) {
        let locate = message.common().stock_locate;
        let resting = |reference, shares: u32, price: crate::feed::itch::Price4| Resting {
            reference,
            shares: u64::from(shares),
            cents: price.0 / TICK,
        };
        match message {
            Message::AddOrder(m) => {
                self.add(locate, m.side().0 == b'B', resting(m.order(), m.shares(), m.price()));
            }
            Message::AddOrderAttributed(m) => {
                self.add(locate, m.side().0 == b'B', resting(m.order(), m.shares(), m.price()));
            }
            Message::OrderExecuted(m) => self.reduce(m.order(), m.shares(), true),
            Message::OrderExecutedWithPrice(m) => self.reduce(m.order(), m.shares(), true),
            Message::OrderCancel(m) => self.reduce(m.order(), m.shares(), false),
            Message::OrderDelete(m) => {
                let key = self.key(m.order());
                self.orders.remove(&key);
            }
            Message::OrderReplace(m) => {
                let key = self.key(m.order());
                self.orders.remove(&key);
                self.add(locate, key.1, resting(m.new_order(), m.shares(), m.price()));
            }
            _ => {}
        }
    }

    fn orders(&self, locate: u16, side: Side) -> Vec<Resting> {
        let mine = |key: &(u16, bool, u32, u64)| key.0 == locate && key.1 == (side == Side::Buy);
        self.orders.iter().filter(|(key, _)| mine(key)).map(|(_, order)| order.clone()).collect()
    }
}

fn books() -> Books {
    Books::new(BookLimits { orders_max: 1 << 10, levels_max: 1 << 10, hash_seed: 3 })
}

fn command(op: &Op, engine: &Engine) -> Option<Command> {
    let sides = [Side::Buy, Side::Sell];
    let mut live: Vec<u64> = (1..=STOCKS)
        .flat_map(|locate| sides.map(|side| engine.orders(locate, side)))
        .flatten()
        .map(|order| order.reference)
        .collect();
    live.sort_unstable();
    let pick = |index: &prop::sample::Index| (!live.is_empty()).then(|| *index.get(&live));
    Some(match op {
        Op::Enter(order) => Command::Enter(*order),
        Op::Cancel(index, shares) => Command::Cancel { reference: pick(index)?, shares: *shares },
        Op::Delete(index) => Command::Delete { reference: pick(index)? },
        Op::Replace(index, shares, price) => {
            Command::Replace { reference: pick(index)?, shares: *shares, price: *price }
        }
        Op::Change(locate, 0) => Command::Halt { locate: *locate },
        Op::Change(locate, 1) => Command::Resume { locate: *locate },
        Op::Change(locate, 2) => Command::Imbalance { locate: *locate },
        // Rare: nothing follows it.
        Op::Change(locate, 3) if engine.last_match() % 7 == 3 => Command::Close { locate: *locate },
        Op::Change(locate, _) => Command::Open { locate: *locate },
        Op::Break(index) => {
            Command::Break { match_number: index.index(engine.last_match() as usize + 1) as u64 }
        }
    })
}

/// Sides of a stock as prices and shares, to compare with the feed's books.
fn levels(books: &Books, locate: u16, side: Side) -> Vec<(u32, u64, u32)> {
    books.levels(locate, side).map(|level| (level.price, level.shares, level.orders)).collect()
}

fn check(engine: &Engine, plain: &Plain, books: &Books, mirror: &Mirror) {
    for locate in 1..=STOCKS {
        for side in [Side::Buy, Side::Sell] {
            let orders = engine.orders(locate, side).map(|order| Resting {
                reference: order.reference,
                shares: u64::from(order.shares),
                cents: order.price / TICK,
            });
            let orders: Vec<Resting> = orders.collect();
            assert_eq!(orders, plain.orders(locate, side));
            assert_eq!(orders, mirror.orders(locate, side));
            let read = books.orders(locate, side).map(|order| Resting {
                reference: order.reference,
                shares: u64::from(order.shares),
                cents: order.price / TICK,
            });
            assert_eq!(orders, read.collect::<Vec<_>>());
            let expected = engine.book(locate).levels(side);
            let expected: Vec<_> = expected.map(|l| (l.price, l.shares, l.orders)).collect();
            assert_eq!(levels(books, locate, side), expected);
        }
        let best = |side| engine.book(locate).best(side);
        if let (Phase::Open, Some(bid), Some(offer)) =
            (engine.phase(locate), best(Side::Buy), best(Side::Sell))
        {
            assert!(bid < offer, "crossed or locked: {bid} {offer}");
        }
    }
    assert_eq!(books.order_count() as usize, engine.order_count());
}

fn run(ops: &[Op]) {
    let spec = |name: &str| StockSpec {
        symbol: Symbol::new(name).unwrap(),
        reference_price: LAST_CENTS * TICK,
    };
    let mut tape = Tape::default();
    let mut engine = Engine::new(&[spec("ONE"), spec("TWO")], Nanoseconds(0), &mut tape);
    let mut plain = Plain::new(STOCKS, LAST_CENTS);
    let (mut books, mut mirror) = (books(), Mirror::default());
    for (now, op) in (1..).zip(ops) {
        let Some(command) = command(op, &engine) else { continue };
        let before = tape.len();
        let reply = engine.apply(&command, Nanoseconds(now), &mut tape);
        match &command {
            Command::Imbalance { .. } | Command::Break { .. } => {}
            command => {
                let plain = plain.apply(command);
                assert_eq!(reply.ok().map(|reply| reply.traded), plain, "{command:?}");
            }
        }
        assert!(reply.is_ok() || tape.len() == before, "rejected, but not without a message");
        let (mut bulk, mut crossed) = (0, None);
        for bytes in tape.messages() {
            let message = Message::decode(bytes).unwrap();
            assert_eq!(books.apply(&message).1, None, "{message:?}");
            mirror.apply(&message);
            match message {
                Message::OrderExecutedWithPrice(execution) => bulk += u64::from(execution.shares()),
                Message::CrossTrade(cross) => crossed = Some(cross.shares()),
                _ => {}
            }
        }
        assert!(bulk <= 2 * crossed.unwrap_or(0), "more in parts than in bulk");
        tape.clear();
        check(&engine, &plain, &books, &mirror);
    }
    let mut snapshot = self::books();
    let mut reader = SnapshotReader::new();
    write_snapshot(&At { engine: &engine, next_sequence: 9 }, |bytes| {
        if let SnapshotItem::Message(bytes) = reader.read(bytes).unwrap() {
            assert_eq!(snapshot.apply(&Message::decode(bytes).unwrap()).1, None);
        }
    });
    assert_eq!(reader.next_sequence(), Some(9));
    check(&engine, &plain, &snapshot, &mirror);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn all_agree_after_every_command(ops in prop::collection::vec(op(), 1..150)) {
        run(&ops);
    }
}
