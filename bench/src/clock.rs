//! The one clock of the bench, and the core a thread runs on.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// The core the generator spins on.
pub const GENERATOR_CORE: usize = 0;

/// The core of the system under test, ours or the peer.
pub const SERVER_CORE: usize = 1;

/// `CLOCK_MONOTONIC` in nanoseconds.
pub fn now_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |t| t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64)
}

/// The cores the calling thread may use, to be given back by [`use_cores`] after [`pin`].
pub fn cores() -> nix::Result<CpuSet> {
    sched_getaffinity(Pid::from_raw(0))
}

/// Has the calling thread, and what it starts, use these cores.
pub fn use_cores(cores: &CpuSet) -> nix::Result<()> {
    sched_setaffinity(Pid::from_raw(0), cores)
}

/// Pins the calling thread.
pub fn pin(core: usize) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set)
}
