//! Which keys become hot: those the worker was asked for often enough lately, and more often than the
//! key that has their slot was answered in XDP.

use nautilus_ebpf::intf::HOT_SLOTS;

use super::hits::HitCounts;
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

/// The choice. Private to the run loop.
#[derive(Debug)]
pub struct Admission {
    sketch: Sketch,
    hits: HitCounts,
    /// What `hits` said when the window began.
    at_window: Box<[u64]>,
    window_ns: u64,
    shown: u32,
}

impl Admission {
    /// With nothing asked for yet.
    pub fn new(hits: HitCounts) -> Self {
        let at_window = (0..HOT_SLOTS).map(|slot| hits.of(slot)).collect();
        Self { sketch: Sketch::default(), hits, at_window, window_ns: 0, shown: 0 }
    }

    /// Counts a request for a key that could be hot. True when it should be: `slot` is its slot,
    /// `taken` whether another key has it.
    #[inline]
    pub fn asked(&mut self, hash: u64, slot: u32, taken: bool) -> bool {
        let estimate = self.sketch.count(hash);
        if estimate < ASKED_MIN || self.shown >= SHOWN_MAX {
            return false;
        }
        let rivals = if taken {
            self.hits.of(slot).saturating_sub(self.at_window[slot as usize])
        } else {
            0
        };
        let admitted = u64::from(estimate) > rivals;
        self.shown += u32::from(admitted);
        admitted
    }

    /// Begins new windows when their time has come.
    pub fn housekeeping(&mut self, now_ns: u64) {
        self.shown = 0;
        if now_ns.saturating_sub(self.window_ns) < WINDOW_NS {
            return;
        }
        self.window_ns = now_ns;
        self.sketch.halve();
        for (slot, hits) in self.at_window.iter_mut().enumerate() {
            *hits = self.hits.of(slot as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u64 = 0x1234_5678_9abc_def0;

    #[test]
    fn a_key_is_admitted_when_it_is_asked_for_often() {
        let mut admission = Admission::new(HitCounts::default());
        for request in 1..ASKED_MIN {
            assert!(!admission.asked(KEY, 5, false), "request {request}");
        }
        assert!(admission.asked(KEY, 5, false));
        // Halved often enough, it has to be asked for again.
        for window in 1..=8 {
            admission.housekeeping(window * WINDOW_NS);
        }
        assert!(!admission.asked(KEY, 5, false));
    }

    #[test]
    fn a_slot_stays_with_the_key_that_is_answered_more_often() {
        let hits = HitCounts::default();
        hits.set(5, 1_000);
        let mut admission = Admission::new(hits.clone());
        hits.set(5, 1_020);
        let admitted = (1..=60).find(|_| admission.asked(KEY, 5, true));
        assert_eq!(admitted, Some(21), "more often than 20 answers in this window");
        admission.housekeeping(WINDOW_NS);
        assert!(admission.asked(KEY, 5, true), "no answers in the next one");
    }

    #[test]
    fn few_values_are_shown_at_once() {
        let mut admission = Admission::new(HitCounts::default());
        let mut shown = 0;
        for _ in 0..200 {
            shown += u32::from(admission.asked(KEY, 5, false));
        }
        assert_eq!(shown, SHOWN_MAX);
        admission.housekeeping(1);
        assert!(admission.asked(KEY, 5, false));
    }
}
