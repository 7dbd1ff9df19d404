//! Single rules by example; all of them together against [`reference`] and the feed's own books.

mod property;
mod reference;

use super::*;
use crate::feed::itch::Price4;

const BUY: Side = Side::Buy;
const SELL: Side = Side::Sell;

/// An engine of one stock whose reference price is $1.00, and what it sent since it was asked last.
struct Desk {
    engine: Engine,
    tape: Tape,
    now_ns: u64,
}

impl Desk {
    fn new() -> Self {
        let mut tape = Tape::default();
        let spec = StockSpec { symbol: Symbol(*b"NAUT    "), reference_price: 10_000 };
        let engine = Engine::new(&[spec], Nanoseconds(1), &mut tape);
        let types: Vec<u8> = tape.messages().map(|message| message[0]).collect();
        assert_eq!(types, b"RHY");
        tape.clear();
        Self { engine, tape, now_ns: 1 }
    }

    fn opened() -> Self {
        let mut desk = Self::new();
        desk.apply(Command::Open { locate: 1 }).unwrap();
        desk.said();
        desk
    }

    fn apply(&mut self, command: Command) -> Result<Reply, Reject> {
        self.now_ns += 1;
        self.engine.apply(&command, Nanoseconds(self.now_ns), &mut self.tape)
    }

    fn enter(&mut self, side: Side, shares: u32, kind: Kind) -> Reply {
        let order = NewOrder { locate: 1, side, shares, kind, attribution: None };
        self.apply(Command::Enter(order)).unwrap()
    }

    fn limit(&mut self, side: Side, shares: u32, cents: u32) -> Reply {
        self.enter(side, shares, Kind::Limit(cents * TICK))
    }

    /// The messages since the last call, in short.
    fn said(&mut self) -> Vec<String> {
        let said = self.tape.messages().map(|bytes| match Message::decode(bytes).unwrap() {
            Message::AddOrder(m) => {
                format!("A{} {:?} {}@{}", m.order(), m.side(), m.shares(), m.price())
            }
            Message::AddOrderAttributed(m) => {
                format!("F{} {}@{} {:?}", m.order(), m.shares(), m.price(), m.attribution())
            }
            Message::OrderExecuted(m) => {
                format!("E{} {} #{}", m.order(), m.shares(), m.match_number())
            }
            Message::OrderExecutedWithPrice(m) => format!(
                "C{} {}@{} {:?} #{}",
                m.order(),
                m.shares(),
                m.price(),
                m.printable(),
                m.match_number()
            ),
            Message::OrderCancel(m) => format!("X{} {}", m.order(), m.shares()),
            Message::OrderDelete(m) => format!("D{}", m.order()),
            Message::OrderReplace(m) => {
                format!("U{} {} {}@{}", m.order(), m.new_order(), m.shares(), m.price())
            }
            Message::CrossTrade(m) => {
                format!("Q {}@{} {:?} #{}", m.shares(), m.price(), m.cross_type(), m.match_number())
            }
            Message::StockTradingAction(m) => format!("H {:?}", m.trading_state()),
            Message::BrokenTrade(m) => format!("B #{}", m.match_number()),
            Message::NetOrderImbalance(m) => format!(
                "I {} {} {:?} far {} near {} at {} {:?} {:?}",
                m.paired_shares(),
                m.imbalance_shares(),
                m.imbalance_direction(),
                m.far_price(),
                m.near_price(),
                m.reference_price(),
                m.cross_type(),
                m.price_variation_indicator()
            ),
            other => format!("{other:?}"),
        });
        let said = said.collect();
        self.tape.clear();
        said
    }

    /// References of a side in the order in which they trade.
    fn queue(&self, side: Side) -> Vec<u64> {
        self.engine.orders(1, side).map(|order| order.reference).collect()
    }
}

#[test]
fn the_better_price_and_then_the_earlier_order_trades_at_its_own_price() {
    let mut desk = Desk::opened();
    desk.limit(SELL, 100, 102);
    desk.limit(SELL, 100, 101);
    desk.limit(SELL, 50, 101);
    desk.said();
    let reply = desk.limit(BUY, 260, 102);
    assert_eq!(reply, Reply { resting: Some(4), traded: 250 });
    assert_eq!(desk.said(), ["E2 100 #2", "E3 50 #3", "E1 100 #4", "A4 'B' 10@1.0200"]);
    assert_eq!(desk.engine.last_price(1), 10_200);
}

