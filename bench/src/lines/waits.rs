//! How long arrivals at random times would have waited for threads that only spin, one behind the other: the
//! part of a latency that is the machine's.

use crate::probe::HELD_NS;

/// Gaps shorter than this are the loop itself.
const STALL_NS_MIN: u64 = 1_000;

/// The stalls of one spinning thread.
#[derive(Clone, Debug, Default)]
pub struct Waits {
    watched_ns: u64,
    stalls_ns: Vec<u64>,
}

impl Waits {
    /// Adds the stretch between two clock readings with only spinning between them.
    #[inline]
    pub fn turn(&mut self, before_ns: u64, after_ns: u64) {
        let gap_ns = after_ns.saturating_sub(before_ns);
        self.watched_ns += gap_ns;
        if gap_ns >= STALL_NS_MIN {
            self.stalls_ns.push(gap_ns);
        }
    }

    /// What a worker says of its own idle turns: stalls as the buckets of a histogram (lowest, highest, how
    /// many), and the time in which it could see them.
    pub fn of_worker(stalls: impl Iterator<Item = (u64, u64, u64)>, idle_ns: u64) -> Self {
        let each = |(low, high, count): (u64, u64, u64)| {
            std::iter::repeat_n(low + (high - low) / 2, count as usize)
        };
        let stalls_ns: Vec<u64> = stalls.flat_map(each).collect();
        // A stall at whose end packets were found is no idle time.
        Self { watched_ns: idle_ns + stalls_ns.iter().sum::<u64>(), stalls_ns }
    }

    /// Share of arrivals that wait longer than this. Of a stall of length L those do that arrive in its first
    /// L - w.
    fn longer_share(&self, wait_ns: u64) -> f64 {
        let waiting = self.stalls_ns.iter().map(|stall_ns| stall_ns.saturating_sub(wait_ns));
        waiting.sum::<u64>() as f64 / self.watched_ns.max(1) as f64
    }

    /// Share of arrivals that are held by it.
    pub fn held_share(&self) -> f64 {
        self.longer_share(HELD_NS)
    }
}

/// The wait that one arrival of a hundred exceeds, in nanoseconds, where it has to pass all of these threads:
/// stalls of two cores are rare, and do not fall together.
pub fn p99_ns(threads: &[&Waits]) -> u64 {
    let longest = threads.iter().flat_map(|waits| waits.stalls_ns.iter().copied()).max();
    let (mut low_ns, mut high_ns) = (0, longest.unwrap_or(0));
    while low_ns < high_ns {
        let middle_ns = low_ns + (high_ns - low_ns) / 2;
        let share: f64 = threads.iter().map(|waits| waits.longer_share(middle_ns)).sum();
        if share <= 0.01 {
            high_ns = middle_ns;
        } else {
            low_ns = middle_ns + 1;
        }
    }
    low_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_that_of_the_longest_stalls() {
        let mut waits = Waits::default();
        for turn in 0..900 {
            waits.turn(turn * 1_000, turn * 1_000 + 999);
        }
        assert_eq!(p99_ns(&[&waits]), 0);
        waits.turn(0, 100_000);
        // Of about a million nanoseconds one percent is the first 10,000 of the stall.
        let alone_ns = p99_ns(&[&waits]);
        assert!((89_000..91_000).contains(&alone_ns), "{alone_ns}");
        // Two cores that stall like this: half of it on each.
        let both_ns = p99_ns(&[&waits, &waits]);
        assert!((94_000..96_000).contains(&both_ns), "{both_ns}");
    }

    #[test]
    fn a_workers_own_stalls_count_like_those_seen_from_outside() {
        let waits = Waits::of_worker([(99_840, 100_351, 3)].into_iter(), 2_700_000);
        let seen_ns = p99_ns(&[&waits]);
        assert!((88_000..92_000).contains(&seen_ns), "{seen_ns}");
        assert!((0.049..0.051).contains(&waits.held_share()), "{}", waits.held_share());
    }
}
