//! When something happened, by two clocks: the one of the wall, which may be set, and the one that
//! counts from boot, which may not. Where they part between two records, the wall clock was moved.

use nix::time::{ClockId, clock_gettime};

/// One moment by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Nanoseconds since 1970, UTC.
    pub wall_ns: i64,
    /// Nanoseconds since boot, sleep included.
    pub boot_ns: i64,
}

impl Moment {
    /// This moment. A clock the kernel does not have reads 0, which shows as a step.
    pub fn now() -> Self {
        let read = |clock| {
            clock_gettime(clock)
                .map_or(0, |time| time.tv_sec().saturating_mul(1_000_000_000) + time.tv_nsec())
        };
        Self { wall_ns: read(ClockId::CLOCK_REALTIME), boot_ns: read(ClockId::CLOCK_BOOTTIME) }
    }

    /// How far the wall clock was moved between `before` and this.
    pub fn step_ns(self, before: Self) -> i64 {
        let wall = self.wall_ns.saturating_sub(before.wall_ns);
        wall.saturating_sub(self.boot_ns.saturating_sub(before.boot_ns))
    }

    /// The wall clock as RFC 3339 in UTC with nine digits of a second: of fixed width from year 0 to
    /// 9999, so that texts order as times do.
    pub fn text(self) -> String {
        let (seconds, ns) =
            (self.wall_ns.div_euclid(1_000_000_000), self.wall_ns.rem_euclid(1_000_000_000));
        let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, date) = date_of(day);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{ns:09}Z")
    }
}

/// Year, month and day of the month, by walking: days of 1970 are counted from 0.
fn date_of(mut day: i64) -> (i64, i64, i64) {
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut year = 1970;
    loop {
        let days = if leap(year) { 366 } else { 365 };
        if day < 0 {
            year -= 1;
            day += if leap(year) { 366 } else { 365 };
        } else if day >= days {
            year += 1;
            day -= days;
        } else {
            break;
        }
    }
    let february = if leap(year) { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    (year, month, day + 1)
}

#[cfg(test)]
mod tests {
    use super::Moment;

    #[test]
    fn times_are_written_as_the_calendar_has_them() {
        // From `date -u -d @N`.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000000007Z"),
            (1_796_083_199, "2026-11-30T23:59:59.000000007Z"),
            (4_102_444_800, "2100-01-01T00:00:00.000000007Z"),
            (-1, "1969-12-31T23:59:59.000000007Z"),
        ] {
            let moment = Moment { wall_ns: seconds * 1_000_000_000 + 7, boot_ns: 0 };
            assert_eq!(moment.text(), text);
        }
    }

    #[test]
    fn a_clock_that_was_set_is_seen() {
        let before = Moment { wall_ns: 1000, boot_ns: 500 };
        assert_eq!(Moment { wall_ns: 1010, boot_ns: 510 }.step_ns(before), 0);
        assert_eq!(Moment { wall_ns: 10, boot_ns: 510 }.step_ns(before), -1000);
        let (first, second) = (Moment::now(), Moment::now());
        assert!(first.boot_ns > 0 && second.step_ns(first).abs() < 1_000_000_000);
    }
}
