//! The trades of a session that may still be broken, by match number.
//!
//! A venue numbers its matches in sequence, so a trade's slot is the low bits of its number: the newest
//! ones are remembered, each until one with the same low bits comes. Fixed memory; what is forgotten
//! cannot be taken out of the statistics any more, which is counted.

/// What a trade counted in the statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Stock locate of its book.
    pub locate: u16,
    /// Price, 1e-4.
    pub price: u64,
    /// Shares.
    pub shares: u64,
}

#[derive(Clone, Copy)]
struct Slot {
    match_number: u64,
    counted: Counted,
    epoch: u32,
}

/// The memory. Written by the worker that owns the channel.
pub struct RecentTrades {
    slots: Box<[Slot]>,
    epoch: u32,
}

impl RecentTrades {
    /// Bytes taken at start for so many trades.
    pub const fn bytes_for(trades: u32) -> u64 {
        trades.next_power_of_two() as u64 * size_of::<Slot>() as u64
    }

    /// Remembers at least the last `trades` of a venue that numbers them in sequence.
    ///
    /// Panics when `trades` is above 2^31.
    pub fn new(trades: u32) -> Self {
        // Not all zero, so that the pages are written here and not faulted in by the run loop.
        let counted = Counted { locate: 0, price: 0, shares: u64::MAX };
        let slot = Slot { match_number: 0, counted, epoch: 0 };
        Self { slots: vec![slot; trades.next_power_of_two() as usize].into_boxed_slice(), epoch: 1 }
    }

    /// Bytes that so many trades take.
    pub const fn memory_bytes(trades: u32) -> u64 {
        trades.next_power_of_two() as u64 * size_of::<Slot>() as u64
    }

    /// Forgets every trade.
    pub fn clear(&mut self) {
        self.epoch += 1;
    }

    /// Remembers a trade in place of an older one.
    #[inline]
    pub fn remember(&mut self, match_number: u64, counted: Counted) {
        let slot = self.slot(match_number);
        self.slots[slot] = Slot { match_number, counted, epoch: self.epoch };
    }

    /// What the trade of this number counted, once.
    pub fn take(&mut self, match_number: u64) -> Option<Counted> {
        let at = self.slot(match_number);
        let slot = &mut self.slots[at];
        if slot.epoch != self.epoch || slot.match_number != match_number {
            return None;
        }
        slot.epoch = self.epoch - 1;
        Some(slot.counted)
    }

    fn slot(&self, match_number: u64) -> usize {
        match_number as usize & (self.slots.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_remembered_and_each_is_given_once() {
        let mut trades = RecentTrades::new(5);
        let counted = |shares| Counted { locate: 1, price: 2, shares };
        for number in 0..20 {
            trades.remember(number, counted(number));
        }
        assert_eq!(trades.take(11), None, "overwritten by 19");
        assert_eq!(trades.take(12), Some(counted(12)));
        assert_eq!(trades.take(12), None, "given");
        assert_eq!(trades.take(19 + 8), None, "never seen, although 19 lies there");
        trades.clear();
        assert_eq!(trades.take(19), None);
        trades.remember(19, counted(7));
        assert_eq!(trades.take(19), Some(counted(7)));
    }
}
