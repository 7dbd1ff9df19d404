//! Seeded ITCH 5.0 for volume: a day of a venue that never was, never with an impossible message.
//!
//! ```text
//!   S(O) V  per stock: R H Y L  S(S) S(Q)  per stock: Q  |  flow  |  S(M) S(E) S(C)
//! ```
//!
//! The flow adds, executes, cancels, deletes and replaces orders of a model book per stock in about the
//! proportions of a real day, with the rarer messages strewn in; all 23 types occur in a long run.
//! The same specification gives the same bytes on every machine.

mod stock;

use super::random::Random;
use crate::feed::Symbol;
use crate::feed::itch::messages::*;
use crate::feed::itch::{Code, Nanoseconds, Price4, Price8, Side, Text};
use std::collections::VecDeque;
use stock::Stock;

/// Orders a stock holds before deletions outnumber additions.
const ORDERS_PER_STOCK: usize = 64;

/// When the flow begins: 09:30.
const OPEN_NS: u64 = 34_200_000_000_000;

/// What to generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneratorSpec {
    /// Any value; another one gives another day.
    pub seed: u64,
    /// Stocks, 1 to 65,535.
    pub symbols: u16,
    /// Messages in all.
    pub messages: u64,
    /// Messages per second of exchange time, 1 to 1,000,000,000.
    pub rate: u64,
}

/// Why there is nothing to generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GeneratorError {
    /// No stock.
    #[error("--symbols must be 1 to 65,535")]
    Symbols,
    /// No message, or more than fit the day.
    #[error("--messages must be 1 or more, and --rate such that they end before midnight")]
    Messages,
    /// An impossible rate.
    #[error("--rate must be 1 to 1,000,000,000 messages a second")]
    Rate,
}

/// Gives one message after the other.
pub struct Generator {
    spec: GeneratorSpec,
    random: Random,
    stocks: Vec<Stock>,
    queue: VecDeque<Vec<u8>>,
    stage: Stage,
    given: u64,
    reference: u64,
    match_number: u64,
    out: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Directory(u16),
    Opening(u16),
    Flow,
    Closing,
}

impl Generator {
    /// A generator at the start of its day.
    pub fn new(spec: GeneratorSpec) -> Result<Self, GeneratorError> {
        if spec.symbols == 0 {
            return Err(GeneratorError::Symbols);
        }
        if !(1..=1_000_000_000).contains(&spec.rate) {
            return Err(GeneratorError::Rate);
        }
        let seconds = spec.messages / spec.rate;
        if spec.messages == 0 || seconds >= 86_400 - OPEN_NS / 1_000_000_000 {
            return Err(GeneratorError::Messages);
        }
        let mut random = Random::new(spec.seed);
        let stocks = (0..spec.symbols).map(|index| Stock::new(name(index), &mut random)).collect();
        let mut generator = Self {
            spec,
            random,
            stocks,
            queue: VecDeque::new(),
            stage: Stage::Directory(0),
            given: 0,
            reference: 0,
            match_number: 0,
            out: Vec::new(),
        };
        generator.event(b'O');
        let levels = [4_000, 3_700, 3_400].map(|points| Price8(points * 100_000_000));
        let decline =
            MwcbDeclineLevel::encode(generator.common(0), levels[0], levels[1], levels[2]);
        generator.queue.push_back(decline.to_vec());
        Ok(generator)
    }

    /// Messages given so far.
    pub fn given(&self) -> u64 {
        self.given
    }

    /// The next message, or `None` after the last.
    pub fn next_message(&mut self) -> Option<&[u8]> {
        if self.given == self.spec.messages {
            return None;
        }
        // The last three close the day.
        if self.spec.messages - self.given == 3 && self.stage != Stage::Closing {
            self.queue.clear();
            self.stage = Stage::Closing;
            for code in [b'M', b'E', b'C'] {
                self.event(code);
            }
        }
        while self.queue.is_empty() {
            self.fill();
        }
        self.out = self.queue.pop_front()?;
        // Stamped as it leaves, so that time never runs backwards.
        let stamp = self.now_ns().to_be_bytes();
        self.out[5..11].copy_from_slice(&stamp[2..]);
        self.given += 1;
        Some(&self.out)
    }

    fn now_ns(&self) -> u64 {
        let elapsed = u128::from(self.given) * 1_000_000_000 / u128::from(self.spec.rate);
        OPEN_NS + elapsed as u64
    }

