//! Every live order of a channel, found by its reference number, and the queues they stand in.
//!
//! ```text
//!   reference --> index --> place in the pool: the order, and who stands before and behind it
//! ```
//!
//! Orders of one price level form a list, oldest first: their time priority. A place keeps its order
//! for the order's life, so links and handles stay true. Places given back last are used first, which
//! keeps the pool's warm part small.

use super::index::{Index, PLACES_MAX, Position};
use crate::feed::itch::Side;

/// No order.
pub const NONE: u32 = u32::MAX;

/// One resting order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Reference number, unique in the session.
    pub reference: u64,
    /// Limit price, 1e-4.
    pub price: u32,
    /// Shares still displayed; never 0.
    pub shares: u32,
    /// Index of its price level in the pool.
    pub level: u32,
    /// Stock locate of its book.
    pub locate: u16,
    /// Side.
    pub side: Side,
}

/// Why an order was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// The reference is already in use.
    Duplicate,
    /// As many orders as the pool may hold.
    Full,
}

/// A live order: its place, and its entry in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its place in the pool.
    pub place: u32,
    position: Position,
}

/// Room for an order that is not there yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vacancy {
    position: Position,
    hash: u32,
}

/// Half a cache line, and never across two.
#[derive(Clone, Copy)]
#[repr(align(32))]
struct Node {
    order: Order,
    /// Behind it in its level; of a free place the next free one.
    next: u32,
    /// Before it in its level.
    previous: u32,
}

const _: () = assert!(size_of::<Node>() == 32);

/// The pool. Written by the worker that owns the channel.
pub struct Orders {
    index: Index,
    nodes: Box<[Node]>,
    len: u32,
    /// Places from here on have never been used since the last clear.
    fresh: u32,
    /// First of the returned places.
    free: u32,
}

impl Orders {
    /// Bytes taken at start for so many orders.
    pub const fn bytes_for(capacity: u32) -> u64 {
        (Index::entries_for(capacity) * size_of::<u64>()) as u64
            + capacity as u64 * size_of::<Node>() as u64
    }

    /// A pool for at most `capacity` orders. `seed` makes probe sequences unpredictable to a sender.
    ///
    /// Panics when `capacity` is 0 or above 2^24.
    pub fn new(capacity: u32, seed: u64) -> Self {
        assert!((1..=PLACES_MAX).contains(&capacity), "order capacity {capacity}");
        // Not all zero, so that the pages are written here and not faulted in by the run loop.
        let order =
            Order { reference: 0, price: 0, shares: 0, level: NONE, locate: 0, side: Side::Buy };
        let node = Node { order, next: NONE, previous: NONE };
        let nodes = vec![node; capacity as usize].into_boxed_slice();
        Self { index: Index::new(capacity, seed), nodes, len: 0, fresh: 0, free: NONE }
    }

    /// Bytes that so many orders take, with their index.
    pub const fn memory_bytes(capacity: u32) -> u64 {
        (Index::entries_for(capacity) * size_of::<u32>()) as u64
            + capacity as u64 * size_of::<Node>() as u64
    }

    /// How many orders there are.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets every order. Every 255th call writes the whole index, the others a few words.
    pub fn clear(&mut self) {
        self.index.clear();
        (self.len, self.fresh, self.free) = (0, 0, NONE);
    }

    /// The order of this reference.
    #[inline(always)]
    pub fn find(&self, reference: u64) -> Option<Found> {
        self.look_up(reference).ok()
    }

    /// The order in a place.
    #[inline(always)]
    pub fn get(&self, place: u32) -> &Order {
        &self.nodes[place as usize].order
    }

    /// Replaces the shares of a live order.
    pub fn set_shares(&mut self, place: u32, shares: u32) {
        debug_assert!(shares != 0);
        self.nodes[place as usize].order.shares = shares;
    }

    /// Room for an order of this reference.
    #[inline(always)]
    pub fn vacancy(&self, reference: u64) -> Result<Vacancy, InsertError> {
        match self.look_up(reference) {
            Ok(_) => Err(InsertError::Duplicate),
            Err(_) if self.len as usize == self.nodes.len() => Err(InsertError::Full),
            Err(vacancy) => Ok(vacancy),
        }
    }

    /// Stores an order behind `last`, the youngest of its level or [`NONE`], and returns its place.
    /// Nothing may have been inserted or removed since the vacancy was found.
    #[inline(always)]
    pub fn insert(&mut self, vacancy: Vacancy, order: Order, last: u32) -> u32 {
        let place = match self.free {
            NONE => {
                self.fresh += 1;
                self.fresh - 1
            }
            free => {
                self.free = self.nodes[free as usize].next;
                free
            }
        };
        self.nodes[place as usize] = Node { order, next: NONE, previous: last };
        if let Some(last) = self.nodes.get_mut(last as usize) {
            last.next = place;
        }
        self.index.insert(vacancy.position, vacancy.hash, place);
        self.len += 1;
        place
    }

    /// Takes an order out of its queue and of the pool. Returns who stood before and behind it.
    #[inline(always)]
    pub fn remove(&mut self, found: Found) -> (u32, u32) {
        let Node { next, previous, .. } = self.nodes[found.place as usize];
        if let Some(node) = self.nodes.get_mut(previous as usize) {
            node.next = next;
        }
        if let Some(node) = self.nodes.get_mut(next as usize) {
            node.previous = previous;
        }
        self.index.remove(found.position);
        self.nodes[found.place as usize].next = self.free;
        self.free = found.place;
        self.len -= 1;
        (previous, next)
    }

