//! System calls by seccomp: a list for each kind of process of what it may ask the kernel for, and one of what ends it.
//!
//! Two filters, of which the kernel takes the stricter answer: `EPERM` for what is on no list, so that a newer libc that tries
//! something new is refused and falls back, and the end of the process for what none of ours ever does.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};

use super::Kind;

/// Memory, threads, time, descriptors it has.
const ALL: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_ioctl,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_tgkill,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_getcpu,
    libc::SYS_prctl,
    libc::SYS_prlimit64,
    libc::SYS_getrusage,
    libc::SYS_membarrier,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_ppoll,
    libc::SYS_eventfd2,
    libc::SYS_pidfd_open,
    // Refused by landlock, but for the files named; without it, by the files' modes.
    libc::SYS_openat,
    // Sockets: each is opened by the supervisor, or by the process under its own user.
    libc::SYS_socket,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_connect,
    libc::SYS_accept4,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
];

/// The same, where the processor has the older ones as well.
#[cfg(target_arch = "x86_64")]
const OLD: &[i64] =
    &[libc::SYS_poll, libc::SYS_open, libc::SYS_stat, libc::SYS_lstat, libc::SYS_time];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[i64] = &[];

/// Which map a descriptor is: one of a cache that is made while the worker runs is looked at before it is used.
const WORKER: &[i64] = &[libc::SYS_bpf, libc::SYS_readlinkat];
#[cfg(target_arch = "x86_64")]
const OLD_WORKER: &[i64] = &[libc::SYS_readlink];
#[cfg(not(target_arch = "x86_64"))]
const OLD_WORKER: &[i64] = &[];

/// `BPF_OBJ_GET_INFO_BY_FD` of `linux/bpf.h`: the one command of `bpf` that a worker may give.
const BPF_OBJ_GET_INFO_BY_FD: u64 = 15;

const FRONT: &[i64] =
    &[libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// What is done with files.
const FILES: &[i64] = &[
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_flock,
    libc::SYS_getdents64,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_utimensat,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    libc::SYS_umask,
];

#[cfg(target_arch = "x86_64")]
const OLD_FILES: &[i64] = &[
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_link,
    libc::SYS_chmod,
    libc::SYS_access,
    libc::SYS_readlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_FILES: &[i64] = &[];

/// An event loop, and the signals that end it.
const CONTROL: &[i64] = &[
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_pipe2,
    libc::SYS_socketpair,
    libc::SYS_signalfd4,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
];
#[cfg(target_arch = "x86_64")]
const OLD_CONTROL: &[i64] = &[libc::SYS_epoll_wait];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CONTROL: &[i64] = &[];

/// Nothing of ours ever does these: who does has come in from outside.
const ENDS: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_open_by_handle_at,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
];

/// Lists of a kind; who may write somewhere has those for it.
fn allowed(kind: Kind, writes: bool) -> Vec<&'static [i64]> {
    let mut lists = match kind {
        Kind::Worker => vec![ALL, OLD, WORKER, OLD_WORKER],
        Kind::Capture => vec![ALL, OLD],
        Kind::Front => vec![ALL, OLD, FRONT],
        Kind::Control => vec![ALL, OLD, CONTROL, OLD_CONTROL],
    };
    if writes {
        lists.extend([FILES, OLD_FILES]);
    }
    lists
}

/// When a call is meant: always, but for `bpf`, of which one command is told apart from all others.
fn rules(
    calls: impl Iterator<Item = i64>,
    command: SeccompCmpOp,
) -> Result<BTreeMap<i64, Vec<SeccompRule>>, String> {
    let mut rules: BTreeMap<i64, Vec<_>> = calls.map(|call| (call, Vec::new())).collect();
    if let Some(of_bpf) = rules.get_mut(&libc::SYS_bpf) {
        let (place, value) = (0, BPF_OBJ_GET_INFO_BY_FD);
        let is_it = SeccompCondition::new(place, SeccompCmpArgLen::Dword, command, value);
        let rule = is_it.and_then(|is_it| SeccompRule::new(vec![is_it]));
        of_bpf.push(rule.map_err(|error| error.to_string())?);
    }
    Ok(rules)
}

/// A filter that answers `on` for what these rules mean and `else_` for all others.
fn filter(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    on: SeccompAction,
    else_: SeccompAction,
) -> Result<BpfProgram, String> {
    let arch: TargetArch =
        std::env::consts::ARCH.try_into().map_err(|_| "not on this processor".to_owned())?;
    let filter = SeccompFilter::new(rules, else_, on, arch).map_err(|error| error.to_string())?;
    filter.try_into().map_err(|error: seccompiler::BackendError| error.to_string())
}

/// What ends a process.
fn ending() -> Result<BpfProgram, String> {
    let rules = rules(ENDS.iter().copied(), SeccompCmpOp::Ne)?;
    filter(rules, SeccompAction::KillProcess, SeccompAction::Allow)
}

/// What it may ask for; all else is refused.
fn only(kind: Kind, writes: bool) -> Result<BpfProgram, String> {
    let calls = allowed(kind, writes).into_iter().flatten().copied();
    let rules = rules(calls, SeccompCmpOp::Eq)?;
    filter(rules, SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32))
}

pub fn confine(kind: Kind, writes: bool) -> Result<(), String> {
    let (ending, only) = (ending()?, only(kind, writes)?);
    // The second is put in by calls that the first lets pass.
    for program in [&ending, &only] {
        apply_filter_all_threads(program).map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_allowed_and_ends_the_process() {
        for kind in Kind::ALL {
            let lists = allowed(kind, true);
            for call in lists.iter().copied().flatten() {
                // Which of its commands: see `confined.rs`.
                let is_told_apart = kind == Kind::Worker && *call == libc::SYS_bpf;
                assert!(is_told_apart || !ENDS.contains(call), "{kind:?}: {call}");
            }
            assert!(only(kind, true).is_ok_and(|program| program.len() > 70), "{kind:?}");
        }
        assert!(ending().is_ok_and(|program| program.len() > 20));
    }
}
