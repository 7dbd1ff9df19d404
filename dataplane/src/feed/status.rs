//! What a venue says of its stocks beside their orders: trading state, short sale restriction, halts of
//! single markets, auction collars, IPO quotation, imbalances; and of itself.
//!
//! Each part carries the number and the exchange's time of the message it comes from. Written by the
//! worker that owns the channel.

use super::itch::{Code, Message, Text};

/// Stock locates are 16 bits.
const LOCATES: usize = 1 << 16;

/// Where a part comes from. Number 0: the session has said nothing of it yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Sequence number of its message.
    pub sequence: u64,
    /// Exchange time, nanoseconds since midnight.
    pub exchange_ns: u64,
}

impl Stamp {
    fn number(&mut self, sequence: u64) {
        if self.sequence == 0 && self.exchange_ns != 0 {
            self.sequence = sequence;
        }
    }
}

/// Trading state (stock trading action, 1.2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trading {
    /// Its message.
    pub stamp: Stamp,
    /// `H P Q T`, at IEX `H O P T`.
    pub state: u8,
    /// Reason, padded with spaces.
    pub reason: [u8; 4],
}

/// A single code: of Reg SHO (1.2.3), or of the halt of one market (1.2.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flag {
    /// Its message.
    pub stamp: Stamp,
    /// The code.
    pub code: u8,
}

/// Auction collar (1.2.7). Prices in 1e-4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collar {
    /// Its message.
    pub stamp: Stamp,
    /// Reference price.
    pub reference_price: u64,
    /// Upper threshold.
    pub upper_price: u64,
    /// Lower threshold.
    pub lower_price: u64,
    /// Extensions so far.
    pub extension: u32,
}

/// Quotation of an IPO (1.2.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ipo {
    /// Its message.
    pub stamp: Stamp,
    /// Expected release, seconds since midnight.
    pub release_s: u32,
    /// `A` anticipated, `C` cancelled or postponed.
    pub qualifier: u8,
    /// Price, 1e-4.
    pub price: u64,
}

/// Net order imbalance (1.6). Prices in 1e-4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imbalance {
    /// Its message.
    pub stamp: Stamp,
    /// Shares that can be paired at the reference price.
    pub paired_shares: u64,
    /// Shares that cannot.
    pub imbalance_shares: u64,
    /// Clearing price of cross orders only.
    pub far_price: u64,
    /// Clearing price of all orders.
    pub near_price: u64,
    /// Price the imbalance is calculated at.
    pub reference_price: u64,
    /// `B S N O P`.
    pub direction: u8,
    /// `O C H A`, at IEX `O C H I V`.
    pub cross_type: u8,
    /// Deviation of the near price, as a class.
    pub variation: u8,
}

/// The markets whose halts are told apart, in the order of [`Status::halts`]. Of another venue than theirs the
/// first place is its own.
pub const MARKETS: [u8; 3] = *b"QBX";

/// What is known of one stock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Trading state.
    pub trading: Trading,
    /// Short sale price test: `0 1 2`, at IEX `N` as well.
    pub reg_sho: Flag,
    /// Operational halt of each of [`MARKETS`]: `H T`.
    pub halts: [Flag; MARKETS.len()],
    /// Auction collar.
    pub collar: Collar,
    /// IPO quotation.
    pub ipo: Ipo,
    /// Imbalance before a cross.
    pub imbalance: Imbalance,
}

/// Decline levels of the market-wide circuit breaker (1.2.5.1), index points in 1e-8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeclineLevels {
    /// Their message.
    pub stamp: Stamp,
    /// Levels 1 to 3.
    pub levels: [u64; 3],
}

/// What is known of the venue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VenueStatus {
    /// Last system event (1.1): `O S Q M E C`.
    pub event: Flag,
    /// Breached level of the market-wide circuit breaker (1.2.5.2): `1 2 3`.
    pub breach: Flag,
    /// Its levels of the day.
    pub levels: DeclineLevels,
}

/// What a message changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Nothing that is kept here.
    Nothing,
    /// The status of its stock.
    Stock,
    /// The status of the venue.
    Venue,
    /// Nothing, for it names a market that is not one of [`MARKETS`].
    UnknownMarket,
}

#[derive(Clone, Copy)]
struct Slot {
    status: Status,
    epoch: u32,
}

/// The status of every stock of a channel, and of its venue.
pub struct Statuses {
    slots: Box<[Slot]>,
    venue: VenueStatus,
    epoch: u32,
}

impl Default for Statuses {
    fn default() -> Self {
        Self::new()
    }
}

impl Statuses {
    /// Bytes taken at start.
    pub const BYTES: u64 = (LOCATES * size_of::<Slot>()) as u64;

    /// Nothing is known. Allocates all there will ever be and touches it.
    pub fn new() -> Self {
        let mut slot = Slot { status: Status::default(), epoch: 0 };
        // Not all zero, so that the pages are written here and not faulted in by the run loop.
        slot.status.trading.state = b' ';
        let slots = vec![slot; LOCATES].into_boxed_slice();
        Self { slots, venue: VenueStatus::default(), epoch: 1 }
    }

    /// Forgets everything: a new session begins.
    pub fn clear(&mut self) {
        self.venue = VenueStatus::default();
        self.epoch += 1;
    }

    /// What is known of a stock.
    pub fn get(&self, locate: u16) -> Status {
        let slot = &self.slots[usize::from(locate)];
        if slot.epoch == self.epoch { slot.status } else { Status::default() }
    }