    /// The orders from this place on, towards the youngest.
    pub fn queue(&self, first: u32) -> impl Iterator<Item = &Order> {
        let mut at = first;
        std::iter::from_fn(move || {
            let node = self.nodes.get(at as usize)?;
            at = node.next;
            Some(&node.order)
        })
    }

    /// Place of the order behind this one in its queue; [`NONE`] behind the last.
    pub fn next(&self, place: u32) -> u32 {
        self.nodes[place as usize].next
    }

    /// Place of the order before this one in its queue; [`NONE`] before the first.
    pub fn previous(&self, place: u32) -> u32 {
        self.nodes[place as usize].previous
    }

    /// The orders before this place, from the nearest to the oldest.
    pub fn ahead_of(&self, place: u32) -> impl Iterator<Item = &Order> {
        let mut at = self.nodes[place as usize].previous;
        std::iter::from_fn(move || {
            let node = self.nodes.get(at as usize)?;
            at = node.previous;
            Some(&node.order)
        })
    }

    /// First stage of a batch: asks for the index line of a reference.
    #[inline(always)]
    pub fn prefetch(&self, reference: u64) {
        self.index.prefetch(self.index.hash(reference));
    }

    /// Second stage: asks for the order that is likely meant and returns its place.
    #[inline(always)]
    pub fn prefetch_order(&self, reference: u64) -> Option<u32> {
        let place = self.index.guess(self.index.hash(reference))?;
        nautilus_shm::prefetch(&self.nodes, place as usize);
        Some(place)
    }

    #[inline(always)]
    fn look_up(&self, reference: u64) -> Result<Found, Vacancy> {
        let hash = self.index.hash(reference);
        let is_it = |place: u32| self.nodes[place as usize].order.reference == reference;
        match self.index.find(hash, is_it) {
            Ok((position, place)) => Ok(Found { place, position }),
            Err(position) => Err(Vacancy { position, hash }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn order(reference: u64, shares: u32) -> Order {
        Order { reference, price: 1, shares, level: 0, locate: 0, side: Side::Sell }
    }

    fn shares(orders: &Orders, reference: u64) -> Option<u32> {
        orders.find(reference).map(|found| orders.get(found.place).shares)
    }

    proptest::proptest! {
        #[test]
        fn behaves_like_a_hash_map_with_a_queue(
            operations in proptest::collection::vec((0u8..8, 0u64..64, 1u32..9), 0..400),
            seed: u64,
        ) {
            let mut orders = Orders::new(24, seed);
            let mut oracle: HashMap<u64, u32> = HashMap::new();
            // One level: references, oldest first.
            let mut queue: Vec<u64> = Vec::new();
            for (operation, reference, new) in operations {
                match operation {
                    0..=3 => {
                        let expected = match oracle.len() {
                            _ if oracle.contains_key(&reference) => Err(InsertError::Duplicate),
                            24 => Err(InsertError::Full),
                            _ => Ok(()),
                        };
                        let vacancy = orders.vacancy(reference);
                        assert_eq!(vacancy.map(|_| ()), expected);
                        if let Ok(vacancy) = vacancy {
                            let last = queue.last().map_or(NONE, |&r| orders.find(r).unwrap().place);
                            orders.insert(vacancy, order(reference, new), last);
                            oracle.insert(reference, new);
                            queue.push(reference);
                        }
                    }
                    4..=5 => {
                        let found = orders.find(reference);
                        assert_eq!(found.is_some(), oracle.remove(&reference).is_some());
                        if let Some(found) = found {
                            let at = queue.iter().position(|&r| r == reference).unwrap();
                            let (previous, next) = orders.remove(found);
                            let named = |place: u32| {
                                (place != NONE).then(|| orders.get(place).reference)
                            };
                            let expected = at.checked_sub(1).map(|at| queue[at]);
                            assert_eq!(named(previous), expected);
                            assert_eq!(named(next), queue.get(at + 1).copied());
                            queue.remove(at);
                        }
                    }
                    6 => if let Some(found) = orders.find(reference) {
                        orders.set_shares(found.place, new);
                        oracle.insert(reference, new);
                    },
                    _ if reference == 0 => {
                        orders.clear();
                        oracle.clear();
                        queue.clear();
                    }
                    _ => {}
                }
                assert_eq!(orders.len() as usize, oracle.len());
                for reference in 0..64 {
                    assert_eq!(shares(&orders, reference), oracle.get(&reference).copied());
                }
                let first = queue.first().map_or(NONE, |&r| orders.find(r).unwrap().place);
                let found: Vec<u64> = orders.queue(first).map(|order| order.reference).collect();
                assert_eq!(found, queue);
                if let Some(&youngest) = queue.last() {
                    let place = orders.find(youngest).unwrap().place;
                    let ahead: Vec<u64> = orders.ahead_of(place).map(|o| o.reference).collect();
                    let expected: Vec<u64> = queue.iter().rev().skip(1).copied().collect();
                    assert_eq!(ahead, expected);
                }
            }
        }
    }

    #[test]
    fn clearing_more_often_than_there_are_epochs_brings_nothing_back() {
        let mut orders = Orders::new(4, 0);
        for round in 0..1000 {
            assert!(orders.find(7).is_none(), "{round}");
            for reference in [7, 8] {
                let vacancy = orders.vacancy(reference).unwrap();
                orders.insert(vacancy, order(reference, 1), NONE);
            }
            orders.remove(orders.find(8).unwrap());
            orders.clear();
            assert!(orders.is_empty() && orders.find(7).is_none(), "{round}");
        }
    }
}
