//! Counting the system calls of a thread from outside, by the kernel's tracepoint: nothing is added
//! to the thread itself.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd};

use anyhow::Context;

/// `struct perf_event_attr` up to `config2` (linux/perf_event.h, PERF_ATTR_SIZE_VER0).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    config1: u64,
}

const TRACEPOINT: u32 = 2;
/// Bit of `flags`: the counter starts stopped.
const DISABLED: u64 = 1;
/// `PERF_EVENT_IOC_ENABLE`, `_DISABLE` and `_SET_FILTER` (linux/perf_event.h).
const ENABLE: libc::c_ulong = 0x2400;
const DISABLE: libc::c_ulong = 0x2401;
const SET_FILTER: libc::c_ulong = 0x4008_2406;

/// A stopped or running counter of one thread's calls.
pub struct Syscalls(File);

impl Syscalls {
    /// Counts calls of thread `tid`; of one call number only when `only` names one. Needs root and
    /// the tracing file system.
    pub fn of(tid: u32, only: Option<libc::c_long>) -> anyhow::Result<Self> {
        let folders = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
        let id = folders
            .iter()
            .find_map(|folder| {
                std::fs::read_to_string(format!("{folder}/events/raw_syscalls/sys_enter/id")).ok()
            })
            .context("raw_syscalls:sys_enter is not there: mount tracefs on /sys/kernel/tracing")?;
        let attributes = Attributes {
            kind: TRACEPOINT,
            size: std::mem::size_of::<Attributes>() as u32,
            config: id.trim().parse()?,
            flags: DISABLED,
            ..Attributes::default()
        };
        // SAFETY: `attributes` is a whole first-version structure and says its size; the call only
        // reads it. Any core (-1), no group (-1), close on exec (8).
        let fd = unsafe {
            libc::syscall(libc::SYS_perf_event_open, &attributes, tid as libc::pid_t, -1, -1, 8u64)
        };
        if fd < 0 {
            return Err(std::io::Error::last_os_error())
                .with_context(|| format!("counting the system calls of thread {tid}"));
        }
        // SAFETY: the call returned a descriptor nobody else owns.
        let counter = Self(unsafe { File::from_raw_fd(i32::try_from(fd)?) });
        if let Some(number) = only {
            let filter = std::ffi::CString::new(format!("id == {number}"))?;
            // SAFETY: the filter is NUL-terminated and outlives the call.
            let set = unsafe { libc::ioctl(counter.0.as_raw_fd(), SET_FILTER, filter.as_ptr()) };
            anyhow::ensure!(set == 0, "filter: {}", std::io::Error::last_os_error());
        }
        Ok(counter)
    }

    /// Starts counting.
    pub fn start(&self) -> anyhow::Result<()> {
        self.order(ENABLE)
    }

    /// Stops counting.
    pub fn stop(&self) -> anyhow::Result<()> {
        self.order(DISABLE)
    }

    /// Calls counted so far.
    pub fn count(&self) -> anyhow::Result<u64> {
        let mut bytes = [0; 8];
        (&self.0).read_exact(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn order(&self, order: libc::c_ulong) -> anyhow::Result<()> {
        // SAFETY: the descriptor is a perf event; these orders take no pointer.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), order, 0) };
        anyhow::ensure!(done == 0, "perf event: {}", std::io::Error::last_os_error());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs root and tracefs"]
    fn calls_of_this_thread_are_counted_by_number() {
        let tid = nix::unistd::gettid().as_raw() as u32;
        let all = Syscalls::of(tid, None).unwrap();
        let one = Syscalls::of(tid, Some(libc::SYS_getppid)).unwrap();
        all.start().unwrap();
        one.start().unwrap();
        for _ in 0..10 {
            std::hint::black_box(nix::unistd::getppid());
        }
        one.stop().unwrap();
        assert_eq!(one.count().unwrap(), 10);
        assert!(all.count().unwrap() >= 10);
    }
}
