//! memcached's expiry times.

/// Times above this are absolute Unix seconds, others are relative (30 days, `doc/protocol.txt`).
pub const RELATIVE_SECONDS_MAX: i64 = 60 * 60 * 24 * 30;

const SECOND_NS: i128 = 1_000_000_000;

/// Converts an expiry time to a `CLOCK_MONOTONIC` deadline, once, when the value is written: 0 for
/// never, a time that has passed for negative or past ones. `realtime_offset_ns` is
/// `CLOCK_REALTIME - CLOCK_MONOTONIC`.
pub fn deadline_ns(expiry_seconds: i64, now_ns: u64, realtime_offset_ns: i64) -> u64 {
    let deadline_ns = match expiry_seconds {
        0 => return 0,
        ..0 => return 1,
        1..=RELATIVE_SECONDS_MAX => i128::from(now_ns) + i128::from(expiry_seconds) * SECOND_NS,
        _ => i128::from(expiry_seconds) * SECOND_NS - i128::from(realtime_offset_ns),
    };
    // A deadline of 0 would mean never.
    deadline_ns.clamp(1, u64::MAX.into()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_relative_for_thirty_days_and_absolute_beyond() {
        let (now_ns, offset_ns) = (5_000_000_000, 1_700_000_000_000_000_000);
        assert_eq!(deadline_ns(0, now_ns, offset_ns), 0);
        assert_eq!(deadline_ns(-1, now_ns, offset_ns), 1);
        assert_eq!(deadline_ns(i64::MIN, now_ns, offset_ns), 1);
        assert_eq!(deadline_ns(10, now_ns, offset_ns), 15_000_000_000);
        assert_eq!(deadline_ns(2_592_000, now_ns, offset_ns), 2_592_005_000_000_000);
        assert_eq!(deadline_ns(2_592_001, now_ns, offset_ns), 1, "an absolute time in 1970");
        assert_eq!(deadline_ns(1_700_000_065, now_ns, offset_ns), 65_000_000_000);
        assert_eq!(deadline_ns(i64::MAX, now_ns, offset_ns), u64::MAX);
    }
}
