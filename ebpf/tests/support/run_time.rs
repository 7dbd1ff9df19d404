//! What the kernel measured of a program's runs: of single test runs too, each with a fresh packet,
//! where a repeated one would meet its own answer.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use libbpf_rs::libbpf_sys as raw;

/// The kernel measures while this lives.
pub struct RunTimes {
    _measuring: OwnedFd,
}

impl RunTimes {
    pub fn measure() -> Self {
        // SAFETY: takes an integer; a valid result is a descriptor of ours.
        let measuring = unsafe {
            let fd = raw::bpf_enable_stats(raw::BPF_STATS_RUN_TIME);
            assert!(fd >= 0, "run-time statistics: error {fd}");
            OwnedFd::from_raw_fd(fd)
        };
        Self { _measuring: measuring }
    }

    /// Mean time of the runs `what` makes, the measuring included.
    pub fn mean(&self, program: BorrowedFd<'_>, what: impl FnOnce()) -> Duration {
        let (before_ns, before) = totals(program);
        what();
        let (after_ns, after) = totals(program);
        Duration::from_nanos((after_ns - before_ns) / (after - before).max(1))
    }
}

/// Nanoseconds and runs measured.
fn totals(program: BorrowedFd<'_>) -> (u64, u64) {
    let mut info = raw::bpf_prog_info::default();
    let mut bytes = size_of::<raw::bpf_prog_info>() as u32;
    // SAFETY: `info` has `bytes` writable bytes.
    let result =
        unsafe { raw::bpf_prog_get_info_by_fd(program.as_raw_fd(), &raw mut info, &raw mut bytes) };
    assert_eq!(result, 0);
    (info.run_time_ns, info.run_cnt)
}
