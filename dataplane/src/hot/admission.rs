//! Which keys become hot: those the worker was asked for often enough lately, and more often than the
//! key that has their slot was answered in XDP.

use std::ops::Range;

use super::sketch::Sketch;

/// Length of a window. Too low: no key is asked for often enough within it. Too high: a key that has
/// turned hot is answered by the worker for longer.
const WINDOW_NS: u64 = 100_000_000;

/// Requests within about two windows that make a key a candidate. Too low: slots change hands for keys
/// that are not asked for again. Too high: as a longer window.
const ASKED_MIN: u8 = 8;

/// Values shown between two housekeepings, 100 us apart. Too low: a new working set takes long to
/// become hot. Too high: requests wait behind the copies, some 200 ns each.
const SHOWN_MAX: u32 = 32;

/// Slots whose windows one housekeeping begins. At ten thousand housekeepings a second 5 keep up; a worker
/// that slept has more to do. Too low: windows of slots grow. Too high: requests wait behind it.
const SLOTS_KEPT_MAX: u32 = 64;

/// The choice. Private to the run loop.
#[derive(Debug)]
pub struct Admission {
    sketch: Sketch,
    /// The worker's slots, and what the hits of each were when its window began. The windows begin one after the other, so that no
    /// turn of the loop has to look at all of them.
    slots: Range<u32>,
    at_window: Box<[u64]>,
    /// The next slot whose window begins, and when the one before it did.
    next: u32,
    next_ns: u64,
    window_ns: u64,
    shown: u32,
}

impl Admission {
    /// For these slots, with nothing asked for yet. `hits` says how often a slot was answered from so far.
    pub fn new(slots: Range<u32>, hits: impl Fn(u32) -> u64) -> Self {
        Self {
            sketch: Sketch::default(),
            at_window: slots.clone().map(hits).collect(),
            next: slots.start,
            slots,
            next_ns: 0,
            window_ns: 0,
            shown: 0,
        }
    }

    /// Counts a request for a key that could be hot. True when it should be: `slot` is its slot, `taken`
    /// says, if another key has it, how often it was answered from so far.
    #[inline]
    pub fn asked(&mut self, hash: u64, slot: u32, taken: Option<impl FnOnce() -> u64>) -> bool {
        let estimate = self.sketch.count(hash);
        if estimate < ASKED_MIN || self.shown >= SHOWN_MAX {
            return false;
        }
        let rivals =
            taken.map_or(0, |hits| hits().saturating_sub(self.at_window[self.index(slot)]));
        let admitted = u64::from(estimate) > rivals;
        self.shown += u32::from(admitted);
        admitted
    }

    #[inline]
    fn index(&self, slot: u32) -> usize {
        debug_assert!(self.slots.contains(&slot), "another worker's slot");
        (slot - self.slots.start) as usize
    }

    /// Begins new windows when their time has come.
    pub fn housekeeping(&mut self, now_ns: u64, hits: impl Fn(u32) -> u64) {
        let slot_ns = WINDOW_NS / self.at_window.len() as u64;
        self.shown = 0;
        let due = (now_ns.saturating_sub(self.next_ns) / slot_ns).min(SLOTS_KEPT_MAX.into());
        // What could not be kept up with is not made up for: windows are longer then.
        self.next_ns = match due < SLOTS_KEPT_MAX.into() {
            true => self.next_ns + due * slot_ns,
            false => now_ns,
        };
        for _ in 0..due {
            let index = self.index(self.next);
            self.at_window[index] = hits(self.next);
            self.next += 1;
            if self.next == self.slots.end {
                self.next = self.slots.start;
            }
        }
        if now_ns.saturating_sub(self.window_ns) >= WINDOW_NS {
            self.window_ns = now_ns;
            self.sketch.halve();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nautilus_ebpf::intf::HOT_SLOTS;

    const KEY: u64 = 0x1234_5678_9abc_def0;
    const FREE: Option<fn() -> u64> = None;

    fn admission() -> Admission {
        Admission::new(0..HOT_SLOTS, |_| 0)
    }

    #[test]
    fn a_key_is_admitted_when_it_is_asked_for_often() {
        let mut admission = admission();
        for request in 1..ASKED_MIN {
            assert!(!admission.asked(KEY, 5, FREE), "request {request}");
        }
        assert!(admission.asked(KEY, 5, FREE));
        // Halved often enough, it has to be asked for again.
        for window in 1..=8 {
            admission.housekeeping(window * WINDOW_NS, |_| 0);
        }
        assert!(!admission.asked(KEY, 5, FREE));
    }

    #[test]
    fn a_slot_stays_with_the_key_that_is_answered_more_often() {
        let mut admission = Admission::new(0..HOT_SLOTS, |slot| if slot == 5 { 1_000 } else { 0 });
        let admitted = (1..=60).find(|_| admission.asked(KEY, 5, Some(|| 1_020)));
        assert_eq!(admitted, Some(21), "more often than 20 answers in this window");
        for turn in 1..=1_000 {
            admission.housekeeping(turn * WINDOW_NS / 1_000, |_| 1_020);
        }
        assert!(admission.asked(KEY, 5, Some(|| 1_020)), "no answers in the next one");
    }

    #[test]
    fn every_slot_of_the_area_begins_a_window_in_a_windows_time() {
        for slots in [0..HOT_SLOTS, 512..1024] {
            let mut admission = Admission::new(slots.clone(), |_| 0);
            let seen = std::cell::RefCell::new(vec![0; HOT_SLOTS as usize]);
            let most = std::cell::Cell::new(0);
            for turn in 1..=3_000 {
                let kept = std::cell::Cell::new(0);
                admission.housekeeping(turn * WINDOW_NS / 1_000, |slot| {
                    seen.borrow_mut()[slot as usize] += 1;
                    kept.set(kept.get() + 1);
                    0
                });
                most.set(most.get().max(kept.get()));
            }
            for (slot, windows) in (0..).zip(seen.borrow().iter()) {
                let is_ours = slots.contains(&slot);
                assert_eq!((2..=3).contains(windows), is_ours, "slot {slot}: {windows} windows");
                assert!(is_ours || *windows == 0, "slot {slot}: {windows} windows");
            }
            assert!(most.get() <= 5, "{} slots in one housekeeping", most.get());
            let kept = std::cell::Cell::new(0);
            admission.housekeeping(10 * WINDOW_NS, |_| {
                kept.set(kept.get() + 1);
                0
            });
            assert_eq!(kept.get(), SLOTS_KEPT_MAX, "after a sleep");
        }
    }

    #[test]
    fn few_values_are_shown_at_once() {
        let mut admission = admission();
        let mut shown = 0;
        for _ in 0..200 {
            shown += u32::from(admission.asked(KEY, 5, FREE));
        }
        assert_eq!(shown, SHOWN_MAX);
        admission.housekeeping(1, |_| 0);
        assert!(admission.asked(KEY, 5, FREE));
    }
}
