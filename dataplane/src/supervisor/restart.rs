//! When front and capture may be started again.

use super::backoff::Backoff;

/// At least so long after a start that failed. Too low: what a start needs is asked for again and again; too high:
/// clients wait that long for what is there again.
const FAILED_NS: u64 = 100_000_000;

/// The moment of the next start. Times are of the monotonic clock.
#[derive(Debug, Default)]
pub struct Restart {
    backoff: Backoff,
    /// No start before this moment.
    after_ns: u64,
}

impl Restart {
    /// Whether one may be started.
    pub fn is_due(&self, now_ns: u64) -> bool {
        now_ns >= self.after_ns
    }

    /// One could not be started. How long until the next try.
    pub fn failed(&mut self, now_ns: u64) -> u64 {
        let delay_ns = self.backoff.died(0).max(FAILED_NS);
        self.after_ns = now_ns + delay_ns;
        delay_ns
    }

    /// One that was to follow came to nothing: that is no death of who serves.
    pub fn wait(&mut self, now_ns: u64) {
        self.after_ns = now_ns + FAILED_NS;
    }

    /// One that served since `since_ns`, 0 if it never did, has died. How long until the next start.
    pub fn died(&mut self, since_ns: u64, now_ns: u64) -> u64 {
        let from_ns = if since_ns > 0 { since_ns } else { now_ns };
        let delay_ns = self.backoff.died(now_ns.saturating_sub(from_ns));
        self.after_ns = now_ns + delay_ns;
        delay_ns
    }

    /// Deaths in a row of those that had hardly served.
    pub fn young_deaths(&self) -> u32 {
        self.backoff.young_deaths()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_dies_young_or_cannot_be_started_is_waited_for() {
        let mut restart = Restart::default();
        assert!(restart.is_due(0));
        assert_eq!(restart.failed(1_000), FAILED_NS);
        assert_eq!(
            (restart.is_due(999 + FAILED_NS), restart.is_due(1_000 + FAILED_NS)),
            (false, true)
        );
        // Three young deaths in a row are forgiven.
        assert_eq!((restart.died(0, 7), restart.died(6, 7)), (0, 0));
        assert!(restart.is_due(7));
        let delay_ns = restart.died(0, 7);
        assert!(delay_ns > 0 && restart.young_deaths() == 4);
        assert_eq!((restart.is_due(6 + delay_ns), restart.is_due(7 + delay_ns)), (false, true));
        // A long life is none of them, nor is one that never came.
        restart.wait(7);
        assert_eq!((restart.is_due(6 + FAILED_NS), restart.young_deaths()), (false, 4));
        assert_eq!(restart.died(1, 10_000_000_000), 0);
        assert_eq!(restart.young_deaths(), 0);
    }
}
