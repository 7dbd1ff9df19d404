//! The kill switch of a node: while it is on, prices of feeds are suspect and nothing is published.
//!
//! ```text
//!   operator -> supervisor: state, then turn + 1 (odd is on) ---> workers, front: look before they publish
//!                           table header, hot words ------------> every read path: values of feeds are suspect
//!   worker, front: turn it obeys, and since when (each its own word) -> status: how long it took
//! ```
//!
//! This part of the control region is what publishers obey and readers of the region are told. Read paths have a word
//! of their own where they look anyway: [`crate::table::set_halted`] for the table, and the hot words of the
//! steering program. The supervisor writes all three; a successor that finds the switch on writes them again,
//! so no death in between leaves half of it. Only an operator turns it off.

use crate::cells::{text_words, words_text};
use crate::control_region::PROCESSES_MAX;
use crate::seqlock::{SeqLock, WriterBusy};
use crate::shared::{Padded, Shared};
use crate::sync::{AtomicU64, Ordering};

/// Bytes of a reason; longer text is cut at a character. (Under loom one word is enough to tear.)
pub const REASON_BYTES_MAX: usize = if cfg!(loom) { 8 } else { 128 };

const REASON_WORDS: usize = REASON_BYTES_MAX / 8;
const REASON_WORD: usize = 3;
const WORDS: usize = REASON_WORD + REASON_WORDS;

/// What the switch was set to last, and by whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KillSwitchState {
    /// Whether prices are suspect and publishers silent.
    pub is_on: bool,
    /// When it was set to this, `CLOCK_MONOTONIC`; 0 before it ever was.
    pub since_ns: u64,
    /// User who did.
    pub uid: u32,
    /// Why, in his words.
    pub reason: String,
}

/// Since when a process obeys.
#[repr(C, align(128))]
#[derive(Debug, Default)]
struct Obeyed {
    turn: AtomicU64,
    at_ns: AtomicU64,
}

// SAFETY: repr(C) of shared words only; padding is never read.
unsafe impl Shared for Obeyed {}

/// The switch in the control region. Its writer is the supervisor, but for what each process says of itself.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct KillSwitch {
    /// Counts the changes; odd: on. Alone on its line, which only an operator changes: looking costs a load that
    /// hits the nearest cache.
    turn: Padded<AtomicU64>,
    state: SeqLock<WORDS>,
    obeyed: [Obeyed; PROCESSES_MAX],
}

// SAFETY: repr(C) of shared words only; padding is never read.
unsafe impl Shared for KillSwitch {}

impl KillSwitch {
    /// Sets it. Single writer: the supervisor. The same again changes who did it and why, and nothing else.
    pub fn set(&self, state: &KillSwitchState) {
        let mut words = [0; WORDS];
        words[0] = state.is_on.into();
        words[1] = state.since_ns;
        words[2] = state.uid.into();
        words[REASON_WORD..].copy_from_slice(&text_words::<REASON_WORDS>(&state.reason));
        self.state.write(&words);
        let turn = self.turn.0.load(Ordering::Relaxed);
        if (turn & 1 == 1) != state.is_on {
            // SYNC POINT: pairs with the acquire load in `state`: who sees the turn sees its state.
            self.turn.0.store(turn.wrapping_add(1), Ordering::Release);
        }
    }

    /// Whether nothing may be published. Relaxed: nothing else is ordered by it.
    #[inline(always)]
    pub fn is_on(&self) -> bool {
        self.turn() & 1 == 1
    }

    /// Counts the changes; odd is on.
    #[inline(always)]
    pub fn turn(&self) -> u64 {
        self.turn.0.load(Ordering::Relaxed)
    }

    /// Says that a process, below [`PROCESSES_MAX`], has acted on this turn and sends nothing any more that it
    /// forbids. Single writer: that process.
    pub fn obey(&self, process: usize, turn: u64, now_ns: u64) {
        let obeyed = &self.obeyed[process];
        obeyed.at_ns.store(now_ns, Ordering::Relaxed);
        // SYNC POINT: pairs with the acquire load in `obeyed_ns`: who sees the turn sees its time.
        obeyed.turn.store(turn, Ordering::Release);
    }

    /// Since when a process, below [`PROCESSES_MAX`], has obeyed the present turn; `None` while it has not yet.
    pub fn obeyed_ns(&self, process: usize) -> Option<u64> {
        let obeyed = &self.obeyed[process];
        // SYNC POINT: pairs with the release store in `obey`.
        let turn = obeyed.turn.load_acquire();
        (turn == self.turn()).then(|| obeyed.at_ns.load(Ordering::Relaxed))
    }

    /// What it was set to last. Whether it is on is what publishers go by, even where the rest cannot be read.
    pub fn state(&self) -> Result<KillSwitchState, WriterBusy> {
        // SYNC POINT: pairs with the release store in `set`.
        let is_on = self.turn.0.load_acquire() & 1 == 1;
        let words = self.state.read()?;
        Ok(KillSwitchState {
            is_on,
            since_ns: words[1],
            uid: words[2] as u32,
            reason: words_text(&words[REASON_WORD..]),
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::shared::zeroed_box;
    use crate::sync::{Outcome, kill_after};

    fn state(is_on: bool, since_ns: u64) -> KillSwitchState {
        KillSwitchState { is_on, since_ns, uid: 7, reason: format!("test {since_ns}") }
    }

    #[test]
    fn it_is_off_until_it_is_set_and_says_by_whom() {
        let switch = zeroed_box::<KillSwitch>();
        assert_eq!(switch.state(), Ok(KillSwitchState::default()));
        assert!(!switch.is_on());
        for (is_on, since_ns, turn) in [(true, 5, 1), (true, 6, 1), (false, 7, 2), (true, 8, 3)] {
            switch.set(&state(is_on, since_ns));
            assert_eq!(switch.state(), Ok(state(is_on, since_ns)));
            assert_eq!((switch.is_on(), switch.turn()), (is_on, turn));
        }
    }

    #[test]
    fn a_process_obeys_the_turn_that_it_saw_and_no_later_one() {
        let switch = zeroed_box::<KillSwitch>();
        switch.set(&state(true, 5));
        assert_eq!(switch.obeyed_ns(3), None);
        switch.obey(3, switch.turn(), 9);
        assert_eq!((switch.obeyed_ns(3), switch.obeyed_ns(2)), (Some(9), None));
        switch.set(&state(false, 10));
        assert_eq!(switch.obeyed_ns(3), None);
    }

    #[test]
    fn a_supervisor_killed_after_any_store_leaves_it_on_or_off_and_its_successor_ends_it() {
        for stores in 0.. {
            let switch = zeroed_box::<KillSwitch>();
            switch.set(&state(true, 5));
            let outcome = kill_after(stores, || switch.set(&state(false, 6)));
            // The turn is stored last: on until all is said.
            assert_eq!(switch.is_on(), outcome == Outcome::Killed, "{stores}");
            switch.set(&state(true, 7));
            assert_eq!(switch.state(), Ok(state(true, 7)));
            if outcome != Outcome::Killed {
                assert!(stores > 3);
                break;
            }
        }
    }
}
