//! Random days against a model that keeps what it was told in maps, and says of messages that cannot be what the
//! venue meant that nothing can be believed.

use std::collections::{BTreeMap, HashMap};

use nautilus_dataplane::feed::Symbol;
use nautilus_dataplane::feed::iex::tops::*;
use nautilus_dataplane::feed::iex::wire::{PRICE_MAX, Price, Timestamp};
use nautilus_dataplane::feed::itch::{Code, Text};
use nautilus_dataplane::feed::session::Doubt;
use proptest::prelude::*;

use super::{Bench, NOW_NS, segment};

/// 2023-08-22 04:00 UTC: midnight in New York, in summer.
const MIDNIGHT: i64 = 1_692_676_800_000_000_000;

/// A message, apart from its bytes.
#[derive(Clone, Debug)]
enum Said {
    Quote {
        stock: usize,
        flags: u8,
        bid: (u32, u64),
        ask: (u32, u64),
    },
    Trade {
        stock: usize,
        conditions: u8,
        size: u32,
        price: u64,
    },
    /// The trade so many trades ago.
    Break {
        ago: usize,
    },
    Halt {
        stock: usize,
        code: u8,
    },
    Own {
        stock: usize,
        is_halted: bool,
    },
    Test {
        stock: usize,
        status: u8,
        detail: u8,
    },
    Event {
        code: u8,
    },
    Other {
        what: u8,
    },
}

const STOCKS: [&str; 4] = ["A", "BRK.A", "ZIEXT", "LONGNAME"];

fn symbol(stock: usize) -> Symbol {
    Symbol::new(STOCKS[stock]).unwrap()
}