    fn common(&self, stock_locate: u16) -> Common {
        Common { stock_locate, tracking_number: 0, timestamp: Nanoseconds(0) }
    }

    fn event(&mut self, code: u8) {
        let event = SystemEvent::encode(self.common(0), Code(code));
        self.queue.push_back(event.to_vec());
    }

    fn fill(&mut self) {
        match self.stage {
            Stage::Directory(index) if index < self.spec.symbols => {
                self.list(index);
                self.stage = Stage::Directory(index + 1);
            }
            Stage::Directory(_) => {
                self.event(b'S');
                self.event(b'Q');
                self.stage = Stage::Opening(0);
            }
            Stage::Opening(index) if index < self.spec.symbols => {
                self.cross(index, b'O', 1_000);
                self.stage = Stage::Opening(index + 1);
            }
            Stage::Opening(_) => self.stage = Stage::Flow,
            Stage::Flow | Stage::Closing => self.flow(),
        }
    }

    /// The messages that introduce a stock.
    fn list(&mut self, index: u16) {
        let common = self.common(index + 1);
        let stock = self.stocks[usize::from(index)].symbol;
        let no = Code(b'N');
        let directory = StockDirectory::encode(
            common,
            stock,
            Code(b'Q'),
            no,
            100,
            no,
            Code(b'C'),
            Text(*b"Z "),
            Code(b'P'),
            no,
            no,
            Code(b'1'),
            no,
            0,
            no,
        );
        let trading =
            StockTradingAction::encode(common, stock, Code(b'T'), Code(b' '), Text(*b"    "));
        let restriction = RegShoRestriction::encode(common, stock, Code(b'0'));
        let maker = Text(*b"MAKR");
        let position = MarketParticipantPosition::encode(
            common,
            maker,
            stock,
            Code(b'Y'),
            Code(b'N'),
            Code(b'A'),
        );
        self.queue.extend([
            directory.to_vec(),
            trading.to_vec(),
            restriction.to_vec(),
            position.to_vec(),
        ]);
    }

    fn cross(&mut self, index: u16, kind: u8, shares: u64) {
        self.match_number += 1;
        let stock = &self.stocks[usize::from(index)];
        let (symbol, price) = (stock.symbol, Price4(stock.middle()));
        let common = self.common(index + 1);
        let cross =
            CrossTrade::encode(common, shares, symbol, price, self.match_number, Code(kind));
        self.queue.push_back(cross.to_vec());
    }

    /// One event of the trading day.
    fn flow(&mut self) {
        let index = self.random.below(u32::from(self.spec.symbols)) as usize;
        self.stocks[index].drift(&mut self.random);
        let full = self.stocks[index].len() > ORDERS_PER_STOCK;
        match self.random.below(1_000) {
            0..=2 => self.rare(index),
            3..=462 if !full => self.add(index),
            3..=812 => self.delete(index),
            813..=862 => self.cancel(index),
            863..=922 => self.replace(index),
            923..=989 => self.execute(index),
            _ => self.hidden_trade(index),
        }
    }

    fn add(&mut self, index: usize) {
        self.reference += 1;
        let stock = &mut self.stocks[index];
        let Some(order) = stock.add(self.reference, None, &mut self.random) else { return };
        let (symbol, price) = (stock.symbol, Price4(stock.price_of(&order)));
        let (common, side) = (self.common(index as u16 + 1), order.side.code());
        let (reference, shares) = (order.reference, order.shares);
        self.queue.push_back(match self.random.below(16) {
            0 => {
                let by = Text(*b"MAKR");
                let add =
                    AddOrderAttributed::encode(common, reference, side, shares, symbol, price, by);
                add.to_vec()
            }
            _ => AddOrder::encode(common, reference, side, shares, symbol, price).to_vec(),
        });
    }

    fn delete(&mut self, index: usize) {
        let Some(order) = self.stocks[index].pick(&mut self.random) else { return self.add(index) };
        self.stocks[index].reduce(order.reference, order.shares);
        let delete = OrderDelete::encode(self.common(index as u16 + 1), order.reference);
        self.queue.push_back(delete.to_vec());
    }

    fn cancel(&mut self, index: usize) {
        let order = self.stocks[index].pick(&mut self.random);
        let Some(order) = order.filter(|order| order.shares > 1) else { return self.delete(index) };
        let shares = 1 + self.random.below(order.shares - 1);
        self.stocks[index].reduce(order.reference, shares);
        let cancel = OrderCancel::encode(self.common(index as u16 + 1), order.reference, shares);
        self.queue.push_back(cancel.to_vec());
    }