#[test]
fn what_does_not_trade_at_once_is_gone_or_rests() {
    let mut desk = Desk::opened();
    desk.limit(SELL, 10, 101);
    desk.limit(SELL, 10, 103);
    desk.said();
    assert_eq!(desk.enter(BUY, 30, Kind::Immediate(10_200)), Reply { resting: None, traded: 10 });
    assert_eq!(desk.enter(BUY, 30, Kind::Market), Reply { resting: None, traded: 10 });
    assert_eq!(desk.said(), ["E1 10 #2", "E2 10 #3"]);
    assert_eq!(desk.enter(BUY, 30, Kind::Market), Reply::default());
    assert!(desk.said().is_empty() && desk.engine.order_count() == 0);
}

#[test]
fn only_a_smaller_size_keeps_the_place() {
    let mut desk = Desk::opened();
    for _ in 0..3 {
        desk.limit(BUY, 100, 99);
    }
    desk.said();
    let replace =
        |reference, shares, cents: u32| Command::Replace { reference, shares, price: cents * TICK };
    assert_eq!(desk.apply(replace(1, 60, 99)).unwrap().resting, Some(1));
    assert_eq!(desk.queue(BUY), [1, 2, 3]);
    assert_eq!(desk.apply(replace(1, 61, 99)).unwrap().resting, Some(4));
    assert_eq!(desk.queue(BUY), [2, 3, 4]);
    assert_eq!(desk.apply(replace(2, 50, 98)).unwrap().resting, Some(5));
    assert_eq!(desk.queue(BUY), [3, 4, 5]);
    assert_eq!(desk.apply(replace(3, 100, 99)).unwrap().resting, Some(3));
    assert_eq!(desk.said(), ["X1 40", "U1 4 61@0.9900", "U2 5 50@0.9800"]);
    assert_eq!(desk.queue(BUY), [3, 4, 5]);
}

#[test]
fn a_replacement_that_meets_the_other_side_trades() {
    let mut desk = Desk::opened();
    let order = NewOrder {
        locate: 1,
        side: BUY,
        shares: 100,
        kind: Kind::Limit(9_900),
        attribution: Some(Text(*b"NAUT")),
    };
    desk.apply(Command::Enter(order)).unwrap();
    desk.limit(SELL, 30, 101);
    desk.said();
    desk.apply(Command::Replace { reference: 1, shares: 100, price: 10_100 }).unwrap();
    assert_eq!(desk.said(), ["D1", "E2 30 #2", "F3 70@1.0100 \"NAUT\""]);
}

#[test]
fn cancels_in_part_and_whole() {
    let mut desk = Desk::opened();
    desk.limit(BUY, 100, 99);
    desk.said();
    let cancel = |shares| Command::Cancel { reference: 1, shares };
    assert_eq!(desk.apply(cancel(0)), Err(Reject::Shares));
    desk.apply(cancel(99)).unwrap();
    desk.apply(cancel(5)).unwrap();
    assert_eq!(desk.said(), ["X1 99", "D1"]);
    assert_eq!(desk.apply(cancel(1)), Err(Reject::UnknownOrder));
    assert_eq!(desk.apply(Command::Delete { reference: 1 }), Err(Reject::UnknownOrder));
    assert!(desk.said().is_empty());
}

#[test]
fn a_halt_stops_matching_and_the_cross_behind_it_uncrosses() {
    let mut desk = Desk::opened();
    desk.limit(BUY, 100, 100);
    desk.apply(Command::Halt { locate: 1 }).unwrap();
    desk.limit(SELL, 60, 98);
    desk.limit(SELL, 60, 99);
    desk.apply(Command::Cancel { reference: 3, shares: 20 }).unwrap();
    let market =
        NewOrder { locate: 1, side: BUY, shares: 1, kind: Kind::Market, attribution: None };
    assert_eq!(desk.apply(Command::Enter(market)), Err(Reject::Phase));
    desk.apply(Command::Imbalance { locate: 1 }).unwrap();
    desk.apply(Command::Resume { locate: 1 }).unwrap();
    assert_eq!(
        desk.said(),
        [
            "A1 'B' 100@1.0000",
            "H 'H'",
            "A2 'S' 60@0.9800",
            "A3 'S' 60@0.9900",
            "X3 20",
            "I 100 0 'N' far 0.0000 near 1.0000 at 1.0000 'H' 'L'",
            "C1 100@1.0000 'N' #2",
            "C2 60@1.0000 'N' #3",
            "C3 40@1.0000 'N' #4",
            "Q 100@1.0000 'H' #5",
            "H 'T'"
        ]
    );
}

