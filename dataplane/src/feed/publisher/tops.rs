//! What a message of TOPS does to what is published.
//!
//! | message | record |
//! | --- | --- |
//! | quote update | `:bbo` |
//! | trade report, trade break | `:last`, `:stats` |
//! | trading status, operational halt, short sale price test, auction information | `:status` |
//! | system event | the venue's `:status` |
//! | directory, official price, retail liquidity, security event | none: no field means the same |

use super::super::book::Problem as BookProblem;
use super::super::iex::new_york::NewYork;
use super::super::iex::tops::{
    AuctionInformation, Message, QUOTE_OFF_HOURS, QUOTE_UNAVAILABLE, QuoteUpdate,
    ShortSalePriceTest, TradeReport,
};
use super::super::iex::{Quote, Quotes, TopsTrade};
use super::super::itch::{Code, Text};
use super::super::session::Doubt;
use super::super::status::{Collar, Flag, Imbalance, Stamp, Trading};
use super::super::trades::Counted;
use super::super::{Symbol, status::Status};
use super::Publisher;

/// Place of IEX's own halt among those of markets.
const HALT_OF_IEX: usize = 0;

/// A short sale price test is in effect, and since when is not said.
const REG_SHO_IN_EFFECT: u8 = b'N';

/// The quotes of one channel, and its exchange's day.
pub(in super::super) struct TopsState {
    pub quotes: Quotes,
    new_york: NewYork,
}

/// Why a message was not applied.
enum Problem {
    /// A price or a time that is none: what it said is missing.
    Value,
    /// A code that nobody knows.
    Code,
    /// A trade of no shares.
    ZeroShares,
    /// No place for another stock.
    Full,
}

impl TopsState {
    /// Nothing was said yet.
    pub fn new(seed: u64) -> Self {
        Self { quotes: Quotes::new(seed), new_york: NewYork::default() }
    }
}

impl Publisher {
    /// Applies one message of TOPS. Returns the reason why what is published cannot be believed from now on,
    /// if there is one.
    pub(in super::super) fn apply_tops(
        &mut self,
        message: &Message<'_>,
        sequence: u64,
    ) -> Option<Doubt> {
        let problem = self.take_tops(message, sequence).err()?;
        let (counter, doubt) = match problem {
            Problem::Value => (&mut self.counters.invalid_messages, Some(Doubt::Malformed)),
            Problem::Code => (&mut self.counters.invalid_messages, None),
            Problem::ZeroShares => (&mut self.counters.zero_shares, None),
            Problem::Full => {
                (&mut self.counters.no_room, Some(Doubt::Book(BookProblem::BooksFull)))
            }
        };
        *counter += 1;
        doubt
    }

    fn take_tops(&mut self, message: &Message<'_>, sequence: u64) -> Result<(), Problem> {
        let Some(tops) = &mut self.tops else { return Ok(()) };
        let exchange_ns = tops.new_york.since_midnight(message.timestamp().0);
        let stamp = Stamp { sequence, exchange_ns: exchange_ns.ok_or(Problem::Value)? };
        match message {
            Message::QuoteUpdate(update) => self.quote(update, stamp),
            Message::TradeReport(report) => self.trade(report, stamp),
            Message::TradeBreak(broken) => {
                self.break_trade(broken.symbol(), broken.trade_id(), stamp);
                Ok(())
            }
            Message::SystemEvent(event) => {
                // The regular hours begin with another code than elsewhere.
                let code = match event.event().0 {
                    b'R' => b'Q',
                    code @ (b'O' | b'S' | b'M' | b'E' | b'C') => code,
                    _ => return Err(Problem::Code),
                };
                self.facts.statuses.venue_mut().event = Flag { stamp, code };
                self.venue_changed[0] = true;
                Ok(())
            }
            Message::TradingStatus(trading) => {
                let (Code(state), Text(reason)) = (trading.status(), trading.reason());
                if !b"HOPT".contains(&state) {
                    return Err(Problem::Code);
                }
                let trading_of = Trading { stamp, state, reason };
                self.status(trading.symbol(), |status| status.trading = trading_of)
            }
            Message::OperationalHalt(halt) => {
                let code = match halt.status().0 {
                    b'O' => b'H',
                    b'N' => b'T',
                    _ => return Err(Problem::Code),
                };
                let flag = Flag { stamp, code };
                self.status(halt.symbol(), |status| status.halts[HALT_OF_IEX] = flag)
            }
            Message::ShortSalePriceTest(test) => {
                let flag = Flag { stamp, code: reg_sho(test).ok_or(Problem::Code)? };
                self.status(test.symbol(), |status| status.reg_sho = flag)
            }
            Message::AuctionInformation(auction) => {
                let (collar, imbalance) = auction_of(auction, stamp).ok_or(Problem::Value)?;
                self.status(auction.symbol(), |status| {
                    (status.collar, status.imbalance) = (collar, imbalance);
                })
            }
            Message::SecurityDirectory(_)
            | Message::OfficialPrice(_)
            | Message::RetailLiquidity(_)
            | Message::SecurityEvent(_) => Ok(()),
        }
    }

