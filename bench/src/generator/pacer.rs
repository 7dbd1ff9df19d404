//! When an open-loop generator's requests are due.
//!
//! Request `i` is due at `start + i / rate`, whatever happened to the ones before it. Its latency
//! counts from then, not from when it was really sent: a stall of server, kernel or generator is
//! charged to every request that fell into it (no coordinated omission).

/// A fixed-rate schedule over one run.
#[derive(Clone, Copy, Debug)]
pub struct Pacer {
    start_ns: u64,
    rate_per_s: u64,
    count: u64,
}

impl Pacer {
    /// `count` requests at `rate_per_s` (at least 1), the first due at `start_ns`.
    pub fn new(start_ns: u64, rate_per_s: u64, count: u64) -> Self {
        Self { start_ns, rate_per_s: rate_per_s.max(1), count }
    }

    /// When request `index` is due. Computed from the index, so rounding never adds up.
    pub fn due_ns(&self, index: u64) -> u64 {
        let offset = u128::from(index) * 1_000_000_000 / u128::from(self.rate_per_s);
        self.start_ns + u64::try_from(offset).unwrap_or(u64::MAX - self.start_ns)
    }

    /// How many requests are due at `now_ns`, in total, at most the run's count.
    pub fn due_count(&self, now_ns: u64) -> u64 {
        let Some(elapsed) = now_ns.checked_sub(self.start_ns) else { return 0 };
        let whole = u128::from(elapsed) * u128::from(self.rate_per_s) / 1_000_000_000 + 1;
        // The product truncates where `due_ns` truncates the quotient: the next one may be due.
        let mut due = u64::try_from(whole).unwrap_or(u64::MAX).min(self.count);
        while due < self.count && self.due_ns(due) <= now_ns {
            due += 1;
        }
        due
    }

    /// Requests of the whole run.
    pub fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_drift_at_a_rate_that_does_not_divide_a_second() {
        let pacer = Pacer::new(1_000, 300_007, u64::MAX);
        assert_eq!(pacer.due_ns(0), 1_000);
        assert_eq!(pacer.due_ns(300_007), 1_000_001_000);
        assert_eq!(pacer.due_ns(300_007 * 3_600), 3_600_000_001_000);
    }

    #[test]
    fn a_request_is_due_exactly_from_its_due_time_on() {
        for rate in [1, 3, 9_999, 10_000, 333_333, 1_000_003] {
            let pacer = Pacer::new(77, rate, u64::MAX);
            for index in [0, 1, 2, 3, 10, 999, 123_457] {
                let due = pacer.due_ns(index);
                assert!(pacer.due_count(due) > index, "rate {rate} index {index} at its time");
                assert!(pacer.due_count(due - 1) <= index, "rate {rate} index {index} before");
            }
        }
    }

    #[test]
    fn a_stall_leaves_its_requests_due_at_their_own_times() {
        let pacer = Pacer::new(0, 10_000, 1_000);
        assert_eq!(pacer.due_count(0), 1);
        // Ten milliseconds without a turn: a hundred requests wait, each from its own time.
        assert_eq!(pacer.due_count(10_000_000), 101);
        assert_eq!(pacer.due_ns(50), 5_000_000);
        assert_eq!(pacer.due_count(u64::MAX), 1_000);
    }
}
