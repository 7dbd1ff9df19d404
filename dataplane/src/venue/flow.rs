//! Seeded order flow: a trading day of commands for an [`Engine`], in about the proportions of a real
//! one, without a wall clock. The same specification gives the same commands on every machine.
//!
//! ```text
//!   orders before the opening, imbalances | opening crosses | flow, halts | imbalances, closing crosses
//! ```

use super::engine::{Command, Engine, Kind, NewOrder, PRICE_MAX, Phase, Reply, StockSpec, TICK};
use crate::feed::Symbol;
use crate::feed::itch::{Nanoseconds, Side, Text};
use crate::replay::random::Random;
use std::collections::VecDeque;

/// Orders a stock has on average before more are taken out than entered.
const ORDERS_PER_STOCK: usize = 100;

/// Orders a stock gets before its opening cross.
const ORDERS_BEFORE: u64 = 12;

/// When stocks open: 09:30.
const OPEN_NS: u64 = 34_200_000_000_000;

/// Seconds of a day behind the opening.
const OPEN_SECONDS: u64 = 86_400 - OPEN_NS / 1_000_000_000;

/// Cents a stock's price never leaves.
const CENTS_LEAST: u32 = 100;
const CENTS_MOST: u32 = PRICE_MAX / TICK / 4;

const PARTICIPANTS: [[u8; 4]; 4] = [*b"NAUT", *b"EDGE", *b"FLOW", *b"MMKR"];

/// A day to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowSpec {
    /// Any value; another one gives another day.
    pub seed: u64,
    /// Stocks, 1 to 65,535.
    pub symbols: u16,
    /// Messages after which the day is brought to its end; the closing crosses come on top.
    pub messages: u64,
    /// Messages per second of exchange time, 1 to 1,000,000,000.
    pub rate: u64,
}

/// Why there is no such day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlowError {
    /// No stock.
    #[error("--symbols must be 1 to 65535")]
    Symbols,
    /// An impossible rate.
    #[error("--rate must be 1 to 1000000000 messages a second")]
    Rate,
    /// No message, or more than the day has time for.
    #[error("--messages must be 1 or more, and --rate such that they end before midnight")]
    Messages,
}

enum Stage {
    /// Orders that are still to come before the opening.
    Before(u64),
    Flow,
    Over,
}

/// Gives one command after the other.
pub struct Flow {
    spec: FlowSpec,
    random: Random,
    stage: Stage,
    /// Commands that are due whatever the dice say.
    due: VecDeque<Command>,
    /// Halted stocks and how many commands until they are resumed.
    halted: Vec<(u16, u32)>,
    /// The middle of each stock's prices, in cents.
    middles: Vec<u32>,
    /// Orders entered, of which some may be gone.
    live: Vec<u64>,
    now_ns: u64,
}

/// The name of a stock: `NA` and its number in base 26.
/// Symbol of the stock of this index, from 0.
pub fn symbol(index: u16) -> Symbol {
    let mut bytes = *b"NAAAAA  ";
    let mut rest = index;
    for byte in bytes[2..6].iter_mut().rev() {
        *byte = b'A' + (rest % 26) as u8;
        rest /= 26;
    }
    Symbol(bytes)
}

impl Flow {
    /// A day, from its start on.
    pub fn new(spec: FlowSpec) -> Result<Self, FlowError> {
        if spec.symbols == 0 {
            return Err(FlowError::Symbols);
        }
        if !(1..=1_000_000_000).contains(&spec.rate) {
            return Err(FlowError::Rate);
        }
        // Half of what is left of the day at the rate is kept for what comes on top.
        if spec.messages == 0 || spec.messages / spec.rate >= OPEN_SECONDS / 2 {
            return Err(FlowError::Messages);
        }
        let mut random = Random::new(spec.seed);
        let middles = (0..spec.symbols).map(|_| 500 + random.below(40_000)).collect();
        Ok(Self {
            spec,
            random,
            stage: Stage::Before(ORDERS_BEFORE * u64::from(spec.symbols)),
            due: [b'O', b'S'].map(Command::System).into(),
            halted: Vec::new(),
            middles,
            live: Vec::new(),
            now_ns: OPEN_NS,
        })
    }

    /// The stocks, in the order of their locates.
    pub fn stocks(&self) -> Vec<StockSpec> {
        let specs = (0..self.spec.symbols).zip(&self.middles);
        specs
            .map(|(index, cents)| StockSpec {
                symbol: symbol(index),
                reference_price: cents * TICK,
            })
            .collect()
    }