    fn place_of(&mut self, symbol: Symbol) -> Result<u16, Problem> {
        let quotes = self.tops.as_mut().map(|tops| &mut tops.quotes);
        quotes.and_then(|quotes| quotes.place_of(symbol)).ok_or(Problem::Full)
    }

    fn quote(&mut self, update: &QuoteUpdate<'_>, stamp: Stamp) -> Result<(), Problem> {
        let side = |price: Option<u64>, size: u32| match (price, size) {
            (None, _) | (Some(0), 1..) => Err(Problem::Value),
            (Some(_), 0) => Ok((0, 0)),
            (Some(price), size) => Ok((price, size)),
        };
        let (bid_price, bid_size) = side(update.bid_price().checked(), update.bid_size())?;
        let (ask_price, ask_size) = side(update.ask_price().checked(), update.ask_size())?;
        let quote = Quote {
            bid_price,
            ask_price,
            bid_size,
            ask_size,
            is_unavailable: update.flags() & QUOTE_UNAVAILABLE != 0,
            is_off_hours: update.flags() & QUOTE_OFF_HOURS != 0,
        };
        let place = self.place_of(update.symbol())?;
        if let Some(tops) = &mut self.tops {
            tops.quotes.set_quote(place, quote);
        }
        let publication = self.publication(place);
        publication.book_changed = true;
        publication.book_sequence = stamp.sequence;
        publication.book_exchange_ns = stamp.exchange_ns;
        self.list(place);
        Ok(())
    }

    fn trade(&mut self, report: &TradeReport<'_>, stamp: Stamp) -> Result<(), Problem> {
        let price = report.price().checked().ok_or(Problem::Value)?;
        if report.size() == 0 {
            return Err(Problem::ZeroShares);
        }
        let place = self.place_of(report.symbol())?;
        let trade = TopsTrade {
            price,
            size: report.size(),
            conditions: report.conditions(),
            broken: false,
            trade_id: report.trade_id(),
            exchange_ns: stamp.exchange_ns,
        };
        if let Some(tops) = &mut self.tops {
            tops.quotes.set_trade(place, trade);
        }
        let counted = Counted { locate: place, price, shares: trade.size.into() };
        self.counters.add_trade(price, counted.shares);
        self.publication(place);
        let publication = &mut self.publications[usize::from(place)];
        self.facts.trade(trade.trade_id, counted, &mut publication.statistics);
        self.trade_changed(place, stamp);
        Ok(())
    }

    /// The stock of a break is looked at only for its last trade: what was counted knows where it was.
    fn break_trade(&mut self, symbol: Symbol, trade_id: u64, stamp: Stamp) {
        self.note_broken(trade_id, stamp.sequence, stamp.exchange_ns);
        let Some(tops) = &mut self.tops else { return };
        let Some(place) = tops.quotes.find(symbol) else { return };
        let last = tops.quotes.trade(place);
        if let Some(last) = last.filter(|last| last.trade_id == trade_id && !last.broken) {
            tops.quotes.set_trade(place, TopsTrade { broken: true, ..last });
            self.trade_changed(place, stamp);
        }
    }

    fn trade_changed(&mut self, place: u16, stamp: Stamp) {
        let publication = self.publication(place);
        publication.trade_changed = true;
        publication.trade_sequence = stamp.sequence;
        publication.trade_exchange_ns = stamp.exchange_ns;
        self.list(place);
    }

    fn status(&mut self, symbol: Symbol, set: impl FnOnce(&mut Status)) -> Result<(), Problem> {
        let place = self.place_of(symbol)?;
        set(self.facts.statuses.get_mut(place));
        self.publication(place).status_changed = true;
        self.list(place);
        Ok(())
    }
}

/// The code of Reg SHO that means the same.
fn reg_sho(test: &ShortSalePriceTest<'_>) -> Option<u8> {
    match (test.status(), test.detail().0) {
        (0, _) => Some(b'0'),
        (1, b'A') => Some(b'1'),
        (1, b'C') => Some(b'2'),
        (1, _) => Some(REG_SHO_IN_EFFECT),
        _ => None,
    }
}

/// Collar and imbalance of an auction.
fn auction_of(auction: &AuctionInformation<'_>, stamp: Stamp) -> Option<(Collar, Imbalance)> {
    let collar = Collar {
        stamp,
        reference_price: auction.collar_reference_price().checked()?,
        upper_price: auction.collar_upper_price().checked()?,
        lower_price: auction.collar_lower_price().checked()?,
        extension: auction.extension().into(),
    };
    let imbalance = Imbalance {
        stamp,
        paired_shares: auction.paired_shares().into(),
        imbalance_shares: auction.imbalance_shares().into(),
        far_price: auction.book_price().checked()?,
        near_price: auction.indicative_price().checked()?,
        reference_price: auction.reference_price().checked()?,
        direction: auction.imbalance_side().0,
        cross_type: auction.kind().0,
        variation: 0,
    };
    Some((collar, imbalance))
}
