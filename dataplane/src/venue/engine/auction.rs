//! The price of a cross: the rule of the maximum executable volume.
//!
//! Everyone who buys at `p` or higher meets everyone who sells at `p` or lower. The price is the one
//!
//! 1. at which most shares trade; of several
//! 2. the one that leaves the smallest imbalance; of several
//! 3. the one nearest to the reference price; of two
//! 4. the lower.
//!
//! Within the cross, orders without a limit trade first, then the better limits, then the earlier ones.
//! With that, the book is neither crossed nor locked afterwards: an unfilled buyer and an unfilled
//! seller who would still meet at some price would have made more volume there.
//!
//! Source for the rule and the imbalance message: Nasdaq rules 4752 and 4754 (opening and closing
//! cross) and TotalView-ITCH 5.0, section 1.6. Nothing here knows of time or messages.

use crate::feed::itch::Side;

/// Shares that want to trade in a cross.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// Side.
    pub side: Side,
    /// Worst price accepted, `None` for any.
    pub limit: Option<u32>,
    /// Shares.
    pub shares: u64,
}

/// What trades at one price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clearing {
    /// The price.
    pub price: u32,
    /// Shares that buyers and sellers have there both.
    pub paired: u64,
    /// Shares of one side that find nobody.
    pub imbalance: u64,
    /// Whose they are; `None` when there are none.
    pub surplus: Option<Side>,
}

/// All interest, summed up by price.
pub struct Curve {
    /// Every limit, ascending, and what buys there or higher and what sells there or lower.
    limits: Vec<(u32, u64, u64)>,
    market: [u64; 2],
}

impl Curve {
    /// The curve of these.
    pub fn new(interests: impl IntoIterator<Item = Interest>) -> Self {
        let mut market = [0; 2];
        let mut limits: Vec<(u32, u64, u64)> = Vec::new();
        for Interest { side, limit, shares } in interests {
            match (limit, side) {
                (None, _) => market[side as usize] += shares,
                (Some(price), Side::Buy) => limits.push((price, shares, 0)),
                (Some(price), Side::Sell) => limits.push((price, 0, shares)),
            }
        }
        limits.sort_unstable_by_key(|limit| limit.0);
        limits.dedup_by(|later, kept| {
            let is_same = later.0 == kept.0;
            if is_same {
                kept.1 += later.1;
                kept.2 += later.2;
            }
            is_same
        });
        let mut sells = 0;
        for limit in &mut limits {
            sells += limit.2;
            limit.2 = sells;
        }
        let mut buys = 0;
        for limit in limits.iter_mut().rev() {
            buys += limit.1;
            limit.1 = buys;
        }
        Self { limits, market }
    }

    /// What trades at `price`.
    pub fn at(&self, price: u32) -> Clearing {
        // Buyers from the first limit that is `price` or higher, sellers up to the last that is not
        // higher.
        let from = self.limits.partition_point(|limit| limit.0 < price);
        let to = self.limits.partition_point(|limit| limit.0 <= price);
        let buys =
            self.market[Side::Buy as usize] + self.limits.get(from).map_or(0, |limit| limit.1);
        let sells = self.market[Side::Sell as usize]
            + to.checked_sub(1).map_or(0, |last| self.limits[last].2);
        let surplus = match buys.cmp(&sells) {
            std::cmp::Ordering::Less => Some(Side::Sell),
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => Some(Side::Buy),
        };
        Clearing { price, paired: buys.min(sells), imbalance: buys.abs_diff(sells), surplus }
    }

    /// The price of the cross in steps of `tick`, and what trades there; `None` when nobody trades.
    /// `reference` is a multiple of `tick` and not 0, as every limit is.
    pub fn clear(&self, reference: u32, tick: u32) -> Option<Clearing> {
        // Between two limits nothing changes, so that one price there stands for all, but for the
        // distance to the reference, which is itself a candidate.
        let candidates = self
            .limits
            .iter()
            .flat_map(|limit| [limit.0.saturating_sub(tick), limit.0, limit.0.saturating_add(tick)])
            .filter(|price| *price != 0)
            .chain([reference]);
        candidates.map(|price| self.at(price)).filter(|clearing| clearing.paired != 0).min_by_key(
            |clearing| {
                let distance = clearing.price.abs_diff(reference);
                (u64::MAX - clearing.paired, clearing.imbalance, distance, clearing.price)
            },
        )
    }
}

