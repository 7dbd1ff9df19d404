//! The best prices of one side of a book, in two cache lines; what lies deeper is a skip list.
//!
//! ```text
//!   keys     k0 k1 k2 ... k14     ascending, best first      key: the price, flipped for a bid
//!   handles  h0 h1 h2 ... h14     of the levels              --> deep: every level behind k14
//! ```
//!
//! Most changes of a book happen among its best prices, where a level is found by comparing sixteen
//! keys at once. Every level of the ladder is better than every level of the deep list.

use super::levels::{LevelList, Levels};
use crate::feed::itch::Side;

/// Levels a ladder holds.
const RUNGS: usize = 15;

/// Levels moved down when a full ladder gets another. Too low: a side that grows pays for every new
/// level. Too high: levels near the top are looked for in the deep list.
const SPILL: usize = 4;

/// A ladder with fewer levels takes some of the deep list's.
const LOW: usize = 4;

/// How many it has then. Between this and [`RUNGS`] there is room for a spill not to follow at once.
const REFILLED: usize = 8;

/// One side of a book.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Ladder {
    /// Unused ones are [`u32::MAX`], as the last always is.
    keys: [u32; RUNGS + 1],
    handles: [u32; RUNGS],
    count: u16,
    has_deep: bool,
    deep: LevelList,
}

/// Ascending key of a price, best first.
#[inline(always)]
pub fn key(side: Side, price: u32) -> u32 {
    match side {
        Side::Buy => !price,
        Side::Sell => price,
    }
}

impl Ladder {
    /// A side without a level.
    pub const EMPTY: Self = Self {
        keys: [u32::MAX; RUNGS + 1],
        handles: [0; RUNGS],
        count: 0,
        has_deep: false,
        deep: LevelList::EMPTY,
    };

    /// The best level's handle.
    #[inline(always)]
    pub fn best(&self) -> Option<u32> {
        (self.count != 0).then_some(self.handles[0])
    }

    /// Asks for the lines of the best levels.
    #[inline(always)]
    pub fn prefetch(&self) {
        nautilus_shm::prefetch(&self.keys, 0);
        nautilus_shm::prefetch(&self.handles, 0);
    }

    /// The level of this key if it is among the best.
    #[inline(always)]
    pub fn guess(&self, key: u32) -> Option<u32> {
        let at = self.position(key);
        (at < self.count() && self.keys[at] == key).then(|| self.handles[at])
    }

    /// The level of this key, made if there is none. `None` when the pool is used up.
    #[inline(always)]
    pub fn find_or_insert(&mut self, levels: &mut Levels, side: Side, key: u32) -> Option<u32> {
        let at = self.position(key);
        if at < self.count() && self.keys[at] == key {
            return Some(self.handles[at]);
        }
        self.insert(levels, side, key)
    }

    #[inline(never)]
    fn insert(&mut self, levels: &mut Levels, side: Side, key: u32) -> Option<u32> {
        // Behind the last of the ladder with others behind it, or with no room before it.
        let is_deep = |ladder: &Self| {
            ladder.position(key) == ladder.count() && (ladder.has_deep || ladder.count() == RUNGS)
        };
        if is_deep(self) {
            let handle = levels.find_or_insert(&mut self.deep, side, key)?;
            self.has_deep = true;
            return Some(handle);
        }
        let handle = levels.take(side, key)?;
        if self.count() == RUNGS {
            self.spill(levels, side);
            if is_deep(self) {
                levels.link(&mut self.deep, side, key, handle);
                return Some(handle);
            }
        }
        let (at, count) = (self.position(key), self.count());
        self.keys.copy_within(at..count, at + 1);
        self.handles.copy_within(at..count, at + 1);
        (self.keys[at], self.handles[at]) = (key, handle);
        self.count += 1;
        Some(handle)
    }

    /// Takes a level without orders out and gives it back to the pool.
    pub fn remove(&mut self, levels: &mut Levels, side: Side, key: u32) {
        let (at, count) = (self.position(key), self.count());
        if at < count && self.keys[at] == key {
            levels.give_back(self.handles[at]);
            self.keys.copy_within(at + 1..count, at);
            self.handles.copy_within(at + 1..count, at);
            self.keys[count - 1] = u32::MAX;
            self.count -= 1;
            if self.has_deep && self.count() < LOW {
                self.refill(levels, side);
            }
        } else if let Some(handle) = levels.unlink(&mut self.deep, side, key) {
            levels.give_back(handle);
            self.has_deep = !self.deep.is_empty();
        }
    }

