//! A second engine, as plain as can be: every order of a stock in one list, searched from its start for
//! whatever comes next. It knows the rules and shares no code with the one that is tested.

use super::super::{Command, Kind, NewOrder, Phase, SHARES_MAX};
use crate::feed::itch::Side;
use std::collections::BTreeMap;

/// Highest price the plain auction tries. Commands of a test stay below.
pub const CENTS_MAX: u32 = 60;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resting {
    pub reference: u64,
    pub shares: u64,
    pub cents: u32,
}

/// Key of the order of trading: what is worse, and then what is later, is greater.
type Rank = (u32, u64);

/// Orders for a cross: shares, and the limit in cents.
type Hidden = BTreeMap<Rank, (u64, Option<u32>)>;

struct Stock {
    phase: Phase,
    sides: [BTreeMap<Rank, Resting>; 2],
    /// Those for the opening and the closing cross, by side.
    hidden: [[Hidden; 2]; 2],
    last_cents: u32,
}

pub struct Plain {
    stocks: Vec<Stock>,
    reference: u64,
    time: u64,
}

fn rank(side: Side, cents: Option<u32>) -> u32 {
    match (side, cents) {
        (_, None) => 0,
        (Side::Buy, Some(cents)) => 10_000 - cents,
        (Side::Sell, Some(cents)) => cents,
    }
}

fn meets(side: Side, own: Option<u32>, other: u32) -> bool {
    match (side, own) {
        (_, None) => true,
        (Side::Buy, Some(own)) => own >= other,
        (Side::Sell, Some(own)) => own <= other,
    }
}

fn other(side: Side) -> Side {
    if side == Side::Buy { Side::Sell } else { Side::Buy }
}

impl Plain {
    pub fn new(stocks: u16, last_cents: u32) -> Self {
        let stock = || Stock {
            phase: Phase::Before,
            sides: Default::default(),
            hidden: Default::default(),
            last_cents,
        };
        Self { stocks: (0..stocks).map(|_| stock()).collect(), reference: 0, time: 0 }
    }

    pub fn orders(&self, locate: u16, side: Side) -> Vec<Resting> {
        self.stocks[usize::from(locate) - 1].sides[side as usize].values().cloned().collect()
    }

    fn find(&self, reference: u64) -> Option<(usize, Side, Rank)> {
        for (index, stock) in self.stocks.iter().enumerate() {
            for side in [Side::Buy, Side::Sell] {
                for (rank, order) in &stock.sides[side as usize] {
                    if order.reference == reference {
                        return Some((index, side, *rank));
                    }
                }
            }
        }
        None
    }

    /// Shares traded, or `None` when the command is impossible.
    pub fn apply(&mut self, command: &Command) -> Option<u64> {
        self.time += 1;
        match *command {
            Command::Enter(order) => self.enter(&order),
            Command::Delete { reference } => {
                let (stock, side, rank) = self.find(reference)?;
                self.stocks[stock].sides[side as usize].remove(&rank);
                Some(0)
            }
            Command::Cancel { reference, shares } => {
                let (stock, side, rank) = self.find(reference).filter(|_| shares != 0)?;
                let orders = &mut self.stocks[stock].sides[side as usize];
                let order = orders.get_mut(&rank)?;
                order.shares = order.shares.saturating_sub(u64::from(shares));
                orders.retain(|_, order| order.shares != 0);
                Some(0)
            }
            Command::Replace { reference, shares, price } => {
                let (stock, side, rank) = self.find(reference)?;
                let is_possible = (1..=SHARES_MAX).contains(&shares)
                    && price != 0
                    && price.is_multiple_of(100)
                    && self.stocks[stock].phase != Phase::Closed;
                let order = self.stocks[stock].sides[side as usize].get_mut(&rank)?;
                match is_possible {
                    false => None,
                    true if order.cents == price / 100 && order.shares >= u64::from(shares) => {
                        order.shares = u64::from(shares);
                        Some(0)
                    }
                    true => {
                        self.stocks[stock].sides[side as usize].remove(&rank);
                        let (locate, kind) = (stock as u16 + 1, Kind::Limit(price));
                        self.enter(&NewOrder { locate, side, shares, kind, attribution: None })
                    }
                }
            }
            Command::Open { locate } => self.cross(locate, Phase::Before, Phase::Open, 0),
            Command::Resume { locate } => self.cross(locate, Phase::Halted, Phase::Open, 2),
            Command::Close { locate } => self.cross(locate, Phase::Open, Phase::Closed, 1),
            Command::Halt { locate } => {
                let stock = &mut self.stocks[usize::from(locate) - 1];
                let is_open = stock.phase == Phase::Open;
                if is_open {
                    stock.phase = Phase::Halted;
                }
                is_open.then_some(0)
            }
            Command::System(_) | Command::Imbalance { .. } | Command::Break { .. } => Some(0),
        }
    }

