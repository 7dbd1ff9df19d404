//! One process, worker or front, as the supervisor holds it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

use super::sys::{pidfd_kill, pidfd_open};

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Started, not mapped yet.
    Starting,
    /// Mapped and pinned; blocks until promoted.
    Ready,
    /// Told to serve.
    Promoted,
    /// Its loop turns.
    Serving,
}

/// Why no process could be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start a process: {step} {path}: {source}")]
pub struct SpawnError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// What a process is started with.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// What it is called.
    pub name: &'static str,
    /// The program.
    pub program: &'a Path,
    /// Uid and gid to run as; `None` for the supervisor's own.
    pub user: Option<(u32, u32)>,
}

/// A process.
#[derive(Debug)]
pub struct Seat {
    /// Its metric bank in the control region; a worker's cell and request ring as well.
    pub index: u32,
    /// Process id.
    pub pid: u32,
    /// Where it is.
    pub phase: Phase,
    /// Generation it serves with, 0 before.
    pub generation: u64,
    /// Set of descriptors it was given.
    pub resources: u64,
    /// Number of the last change of the caches that it has made.
    pub changes: u64,
    /// Number of a front's last look at the control region that it has answered.
    pub looked: u64,
    /// When it was started, `CLOCK_MONOTONIC` ns.
    pub started_ns: u64,
    /// When it was told to serve; 0 before.
    pub promoted_ns: u64,
    /// It hung and was killed.
    pub condemned: bool,
    /// It was told to finish, because another one follows.
    pub is_leaving: bool,
    pidfd: OwnedFd,
    socket: OwnedFd,
    /// The connection is of no more use; only the pidfd is waited for.
    hung_up: bool,
    /// `None` for a worker taken over from another supervisor, which init reaps.
    child: Option<Child>,
}

/// Starts a process that has no capability to gain, whatever it executes. Sets of capabilities belong to a thread, so one
/// that ends at once empties its own and is the one that starts it: the supervisor keeps what it has.
fn spawn(command: &mut Command) -> std::io::Result<Child> {
    std::thread::scope(|scope| {
        let start = || {
            // Only root has any to give up.
            let _ = nautilus_sandbox::leave_children_without_capabilities();
            command.spawn()
        };
        let thread = std::thread::Builder::new().name("spawn".into()).spawn_scoped(scope, start)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// glibc (2.35 and later) asks for transparent huge pages under large allocations. A worker's books
/// are some 100 MB; the kernel gives them back page by page before it reports the death, which took
/// 21 to 28 ms of every gap on 4 KiB pages. Where huge pages are off it does nothing.
const HEAP_ON_HUGE_PAGES: &str = "glibc.malloc.hugetlb=1";

impl Seat {
    /// Starts a worker: no capability (its uid is not root's, and no-new-privileges is inherited
    /// from us), its own process group, our socket as its standard input.
    ///
    /// The program is opened here and executed by descriptor, so its directory need not be open to
    /// the worker's user.
    pub fn spawn(
        identity: Identity<'_>,
        index: u32,
        resources: u64,
        now_ns: u64,
    ) -> Result<Self, SpawnError> {
        let failed = |step, source| SpawnError { step, path: identity.program.into(), source };
        let program = File::open(identity.program).map_err(|source| failed("open", source))?;
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(|errno| failed("make a socket pair for", errno.into()))?;
        let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
        command
            .arg0(identity.name)
            .stdin(Stdio::from(theirs))
            .current_dir("/")
            .process_group(0)
            .env_clear()
            .envs(std::env::vars().filter(|(name, _)| kept(name)))
            .env("GLIBC_TUNABLES", HEAP_ON_HUGE_PAGES);
        if let Some((uid, gid)) = identity.user {
            // std clears the supplementary groups when it changes the uid as root.
            command.uid(uid).gid(gid);
        }
        let child = spawn(&mut command).map_err(|source| failed("execute", source))?;
        let pid = child.id();
        let pidfd = pidfd_open(pid).map_err(|source| failed("watch", source))?;
        Ok(Self {
            index,
            pid,
            phase: Phase::Starting,
            generation: 0,
            resources,
            changes: 0,
            looked: 0,
            started_ns: now_ns,
            promoted_ns: 0,
            condemned: false,
            is_leaving: false,
            pidfd,
            socket: ours,
            hung_up: false,
            child: Some(child),
        })
    }

    /// A process that served under another supervisor.
    pub fn adopted(
        index: u32,
        pid: u32,
        generation: u64,
        resources: u64,
        pidfd: OwnedFd,
        socket: OwnedFd,
    ) -> Self {
        Self {
            index,
            pid,
            phase: Phase::Serving,
            generation,
            resources,
            changes: 0,
            looked: 0,
            started_ns: 0,
            promoted_ns: 0,
            condemned: false,
            is_leaving: false,
            pidfd,
            socket,
            hung_up: false,
            child: None,
        }
    }

    /// The same with a connection to it, if there is one.
    pub fn with_socket(mut self, socket: Option<OwnedFd>) -> Self {
        if let Some(socket) = socket {
            (self.socket, self.hung_up) = (socket, false);
        }
        self
    }

    /// Polls readable when the process is dead.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The connection to it.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What to poll for its messages; `None` once it has hung up. A dying process closes its sockets
    /// before its pidfd fires: a supervisor that went on polling them would spin, under `SCHED_FIFO`,
    /// on the core where the dying process's helper thread has to run.
    pub fn messages(&self) -> Option<BorrowedFd<'_>> {
        (!self.hung_up).then(|| self.socket.as_fd())
    }

    /// Its connection is closed or carries nonsense: listens no more, and kills it.
    pub fn hang_up(&mut self) {
        self.hung_up = true;
        self.kill();
    }

    /// Listens no more.
    pub fn forget_messages(&mut self) {
        self.hung_up = true;
    }

    /// Kills it; its pidfd says when it is gone.
    pub fn kill(&self) {
        let _ = pidfd_kill(self.pidfd.as_fd());
    }

    /// What ended it, once the pidfd has announced that: (wait status, in words). An adopted
    /// worker's status is init's to know. Leaves the process to the [`super::reaper::Reaper`].
    pub fn status(&self) -> (u64, String) {
        if self.child.is_none() {
            return (0, "taken over, status not ours".into());
        }
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let raw = match waitid(Id::PIDFd(self.pidfd.as_fd()), look) {
            Ok(WaitStatus::Exited(_, code)) => code << 8,
            Ok(WaitStatus::Signaled(_, signal, core)) => signal as i32 | i32::from(core) << 7,
            Ok(_) => return (0, "not yet".into()),
            Err(errno) => return (0, errno.to_string()),
        };
        (raw as u64, ExitStatus::from_raw(raw).to_string())
    }

    /// Whether it was started by this supervisor, not found.
    pub fn is_child(&self) -> bool {
        self.child.is_some()
    }

    /// The process itself, to be waited for; `None` for an adopted one.
    pub fn into_child(self) -> Option<Child> {
        self.child
    }
}

/// Environment a worker is given.
fn kept(name: &str) -> bool {
    name.starts_with("NAUTILUS_") || name.starts_with("RUST_")
}
