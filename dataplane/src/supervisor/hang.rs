//! A worker that is alive and does nothing.
//!
//! Its heartbeat stands still although it announced no sleep. Time in which the supervisor itself did
//! not run (a paused machine, a debugger) does not count: the worker had none either.

use nautilus_shm::cells::WorkerPulse;

use super::seat::{Phase, Seat};

/// A worker that was promoted and has not served yet is given so many limits: it recovers what its
/// predecessor left.
const LIMITS_TO_SERVE: u64 = 10;

/// Watches the heartbeat of the active worker.
#[derive(Debug, Default)]
pub struct HangWatch {
    /// Last look; 0 before the first.
    looked_ns: u64,
    /// Silence before this moment is forgiven.
    since_ns: u64,
}

impl HangWatch {
    /// How long the worker has been silent, if that is longer than `limit_ns`; 0 is no limit. Called
    /// at every turn of the supervisor's loop.
    pub fn look(
        &mut self,
        seat: &Seat,
        pulse: &WorkerPulse,
        now_ns: u64,
        limit_ns: u64,
    ) -> Option<u64> {
        let limit_ns = match seat.phase {
            Phase::Serving => limit_ns,
            Phase::Promoted => limit_ns.saturating_mul(LIMITS_TO_SERVE),
            Phase::Starting | Phase::Ready => 0,
        };
        self.silent_ns(seat.promoted_ns, pulse, now_ns, limit_ns)
    }

    fn silent_ns(
        &mut self,
        promoted_ns: u64,
        pulse: &WorkerPulse,
        now_ns: u64,
        limit_ns: u64,
    ) -> Option<u64> {
        if now_ns.saturating_sub(self.looked_ns) > limit_ns / 2 {
            self.since_ns = now_ns;
        }
        self.looked_ns = now_ns;
        let forgiven_ns = now_ns.saturating_sub(self.since_ns.max(promoted_ns));
        let silent_ns = pulse.silent_ns(now_ns).min(forgiven_ns);
        (limit_ns > 0 && silent_ns > limit_ns).then_some(silent_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 1000;

    /// Looks every 100 ns until the watch says something, at most until 10,000.
    fn found(promoted_ns: u64, pulse: WorkerPulse, limit_ns: u64) -> Option<(u64, u64)> {
        let mut watch = HangWatch::default();
        (1..=100).map(|turn| turn * 100).find_map(|now_ns| {
            let silent = watch.silent_ns(promoted_ns, &pulse, now_ns, limit_ns);
            silent.map(|silent_ns| (now_ns, silent_ns))
        })
    }

    #[test]
    fn silence_is_found_when_it_lasts_longer_than_the_limit() {
        let pulse = WorkerPulse { heartbeat_ns: 2000, ..WorkerPulse::default() };
        assert_eq!(found(0, pulse, LIMIT), Some((3100, 1100)));
        assert_eq!(found(5000, pulse, LIMIT), Some((6100, 1100)), "just promoted");
        assert_eq!(found(0, pulse, 0), None, "no limit");
        let asleep = WorkerPulse { asleep_until_ns: 4000, ..pulse };
        assert_eq!(found(0, asleep, LIMIT), Some((5100, 1100)), "announced sleep is no silence");
    }

    #[test]
    fn time_in_which_nobody_ran_does_not_count() {
        let pulse = WorkerPulse { heartbeat_ns: 50, ..WorkerPulse::default() };
        let mut watch = HangWatch::default();
        assert_eq!(watch.silent_ns(0, &pulse, 100, LIMIT), None);
        assert_eq!(watch.silent_ns(0, &pulse, 90_000, LIMIT), None, "we were stopped, too");
        assert_eq!(watch.silent_ns(0, &pulse, 90_400, LIMIT), None);
        assert_eq!(watch.silent_ns(0, &pulse, 90_800, LIMIT), None);
        assert_eq!(watch.silent_ns(0, &pulse, 91_200, LIMIT), Some(1200));
    }
}
