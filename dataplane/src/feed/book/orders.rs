//! Every live order of a channel, found by its reference number.
//!
//! Open addressing with linear probing and backward-shift deletion: no tombstones, so a lookup costs
//! the same at the end of the day as at its start. The table is made once; a session roll empties it
//! by raising an epoch instead of writing every slot.

use crate::feed::itch::Side;

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
    /// As many orders as the table may hold.
    Full,
}

#[derive(Clone, Copy)]
struct Slot {
    order: Order,
    epoch: u8,
}

/// The table. Written by the worker that owns the channel.
pub struct Orders {
    slots: Box<[Slot]>,
    len: u32,
    capacity: u32,
    seed: u64,
    epoch: u8,
}

impl Orders {
    /// A table for at most `capacity` orders. `seed` makes probe sequences unpredictable to a sender.
    ///
    /// Panics when `capacity` is 0 or above 2^30.
    pub fn new(capacity: u32, seed: u64) -> Self {
        assert!((1..=1 << 30).contains(&capacity), "order capacity {capacity}");
        // At most two thirds full: a longer table costs cache misses, a shorter one long probes.
        let slots = (capacity as usize * 3 / 2 + 1).next_power_of_two();
        // Not all zero, so that the pages are written here and not faulted in by the run loop.
        let order = Order {
            reference: 0,
            price: 0,
            shares: 0,
            level: u32::MAX,
            locate: 0,
            side: Side::Buy,
        };
        let slots = vec![Slot { order, epoch: 0 }; slots].into_boxed_slice();
        Self { slots, len: 0, capacity, seed, epoch: 1 }
    }

    /// How many orders there are.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets every order. Every 255th call writes the whole table, the others one byte.
    pub fn clear(&mut self) {
        self.len = 0;
        self.epoch = match self.epoch.checked_add(1) {
            Some(epoch) => epoch,
            None => {
                self.slots.iter_mut().for_each(|slot| slot.epoch = 0);
                1
            }
        };
    }

    /// The order of this reference.
    pub fn get(&self, reference: u64) -> Option<&Order> {
        self.find(reference).map(|index| &self.slots[index].order)
    }

    /// Replaces the shares of a live order and returns whether it exists.
    pub fn set_shares(&mut self, reference: u64, shares: u32) -> bool {
        debug_assert!(shares != 0);
        match self.find(reference) {
            Some(index) => {
                self.slots[index].order.shares = shares;
                true
            }
            None => false,
        }
    }

    /// Whether [`Self::insert`] of this reference would succeed.
    pub fn accepts(&self, reference: u64) -> Result<(), InsertError> {
        match self.find(reference) {
            Some(_) => Err(InsertError::Duplicate),
            None if self.len == self.capacity => Err(InsertError::Full),
            None => Ok(()),
        }
    }

    /// Stores an order.
    pub fn insert(&mut self, order: Order) -> Result<(), InsertError> {
        self.accepts(order.reference)?;
        let mut index = self.home(order.reference);
        while self.slots[index].epoch == self.epoch {
            index = self.after(index);
        }
        self.slots[index] = Slot { order, epoch: self.epoch };
        self.len += 1;
        Ok(())
    }

    /// Takes an order out.
    pub fn remove(&mut self, reference: u64) -> Option<Order> {
        let found = self.find(reference)?;
        let order = self.slots[found].order;
        let mut hole = found;
        let mut index = self.after(hole);
        while self.slots[index].epoch == self.epoch {
            // An entry may fill the hole unless its home lies cyclically between hole and entry.
            let home = self.home(self.slots[index].order.reference);
            let mask = self.slots.len() - 1;
            if (index.wrapping_sub(home) & mask) >= (index.wrapping_sub(hole) & mask) {
                self.slots[hole] = self.slots[index];
                hole = index;
            }
            index = self.after(index);
        }
        self.slots[hole].epoch = self.epoch - 1;
        self.len -= 1;
        Some(order)
    }

    /// Every order, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Order> {
        self.slots.iter().filter(|slot| slot.epoch == self.epoch).map(|slot| &slot.order)
    }

    fn find(&self, reference: u64) -> Option<usize> {
        let mut index = self.home(reference);
        // Ends: the table is never full, so a free slot follows.
        while self.slots[index].epoch == self.epoch {
            if self.slots[index].order.reference == reference {
                return Some(index);
            }
            index = self.after(index);
        }
        None
    }

    fn home(&self, reference: u64) -> usize {
        // The 64-bit finaliser of MurmurHash3: every input bit reaches every output bit.
        let mut hash = reference ^ self.seed;
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        (hash ^ (hash >> 33)) as usize & (self.slots.len() - 1)
    }

    fn after(&self, index: usize) -> usize {
        (index + 1) & (self.slots.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn order(reference: u64, shares: u32) -> Order {
        Order { reference, price: 1, shares, level: 0, locate: 0, side: Side::Sell }
    }

    proptest::proptest! {
        #[test]
        fn behaves_like_a_hash_map(
            operations in proptest::collection::vec((0u8..8, 0u64..24, 1u32..9), 0..400),
            seed: u64,
        ) {
            let mut orders = Orders::new(16, seed);
            let mut oracle: HashMap<u64, u32> = HashMap::new();
            for (operation, reference, shares) in operations {
                match operation {
                    0..=3 => {
                        let expected = match oracle.len() {
                            _ if oracle.contains_key(&reference) => Err(InsertError::Duplicate),
                            16 => Err(InsertError::Full),
                            _ => Ok(()),
                        };
                        assert_eq!(orders.insert(order(reference, shares)), expected);
                        if expected.is_ok() {
                            oracle.insert(reference, shares);
                        }
                    }
                    4..=5 => assert_eq!(
                        orders.remove(reference).map(|order| order.shares),
                        oracle.remove(&reference)
                    ),
                    6 => {
                        let known = oracle.get_mut(&reference).map(|old| *old = shares).is_some();
                        assert_eq!(orders.set_shares(reference, shares), known);
                    }
                    _ if reference == 0 => {
                        orders.clear();
                        oracle.clear();
                    }
                    _ => {}
                }
                assert_eq!(orders.len() as usize, oracle.len());
                for reference in 0..24 {
                    let shares = orders.get(reference).map(|order| order.shares);
                    assert_eq!(shares, oracle.get(&reference).copied());
                }
            }
            assert_eq!(orders.iter().count(), oracle.len());
        }
    }

    #[test]
    fn clearing_more_often_than_there_are_epochs_brings_nothing_back() {
        let mut orders = Orders::new(4, 0);
        for round in 0..1000 {
            assert!(orders.get(7).is_none(), "{round}");
            orders.insert(order(7, 1)).unwrap();
            orders.insert(order(8, 1)).unwrap();
            orders.remove(8).unwrap();
            orders.clear();
            assert_eq!(orders.iter().count(), 0, "{round}");
        }
    }
}
