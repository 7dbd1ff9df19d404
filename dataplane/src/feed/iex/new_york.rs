//! The exchange's day: stamps since 1970 in UTC become nanoseconds since midnight in New York.
//!
//! Source: Energy Policy Act of 2005, section 110: since 2007 clocks go forward on the second Sunday of March and
//! back on the first of November, at two in the morning. Another law needs another table here. On those two days,
//! which have no trading, the hour after the change is counted as it passed, not as clocks show it.

const SECOND_NS: i64 = 1_000_000_000;
const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 24 * HOUR_S;

/// Days from 0000-03-01 to 1970-01-01.
const DAYS_TO_1970: i64 = 719_468;
/// Days of 400 years.
const DAYS_OF_ERA: i64 = 146_097;

/// The day that was asked for last; any other takes some arithmetic.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewYork {
    midnight_ns: i64,
    next_midnight_ns: i64,
}

impl NewYork {
    /// Nanoseconds since the last midnight in New York; `None` for a time before 1970.
    #[inline]
    pub fn since_midnight(&mut self, unix_ns: i64) -> Option<u64> {
        if !(self.midnight_ns..self.next_midnight_ns).contains(&unix_ns) {
            self.move_to(unix_ns)?;
        }
        Some((unix_ns - self.midnight_ns) as u64)
    }

    #[cold]
    fn move_to(&mut self, unix_ns: i64) -> Option<()> {
        if unix_ns < 0 {
            return None;
        }
        let seconds = unix_ns / SECOND_NS;
        // The day on clocks that never change, which begins at the midnight wanted or an hour after it.
        let mut day = (seconds - 5 * HOUR_S).div_euclid(DAY_S);
        if seconds >= midnight_s(day + 1) {
            day += 1;
        }
        self.midnight_ns = midnight_s(day).checked_mul(SECOND_NS)?;
        self.next_midnight_ns = midnight_s(day + 1).saturating_mul(SECOND_NS);
        Some(())
    }
}

/// When a day begins in New York, in seconds since 1970; days count from 1970-01-01.
fn midnight_s(day: i64) -> i64 {
    let hours = if is_daylight_saving(day) { 4 } else { 5 };
    day * DAY_S + hours * HOUR_S
}

/// Whether daylight saving time is in force at a day's midnight.
fn is_daylight_saving(day: i64) -> bool {
    let march_first = first_of_march(day);
    // From 1 March to 1 November are 245 days.
    let from = march_first + days_to_sunday(march_first) + 7;
    let until = march_first + 245 + days_to_sunday(march_first + 245);
    // The change is after midnight.
    from < day && day <= until
}

/// The last 1 March that is not after a day.
fn first_of_march(day: i64) -> i64 {
    let since = day + DAYS_TO_1970;
    let (era, of_era) = (since.div_euclid(DAYS_OF_ERA), since.rem_euclid(DAYS_OF_ERA));
    // Years of 365 days, 366 every 4, 365 every 100, 366 every 400; each ends with February.
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let begin = year * 365 + year / 4 - year / 100;
    era * DAYS_OF_ERA + begin - DAYS_TO_1970
}

/// Days until the next Sunday, 0 on one; 1970-01-01 was a Thursday.
fn days_to_sunday(day: i64) -> i64 {
    (3 - day).rem_euclid(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A time in UTC by the calendar of another hand.
    fn utc(text: &str) -> i64 {
        let output = std::process::Command::new("date").args(["-u", "-d", text, "+%s"]).output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        text.trim().parse::<i64>().unwrap() * SECOND_NS
    }

    fn clock(unix_ns: i64) -> (u64, u64) {
        let since = NewYork::default().since_midnight(unix_ns).unwrap() / SECOND_NS as u64;
        (since / 3_600, since % 3_600 / 60)
    }

    #[test]
    fn winter_is_five_hours_behind_and_summer_four() {
        assert_eq!(clock(utc("2018-01-29 14:30")), (9, 30));
        assert_eq!(clock(utc("2023-08-22 13:30")), (9, 30));
        assert_eq!(clock(utc("2023-08-22 04:00")), (0, 0));
        assert_eq!(clock(utc("2023-08-22 03:59")), (23, 59));
        assert_eq!(clock(utc("2018-01-29 05:00")), (0, 0));
        assert_eq!(clock(utc("2018-01-29 04:59")), (23, 59));
    }

    #[test]
    fn clocks_change_on_the_days_of_the_law() {
        for (change, before, after) in [
            ("2018-03-11", (9, 30), (9, 30)),
            ("2024-03-10", (9, 30), (9, 30)),
            ("2026-03-08", (9, 30), (9, 30)),
        ] {
            let day_ns = utc(change);
            assert_eq!(clock(day_ns - 24 * HOUR_S * SECOND_NS + utc("1970-01-01 14:30")), before);
            assert_eq!(clock(day_ns + 24 * HOUR_S * SECOND_NS + utc("1970-01-01 13:30")), after);
        }
        for change in ["2018-11-04", "2024-11-03", "2026-11-01"] {
            let day_ns = utc(change);
            let day = DAY_S * SECOND_NS;
            assert_eq!(clock(day_ns - day + utc("1970-01-01 13:30")), (9, 30), "{change}");
            assert_eq!(clock(day_ns + day + utc("1970-01-01 14:30")), (9, 30), "{change}");
            // Its midnight is one of summer, and it has 25 hours.
            assert_eq!(clock(day_ns + utc("1970-01-01 04:00")), (0, 0), "{change}");
            assert_eq!(clock(day_ns + utc("1970-01-02 04:59")), (24, 59), "{change}");
        }
    }

    /// Every day of a hundred years begins an hour after, before, or a day after the one before it; and the
    /// days that are not 24 hours long are the Sundays that the law says.
    #[test]
    fn two_days_of_every_year_are_not_a_day_long() {
        let mut changes = Vec::new();
        for day in 0..36_525 {
            let hours = (midnight_s(day + 1) - midnight_s(day)) / HOUR_S;
            if hours != 24 {
                assert_eq!(days_to_sunday(day), 0);
                changes.push(hours);
            }
        }
        assert_eq!(changes.len(), 200);
        assert!(changes.chunks(2).all(|pair| pair == [23, 25]));
    }

    #[test]
    fn a_day_that_is_known_gives_the_same_as_one_that_is_not() {
        let mut known = NewYork::default();
        let mut unix_ns: i64 = 1_500_000_000 * SECOND_NS;
        for step in 0..20_000_i64 {
            unix_ns += (step * 7_919) % 11_000 * SECOND_NS;
            let fresh = NewYork::default().since_midnight(unix_ns).unwrap();
            assert_eq!(known.since_midnight(unix_ns), Some(fresh));
            assert!(fresh < 25 * HOUR_S as u64 * SECOND_NS as u64);
        }
        assert_eq!(known.since_midnight(-1), None);
        assert!(known.since_midnight(i64::MAX).is_some());
        assert!(known.since_midnight(0).is_some());
    }
}
