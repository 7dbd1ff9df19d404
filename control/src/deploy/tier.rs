//! Tiers of nodes, each a budget that readiness is judged by.

use crate::config::Tier;
use crate::spelling::spelled_enum;

spelled_enum! {
    /// What a node promises.
    pub enum EdgeNodeType {
        /// p99 below 100 us, 100,000 operations a second, 99.999 %.
        UltraEdge = "ultra_edge",
        /// p99 below 500 us, 50,000 operations a second, 99.99 %.
        HighPerformance = "high_performance",
        /// p99 below 2 ms, 10,000 operations a second, 99.9 %.
        StandardEdge = "standard_edge",
        /// Nothing: test fleets.
        Lab = "lab",
    }
}

/// What a tier allows and demands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// The p99 has to be below it.
    pub p99_ns: u64,
    /// Jitter, which is p99.9 minus p50, has to be below it: the tail may be as long as the whole budget of
    /// the p99, no longer.
    pub jitter_ns: u64,
    /// Operations a second that a node has to be able to serve.
    pub operations_per_second: u64,
    /// Share of the time in which it serves.
    pub availability: f64,
}

/// What was measured of a node over a period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measurement {
    /// Answers and records of feeds that were timed.
    pub samples: u64,
    /// Half of them took no longer.
    pub p50_ns: u64,
    /// 99 % of them.
    pub p99_ns: u64,
    /// 99.9 % of them.
    pub p999_ns: u64,
}

impl Measurement {
    /// Between half of them and the slowest in a thousand.
    pub fn jitter_ns(&self) -> u64 {
        self.p999_ns.saturating_sub(self.p50_ns)
    }

    /// One that keeps within a budget only where both do: the longer p99 of the two, and the greater jitter.
    pub fn worse(&self, other: &Self) -> Self {
        let p999_ns = self.p999_ns.max(other.p999_ns);
        let jitter_ns = self.jitter_ns().max(other.jitter_ns());
        Self {
            samples: self.samples + other.samples,
            p50_ns: p999_ns - jitter_ns,
            p99_ns: self.p99_ns.max(other.p99_ns),
            p999_ns,
        }
    }
}

/// Samples below which a p99.9 says nothing: one of them would be it.
pub const SAMPLES_MIN: u64 = 1_000;

impl EdgeNodeType {
    /// The budget; none for a lab node.
    pub const fn budget(self) -> Option<Budget> {
        let (p99_ns, operations_per_second, availability) = match self {
            Self::UltraEdge => (100_000, 100_000, 0.999_99),
            Self::HighPerformance => (500_000, 50_000, 0.9999),
            Self::StandardEdge => (2_000_000, 10_000, 0.999),
            Self::Lab => return None,
        };
        Some(Budget { p99_ns, jitter_ns: p99_ns, operations_per_second, availability })
    }

    /// The same in the configuration of watched nodes.
    pub const fn tier(self) -> Tier {
        match self {
            Self::UltraEdge => Tier::Ultra,
            Self::HighPerformance => Tier::High,
            Self::StandardEdge => Tier::Standard,
            Self::Lab => Tier::Lab,
        }
    }

    /// Why a node that measured so may not serve in this tier. `target_us` is the node's own, tighter
    /// limit of the p99.
    pub fn judge(self, target_us: u64, measured: Measurement) -> Result<(), String> {
        let Some(budget) = self.budget() else { return Ok(()) };
        if measured.samples < SAMPLES_MIN {
            let samples = measured.samples;
            return Err(format!("{samples} answers were timed, {SAMPLES_MIN} are needed to judge"));
        }
        let p99_max_ns = budget.p99_ns.min(target_us.saturating_mul(1_000));
        let jitter_ns = measured.jitter_ns();
        for (name, found_ns, max_ns) in
            [("p99", measured.p99_ns, p99_max_ns), ("jitter", jitter_ns, budget.jitter_ns)]
        {
            if found_ns >= max_ns {
                let (found, max) = (found_ns as f64 / 1e3, max_ns as f64 / 1e3);
                return Err(format!(
                    "{name} {found:.1} us, below {max:.1} us is needed for {self}"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_the_tiers_budget_at_its_edge() {
        let good = Measurement { samples: 1_000, p50_ns: 20_000, p99_ns: 99_999, p999_ns: 119_999 };
        let ultra = EdgeNodeType::UltraEdge;
        assert_eq!(ultra.judge(100, good), Ok(()));
        let said = |target_us, measured| ultra.judge(target_us, measured).unwrap_err();
        assert!(said(100, Measurement { p99_ns: 100_000, ..good }).starts_with("p99 100.0 us"));
        assert!(said(100, Measurement { p999_ns: 120_000, ..good }).starts_with("jitter 100.0 us"));
        assert!(said(100, Measurement { samples: 999, ..good }).starts_with("999 answers"));
        assert!(said(90, good).starts_with("p99"), "the node's own target is tighter");
        assert_eq!(EdgeNodeType::HighPerformance.judge(500, good), Ok(()));
        assert_eq!(EdgeNodeType::Lab.judge(1, Measurement::default()), Ok(()));
    }

    #[test]
    fn of_two_measurements_each_can_break_the_budget() {
        let good = Measurement { samples: 1_000, p50_ns: 20_000, p99_ns: 50_000, p999_ns: 60_000 };
        let late = Measurement { p99_ns: 100_000, p999_ns: 110_000, p50_ns: 90_000, ..good };
        let wild = Measurement { p50_ns: 1_000, p999_ns: 101_000, ..good };
        let ultra = EdgeNodeType::UltraEdge;
        assert_eq!(ultra.judge(100, good.worse(&good)), Ok(()));
        for (first, second) in [(good, late), (late, good)] {
            assert!(ultra.judge(100, first.worse(&second)).unwrap_err().starts_with("p99 100.0"));
        }
        for (first, second) in [(good, wild), (wild, good)] {
            assert!(
                ultra.judge(100, first.worse(&second)).unwrap_err().starts_with("jitter 100.0")
            );
        }
        assert_eq!(good.worse(&wild).samples, 2_000);
    }

    #[test]
    fn budgets_are_those_that_health_uses() {
        for tier in EdgeNodeType::ALL {
            assert_eq!(tier.budget().map(|budget| budget.p99_ns), tier.tier().p99_budget_ns());
        }
    }
}
