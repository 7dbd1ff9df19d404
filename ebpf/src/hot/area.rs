//! Which slot a key has: its hash chooses within the area of the worker that may show it.
//!
//! ```text
//!   areas = 2      0 ........ 2047 | 2048 ........ 4095      a worker writes in its own area alone;
//!                  hash % 2048     | 2048 + hash % 2048      the program looks into each in turn
//! ```

use std::ops::Range;

use super::key_words;
use crate::intf::{HOT_AREAS_MAX, HOT_SLOTS};

/// The slots of one worker: an equal part of all, which no other writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotArea {
    first: u32,
    slots: u32,
}

impl HotArea {
    /// Every slot, for a node of one worker.
    pub const WHOLE: Self = Self { first: 0, slots: HOT_SLOTS };

    /// The area of worker `number` of `workers`, as
    /// [`Service::of_workers`](crate::intf::Service::of_workers) divides them. None unless it is one of 1
    /// to [`HOT_AREAS_MAX`] workers.
    pub const fn new(number: u32, workers: u32) -> Option<Self> {
        if number >= workers || workers > HOT_AREAS_MAX {
            return None;
        }
        let slots = HOT_SLOTS / workers.next_power_of_two();
        Some(Self { first: number * slots, slots })
    }

    /// The slot of a key, below [`HOT_SLOTS`]. None for a key that is empty or longer than
    /// [`HOT_KEY_BYTES_MAX`](crate::intf::HOT_KEY_BYTES_MAX).
    #[inline]
    pub fn slot_of(self, cache: u16, key: &[u8]) -> Option<u32> {
        Some(self.first + slot_of(cache, key)? % self.slots)
    }

    /// Its slots.
    pub const fn slots(self) -> Range<u32> {
        self.first..self.first + self.slots
    }
}

/// The slot of a key in [`HotArea::WHOLE`]; the program computes the same.
#[inline]
pub fn slot_of(cache: u16, key: &[u8]) -> Option<u32> {
    let mut hash = u64::from(cache);
    for word in key_words(key)? {
        hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 32;
    }
    let mixed = hash.wrapping_mul(0xbb67_ae85_84ca_a73b) >> 32;
    Some(mixed as u32 & (HOT_SLOTS - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intf::Service;

    #[test]
    fn keys_spread_over_the_slots() {
        let mut slots = vec![0_u32; HOT_SLOTS as usize];
        for number in 0..HOT_SLOTS * 8 {
            let key = format!("md:nasdaq:{number:05}:bbo");
            slots[slot_of(0, key.as_bytes()).unwrap() as usize] += 1;
        }
        // 8 a slot expected, standard deviation 2.8.
        assert!(slots.iter().all(|count| *count < 30), "{:?}", slots.iter().max());
        let empty = slots.iter().filter(|count| **count == 0).count();
        assert!(empty < 20, "{empty} empty of {HOT_SLOTS}, 1.4 expected");
    }

    #[test]
    fn the_last_byte_and_the_cache_choose_too() {
        let slots: std::collections::HashSet<_> = (b'!'..=b'~')
            .map(|last| slot_of(0, &[b'k', last]))
            .chain((1..16).map(|cache| slot_of(cache, b"k")))
            .collect();
        assert!(slots.len() > 100, "{} of 109", slots.len());
        assert_eq!(slot_of(0, b""), None);
        assert_eq!(slot_of(0, &[b'k'; 33]), None);
        assert!(slot_of(0, &[b'k'; 32]).is_some());
    }

    #[test]
    fn areas_are_apart_and_every_slot_of_theirs_is_used() {
        for workers in 1..=HOT_AREAS_MAX {
            let areas = (0..workers).map(|number| HotArea::new(number, workers).unwrap());
            let areas: Vec<HotArea> = areas.collect();
            assert!(areas.windows(2).all(|pair| pair[0].slots().end == pair[1].slots().start));
            assert_eq!(areas[0].slots().start, 0);
            assert!(areas.last().unwrap().slots().end <= HOT_SLOTS);
            let mut used = vec![0_u32; HOT_SLOTS as usize];
            for number in 0..HOT_SLOTS * 2 {
                let key = number.to_string();
                for area in &areas {
                    let slot = area.slot_of(3, key.as_bytes()).unwrap();
                    assert!(area.slots().contains(&slot), "{workers} workers: {slot}");
                    used[slot as usize] += 1;
                }
            }
            let unused = used.iter().filter(|count| **count == 0).count();
            let spare =
                HOT_SLOTS as usize - areas.iter().map(|area| area.slots().len()).sum::<usize>();
            // Of 4,096 slots that 8,192 keys choose among, 554 are expected to be left out.
            assert!(unused - spare < 700, "{workers} workers: {unused} unused");
            let service = Service::hot_cache(1, 3, 7).of_workers(workers);
            assert_eq!(service.hot_areas() * areas[0].slots().len() as u32, HOT_SLOTS);
        }
        assert_eq!(HotArea::new(0, 1), Some(HotArea::WHOLE));
        assert_eq!(HotArea::new(1, 1), None);
        assert_eq!(HotArea::new(0, 0), None);
        assert_eq!(HotArea::new(0, HOT_AREAS_MAX + 1), None);
    }
}