    /// Handles of the levels, best first.
    pub fn iter<'a>(&'a self, levels: &'a Levels) -> impl Iterator<Item = u32> + 'a {
        self.handles[..self.count()].iter().copied().chain(levels.handles(&self.deep))
    }

    /// Handle of the best level that is not better than this key.
    pub fn at_or_behind(&self, levels: &Levels, side: Side, key: u32) -> Option<u32> {
        let at = self.position(key);
        match at < self.count() {
            true => Some(self.handles[at]),
            false => levels.at_or_behind(&self.deep, side, key),
        }
    }

    /// Index of the first key not below this one. All sixteen are compared, with no branch.
    #[inline(always)]
    fn position(&self, key: u32) -> usize {
        self.keys.iter().map(|&held| usize::from(held < key)).sum()
    }

    #[inline(always)]
    fn count(&self) -> usize {
        // Never more: the bound is for the compiler.
        usize::from(self.count).min(RUNGS)
    }

    /// Moves the worst levels to the front of the deep list.
    fn spill(&mut self, levels: &mut Levels, side: Side) {
        for _ in 0..SPILL {
            let last = self.count() - 1;
            levels.link(&mut self.deep, side, self.keys[last], self.handles[last]);
            self.keys[last] = u32::MAX;
            self.count -= 1;
        }
        self.has_deep = true;
    }

    /// Takes the best levels of the deep list.
    fn refill(&mut self, levels: &mut Levels, side: Side) {
        while self.count() < REFILLED {
            let Some(handle) = levels.pop_front(&mut self.deep) else { break };
            let at = self.count();
            (self.keys[at], self.handles[at]) = (key(side, levels.get(handle).price), handle);
            self.count += 1;
        }
        self.has_deep = !self.deep.is_empty();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    proptest::proptest! {
        /// Every price is there or not, so that ladders fill, spill, run low and are refilled.
        #[test]
        fn ladders_stay_sorted_and_share_the_pool(
            operations in proptest::collection::vec((0usize..2, 0u32..48, 0u8..8, 0u32..5), 0..800),
        ) {
            const POOL: usize = 64;
            let sides = [Side::Buy, Side::Sell];
            let mut levels = Levels::new(POOL as u32);
            let mut ladders = [Ladder::EMPTY; 2];
            let mut oracle = [BTreeMap::<u32, u32>::new(), BTreeMap::new()];
            for (side, low, operation, extreme) in operations {
                // Prices at both ends of what a field can hold among the others.
                let price = match extreme { 0 => 0, 1 => u32::MAX, _ => low + 1 };
                let wanted = key(sides[side], price);
                let used = oracle[0].len() + oracle[1].len();
                let known = oracle[side].get(&wanted).copied();
                match operation {
                    0..=4 => {
                        let handle =
                            ladders[side].find_or_insert(&mut levels, sides[side], wanted);
                        match known {
                            Some(known) => assert_eq!(handle, Some(known)),
                            None => assert_eq!(handle.is_some(), used < POOL),
                        }
                        if let Some(handle) = handle {
                            assert_eq!(levels.get(handle).price, price);
                            oracle[side].insert(wanted, handle);
                        }
                    }
                    _ => if known.is_some() {
                        ladders[side].remove(&mut levels, sides[side], wanted);
                        oracle[side].remove(&wanted);
                    },
                }
                for side in 0..2 {
                    let found: Vec<u32> = ladders[side].iter(&levels).collect();
                    let expected: Vec<u32> = oracle[side].values().copied().collect();
                    assert_eq!(found, expected);
                    assert_eq!(ladders[side].best(), expected.first().copied());
                    for key in [wanted, wanted.saturating_add(1), 0, u32::MAX] {
                        let found = ladders[side].at_or_behind(&levels, sides[side], key);
                        let next = oracle[side].range(key..).next().map(|(_, handle)| *handle);
                        assert_eq!(found, next);
                    }
                    let deep = expected.len() - ladders[side].count();
                    assert_eq!(ladders[side].has_deep, deep != 0);
                    assert!(deep == 0 || ladders[side].count() >= LOW);
                }
                assert_eq!(levels.len() as usize, oracle[0].len() + oracle[1].len());
            }
        }
    }
}
