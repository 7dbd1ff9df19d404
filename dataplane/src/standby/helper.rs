//! The helper thread of an active worker: everything that may block or take a system call.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};

use super::changes::Changes;
use crate::kill_point::kill_point;
use crate::supervisor::handover::{
    Assignment, Fds, FromWorker, HandoverError, ToWorker, receive_as_worker, send,
};
use crate::supervisor::sys::accept_nonblocking;

/// How long a new supervisor may take to examine what it was given, in ms.
const ADOPT_MS: u16 = 5000;

/// What the helper looks after once the worker is active.
pub(super) struct Charge {
    /// Connection to the supervisor.
    pub socket: OwnedFd,
    /// As assigned.
    pub assignment: Assignment,
    /// Duplicates of everything the worker was handed, `listener` among them.
    pub held: Fds,
    /// What it makes changes of the caches with.
    pub changes: Changes,
    /// As promoted.
    pub generation: u64,
    /// When the loop began.
    pub since_ns: u64,
}

/// Starts the thread; it blocks until the worker is promoted.
pub(super) fn start(charge: Receiver<Charge>, stop: Arc<AtomicBool>) -> io::Result<()> {
    std::thread::Builder::new().name("helper".into()).spawn(move || {
        if let Ok(charge) = charge.recv() {
            look_after(charge, &stop);
        }
    })?;
    Ok(())
}

/// A worker without its helper can neither be drained nor taken back: a new supervisor would find its
/// interfaces occupied by somebody it does not know. Its end is seen, and its standby goes on.
struct EndsTheProcess;

impl Drop for EndsTheProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

fn look_after(charge: Charge, stop: &AtomicBool) {
    let _guard = EndsTheProcess;
    let Charge { socket, mut assignment, mut held, changes, generation, since_ns } = charge;
    let serving = FromWorker::Serving { generation, since_ns };
    let _ = send(socket.as_fd(), &serving, &[]);
    let listener = held.take("listener");
    let mut socket = Some(socket);
    loop {
        if let Some(connected) = socket.take() {
            match receive_as_worker(connected.as_fd()) {
                Ok((ToWorker::Drain, _)) => {
                    // Read by the loop once a turn.
                    stop.store(true, Ordering::Relaxed);
                    wake(&assignment, &held);
                    return;
                }
                Ok((message @ (ToWorker::Add { .. } | ToWorker::Forget { .. }), fds)) => {
                    let held = (&mut assignment, &mut held);
                    let Some(answer) = changes.make(message, fds, held, stop) else { return };
                    let _ = send(connected.as_fd(), &answer, &[]);
                    socket = Some(connected);
                }
                Ok(_) | Err(HandoverError::Message(_)) => socket = Some(connected),
                Err(_) => {
                    // Without a log it still gives back what it holds.
                    let _ = writeln!(
                        std::io::stderr(),
                        "nautilus-worker {}: the supervisor is gone; serving on, waiting for the next",
                        std::process::id()
                    );
                }
            }
            continue;
        }
        let Ok(listener) = &listener else { return };
        socket = give_back(listener, &assignment, &held, generation);
    }
}

/// A worker that sleeps looks at once. What is left in the eventfd the supervisor takes out, when we are gone.
fn wake(assignment: &Assignment, held: &Fds) {
    if let Ok(wake) = held.get(&format!("wake.{}", assignment.worker)) {
        let _ = nix::unistd::write(wake, &1u64.to_ne_bytes());
    }
}

/// Waits for a new supervisor and gives it duplicates of everything. `None` when it was none.
fn give_back(
    listener: &OwnedFd,
    assignment: &Assignment,
    held: &Fds,
    generation: u64,
) -> Option<OwnedFd> {
    readable(listener, PollTimeout::NONE)?;
    let connection = accept_nonblocking(listener.as_fd()).ok()?;
    let peer = getsockopt(&connection, sockopt::PeerCredentials).ok()?;
    if peer.uid() != assignment.supervisor_uid {
        return None;
    }
    let assignment = assignment.clone();
    let holding = FromWorker::Holding { generation, fds: held.names(), assignment };
    send(connection.as_fd(), &holding, &held.borrowed()).ok()?;
    kill_point("worker.gave_back");
    readable(&connection, PollTimeout::from(ADOPT_MS))?;
    match receive_as_worker(connection.as_fd()) {
        Ok((ToWorker::Adopt { generation: theirs, .. }, _)) if theirs == generation => {
            blocking(&connection).ok()?;
            Some(connection)
        }
        _ => None,
    }
}

fn readable(fd: &OwnedFd, timeout: PollTimeout) -> Option<()> {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, timeout) {
        Ok(ready) if ready > 0 => Some(()),
        _ => None,
    }
}

fn blocking(fd: &OwnedFd) -> nix::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(fd, FcntlArg::F_SETFL(OFlag::empty())).map(|_| ())
}