    fn replace(&mut self, index: usize) {
        let Some(old) = self.stocks[index].pick(&mut self.random) else { return self.add(index) };
        self.reference += 1;
        let common = self.common(index as u16 + 1);
        let stock = &mut self.stocks[index];
        stock.reduce(old.reference, old.shares);
        let message = match stock.add(self.reference, Some(old.side), &mut self.random) {
            Some(new) => {
                let price = Price4(stock.price_of(&new));
                OrderReplace::encode(common, old.reference, new.reference, new.shares, price)
                    .to_vec()
            }
            None => OrderDelete::encode(common, old.reference).to_vec(),
        };
        self.queue.push_back(message);
    }

    fn execute(&mut self, index: usize) {
        let side = if self.random.below(2) == 0 { Side::Buy } else { Side::Sell };
        let Some(order) = self.stocks[index].front(side) else { return self.add(index) };
        let shares = match self.random.below(2) {
            0 => order.shares,
            _ => 1 + self.random.below(order.shares),
        };
        self.match_number += 1;
        let common = self.common(index as u16 + 1);
        let price = self.stocks[index].price_of(&order);
        self.stocks[index].reduce(order.reference, shares);
        let (reference, number) = (order.reference, self.match_number);
        self.queue.push_back(match self.random.below(8) {
            0 => {
                let printable = if self.random.below(8) == 0 { Code(b'N') } else { Code(b'Y') };
                // Half a cent better than the order asked for.
                let better = match order.side {
                    Side::Buy => price - 50,
                    Side::Sell => price + 50,
                };
                let price = Price4(better);
                OrderExecutedWithPrice::encode(common, reference, shares, number, printable, price)
                    .to_vec()
            }
            _ => OrderExecuted::encode(common, reference, shares, number).to_vec(),
        });
    }

    fn hidden_trade(&mut self, index: usize) {
        self.match_number += 1;
        let shares = 1 + self.random.below(500);
        let stock = &self.stocks[index];
        let (symbol, price) = (stock.symbol, Price4(stock.middle()));
        let common = self.common(index as u16 + 1);
        let (side, number) = (Side::Buy.code(), self.match_number);
        let trade = Trade::encode(common, 0, side, shares, symbol, price, number);
        self.queue.push_back(trade.to_vec());
    }

    /// Messages a book does not change by.
    fn rare(&mut self, index: usize) {
        let common = self.common(index as u16 + 1);
        let market = self.common(0);
        let stock = self.stocks[index].symbol;
        let middle = self.stocks[index].middle();
        let (low, high) = (Price4(middle - middle / 10), Price4(middle + middle / 10));
        let middle = Price4(middle);
        self.queue.push_back(match self.random.below(10) {
            0 => NetOrderImbalance::encode(
                common,
                1_000,
                200,
                Code(b'B'),
                stock,
                low,
                high,
                middle,
                Code(b'C'),
                Code(b'1'),
            )
            .to_vec(),
            1 => LuldAuctionCollar::encode(common, stock, middle, high, low, 0).to_vec(),
            2 => OperationalHalt::encode(common, stock, Code(b'Q'), Code(b'T')).to_vec(),
            3 => RetailInterest::encode(common, stock, Code(b'A')).to_vec(),
            4 => IpoQuotingPeriod::encode(common, stock, 36_000, Code(b'A'), middle).to_vec(),
            5 => {
                let (yes, near_ns) = (Code(b'Y'), self.now_ns());
                DirectListing::encode(common, stock, yes, low, high, middle, near_ns, low, high)
                    .to_vec()
            }
            6 => MwcbStatus::encode(market, Code(b'1')).to_vec(),
            7 => BrokenTrade::encode(common, self.match_number).to_vec(),
            8 => {
                let (quiet, reason) = (Code(b' '), Text(*b"    "));
                StockTradingAction::encode(common, stock, Code(b'T'), quiet, reason).to_vec()
            }
            _ => return self.cross(index as u16, b'H', 0),
        });
    }
}

/// `ZAAA`, `ZAAB`, ...: 17,576 of them, then five letters.
fn name(index: u16) -> Symbol {
    let mut bytes = *b"Z       ";
    let letters = if u32::from(index) < 26 * 26 * 26 { 3 } else { 4 };
    let mut rest = u32::from(index);
    for at in (1..=letters).rev() {
        bytes[at] = b'A' + (rest % 26) as u8;
        rest /= 26;
    }
    Symbol(bytes)
}