fn said() -> impl Strategy<Value = Said> {
    let stock = 0..STOCKS.len();
    // Beyond what 32 bits hold as well.
    let price = prop_oneof![1..2_000_000_u64, 1..=PRICE_MAX];
    let side = prop_oneof![Just((0, 0)), (1..=u32::MAX, price.clone()), Just((0, 9))];
    prop_oneof![
        5 => (stock.clone(), any::<u8>(), side.clone(), side)
            .prop_map(|(stock, flags, bid, ask)| Said::Quote { stock, flags, bid, ask }),
        4 => (stock.clone(), any::<u8>(), 0..1_000_u32, price)
            .prop_map(|(stock, conditions, size, price)| Said::Trade { stock, conditions, size, price }),
        2 => (0..6_usize).prop_map(|ago| Said::Break { ago }),
        1 => (stock.clone(), prop::sample::select(b"HOPTX".to_vec()))
            .prop_map(|(stock, code)| Said::Halt { stock, code }),
        1 => (stock.clone(), any::<bool>())
            .prop_map(|(stock, is_halted)| Said::Own { stock, is_halted }),
        1 => (stock, 0..3_u8, prop::sample::select(b" ACDN".to_vec()))
            .prop_map(|(stock, status, detail)| Said::Test { stock, status, detail }),
        1 => prop::sample::select(b"OSRMECZ".to_vec()).prop_map(|code| Said::Event { code }),
        1 => (0..5_u8).prop_map(|what| Said::Other { what }),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Trade {
    stock: usize,
    size: u32,
    price: u64,
    conditions: u8,
    id: u64,
    at: u64,
    is_broken: bool,
}

/// Flags, bid, ask, number.
type Quoted = (u8, (u32, u64), (u32, u64), u64);

#[derive(Default)]
struct Stats {
    trades: u64,
    shares: u64,
    value: u128,
    broken: u64,
}

/// What ought to be published, in no layout.
#[derive(Default)]
struct Model {
    quotes: BTreeMap<usize, Quoted>,
    trades: Vec<Trade>,
    /// Place of each stock's last trade in `trades`, and the number that touched it.
    last: HashMap<usize, (usize, u64)>,
    /// The same for what was counted, which an older break touches as well.
    stats: BTreeMap<usize, Stats>,
    unknown_breaks: u64,
    halt: BTreeMap<usize, u8>,
    own: BTreeMap<usize, u8>,
    test: BTreeMap<usize, u8>,
    event: Option<u8>,
    invalid: u64,
    zero: u64,
}

impl Model {
    /// Takes a message in and gives its bytes.
    fn say(&mut self, said: &Said, number: u64) -> Vec<u8> {
        let since_ns = number * 1_000;
        let at = Timestamp(MIDNIGHT + since_ns as i64);
        match *said {
            Said::Quote { stock, flags, bid, ask } => {
                let shown = |side: (u32, u64)| if side.0 == 0 { (0, 0) } else { side };
                self.quotes.insert(stock, (flags, shown(bid), shown(ask), number));
                let price = |price: u64| Price(price as i64);
                let (bid_price, ask_price) = (price(bid.1), price(ask.1));
                QuoteUpdate::encode(flags, at, symbol(stock), bid.0, bid_price, ask_price, ask.0)
                    .into()
            }
            Said::Trade { stock, conditions, size, price } => {
                let id = 1_000 + number;
                if size == 0 {
                    self.zero += 1;
                } else {
                    let is_broken = false;
                    let trade =
                        Trade { stock, size, price, conditions, id, at: since_ns, is_broken };
                    self.last.insert(stock, (self.trades.len(), number));
                    self.trades.push(trade);
                    let stats = self.stats.entry(stock).or_default();
                    stats.trades += 1;
                    stats.shares += u64::from(size);
                    stats.value += u128::from(size) * u128::from(price);
                }
                TradeReport::encode(conditions, at, symbol(stock), size, Price(price as i64), id)
                    .into()
            }
            Said::Break { ago } => {
                let place = self.trades.len().checked_sub(ago + 1);
                let trade = place.map(|place| self.trades[place]);
                match (place, trade) {
                    (Some(place), Some(trade)) if !trade.is_broken => {
                        self.trades[place].is_broken = true;
                        let stats = self.stats.get_mut(&trade.stock).unwrap();
                        stats.trades -= 1;
                        stats.shares -= u64::from(trade.size);
                        stats.value -= u128::from(trade.size) * u128::from(trade.price);
                        stats.broken += 1;
                    }
                    _ => self.unknown_breaks += 1,
                }
                let (stock, id) = trade.map_or((0, 5), |trade| (trade.stock, trade.id));
                TradeBreak::encode(0, at, symbol(stock), 1, Price(1), id).into()
            }
            Said::Halt { stock, code } => {
                if code == b'X' {
                    self.invalid += 1;
                } else {
                    self.halt.insert(stock, code);
                }
                TradingStatus::encode(Code(code), at, symbol(stock), Text(*b"T1  ")).into()
            }
            Said::Own { stock, is_halted } => {
                self.own.insert(stock, if is_halted { b'H' } else { b'T' });
                let code = Code(if is_halted { b'O' } else { b'N' });
                OperationalHalt::encode(code, at, symbol(stock)).into()
            }
            Said::Test { stock, status, detail } => {
                let code = match (status, detail) {
                    (0, _) => Some(b'0'),
                    (1, b'A') => Some(b'1'),
                    (1, b'C') => Some(b'2'),
                    (1, _) => Some(b'N'),
                    _ => None,
                };
                match code {
                    Some(code) => drop(self.test.insert(stock, code)),
                    None => self.invalid += 1,
                }
                ShortSalePriceTest::encode(status, at, symbol(stock), Code(detail)).into()
            }
            Said::Event { code } => {
                match code {
                    b'Z' => self.invalid += 1,
                    b'R' => self.event = Some(b'Q'),
                    code => self.event = Some(code),
                }
                SystemEvent::encode(Code(code), at).into()
            }
            Said::Other { what } => match what {
                0 => SecurityDirectory::encode(0x80, at, symbol(0), 100, Price(5), 1).into(),
                1 => OfficialPrice::encode(Code(b'Q'), at, symbol(0), Price(5)).into(),
                2 => RetailLiquidity::encode(Code(b'A'), at, symbol(0)).into(),
                3 => SecurityEvent::encode(Code(b'O'), at, symbol(0)).into(),
                // A quote to which the venue has added fields that nobody knows.
                _ => {
                    self.quotes.insert(3, (0, (1, 2), (3, 4), number));
                    let quote = QuoteUpdate::encode(0, at, symbol(3), 1, Price(2), Price(4), 3);
                    [&quote[..], b"new fields"].concat()
                }
            },
        }
    }

    fn assert_published(&self, bench: &Bench) {
        let key = |stock: usize, value: &str| format!("md:iex:{}:{value}", STOCKS[stock]);
        let (u32_at, u64_at) = (
            |value: &[u8], at: usize| u32::from_le_bytes(value[at..at + 4].try_into().unwrap()),
            |value: &[u8], at: usize| u64::from_le_bytes(value[at..at + 8].try_into().unwrap()),
        );
        for stock in 0..STOCKS.len() {
            let value = bench.value(&key(stock, "bbo"));
            assert_eq!(value.is_some(), self.quotes.contains_key(&stock));
            if let (Some(value), Some((flags, bid, ask, number))) = (value, self.quotes.get(&stock))
            {
                assert_eq!((u32_at(value, 72), u64_at(value, 56)), *bid);
                assert_eq!((u32_at(value, 76), u64_at(value, 64)), *ask);
                let crossed = bid.0 != 0 && ask.0 != 0 && bid.1 >= ask.1;
                let expected = u8::from(crossed) * 8
                    + u8::from(flags & 0x80 != 0) * 16
                    + u8::from(flags & 0x40 != 0) * 32;
                assert_eq!((value[6], u64_at(value, 80)), (expected, 0));
                assert_eq!((u64_at(value, 8), u64_at(value, 24)), (*number, number * 1_000));
            }
            let value = bench.value(&key(stock, "last"));
            let last = self.last.get(&stock).map(|(place, _)| self.trades[*place]);
            assert_eq!(value.is_some(), last.is_some());
            if let (Some(value), Some(trade)) = (value, last) {
                assert_eq!((value[50], value[72]), (b'T', trade.conditions));
                assert_eq!((u32_at(value, 52), u64_at(value, 56)), (trade.size, trade.price));
                assert_eq!((u64_at(value, 64), u64_at(value, 24)), (trade.id, trade.at));
                assert_eq!(value[6] & 4 != 0, trade.is_broken);
            }
            let value = bench.value(&key(stock, "stats"));
            assert_eq!(value.is_some(), self.stats.contains_key(&stock));
            if let (Some(value), Some(stats)) = (value, self.stats.get(&stock)) {
                assert_eq!((u64_at(value, 56), u64_at(value, 64)), (0, stats.trades));
                assert_eq!((u64_at(value, 72), u64_at(value, 88)), (stats.shares, stats.broken));
                let worth = u64::try_from(stats.value).unwrap_or(u64::MAX);
                assert_eq!(u64_at(value, 80), worth);
            }
            let value = bench.value(&key(stock, "status"));
            let parts = [&self.halt, &self.own, &self.test].map(|part| part.get(&stock).copied());
            assert_eq!(value.is_some(), parts.iter().any(Option::is_some));
            if let Some(value) = value {
                let [halt, own, test] = parts.map(Option::unwrap_or_default);
                assert_eq!((value[50], value[56], value[51]), (halt, own, test));
                assert_eq!(value[57..59], [0, 0], "of other markets IEX says nothing");
            }
        }
        assert_eq!(bench.value("md:iex:status").map(|value| value[50]), self.event);
    }
}

proptest! {
    #[test]
    fn what_is_published_is_what_was_said(
        packets in prop::collection::vec(prop::collection::vec(said(), 0..8), 1..20),
    ) {
        let (mut bench, mut model, mut number) = (Bench::tops(), Model::default(), 1);
        for packet in &packets {
            let first = number;
            let mut messages = Vec::new();
            for said in packet {
                messages.push(model.say(said, number));
                number += 1;
            }
            let blocks: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
            bench.send(&segment(first, &blocks));
            model.assert_published(&bench);
        }
        prop_assert!(bench.channel.is_live(NOW_NS));
        prop_assert_eq!(bench.channel.sequencer().doubt(), None);
        let counters = bench.channel.counters();
        prop_assert_eq!(counters.messages, number - 1);
        prop_assert_eq!(counters.invalid_messages, model.invalid);
        prop_assert_eq!(counters.zero_shares, model.zero);
        prop_assert_eq!(counters.trades, model.trades.len() as u64);
        bench.channel.housekeeping(NOW_NS, &mut bench.keyspace);
        if !model.trades.is_empty() || model.unknown_breaks != 0 {
            let value = bench.value("md:iex:stats").unwrap();
            let unknown = u64::from_le_bytes(value[96..104].try_into().unwrap());
            prop_assert_eq!(unknown, model.unknown_breaks);
        }
    }
}

/// Says one message behind a quote; what came of it.
fn after(message: &[u8]) -> (Bench, Option<Doubt>) {
    let mut bench = Bench::tops();
    let at = Timestamp(MIDNIGHT);
    let quote = QuoteUpdate::encode(0, at, symbol(0), 1, Price(2), Price(4), 3);
    bench.send(&segment(1, &[&quote, message]));
    let doubt = bench.channel.sequencer().doubt();
    assert_eq!(bench.channel.is_live(NOW_NS), doubt.is_none());
    (bench, doubt)
}

#[test]
fn prices_and_times_that_are_none_leave_a_doubt() {
    let at = Timestamp(MIDNIGHT);
    let quote = |bid: (u32, i64), ask: (u32, i64), at: Timestamp| {
        QuoteUpdate::encode(0, at, symbol(0), bid.0, Price(bid.1), Price(ask.1), ask.0).to_vec()
    };
    let trade = |price: i64| TradeReport::encode(0, at, symbol(0), 1, Price(price), 1).to_vec();
    let auction = |price: i64| {
        let (one, bad) = (Price(1), Price(price));
        let (kind, side) = (Code(b'O'), Code(b'B'));
        let name = symbol(0);
        AuctionInformation::encode(kind, at, name, 1, one, one, 1, side, 0, 0, one, one, one, bad)
            .to_vec()
    };
    let too_high = PRICE_MAX as i64 + 1;
    for bad in [
        quote((1, -1), (1, 5), at),
        quote((1, 4), (1, too_high), at),
        quote((0, i64::MIN), (1, 5), at),
        quote((1, 0), (1, 5), at),
        quote((1, 4), (1, 5), Timestamp(-1)),
        trade(-1),
        trade(i64::MAX),
        auction(-1),
    ] {
        let (bench, doubt) = after(&bad);
        assert_eq!(doubt, Some(Doubt::Malformed), "{bad:?}");
        assert_eq!(bench.channel.counters().invalid_messages, 1, "{bad:?}");
        let quote = bench.value("md:iex:A:bbo").unwrap();
        assert_eq!(quote[72..80], [1, 0, 0, 0, 3, 0, 0, 0], "{bad:?}: what was said before stays");
        assert!(bench.keyspace.get("md:iex:A:bbo", NOW_NS).is_none());
    }
    // A quote that says of no price that it is of no shares is one.
    assert_eq!(after(&quote((0, 0), (1, 5), at)).1, None);
    let (bench, doubt) = after(&auction(9));
    assert_eq!((doubt, bench.channel.counters().invalid_messages), (None, 0));
    let status = bench.value("md:iex:A:status").unwrap();
    assert_eq!(status[168..176], 9_u64.to_le_bytes(), "the upper collar");
}

#[test]
fn messages_that_are_too_short_leave_a_doubt_and_unknown_ones_none() {
    for &(code, bytes) in LENGTHS {
        let mut short = vec![b' '; bytes - 1];
        short[0] = code;
        let (bench, doubt) = after(&short);
        assert_eq!(
            (doubt, bench.channel.counters().malformed_messages),
            (Some(Doubt::Malformed), 1)
        );
    }
    let (bench, doubt) = after(b"");
    assert_eq!((doubt, bench.channel.counters().malformed_messages), (Some(Doubt::Malformed), 1));
    let (bench, doubt) = after(b"Z what will be");
    assert_eq!((doubt, bench.channel.counters().unknown_messages), (None, 1));
}

#[test]
fn a_symbol_that_is_no_key_is_counted_and_one_too_many_is_a_doubt() {
    let at = Timestamp(MIDNIGHT);
    let quote =
        |name: [u8; 8]| QuoteUpdate::encode(0, at, Symbol(name), 1, Price(2), Price(4), 3).to_vec();
    let (bench, doubt) = after(&quote(*b"A B     "));
    assert_eq!((doubt, bench.channel.counters().unnamed), (None, 1));
    assert_eq!(bench.keys(), ["md:iex:A:bbo"]);

    let mut bench = Bench::tops();
    let name = |number: u32| {
        let mut name = *b"        ";
        name[..6].copy_from_slice(format!("{number:06}").as_bytes());
        name
    };
    for first in (0..1 << 16).step_by(1 << 10) {
        let messages: Vec<_> =
            (first..first + (1 << 10)).map(|number| quote(name(number))).collect();
        let blocks: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        bench.send(&segment(u64::from(first) + 1, &blocks));
    }
    assert_eq!((bench.channel.stock_count(), bench.channel.sequencer().doubt()), (1 << 16, None));
    bench.send(&segment((1 << 16) + 1, &[&quote(*b"ONEMORE ")]));
    assert!(matches!(bench.channel.sequencer().doubt(), Some(Doubt::Book(_))));
    assert_eq!(bench.channel.counters().no_room, 1);
}
