//! The spin probe: how much of a run the core was taken from a thread that only spins.
//!
//! On a shared or virtual machine a core disappears for microseconds to milliseconds. The probe
//! reads the clock in a tight loop; a gap between two readings is a stall. Its result is the share
//! of arrivals, at uniformly random times, that would have been held longer than [`HELD_NS`]: of a
//! stall of length `L` that is `L - 50 us`, for who arrives later waits less.
//!
//! A generator that spins is its own probe (it calls [`Probe::turn`] around the stretch of its loop
//! that makes no system call); rows without one run [`Beside`] on the other core.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::now_ns;

/// The shortest wait that counts as being held.
pub const HELD_NS: u64 = 50_000;

/// Shares below this are taken as equal when the halves of a pair are compared. Too low: pairs are
/// run again for stalls no percentile of theirs can see. Too high: a p99 is compared with one that
/// had a worse machine.
pub const NEGLIGIBLE_SHARE: f64 = 0.001;

/// Sums the stalls of one spinning thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Probe {
    watched_ns: u64,
    held_ns: u64,
}

impl Probe {
    /// Adds the stretch between two clock readings with only spinning between them.
    pub fn turn(&mut self, before_ns: u64, after_ns: u64) {
        let gap = after_ns.saturating_sub(before_ns);
        self.watched_ns += gap;
        self.held_ns += gap.saturating_sub(HELD_NS);
    }

    /// Spins for that long and adds what it saw.
    pub fn spin(&mut self, time: Duration) {
        let start_ns = now_ns();
        let mut before_ns = start_ns;
        while before_ns - start_ns < time.as_nanos() as u64 {
            let after_ns = now_ns();
            self.turn(before_ns, after_ns);
            before_ns = after_ns;
        }
    }

    /// The share of arrivals held longer than [`HELD_NS`], 0 to 1.
    pub fn held_share(&self) -> f64 {
        if self.watched_ns == 0 { 0.0 } else { self.held_ns as f64 / self.watched_ns as f64 }
    }
}

/// Whether two halves of a pair ran on too different a machine to be compared.
pub fn differ(a: f64, b: f64) -> bool {
    let (low, high) = (a.min(b).max(NEGLIGIBLE_SHARE), a.max(b).max(NEGLIGIBLE_SHARE));
    high > 2.0 * low
}

/// A probe spinning on a core of its own while something else is measured.
pub struct Beside {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Probe>,
}

impl Beside {
    /// Starts it on `core`.
    pub fn start(core: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let thread = std::thread::spawn(move || {
            // A probe on another core would watch another machine; the row says so through `held`.
            let _ = crate::clock::pin(core);
            let mut probe = Probe::default();
            let mut before = now_ns();
            while !seen.load(Ordering::Relaxed) {
                let after = now_ns();
                probe.turn(before, after);
                before = after;
            }
            probe
        });
        Self { stop, thread }
    }

    /// Stops it and returns the share it saw.
    pub fn stop(self) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_or(1.0, |probe| probe.held_share())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_part_of_a_stall_beyond_the_limit_holds_an_arrival() {
        let mut probe = Probe::default();
        for turn in 0..950 {
            probe.turn(turn * 1_000, (turn + 1) * 1_000);
        }
        assert_eq!(probe.held_share(), 0.0);
        probe.turn(950_000, 1_050_000);
        let share = probe.held_share();
        assert!((share - 50_000.0 / 1_050_000.0).abs() < 1e-9, "{share}");
    }

    #[test]
    fn halves_differ_beyond_a_factor_of_two_above_the_negligible() {
        assert!(!differ(0.0, 0.0));
        assert!(!differ(0.0, 0.0019));
        assert!(differ(0.0, 0.0021));
        assert!(!differ(0.02, 0.039));
        assert!(differ(0.041, 0.02));
    }

    #[test]
    fn a_thread_beside_watches_most_of_the_time() {
        let beside = Beside::start(0);
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!((0.0..=1.0).contains(&beside.stop()));
    }
}
