//! How long arrivals at random times would have waited for a thread that only spins: the part of a latency
//! that is the machine's.

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

    /// The wait that one arrival of a hundred exceeds, in nanoseconds.
    pub fn p99_ns(&self) -> u64 {
        // Of a stall of length L those wait longer than w that arrive in its first L - w.
        let longer = |wait_ns: u64| -> u64 {
            self.stalls_ns.iter().map(|stall_ns| stall_ns.saturating_sub(wait_ns)).sum()
        };
        let (mut low_ns, mut high_ns) = (0, self.stalls_ns.iter().copied().max().unwrap_or(0));
        while low_ns < high_ns {
            let middle_ns = low_ns + (high_ns - low_ns) / 2;
            if longer(middle_ns) * 100 <= self.watched_ns {
                high_ns = middle_ns;
            } else {
                low_ns = middle_ns + 1;
            }
        }
        low_ns
    }
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
        assert_eq!(waits.p99_ns(), 0);
        waits.turn(0, 100_000);
        // Of about a million nanoseconds one percent is the first 10,000 of the stall.
        let p99_ns = waits.p99_ns();
        assert!((89_000..91_000).contains(&p99_ns), "{p99_ns}");
    }
}
