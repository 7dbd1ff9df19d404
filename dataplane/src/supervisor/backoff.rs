//! How soon a worker is started again when workers keep dying young.

/// A worker that served at least this long died of something else than its start. Too low: a crash
/// loop is not seen. Too high: two unrelated deaths within it count as one loop.
const YOUNG_NS: u64 = 100_000_000;

/// Young deaths that are forgiven at full speed.
const FORGIVEN: u32 = 3;

/// The first delay; doubled with every further young death.
const FIRST_NS: u64 = 50_000_000;

/// The longest delay.
const LONGEST_NS: u64 = 5_000_000_000;

/// Counts young deaths in a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    young_deaths: u32,
}

impl Backoff {
    /// A worker died after `served_ns` of service (0 when it never served). Returns how long to
    /// wait before the next start, 0 for not at all.
    pub fn died(&mut self, served_ns: u64) -> u64 {
        if served_ns >= YOUNG_NS {
            self.young_deaths = 0;
            return 0;
        }
        self.young_deaths = self.young_deaths.saturating_add(1);
        match self.young_deaths.checked_sub(FORGIVEN + 1) {
            None => 0,
            Some(doublings) => (FIRST_NS << doublings.min(16)).min(LONGEST_NS),
        }
    }

    /// Young deaths in a row so far.
    pub fn young_deaths(&self) -> u32 {
        self.young_deaths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crash_loops_slow_down_and_a_long_life_forgives() {
        let mut backoff = Backoff::default();
        let delays: Vec<u64> = (0..20).map(|_| backoff.died(0) / 1_000_000).collect();
        assert_eq!(delays[..7], [0, 0, 0, 50, 100, 200, 400]);
        assert_eq!(*delays.last().unwrap(), 5000);
        assert_eq!(backoff.died(YOUNG_NS), 0);
        assert_eq!(backoff.died(0), 0);
    }
}