    /// What is known of the venue.
    pub fn venue(&self) -> &VenueStatus {
        &self.venue
    }

    /// Gives the parts of a stock that came without a number, in a snapshot, the number of that.
    pub fn number(&mut self, locate: u16, sequence: u64) {
        let slot = &mut self.slots[usize::from(locate)];
        if slot.epoch == self.epoch {
            slot.status.stamps().for_each(|stamp| stamp.number(sequence));
        }
    }

    /// The same for those of the venue.
    pub fn number_venue(&mut self, sequence: u64) {
        let VenueStatus { event, breach, levels } = &mut self.venue;
        let stamps = [&mut event.stamp, &mut breach.stamp, &mut levels.stamp];
        stamps.into_iter().for_each(|stamp| stamp.number(sequence));
    }

    /// Takes a message in; `sequence` is its number.
    pub fn apply(&mut self, message: &Message<'_>, sequence: u64) -> Changed {
        let common = message.common();
        let stamp = Stamp { sequence, exchange_ns: common.timestamp.0 };
        let flag = |Code(code): Code| Flag { stamp, code };
        match message {
            Message::SystemEvent(event) => {
                self.venue.event = flag(event.event_code());
                return Changed::Venue;
            }
            Message::MwcbStatus(status) => {
                self.venue.breach = flag(status.breached_level());
                return Changed::Venue;
            }
            Message::MwcbDeclineLevel(decline) => {
                let levels = [decline.level_1().0, decline.level_2().0, decline.level_3().0];
                self.venue.levels = DeclineLevels { stamp, levels };
                return Changed::Venue;
            }
            _ => {}
        }
        self.get_mut(common.stock_locate).apply(message, stamp)
    }

    /// The same to be changed.
    pub fn get_mut(&mut self, locate: u16) -> &mut Status {
        let epoch = self.epoch;
        let slot = &mut self.slots[usize::from(locate)];
        if slot.epoch != epoch {
            *slot = Slot { status: Status::default(), epoch };
        }
        &mut slot.status
    }

    /// What is known of the venue, to be changed.
    pub fn venue_mut(&mut self) -> &mut VenueStatus {
        &mut self.venue
    }
}

impl Status {
    fn apply(&mut self, message: &Message<'_>, stamp: Stamp) -> Changed {
        let flag = |Code(code): Code| Flag { stamp, code };
        match message {
            Message::StockTradingAction(action) => {
                let (Code(state), Text(reason)) = (action.trading_state(), action.reason());
                self.trading = Trading { stamp, state, reason };
            }
            Message::RegShoRestriction(restriction) => {
                self.reg_sho = flag(restriction.reg_sho_action());
            }
            Message::OperationalHalt(halt) => {
                let market = MARKETS.iter().position(|&market| market == halt.market_code().0);
                let Some(market) = market else { return Changed::UnknownMarket };
                self.halts[market] = flag(halt.action());
            }
            Message::LuldAuctionCollar(collar) => {
                self.collar = Collar {
                    stamp,
                    reference_price: collar.reference_price().0.into(),
                    upper_price: collar.upper_price().0.into(),
                    lower_price: collar.lower_price().0.into(),
                    extension: collar.extension(),
                };
            }
            Message::IpoQuotingPeriod(period) => {
                self.ipo = Ipo {
                    stamp,
                    release_s: period.quotation_release_time(),
                    qualifier: period.quotation_release_qualifier().0,
                    price: period.ipo_price().0.into(),
                };
            }
            Message::NetOrderImbalance(imbalance) => {
                self.imbalance = Imbalance {
                    stamp,
                    paired_shares: imbalance.paired_shares(),
                    imbalance_shares: imbalance.imbalance_shares(),
                    far_price: imbalance.far_price().0.into(),
                    near_price: imbalance.near_price().0.into(),
                    reference_price: imbalance.reference_price().0.into(),
                    direction: imbalance.imbalance_direction().0,
                    cross_type: imbalance.cross_type().0,
                    variation: imbalance.price_variation_indicator().0,
                };
            }
            _ => return Changed::Nothing,
        }
        Changed::Stock
    }

    fn stamps(&mut self) -> impl Iterator<Item = &mut Stamp> {
        let parts = [
            &mut self.trading.stamp,
            &mut self.reg_sho.stamp,
            &mut self.collar.stamp,
            &mut self.ipo.stamp,
            &mut self.imbalance.stamp,
        ];
        parts.into_iter().chain(self.halts.iter_mut().map(|halt| &mut halt.stamp))
    }

    /// The newest of its parts' stamps.
    pub fn newest(&self) -> Stamp {
        let [q, b, x] = self.halts;
        let stamps = [
            self.trading.stamp,
            self.reg_sho.stamp,
            q.stamp,
            b.stamp,
            x.stamp,
            self.collar.stamp,
            self.ipo.stamp,
            self.imbalance.stamp,
        ];
        newest(&stamps)
    }
}

impl VenueStatus {
    /// The newest of its parts' stamps.
    pub fn newest(&self) -> Stamp {
        newest(&[self.event.stamp, self.breach.stamp, self.levels.stamp])
    }
}

fn newest(stamps: &[Stamp]) -> Stamp {
    stamps.iter().max_by_key(|stamp| stamp.sequence).copied().unwrap_or_default()
}
