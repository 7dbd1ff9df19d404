//! When the next packet is due.

use std::str::FromStr;
use std::time::{Duration, Instant};

/// How the stamps of the source become waiting time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As fast as the output takes it.
    Max,
    /// The source's own time divided by this factor: 1 is the original pace, 2 twice as fast.
    Scaled(f64),
    /// This many messages a second, whatever the stamps say.
    Rate(f64),
}

impl FromStr for Pace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let positive =
            |text: &str| text.parse().ok().filter(|value: &f64| *value > 0.0 && value.is_finite());
        match text {
            "max" => Ok(Self::Max),
            "original" => Ok(Self::Scaled(1.0)),
            _ => match text.strip_suffix("/s") {
                Some(rate) => positive(rate).map(Self::Rate),
                None => positive(text).map(Self::Scaled),
            }
            .ok_or_else(|| {
                format!("{text:?} is not a pace: max, original, a factor such as 10, or 50000/s")
            }),
        }
    }
}

/// Turns stamps and counts into instants after the start.
pub struct Schedule {
    pace: Pace,
    started: Instant,
    first_ns: Option<u64>,
    last: Duration,
}

impl Schedule {
    /// A schedule that starts now.
    pub fn new(pace: Pace) -> Self {
        Self { pace, started: Instant::now(), first_ns: None, last: Duration::ZERO }
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// When a packet is due, after the start: its stamp in the source's time, and how many messages
    /// were before it. Never earlier than the packet before it, should stamps run backwards.
    pub fn due(&mut self, stamp_ns: u64, messages_before: u64) -> Duration {
        let first_ns = *self.first_ns.get_or_insert(stamp_ns);
        let due = match self.pace {
            Pace::Max => Duration::ZERO,
            Pace::Scaled(factor) => {
                seconds(stamp_ns.saturating_sub(first_ns) as f64 / 1e9 / factor)
            }
            Pace::Rate(rate) => seconds(messages_before as f64 / rate),
        };
        self.last = self.last.max(due);
        self.last
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paces_are_read_and_bad_ones_explained() {
        assert_eq!("max".parse(), Ok(Pace::Max));
        assert_eq!("original".parse(), Ok(Pace::Scaled(1.0)));
        assert_eq!("2.5".parse(), Ok(Pace::Scaled(2.5)));
        assert_eq!("50000/s".parse(), Ok(Pace::Rate(50_000.0)));
        for bad in ["", "0", "-1", "fast", "nan", "inf", "0/s", "/s"] {
            assert!(bad.parse::<Pace>().unwrap_err().contains("is not a pace"), "{bad}");
        }
    }

    #[test]
    fn stamps_are_scaled_and_never_run_backwards() {
        let mut schedule = Schedule::new(Pace::Scaled(10.0));
        assert_eq!(schedule.due(5_000_000_000, 0), Duration::ZERO);
        assert_eq!(schedule.due(6_000_000_000, 1), Duration::from_millis(100));
        assert_eq!(schedule.due(5_500_000_000, 2), Duration::from_millis(100));
        assert_eq!(Schedule::new(Pace::Rate(1_000.0)).due(9, 500), Duration::from_millis(500));
        assert_eq!(Schedule::new(Pace::Max).due(9, 500), Duration::ZERO);
    }
}
