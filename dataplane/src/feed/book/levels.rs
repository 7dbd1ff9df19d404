//! Price levels of all books of a channel: one pool, and the skip lists of the deep ones.
//!
//! A list is ordered best first. Insertion and removal take a number of steps logarithmic in its
//! levels, which matters because the far side of a book is hundreds of levels deep. The best levels of
//! a side are in no list but in its [`super::ladder::Ladder`].

use super::ladder::key;
use super::orders::NONE;
use crate::feed::itch::Side;

/// Tallest tower. Four to the eighth is 65,536 levels a side before searches grow linearly.
const HEIGHT_MAX: usize = 8;

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

/// Half a cache line, and never across two.
#[derive(Clone, Copy)]
#[repr(align(32))]
struct Node {
    level: Level,
    /// Oldest and youngest order.
    first: u32,
    last: u32,
}

const _: () = assert!(size_of::<Node>() == 32);

/// The head of one skip list.
#[derive(Clone, Copy)]
pub struct LevelList {
    next: [u32; HEIGHT_MAX],
}

impl LevelList {
    /// A list without a level.
    pub const EMPTY: Self = Self { next: [NONE; HEIGHT_MAX] };

    /// Whether there is no level.
    pub fn is_empty(&self) -> bool {
        self.next[0] == NONE
    }
}

/// The pool. Written by the worker that owns the channel.
pub struct Levels {
    nodes: Box<[Node]>,
    /// Links of the levels that are in a list; of a free one the next free one.
    towers: Box<[[u32; HEIGHT_MAX]]>,
    /// Nodes from here on have never been used since the last clear.
    fresh: u32,
    /// First of the returned nodes.
    free: u32,
    used: u32,
    random: u64,
}

impl Levels {
    /// Bytes taken at start for so many levels.
    pub const fn bytes_for(capacity: u32) -> u64 {
        capacity as u64 * (size_of::<Node>() + size_of::<[u32; HEIGHT_MAX]>()) as u64
    }

    /// A pool of `capacity` levels.
    ///
    /// Panics when `capacity` is 0 or [`u32::MAX`].
    pub fn new(capacity: u32) -> Self {
        assert!(capacity != 0 && capacity != NONE, "level capacity {capacity}");
        let node = Node { level: Level::default(), first: NONE, last: NONE };
        Self {
            nodes: vec![node; capacity as usize].into_boxed_slice(),
            towers: vec![[NONE; HEIGHT_MAX]; capacity as usize].into_boxed_slice(),
            fresh: 0,
            free: NONE,
            used: 0,
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// Bytes that so many levels take.
    pub const fn memory_bytes(capacity: u32) -> u64 {
        capacity as u64 * (size_of::<Node>() + size_of::<[u32; HEIGHT_MAX]>()) as u64
    }

    /// Levels in use, over all books.
    pub fn len(&self) -> u32 {
        self.used
    }

    /// Whether none is in use.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Forgets every level. The ladders and lists that pointed here must be made anew.
    pub fn clear(&mut self) {
        (self.fresh, self.free, self.used) = (0, NONE, 0);
    }

    /// The level a handle stands for.
    #[inline(always)]
    pub fn get(&self, handle: u32) -> &Level {
        &self.nodes[handle as usize].level
    }

    /// Place of the oldest order of a level.
    pub fn first_order(&self, handle: u32) -> u32 {
        self.nodes[handle as usize].first
    }

    /// Place of the youngest order of a level; [`NONE`] in one without orders.
    #[inline(always)]
    pub fn last_order(&self, handle: u32) -> u32 {
        self.nodes[handle as usize].last
    }

    /// Counts an order that stands in `place`, behind all others of the level.
    #[inline(always)]
    pub fn push(&mut self, handle: u32, place: u32, shares: u32) {
        let node = &mut self.nodes[handle as usize];
        node.level.orders += 1;
        node.level.shares += u64::from(shares);
        if node.first == NONE {
            node.first = place;
        }
        node.last = place;
    }

    /// Takes `shares` off a level whose orders all stay.
    #[inline(always)]
    pub fn reduce(&mut self, handle: u32, shares: u32) {
        let level = &mut self.nodes[handle as usize].level;
        debug_assert!(level.shares > u64::from(shares));
        level.shares -= u64::from(shares);
    }

    /// Takes an order with its remaining `shares` off a level; `previous` and `next` stood before and
    /// behind it. Returns whether it was the last: the level must leave its book then.
    #[inline(always)]
    pub fn take_off(&mut self, handle: u32, (previous, next): (u32, u32), shares: u32) -> bool {
        let node = &mut self.nodes[handle as usize];
        debug_assert!(node.level.shares >= u64::from(shares) && node.level.orders != 0);
        node.level.shares -= u64::from(shares);
        node.level.orders -= 1;
        if previous == NONE {
            node.first = next;
        }
        if next == NONE {
            node.last = previous;
        }
        node.level.orders == 0
    }

    /// Asks for the memory of a level.
    #[inline(always)]
    pub fn prefetch(&self, handle: u32) {
        nautilus_shm::prefetch(&self.nodes, handle as usize);
    }

    /// A level of this key without orders, in no list; `None` when the pool is used up.
    pub(super) fn take(&mut self, side: Side, price_key: u32) -> Option<u32> {
        let handle = match self.free {
            NONE if (self.fresh as usize) < self.nodes.len() => {
                self.fresh += 1;
                self.fresh - 1
            }
            NONE => return None,
            free => {
                self.free = self.towers[free as usize][0];
                free
            }
        };
        self.used += 1;
        let level = Level { price: key(side, price_key), orders: 0, shares: 0 };
        self.nodes[handle as usize] = Node { level, first: NONE, last: NONE };
        Some(handle)
    }

    /// Returns a level that is in no list.
    pub(super) fn give_back(&mut self, handle: u32) {
        self.towers[handle as usize][0] = self.free;
        self.free = handle;
        self.used -= 1;
    }

    /// The level of this key in a list, made if there is none; `None` when the pool is used up.
    pub(super) fn find_or_insert(
        &mut self,
        list: &mut LevelList,
        side: Side,
        price_key: u32,
    ) -> Option<u32> {
        let before = self.search(list, side, price_key);
        let found = self.next(list, before[0], 0);
        if found != NONE && key(side, self.get(found).price) == price_key {
            return Some(found);
        }
        let handle = self.take(side, price_key)?;
        self.link_behind(list, &before, handle);
        Some(handle)
    }

    /// Puts a level that is in no list into one that has none of its key.
    pub(super) fn link(&mut self, list: &mut LevelList, side: Side, price_key: u32, handle: u32) {
        let before = self.search(list, side, price_key);
        self.link_behind(list, &before, handle);
    }

    /// Takes the level of this key out of a list, if it is there.
    pub(super) fn unlink(
        &mut self,
        list: &mut LevelList,
        side: Side,
        price_key: u32,
    ) -> Option<u32> {
        let before = self.search(list, side, price_key);
        let handle = self.next(list, before[0], 0);
        if handle == NONE || key(side, self.get(handle).price) != price_key {
            return None;
        }
        for (height, &previous) in before.iter().enumerate() {
            if self.next(list, previous, height) == handle {
                let next = self.towers[handle as usize][height];
                self.set_next(list, previous, height, next);
            }
        }
        Some(handle)
    }

    /// Takes the best level out of a list.
    pub(super) fn pop_front(&mut self, list: &mut LevelList) -> Option<u32> {
        let handle = list.next[0];
        let tower = self.towers.get(handle as usize)?;
        for (head, next) in list.next.iter_mut().zip(tower) {
            if *head == handle {
                *head = *next;
            }
        }
        Some(handle)
    }

    /// Handles of a list, best first.
    pub(super) fn handles<'a>(&'a self, list: &LevelList) -> impl Iterator<Item = u32> + use<'a> {
        let mut at = list.next[0];
        std::iter::from_fn(move || {
            let tower = self.towers.get(at as usize)?;
            Some(std::mem::replace(&mut at, tower[0]))
        })
    }

