//! Who the front lives for. It outlives its supervisor while a worker serves, since connections shall not
//! notice, and ends when both are gone: then nobody will ever look after it.

use std::os::fd::{AsFd, OwnedFd};

use nautilus_shm::cells::WorkerState;
use nautilus_shm::control_region::{ControlRegion, WORKERS_MAX};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::supervisor::sys::pidfd_open;

/// Watches supervisor and worker, without being asked by either.
pub struct Guardian {
    supervisor: Option<OwnedFd>,
    supervisor_pid: u32,
    worker: Option<OwnedFd>,
}

impl Guardian {
    /// Of a front that this supervisor started.
    pub fn new(supervisor_pid: u32) -> Self {
        Self { supervisor: pidfd_open(supervisor_pid).ok(), supervisor_pid, worker: None }
    }

    /// Whether anybody is left; a few times a second.
    pub fn is_anyone_left(&mut self, region: &ControlRegion) -> bool {
        if lives(self.supervisor.as_ref()) {
            return true;
        }
        // The next supervisor writes its name as soon as it has taken the node over.
        if let Ok(identity) = region.supervisor().identity()
            && identity.pid != self.supervisor_pid
        {
            *self = Self::new(identity.pid);
            return true;
        }
        if lives(self.worker.as_ref()) {
            return true;
        }
        self.worker = (0..WORKERS_MAX)
            .filter_map(|index| region.worker(index).identity().ok())
            .find(|identity| identity.state == WorkerState::Active)
            .and_then(|identity| pidfd_open(identity.pid).ok());
        lives(self.worker.as_ref())
    }
}

fn lives(pidfd: Option<&OwnedFd>) -> bool {
    let Some(pidfd) = pidfd else { return false };
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    // It polls readable once the process is dead.
    poll(&mut fds, PollTimeout::ZERO).unwrap_or(1) == 0
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nautilus_shm::cells::{SupervisorIdentity, WorkerIdentity};

    use super::*;

    #[test]
    fn it_lives_for_either_and_for_the_next() {
        let region = ControlRegion::create(c"nautilus-control").unwrap();
        let process = || Command::new("sleep").arg("60").spawn().unwrap();
        let (mut supervisor, mut worker, mut next) = (process(), process(), process());
        let end = |child: &mut std::process::Child| {
            child.kill().unwrap();
            child.wait().unwrap();
        };
        let named = |pid| SupervisorIdentity { pid, ..SupervisorIdentity::default() };
        region.supervisor().set_identity(&named(supervisor.id()));
        let state = WorkerState::Active;
        let identity = WorkerIdentity { pid: worker.id(), state, ..WorkerIdentity::default() };
        region.worker(1).set_identity(&identity);
        let mut guardian = Guardian::new(supervisor.id());
        assert!(guardian.is_anyone_left(&region));
        end(&mut supervisor);
        assert!(guardian.is_anyone_left(&region), "the worker serves");
        region.supervisor().set_identity(&named(next.id()));
        end(&mut worker);
        assert!(guardian.is_anyone_left(&region), "the next supervisor");
        end(&mut next);
        assert!(!guardian.is_anyone_left(&region));
    }
}
