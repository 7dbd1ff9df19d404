//! Takes dead workers off the process table, on a thread of its own under the normal scheduler.
//!
//! ```text
//!   supervisor (SCHED_FIFO)                    reaper (SCHED_OTHER)
//!   pidfd fires: all threads are gone
//!   promote, read the status (WNOWAIT) ------> wait4: the process is off the table
//! ```
//!
//! The last step of `wait4` drops the dead process from the kernel's cache of `/proc` names. Names
//! that somebody else is dropping at that moment are waited for in a busy loop
//! (`shrink_dcache_parent` in `fs/dcache.c`). That somebody is the dead worker's own last thread, or
//! a monitor that reads `/proc`: both run under the normal scheduler, and the supervisor that the
//! death wakes takes their core away. The supervisor would turn in that loop until the kernel lends
//! the core to normal tasks, 0.95 s later. Here the scheduler lets both go on.

use std::io;
use std::process::Child;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use super::seat::Seat;

/// The thread and the way to it. Dropping it waits until every process handed over is reaped.
#[derive(Debug)]
pub struct Reaper {
    dead: Option<Sender<Child>>,
    thread: Option<JoinHandle<()>>,
}

impl Reaper {
    /// Starts the thread. It inherits the caller's CPUs and signal mask, and starts under the normal
    /// scheduler even if the caller does not run there (`SCHED_RESET_ON_FORK`,
    /// [`super::sys::realtime`]).
    pub fn start() -> io::Result<Self> {
        let (dead, handed) = channel::<Child>();
        let thread = std::thread::Builder::new().name("reaper".into()).spawn(move || {
            for mut child in handed {
                // What ended it was read before; there is nothing to do about a failure.
                let _ = child.wait();
            }
        })?;
        Ok(Self { dead: Some(dead), thread: Some(thread) })
    }

    /// Takes a process that is dead or has been killed. A worker taken over from another supervisor
    /// is not our child: init reaps it.
    pub fn reap(&self, seat: Seat) {
        if let (Some(child), Some(dead)) = (seat.into_child(), &self.dead) {
            let _ = dead.send(child);
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.dead = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