    /// Exchange time of the next command, when `sent` messages were sent before it.
    pub fn now(&mut self, sent: u64) -> Nanoseconds {
        let mean_ns = 1_000_000_000 / self.spec.rate;
        let jitter_ns = if mean_ns == 0 { 0 } else { u64::from(self.random.below(mean_ns as u32)) };
        let now_ns =
            OPEN_NS + (u128::from(sent) * 1_000_000_000 / u128::from(self.spec.rate)) as u64;
        self.now_ns = self.now_ns.max(now_ns + jitter_ns);
        Nanoseconds(self.now_ns)
    }

    /// The next command, when `sent` messages were sent before it; `None` when the day is over. What
    /// the engine says to it goes to [`Self::note`].
    pub fn next_command(&mut self, engine: &Engine, sent: u64) -> Option<Command> {
        loop {
            if let Some(command) = self.due.pop_front() {
                return Some(command);
            }
            match self.stage {
                Stage::Over => return None,
                Stage::Before(0) => self.open(),
                Stage::Before(left) => {
                    self.stage = Stage::Before(left - 1);
                    return Some(self.early_order());
                }
                Stage::Flow if sent >= self.spec.messages => self.close(engine),
                Stage::Flow => return Some(self.flow(engine)),
            }
        }
    }

    /// Takes note of an order that rests.
    pub fn note(&mut self, reply: Reply, engine: &Engine) {
        self.live.extend(reply.resting);
        // More than half of it gone: forget those.
        if self.live.len() > 2 * engine.order_count() + 64 {
            self.live.retain(|reference| engine.order(*reference).is_some());
        }
    }

    fn locates(&self) -> std::ops::RangeInclusive<u16> {
        1..=self.spec.symbols
    }

    fn open(&mut self) {
        self.due.extend(self.locates().map(|locate| Command::Imbalance { locate }));
        self.due.push_back(Command::System(b'Q'));
        self.due.extend(self.locates().map(|locate| Command::Open { locate }));
        self.stage = Stage::Flow;
    }

    fn close(&mut self, engine: &Engine) {
        let halted = self.locates().filter(|locate| engine.phase(*locate) == Phase::Halted);
        self.due.extend(halted.map(|locate| Command::Resume { locate }).collect::<Vec<_>>());
        self.due.extend(self.locates().map(|locate| Command::Imbalance { locate }));
        self.due.extend(self.locates().map(|locate| Command::Close { locate }));
        self.due.extend([b'M', b'E', b'C'].map(Command::System));
        self.stage = Stage::Over;
    }

    fn early_order(&mut self) -> Command {
        let locate = 1 + self.random.below(u32::from(self.spec.symbols)) as u16;
        let side = self.side();
        let limit = (self.random.below(3) != 0).then(|| self.price(locate, side, -4));
        let kind = match (self.random.below(8), limit) {
            (0, limit) => Kind::AtOpen(limit),
            (1, limit) => Kind::AtClose(limit),
            _ => Kind::Limit(self.price(locate, side, -4)),
        };
        self.enter(locate, side, kind)
    }

    fn flow(&mut self, engine: &Engine) -> Command {
        if let Some(command) = self.halts(engine) {
            return command;
        }
        let locate = self.locate();
        if self.random.below(32) == 0 {
            let middle = &mut self.middles[usize::from(locate) - 1];
            let moved = (*middle + self.random.below(3)).saturating_sub(1);
            *middle = moved.clamp(CENTS_LEAST, CENTS_MOST);
        }
        let side = self.side();
        let is_full = engine.order_count() > ORDERS_PER_STOCK * usize::from(self.spec.symbols);
        match self.random.below(1_000) {
            0..430 if !is_full => {
                let kind = Kind::Limit(self.price(locate, side, 1));
                self.enter(locate, side, kind)
            }
            0..430 => self.delete(engine),
            430..465 => {
                let kind = Kind::Limit(self.price(locate, side, -3));
                self.enter(locate, side, kind)
            }
            465..480 if engine.phase(locate) == Phase::Open => {
                let kind = Kind::Immediate(self.price(locate, side, -3));
                self.enter(locate, side, kind)
            }
            480..486 if engine.phase(locate) == Phase::Open => {
                self.enter(locate, side, Kind::Market)
            }
            486..490 => {
                let limit = (self.random.below(2) == 0).then(|| self.price(locate, side, -3));
                self.enter(locate, side, Kind::AtClose(limit))
            }
            490..530 => match self.pick(engine) {
                Some(reference) => {
                    Command::Cancel { reference, shares: 1 + self.random.below(200) }
                }
                None => self.enter(locate, side, Kind::AtClose(None)),
            },
            530..660 => self.replace(engine),
            660..662 if engine.last_match() != 0 => {
                let back = u64::from(self.random.below(100));
                Command::Break { match_number: engine.last_match().saturating_sub(back).max(1) }
            }
            // Books grow until they are full.
            _ if !is_full && self.random.below(4) == 0 => {
                let kind = Kind::Limit(self.price(locate, side, 1));
                self.enter(locate, side, kind)
            }
            _ => self.delete(engine),
        }
    }

