//! Which place of the pool holds the order of a reference number.
//!
//! ```text
//!   reference --> block of 8 references --hash--> cache line of 8 entries, one for each of the block
//!                 entry: hash (32 bits) | epoch (8) | place (24)
//! ```
//!
//! Open addressing with linear probing and backward-shift deletion: no tombstones, so a look-up costs
//! the same at the end of the day as at its start. References of one block share a cache line, because
//! venues number orders in sequence and most orders die young: what is asked for next is often near.
//! A session roll empties the index by raising an epoch instead of writing every entry.

/// Most places an entry can name.
pub const PLACES_MAX: u32 = 1 << 24;

/// References that share a line, as a power of two.
const BLOCK_BITS: u32 = 3;

const PLACE_MASK: u64 = PLACES_MAX as u64 - 1;

/// Where an entry is or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position(usize);

/// The index. Written by the worker that owns the channel.
pub struct Index {
    entries: Box<[u64]>,
    seed: u64,
    multiplier: u64,
    epoch: u8,
}

impl Index {
    /// Entries of an index for so many orders: at most two thirds are used, for a longer table costs
    /// cache misses and a shorter one long probes.
    pub const fn entries_for(capacity: u32) -> usize {
        (capacity as usize * 3 / 2 + 8).next_power_of_two()
    }

    /// An empty index for `capacity` orders, at most [`PLACES_MAX`]. `seed` makes its probes
    /// unpredictable to a sender.
    pub fn new(capacity: u32, seed: u64) -> Self {
        // Not all zero, so that the pages are written here and not faulted in by the run loop.
        let entries = vec![PLACE_MASK; Self::entries_for(capacity)].into_boxed_slice();
        // Odd, and with bits in its upper half whatever the seed.
        let multiplier = (seed.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15) | (1 << 63) | 1;
        Self { entries, seed: seed ^ 0x2545_f491_4f6c_dd1d, multiplier, epoch: 1 }
    }

    /// Forgets every entry. Every 255th call writes the whole index, the others one byte.
    pub fn clear(&mut self) {
        self.epoch = match self.epoch.checked_add(1) {
            Some(epoch) => epoch,
            None => {
                self.entries.fill(PLACE_MASK);
                1
            }
        };
    }

    /// Hash of a reference: its low bits are those of the entry's home.
    #[inline(always)]
    pub fn hash(&self, reference: u64) -> u32 {
        let block = (reference >> BLOCK_BITS) ^ self.seed;
        let wide = u128::from(block) * u128::from(self.multiplier);
        let mixed = (wide as u64 ^ (wide >> 64) as u64) as u32;
        let within = (1 << BLOCK_BITS) - 1;
        (mixed & !within) | (reference as u32 & within)
    }

    /// Finds the entry with this hash that `is_it` accepts by its place; else where it belongs.
    #[inline(always)]
    pub fn find(
        &self,
        hash: u32,
        is_it: impl Fn(u32) -> bool,
    ) -> Result<(Position, u32), Position> {
        let mut at = hash as usize & self.mask();
        // Ends: the index is never full, so a free entry follows.
        loop {
            let entry = self.entries[at];
            if !self.is_used(entry) {
                return Err(Position(at));
            }
            let place = (entry & PLACE_MASK) as u32;
            if (entry >> 32) as u32 == hash && is_it(place) {
                return Ok((Position(at), place));
            }
            at = (at + 1) & self.mask();
        }
    }

    /// The first place under this hash, without looking at what is there: what a look-up will want.
    #[inline(always)]
    pub fn guess(&self, hash: u32) -> Option<u32> {
        let entry = self.entries[hash as usize & self.mask()];
        (self.is_used(entry) && (entry >> 32) as u32 == hash).then_some((entry & PLACE_MASK) as u32)
    }

    /// Asks for the cache line that a look-up of this hash begins at.
    #[inline(always)]
    pub fn prefetch(&self, hash: u32) {
        nautilus_shm::prefetch(&self.entries, hash as usize & self.mask());
    }

    /// Fills a free position that [`Self::find`] gave, with nothing changed since.
    pub fn insert(&mut self, Position(at): Position, hash: u32, place: u32) {
        debug_assert!(!self.is_used(self.entries[at]) && place < PLACES_MAX);
        self.entries[at] = u64::from(hash) << 32 | u64::from(self.epoch) << 24 | u64::from(place);
    }

    /// Empties a used position.
    pub fn remove(&mut self, Position(mut hole): Position) {
        let mask = self.mask();
        let mut at = (hole + 1) & mask;
        loop {
            let entry = self.entries[at];
            if !self.is_used(entry) {
                break;
            }
            // An entry may fill the hole unless its home lies cyclically between hole and entry.
            let home = (entry >> 32) as usize & mask;
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.entries[hole] = entry;
                hole = at;
            }
            at = (at + 1) & mask;
        }
        self.entries[hole] = PLACE_MASK;
    }

    #[inline(always)]
    fn is_used(&self, entry: u64) -> bool {
        (entry >> 24) as u8 == self.epoch
    }

    #[inline(always)]
    fn mask(&self) -> usize {
        self.entries.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_of_a_block_share_a_line_and_blocks_spread() {
        let index = Index::new(1 << 16, 7);
        let line = |reference: u64| (index.hash(reference) as usize & index.mask()) / 8;
        let mut used = std::collections::BTreeMap::<_, u32>::new();
        for block in 0..8_192u64 {
            let first = line(block * 8);
            assert!((0..8).all(|within| line(block * 8 + within) == first), "{block}");
            *used.entry(first).or_default() += 1;
        }
        // 8,192 blocks in 16,384 lines: thrown at random, 6,446 lines are hit, and none often.
        assert!((6_200..6_700).contains(&used.len()), "{} lines", used.len());
        assert!(used.values().all(|&blocks| blocks <= 8));
    }

    #[test]
    fn another_seed_spreads_otherwise() {
        let (one, other) = (Index::new(1 << 16, 1), Index::new(1 << 16, 2));
        let same = (0..8_000u64).step_by(8).filter(|&r| one.hash(r) == other.hash(r)).count();
        assert!(same < 3, "{same} of 1,000 blocks have the same home under another seed");
    }
}
