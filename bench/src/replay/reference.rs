//! LRU and FIFO as textbooks have them: the yardstick, itself checked against published miss counts.
//!
//! A cache holds objects of together at most so many bytes. A miss inserts; before that the oldest
//! objects leave until the new one fits. One larger than the cache is not inserted.

use std::collections::{BTreeMap, HashMap};

use super::trace::Request;

/// Which object is oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The one used longest ago.
    Lru,
    /// The one inserted longest ago.
    Fifo,
}

/// A cache that holds sizes, no values.
#[derive(Debug)]
pub struct Reference {
    policy: Policy,
    free_bytes: u64,
    /// Object to its turn and size.
    objects: HashMap<u64, (u64, u32)>,
    /// Turn to object; the first is the oldest.
    turns: BTreeMap<u64, u64>,
    turn: u64,
}

/// Misses of one replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Misses {
    /// Requests that missed.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Reference {
    /// An empty cache of so many bytes.
    pub fn new(policy: Policy, capacity_bytes: u64) -> Self {
        let (objects, turns) = (HashMap::new(), BTreeMap::new());
        Self { policy, free_bytes: capacity_bytes, objects, turns, turn: 0 }
    }

    /// Asks for an object, which is inserted on a miss. Whether it was there.
    pub fn get(&mut self, request: &Request) -> bool {
        self.turn += 1;
        if let Some((turn, _)) = self.objects.get_mut(&request.object) {
            if self.policy == Policy::Lru {
                self.turns.remove(turn);
                self.turns.insert(self.turn, request.object);
                *turn = self.turn;
            }
            return true;
        }
        while self.free_bytes < request.bytes.into() {
            let Some((_, oldest)) = self.turns.pop_first() else { return false };
            let bytes = self.objects.remove(&oldest).map_or(0, |(_, bytes)| bytes);
            self.free_bytes += u64::from(bytes);
        }
        self.free_bytes -= u64::from(request.bytes);
        self.turns.insert(self.turn, request.object);
        self.objects.insert(request.object, (self.turn, request.bytes));
        false
    }

    /// Replays a trace.
    pub fn run(mut self, trace: &[Request]) -> Misses {
        let mut misses = Misses::default();
        for request in trace.iter().filter(|request| !self.get(request)) {
            misses.count += 1;
            misses.bytes += u64::from(request.bytes);
        }
        misses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(policy: Policy, capacity_bytes: u64, asked: &[(u64, u32)]) -> Vec<bool> {
        let mut cache = Reference::new(policy, capacity_bytes);
        asked.iter().map(|&(object, bytes)| cache.get(&Request { object, bytes })).collect()
    }

    #[test]
    fn a_use_saves_an_object_from_lru_and_not_from_fifo() {
        let asked = [(1, 1), (2, 1), (1, 1), (3, 1), (1, 1), (2, 1)];
        assert_eq!(hits(Policy::Lru, 2, &asked), [false, false, true, false, true, false]);
        assert_eq!(hits(Policy::Fifo, 2, &asked), [false, false, true, false, false, false]);
    }

    #[test]
    fn objects_leave_until_the_new_one_fits() {
        // The object of 3 takes the place of both; one too large empties the cache and stays out.
        let asked = [(1, 2), (2, 2), (3, 3), (1, 1), (3, 3), (4, 9), (3, 3)];
        for policy in [Policy::Lru, Policy::Fifo] {
            let expected = [false, false, false, false, true, false, false];
            assert_eq!(hits(policy, 4, &asked), expected, "{policy:?}");
        }
    }
}