    /// A halt that begins or ends now, or an imbalance during one.
    fn halts(&mut self, engine: &Engine) -> Option<Command> {
        self.halted.iter_mut().for_each(|(_, left)| *left = left.saturating_sub(1));
        if let Some(over) = self.halted.iter().position(|(_, left)| *left == 0) {
            let (locate, _) = self.halted.swap_remove(over);
            return Some(Command::Resume { locate });
        }
        match self.random.below(20_000) {
            0..2 => {
                let locate = self.locate();
                let is_open = engine.phase(locate) == Phase::Open;
                is_open.then(|| {
                    self.halted.push((locate, 500 + self.random.below(2_000)));
                    Command::Halt { locate }
                })
            }
            2..60 => self.halted.first().map(|(locate, _)| Command::Imbalance { locate: *locate }),
            _ => None,
        }
    }

    fn delete(&mut self, engine: &Engine) -> Command {
        match self.pick(engine) {
            Some(reference) => Command::Delete { reference },
            None => {
                let (locate, side) = (self.locate(), self.side());
                let kind = Kind::Limit(self.price(locate, side, 1));
                self.enter(locate, side, kind)
            }
        }
    }

    fn replace(&mut self, engine: &Engine) -> Command {
        let Some(order) = self.pick(engine).and_then(|reference| engine.order(reference)).copied()
        else {
            return self.delete(engine);
        };
        let reference = order.reference;
        if self.random.below(3) == 0 {
            let shares = 1 + self.random.below(order.shares);
            return Command::Replace { reference, shares, price: order.price };
        }
        let shares = self.shares();
        let price = self.price(order.locate, order.side, 1);
        Command::Replace { reference, shares, price }
    }

    /// A live order.
    fn pick(&mut self, engine: &Engine) -> Option<u64> {
        while !self.live.is_empty() {
            let index = self.random.below(self.live.len() as u32) as usize;
            let reference = self.live[index];
            if engine.order(reference).is_some() {
                return Some(reference);
            }
            self.live.swap_remove(index);
        }
        None
    }

    fn enter(&mut self, locate: u16, side: Side, kind: Kind) -> Command {
        let shares = self.shares();
        let attribution = (self.random.below(7) == 0)
            .then(|| Text(PARTICIPANTS[self.random.below(PARTICIPANTS.len() as u32) as usize]));
        Command::Enter(NewOrder { locate, side, shares, kind, attribution })
    }

    /// A few stocks get most of the orders.
    fn locate(&mut self) -> u16 {
        let symbols = u32::from(self.spec.symbols);
        let (a, b) = (self.random.below(symbols), self.random.below(symbols));
        1 + (u64::from(a) * u64::from(b) / u64::from(symbols)) as u16
    }

    fn side(&mut self) -> Side {
        if self.random.below(2) == 0 { Side::Buy } else { Side::Sell }
    }

    /// Round lots, most of them small, and every fifth time an odd lot.
    fn shares(&mut self) -> u32 {
        match self.random.below(5) {
            0 => 1 + self.random.below(99),
            _ => 100 * (1 + self.random.run(1, 2, 20)),
        }
    }

    /// A price at least `nearest` cents on its own side of the middle, mostly not much further.
    fn price(&mut self, locate: u16, side: Side, nearest: i64) -> u32 {
        let away = nearest + i64::from(self.random.run(4, 5, 60));
        let middle = i64::from(self.middles[usize::from(locate) - 1]);
        let cents = match side {
            Side::Buy => middle - away,
            Side::Sell => middle + away,
        };
        cents.clamp(1, i64::from(PRICE_MAX / TICK)) as u32 * TICK
    }
}