    fn enter(&mut self, order: &NewOrder) -> Option<u64> {
        let NewOrder { locate, side, shares, kind, .. } = *order;
        let time = self.time;
        let stock = &mut self.stocks[usize::from(locate) - 1];
        let limit = match kind {
            Kind::Limit(price) | Kind::Immediate(price) => Some(price / 100),
            Kind::Market => None,
            Kind::AtOpen(limit) | Kind::AtClose(limit) => limit.map(|price| price / 100),
        };
        let is_matched = stock.phase == Phase::Open;
        match kind {
            Kind::Limit(_) if stock.phase != Phase::Closed => {}
            Kind::Immediate(_) | Kind::Market if is_matched => {}
            Kind::AtOpen(_) if stock.phase == Phase::Before => {
                let hidden = &mut stock.hidden[0][side as usize];
                hidden.insert((rank(side, limit), time), (u64::from(shares), limit));
                return Some(0);
            }
            Kind::AtClose(_) if stock.phase != Phase::Closed => {
                let hidden = &mut stock.hidden[1][side as usize];
                hidden.insert((rank(side, limit), time), (u64::from(shares), limit));
                return Some(0);
            }
            _ => return None,
        }
        let mut left = u64::from(shares);
        while is_matched && left != 0 {
            let Some(mut best) = stock.sides[other(side) as usize].first_entry() else { break };
            if !meets(side, limit, best.get().cents) {
                break;
            }
            let traded = left.min(best.get().shares);
            left -= traded;
            stock.last_cents = best.get().cents;
            best.get_mut().shares -= traded;
            if best.get().shares == 0 {
                best.remove();
            }
        }
        if let (Kind::Limit(_), Some(cents), true) = (kind, limit, left != 0) {
            self.reference += 1;
            let resting = Resting { reference: self.reference, shares: left, cents };
            stock.sides[side as usize].insert((rank(side, limit), time), resting);
        }
        Some(u64::from(shares) - left)
    }

    fn cross(&mut self, locate: u16, from: Phase, to: Phase, hidden: usize) -> Option<u64> {
        let stock = &mut self.stocks[usize::from(locate) - 1];
        if stock.phase != from {
            return None;
        }
        stock.phase = to;
        let mut none = Default::default();
        let hidden = stock.hidden.get_mut(hidden).unwrap_or(&mut none);
        let wanting = |side: Side, cents: u32| -> u64 {
            let shown = stock.sides[side as usize].values().map(|o| (o.shares, Some(o.cents)));
            let hidden = hidden[side as usize].values().copied();
            let all = shown.chain(hidden).filter(|(_, limit)| meets(side, *limit, cents));
            all.map(|(shares, _)| shares).sum()
        };
        let last = stock.last_cents;
        let best = (1..=CENTS_MAX + 20)
            .map(|cents| (cents, wanting(Side::Buy, cents), wanting(Side::Sell, cents)))
            .max_by_key(|(cents, buys, sells)| {
                let surplus = std::cmp::Reverse(buys.abs_diff(*sells));
                let distance = std::cmp::Reverse((cents.abs_diff(last), *cents));
                ((*buys).min(*sells), surplus, distance)
            });
        let (cents, buys, sells) = best?;
        let traded = buys.min(sells);
        if traded != 0 {
            stock.last_cents = cents;
        }
        for side in [Side::Buy, Side::Sell] {
            let mut left = traded;
            while left != 0 {
                let shown = stock.sides[side as usize].first_key_value().map(|(rank, _)| *rank);
                let unseen = hidden[side as usize].first_key_value().map(|(rank, _)| *rank);
                let is_shown = match (shown, unseen) {
                    (Some(shown), Some(unseen)) => shown < unseen,
                    (shown, _) => shown.is_some(),
                };
                let shares = match is_shown {
                    true => &mut stock.sides[side as usize].get_mut(&shown?)?.shares,
                    false => &mut hidden[side as usize].get_mut(&unseen?)?.0,
                };
                let taken = left.min(*shares);
                (*shares, left) = (*shares - taken, left - taken);
                stock.sides[side as usize].retain(|_, order| order.shares != 0);
                hidden[side as usize].retain(|_, order| order.0 != 0);
            }
            hidden[side as usize].clear();
        }
        Some(traded)
    }
}