    /// The first level of a list whose key is not before this one.
    pub(super) fn at_or_behind(&self, list: &LevelList, side: Side, price_key: u32) -> Option<u32> {
        let before = self.search(list, side, price_key);
        Some(self.next(list, before[0], 0)).filter(|handle| *handle != NONE)
    }

    /// For each height the last node before this key, [`NONE`] standing for the head.
    fn search(&self, list: &LevelList, side: Side, price_key: u32) -> [u32; HEIGHT_MAX] {
        let mut before = [NONE; HEIGHT_MAX];
        let mut at = NONE;
        for height in (0..HEIGHT_MAX).rev() {
            loop {
                let next = self.next(list, at, height);
                if next == NONE || key(side, self.get(next).price) >= price_key {
                    break;
                }
                at = next;
            }
            before[height] = at;
        }
        before
    }

    fn link_behind(&mut self, list: &mut LevelList, before: &[u32; HEIGHT_MAX], handle: u32) {
        let mut tower = [NONE; HEIGHT_MAX];
        for (height, &previous) in before.iter().enumerate().take(self.random_height()) {
            tower[height] = self.next(list, previous, height);
            self.set_next(list, previous, height, handle);
        }
        self.towers[handle as usize] = tower;
    }

    fn next(&self, list: &LevelList, at: u32, height: usize) -> u32 {
        match at {
            NONE => list.next[height],
            at => self.towers[at as usize][height],
        }
    }

    fn set_next(&mut self, list: &mut LevelList, at: u32, height: usize, to: u32) {
        match at {
            NONE => list.next[height] = to,
            at => self.towers[at as usize][height] = to,
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

    #[test]
    fn a_deep_side_is_searched_in_few_steps() {
        let mut levels = Levels::new(100_000);
        let mut list = LevelList::EMPTY;
        for price in 0..100_000 {
            levels.find_or_insert(&mut list, Side::Sell, price * 7919 % 100_003).unwrap();
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
        let prices: Vec<u32> =
            levels.handles(&list).map(|handle| levels.get(handle).price).collect();
        assert!(prices.is_sorted() && prices.len() == 100_000);
    }
}
