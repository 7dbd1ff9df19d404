//! Price levels of all books of a channel: one pool of nodes, one skip list per book and side.
//!
//! A list is ordered best first, so the best level is its head. Insertion and removal take a number
//! of steps logarithmic in the levels of that side, which matters because the far side of a book is
//! hundreds of levels deep while most changes happen near its head.

use crate::feed::itch::Side;

/// Tallest node. Four to the eighth is 65,536 levels a side before searches grow linearly.
const HEIGHT_MAX: usize = 8;

/// No node.
const NONE: u32 = u32::MAX;

/// One price and what rests there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Price, 1e-4.
    pub price: u32,
    /// Orders at this price; never 0 in a book.
    pub orders: u32,
    /// Sum of their shares.
    pub shares: u64,
}

#[derive(Clone, Copy)]
struct Node {
    level: Level,
    next: [u32; HEIGHT_MAX],
}

/// The head of one skip list.
#[derive(Clone, Copy)]
pub struct LevelList {
    next: [u32; HEIGHT_MAX],
    side: Side,
}

impl LevelList {
    /// A list without a level.
    pub const fn new(side: Side) -> Self {
        Self { next: [NONE; HEIGHT_MAX], side }
    }

    /// Ascending key, best price first.
    fn key(&self, price: u32) -> u32 {
        match self.side {
            Side::Buy => !price,
            Side::Sell => price,
        }
    }
}

/// The pool. Written by the worker that owns the channel.
pub struct Levels {
    nodes: Box<[Node]>,
    /// Nodes from here on have never been used since the last clear.
    fresh: u32,
    /// First of the returned nodes, linked through `next[0]`.
    free: u32,
    used: u32,
    random: u64,
}

impl Levels {
    /// A pool of `capacity` levels.
    ///
    /// Panics when `capacity` is 0 or [`u32::MAX`].
    pub fn new(capacity: u32) -> Self {
        assert!(capacity != 0 && capacity != NONE, "level capacity {capacity}");
        let node = Node { level: Level::default(), next: [NONE; HEIGHT_MAX] };
        Self {
            nodes: vec![node; capacity as usize].into_boxed_slice(),
            fresh: 0,
            free: NONE,
            used: 0,
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// Levels in use, over all lists.
    pub fn len(&self) -> u32 {
        self.used
    }

    /// Whether none is in use.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Forgets every level. The lists that pointed here must be made anew.
    pub fn clear(&mut self) {
        (self.fresh, self.free, self.used) = (0, NONE, 0);
    }

    /// The level a handle stands for.
    pub fn get(&self, handle: u32) -> &Level {
        &self.nodes[handle as usize].level
    }

    /// Adds an order of `shares` at `price` and returns the handle of its level, or `None` when that
    /// price is new and the pool is used up.
    pub fn add(&mut self, list: &mut LevelList, price: u32, shares: u32) -> Option<u32> {
        let before = self.search(list, price);
        let found = self.next(list, before[0], 0);
        let handle = match found {
            _ if found != NONE && self.get(found).price == price => found,
            _ => self.insert(list, &before, price)?,
        };
        let level = &mut self.nodes[handle as usize].level;
        level.orders += 1;
        level.shares += u64::from(shares);
        Some(handle)
    }

    /// Takes `shares` off a level whose orders all stay.
    pub fn reduce(&mut self, handle: u32, shares: u32) {
        let level = &mut self.nodes[handle as usize].level;
        debug_assert!(level.shares > u64::from(shares));
        level.shares -= u64::from(shares);
    }

    /// Takes an order with its remaining `shares` off a level of this list; the level goes with its
    /// last order.
    pub fn remove(&mut self, list: &mut LevelList, handle: u32, shares: u32) {
        let level = &mut self.nodes[handle as usize].level;
        debug_assert!(level.shares >= u64::from(shares) && level.orders != 0);
        level.shares -= u64::from(shares);
        level.orders -= 1;
        if level.orders != 0 {
            return;
        }
        let price = level.price;
        let before = self.search(list, price);
        for (height, &previous) in before.iter().enumerate() {
            if self.next(list, previous, height) == handle {
                let next = self.nodes[handle as usize].next[height];
                self.link(list, previous, height, next);
            }
        }
        self.nodes[handle as usize].next[0] = self.free;
        self.free = handle;
        self.used -= 1;
    }

    /// The levels of a list, best first.
    pub fn iter<'a>(&'a self, list: &LevelList) -> impl Iterator<Item = &'a Level> {
        let mut at = list.next[0];
        std::iter::from_fn(move || {
            let node = self.nodes.get(at as usize)?;
            at = node.next[0];
            Some(&node.level)
        })
    }