/// How far `near` is from `reference`, as a class of the imbalance message: `L` below 1 %, `1` to `9`
/// the whole percents, `A` from 10, `B` from 20, `C` from 30 %, a space when it cannot be said.
pub fn variation(near: u32, reference: u32) -> u8 {
    if near == 0 || reference == 0 {
        return b' ';
    }
    match u64::from(near.abs_diff(reference)) * 100 / u64::from(reference) {
        0 => b'L',
        percent @ 1..=9 => b'0' + percent as u8,
        10..=19 => b'A',
        20..=29 => b'B',
        _ => b'C',
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn buy(limit: impl Into<Option<u32>>, shares: u64) -> Interest {
        Interest { side: Side::Buy, limit: limit.into(), shares }
    }

    fn sell(limit: impl Into<Option<u32>>, shares: u64) -> Interest {
        Interest { side: Side::Sell, limit: limit.into(), shares }
    }

    fn clear(interests: &[Interest], reference: u32) -> Option<(u32, u64, u64, Option<Side>)> {
        Curve::new(interests.iter().copied())
            .clear(reference, 1)
            .map(|c| (c.price, c.paired, c.imbalance, c.surplus))
    }

    #[test]
    fn each_rule_decides_what_the_one_before_left_open() {
        // Volume.
        let volume = [buy(12, 100), buy(11, 200), sell(10, 50), sell(11, 200)];
        assert_eq!(clear(&volume, 10), Some((11, 250, 50, Some(Side::Buy))));
        // Imbalance: 100 trade from 10 to 12, but 11 and 12 have no surplus of buyers.
        let imbalance = [buy(12, 100), buy(10, 50), sell(10, 100)];
        assert_eq!(clear(&imbalance, 10), Some((11, 100, 0, None)));
        assert_eq!(clear(&imbalance, 90), Some((12, 100, 0, None)));
        // Nearest to the reference, which may be no limit at all.
        let wide = [buy(20, 100), sell(10, 100)];
        for (reference, price) in [(5, 10), (10, 10), (14, 14), (20, 20), (33, 20)] {
            assert_eq!(clear(&wide, reference), Some((price, 100, 0, None)));
        }
        // Two as near as each other: 100 trade without a surplus at 11 and below and at 19 and above.
        let market = [buy(None, 100), sell(None, 100), buy(14, 30), sell(16, 30)];
        assert_eq!(clear(&market, 15), Some((15, 100, 0, None)));
    }

    #[test]
    fn orders_without_a_limit_cross_at_the_reference() {
        assert_eq!(clear(&[buy(None, 10), sell(None, 4)], 77), Some((77, 4, 6, Some(Side::Buy))));
        assert_eq!(clear(&[buy(None, 10)], 77), None);
        assert_eq!(clear(&[], 77), None);
        assert_eq!(clear(&[buy(9, 10), sell(10, 10)], 9), None);
    }

    #[test]
    fn classes_of_variation_are_the_specifications() {
        for (near, class) in [
            (10_000, b'L'),
            (10_099, b'L'),
            (9_900, b'1'),
            (10_250, b'2'),
            (10_999, b'9'),
            (11_000, b'A'),
            (8_000, b'B'),
            (13_000, b'C'),
            (90_000, b'C'),
            (0, b' '),
        ] {
            assert_eq!(variation(near, 10_000), class, "{near}");
        }
    }

    proptest! {
        /// Against trying every price and every order.
        #[test]
        fn no_price_is_better(
            orders in prop::collection::vec(
                (any::<bool>(), prop::option::weighted(0.8, 1u32..40), 1u64..50), 0..25),
            reference in 1u32..40,
        ) {
            let interests: Vec<Interest> = orders
                .iter()
                .map(|(buys, limit, shares)| match buys {
                    true => buy(*limit, *shares),
                    false => sell(*limit, *shares),
                })
                .collect();
            let at = |price: u32| {
                let sum = |side: Side| -> u64 {
                    interests
                        .iter()
                        .filter(|interest| interest.side == side)
                        .filter(|interest| interest.limit.is_none_or(|limit| match side {
                            Side::Buy => limit >= price,
                            Side::Sell => limit <= price,
                        }))
                        .map(|interest| interest.shares)
                        .sum()
                };
                (sum(Side::Buy), sum(Side::Sell))
            };
            let best = (1..80)
                .map(|price| (price, at(price)))
                .filter(|(_, (buys, sells))| *buys.min(sells) != 0)
                .min_by_key(|(price, (buys, sells))| {
                    let near = price.abs_diff(reference);
                    (u64::MAX - buys.min(sells), buys.abs_diff(*sells), near, *price)
                })
                .map(|(price, (buys, sells))| (price, *(&buys).min(&sells)));
            let found = clear(&interests, reference).map(|(price, paired, ..)| (price, paired));
            prop_assert_eq!(found, best);
        }
    }
}
