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

use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::seat::Seat;

/// Who is waited for.
#[derive(Debug)]
enum Dead {
    Child(Child),
    Adopted(u32),
}

/// The thread and the way to it. Dropping it waits until every process handed over is reaped.
#[derive(Debug)]
pub struct Reaper {
    dead: Option<Sender<Dead>>,
    thread: Option<JoinHandle<()>>,
}

impl Reaper {
    /// Starts the thread. It inherits the caller's CPUs and signal mask, and starts under the normal
    /// scheduler even if the caller does not run there (`SCHED_RESET_ON_FORK`,
    /// [`super::sys::realtime`]).
    pub fn start() -> io::Result<Self> {
        let (dead, handed) = channel::<Dead>();
        let thread = std::thread::Builder::new().name("reaper".into()).spawn(move || {
            for dead in handed {
                // What ended it was read before; there is nothing to do about a failure.
                match dead {
                    Dead::Child(mut child) => drop(child.wait()),
                    Dead::Adopted(pid) => drop(waitpid(Pid::from_raw(pid as i32), None)),
                }
            }
        })?;
        Ok(Self { dead: Some(dead), thread: Some(thread) })
    }

    /// Takes a process that is dead or has been killed. A worker taken over from another supervisor
    /// is not our child, and init reaps it, unless that supervisor was this process before it became another
    /// program.
    pub fn reap(&self, seat: Seat) {
        let pid = seat.pid;
        if let Some(sender) = &self.dead {
            let _ = sender.send(seat.into_child().map_or(Dead::Adopted(pid), Dead::Child));
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
