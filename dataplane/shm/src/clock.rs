//! The clock of everything in shared memory: `CLOCK_MONOTONIC`, one for all processes of a host.
//!
//! It is the clock XDP stamps with (`bpf_ktime_get_ns`). glibc reads it through the vDSO, about
//! 25 ns and no kernel entry where the clock source is the TSC.

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[inline]
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the call to fill. CLOCK_MONOTONIC always exists, so the
    // call cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn time_moves_forward_in_nanoseconds() {
        let before_ns = monotonic_ns();
        std::thread::sleep(std::time::Duration::from_millis(5));
        let passed_ns = monotonic_ns() - before_ns;
        assert!((5_000_000..10_000_000_000).contains(&passed_ns), "{passed_ns} ns");
    }
}