#[test]
fn the_opening_cross_takes_shown_and_hidden_orders_by_price_and_time() {
    let mut desk = Desk::new();
    desk.limit(SELL, 50, 100);
    desk.enter(BUY, 30, Kind::AtOpen(None));
    desk.limit(BUY, 40, 101);
    desk.enter(SELL, 30, Kind::AtOpen(Some(10_100)));
    desk.enter(BUY, 999, Kind::AtOpen(Some(9_900)));
    desk.said();
    desk.apply(Command::Imbalance { locate: 1 }).unwrap();
    // 70 buy at 1.01, where 80 sell; 50 would trade at 1.00. Of the cross alone 30 trade at 1.01.
    let imbalance = "I 70 10 'S' far 1.0100 near 1.0100 at 1.0100 'O' 'L'";
    assert_eq!(desk.said(), [imbalance]);
    desk.apply(Command::Open { locate: 1 }).unwrap();
    assert_eq!(
        desk.said(),
        ["C2 40@1.0100 'N' #1", "C1 50@1.0100 'N' #2", "Q 70@1.0100 'O' #3", "H 'T'"]
    );
    assert_eq!((desk.engine.order_count(), desk.engine.last_price(1)), (0, 10_100));
    // What the cross left of its own orders is gone.
    assert_eq!(desk.limit(SELL, 999, 99).traded, 0);
}

#[test]
fn the_closing_cross_ends_the_day() {
    let mut desk = Desk::opened();
    desk.limit(BUY, 100, 99);
    desk.limit(SELL, 100, 101);
    desk.enter(SELL, 130, Kind::AtClose(None));
    desk.apply(Command::Imbalance { locate: 1 }).unwrap();
    desk.apply(Command::Close { locate: 1 }).unwrap();
    assert_eq!(
        desk.said()[2..],
        [
            "I 100 30 'S' far 0.0000 near 0.9900 at 0.9900 'C' 'L'",
            "C1 100@0.9900 'N' #2",
            "Q 100@0.9900 'C' #3"
        ]
    );
    let late =
        NewOrder { locate: 1, side: BUY, shares: 1, kind: Kind::Limit(100), attribution: None };
    assert_eq!(desk.apply(Command::Enter(late)), Err(Reject::Phase));
    let replace = Command::Replace { reference: 2, shares: 1, price: 10_100 };
    assert_eq!(desk.apply(replace), Err(Reject::Phase));
    desk.apply(Command::Delete { reference: 2 }).unwrap();
    assert_eq!(desk.said(), ["D2"]);
}

#[test]
fn a_trade_is_broken_once() {
    let mut desk = Desk::opened();
    desk.limit(SELL, 10, 101);
    desk.enter(BUY, 10, Kind::Market);
    desk.said();
    let broken = Command::Break { match_number: 2 };
    desk.apply(broken).unwrap();
    assert_eq!(desk.said(), ["B #2"]);
    for match_number in [0, 2, 3, u64::MAX] {
        let unknown = desk.apply(Command::Break { match_number });
        assert_eq!(unknown, Err(Reject::UnknownMatch));
    }
}

#[test]
fn impossible_orders_are_rejected_without_a_message() {
    let mut desk = Desk::opened();
    let good =
        NewOrder { locate: 1, side: BUY, shares: 1, kind: Kind::Limit(100), attribution: None };
    for (order, reject) in [
        (NewOrder { locate: 0, ..good }, Reject::UnknownStock),
        (NewOrder { locate: 2, ..good }, Reject::UnknownStock),
        (NewOrder { shares: 0, ..good }, Reject::Shares),
        (NewOrder { shares: SHARES_MAX + 1, ..good }, Reject::Shares),
        (NewOrder { kind: Kind::Limit(0), ..good }, Reject::Price),
        (NewOrder { kind: Kind::Immediate(150), ..good }, Reject::Price),
        (NewOrder { kind: Kind::AtClose(Some(PRICE_MAX + TICK)), ..good }, Reject::Price),
        (NewOrder { kind: Kind::AtOpen(None), ..good }, Reject::Phase),
    ] {
        assert_eq!(desk.apply(Command::Enter(order)), Err(reject), "{order:?}");
    }
    for command in [Command::Open { locate: 1 }, Command::Resume { locate: 1 }] {
        assert_eq!(desk.apply(command), Err(Reject::Phase));
    }
    assert!(desk.said().is_empty());
    assert_eq!(format!("{}", Price4(PRICE_MAX)), "199999.9900");
}

#[test]
fn the_books_as_text() {
    let mut desk = Desk::opened();
    desk.limit(BUY, 100, 99);
    desk.limit(BUY, 50, 99);
    desk.limit(BUY, 7, 98);
    assert_eq!(
        books_text(&desk.engine),
        "NAUT bid 0.9900 150 2 offer none\nNAUT buy 0.9900 150 2\nNAUT buy 0.9800 7 1\n"
    );
}