    /// For each height the last node before `price`, [`NONE`] standing for the head.
    fn search(&self, list: &LevelList, price: u32) -> [u32; HEIGHT_MAX] {
        let key = list.key(price);
        let mut before = [NONE; HEIGHT_MAX];
        let mut at = NONE;
        for height in (0..HEIGHT_MAX).rev() {
            loop {
                let next = self.next(list, at, height);
                if next == NONE || list.key(self.get(next).price) >= key {
                    break;
                }
                at = next;
            }
            before[height] = at;
        }
        before
    }

    fn insert(
        &mut self,
        list: &mut LevelList,
        before: &[u32; HEIGHT_MAX],
        price: u32,
    ) -> Option<u32> {
        let handle = match self.free {
            NONE if (self.fresh as usize) < self.nodes.len() => {
                self.fresh += 1;
                self.fresh - 1
            }
            NONE => return None,
            free => {
                self.free = self.nodes[free as usize].next[0];
                free
            }
        };
        self.used += 1;
        let level = Level { price, orders: 0, shares: 0 };
        self.nodes[handle as usize] = Node { level, next: [NONE; HEIGHT_MAX] };
        for (height, &previous) in before.iter().enumerate().take(self.random_height()) {
            self.nodes[handle as usize].next[height] = self.next(list, previous, height);
            self.link(list, previous, height, handle);
        }
        Some(handle)
    }

    fn next(&self, list: &LevelList, at: u32, height: usize) -> u32 {
        match at {
            NONE => list.next[height],
            at => self.nodes[at as usize].next[height],
        }
    }

    fn link(&mut self, list: &mut LevelList, at: u32, height: usize, to: u32) {
        match at {
            NONE => list.next[height] = to,
            at => self.nodes[at as usize].next[height] = to,
        }
    }

    /// Height 1 with probability 3/4, each further one a quarter as likely (xorshift64).
    fn random_height(&mut self) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (1 + self.random.trailing_zeros() as usize / 2).min(HEIGHT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    proptest::proptest! {
        #[test]
        fn lists_stay_sorted_and_share_the_pool(
            operations in proptest::collection::vec((0u8..2, 0u32..40, 1u32..5, 0u8..3), 0..600),
        ) {
            let mut levels = Levels::new(32);
            let mut lists = [LevelList::new(Side::Buy), LevelList::new(Side::Sell)];
            let mut oracle = [BTreeMap::new(), BTreeMap::new()];
            for (side, price, shares, operation) in operations {
                let side = usize::from(side);
                let used = oracle[0].len() + oracle[1].len();
                let known: &mut BTreeMap<u32, Vec<u32>> = &mut oracle[side];
                match operation {
                    0 | 1 => {
                        let room = known.contains_key(&price) || used < 32;
                        let handle = levels.add(&mut lists[side], price, shares);
                        assert_eq!(handle.is_some(), room);
                        if room {
                            known.entry(price).or_default().push(shares);
                        }
                    }
                    _ => if let Some(orders) = known.get_mut(&price) {
                        // Adding one and taking two off finds the handle.
                        let handle = levels.add(&mut lists[side], price, 1).unwrap();
                        levels.remove(&mut lists[side], handle, 1);
                        levels.remove(&mut lists[side], handle, orders.pop().unwrap());
                        if orders.is_empty() {
                            known.remove(&price);
                        }
                    },
                }
                for (side, list) in lists.iter().enumerate() {
                    let found: Vec<_> = levels.iter(list).copied().collect();
                    let mut expected: Vec<_> = oracle[side]
                        .iter()
                        .map(|(&price, orders)| Level {
                            price,
                            orders: orders.len() as u32,
                            shares: orders.iter().map(|&shares| u64::from(shares)).sum(),
                        })
                        .collect();
                    if side == 0 {
                        expected.reverse();
                    }
                    assert_eq!(found, expected);
                }
                assert_eq!(levels.len() as usize, oracle[0].len() + oracle[1].len());
            }
        }
    }

    #[test]
    fn a_deep_side_is_searched_in_few_steps() {
        let mut levels = Levels::new(100_000);
        let mut list = LevelList::new(Side::Sell);
        for price in 0..100_000 {
            levels.add(&mut list, price * 7919 % 100_003, 1).unwrap();
        }
        let mut steps = 0;
        let mut at = NONE;
        for height in (0..HEIGHT_MAX).rev() {
            loop {
                let next = levels.next(&list, at, height);
                if next == NONE || levels.get(next).price >= 99_000 {
                    break;
                }
                at = next;
                steps += 1;
            }
        }
        assert!(steps < 200, "{steps} steps among 100,000 levels");
    }
}
