//! What several workers reach each other by: rings, and an eventfd each that wakes a sleeping one. The
//! front wakes them by the same.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nautilus_shm::region::RegionError;
use nautilus_shm::worker_rings::WorkerRings;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::handover::Fds;

/// Why the workers have nothing to share.
#[derive(Debug, thiserror::Error)]
pub enum TeamError {
    /// Their rings.
    #[error("worker rings: {0}")]
    Rings(#[from] RegionError),
    /// An eventfd.
    #[error("cannot make an eventfd: {0}")]
    Wake(#[source] io::Error),
}

/// Rings and eventfds of all workers of a node. The supervisor makes them and never uses them.
#[derive(Debug)]
pub struct TeamResources {
    /// None for a node of one worker.
    pub rings: Option<WorkerRings>,
    /// One a worker.
    pub wakes: Vec<OwnedFd>,
}

impl TeamResources {
    /// For so many workers.
    pub fn open(workers: usize) -> Result<Self, TeamError> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = |_| EventFd::from_flags(flags).map(OwnedFd::from);
        let wakes = (0..workers).map(wake).collect::<nix::Result<_>>();
        let rings = match workers {
            0 | 1 => None,
            several => Some(WorkerRings::create(c"nautilus-workers", several)?),
        };
        Ok(Self { rings, wakes: wakes.map_err(|errno| TeamError::Wake(errno.into()))? })
    }

    /// Adds duplicates of everything: `workers`, `wake.0` and so on.
    pub fn append_to(&self, fds: &mut Fds) -> io::Result<()> {
        if let Some(rings) = &self.rings {
            fds.push("workers", rings.try_clone()?);
        }
        self.append_wakes_to(fds)
    }

    /// Adds duplicates of the eventfds.
    pub fn append_wakes_to(&self, fds: &mut Fds) -> io::Result<()> {
        for (worker, wake) in self.wakes.iter().enumerate() {
            fds.push(format!("wake.{worker}"), wake.try_clone()?);
        }
        Ok(())
    }

    /// Takes everything back from a worker, after a look at each.
    pub fn take_back(fds: &mut Fds, workers: usize) -> Result<Self, String> {
        let mut wakes = Vec::new();
        for worker in 0..workers {
            let wake = fds.take(&format!("wake.{worker}")).map_err(|error| error.to_string())?;
            let link = std::fs::read_link(format!("/proc/self/fd/{}", wake.as_raw_fd()));
            if !link.is_ok_and(|link| link.as_os_str() == "anon_inode:[eventfd]") {
                return Err(format!("its wake.{worker} is no eventfd"));
            }
            wakes.push(wake);
        }
        if workers == 1 {
            return Ok(Self { rings: None, wakes });
        }
        let rings = fds.take("workers").map_err(|error| error.to_string())?;
        let rings = WorkerRings::attach(rings).map_err(|error| format!("worker rings: {error}"))?;
        if rings.workers() != workers {
            return Err(format!("its rings are of {} workers", rings.workers()));
        }
        Ok(Self { rings: Some(rings), wakes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_what_was_given_or_is_refused() {
        for workers in [1, 3] {
            let given = || {
                let mut fds = Fds::default();
                TeamResources::open(workers).unwrap().append_to(&mut fds).unwrap();
                fds
            };
            let back = TeamResources::take_back(&mut given(), workers).unwrap();
            assert_eq!((back.wakes.len(), back.rings.is_some()), (workers, workers > 1));
            assert!(TeamResources::take_back(&mut given(), workers + 1).is_err());
            let mut swapped = given();
            let wake = swapped.take("wake.0").unwrap();
            swapped.push("wake.0", std::fs::File::open("/dev/null").unwrap().into());
            let refused = TeamResources::take_back(&mut swapped, workers);
            assert!(refused.unwrap_err().contains("no eventfd"));
            drop(wake);
        }
        let mut two = Fds::default();
        TeamResources::open(2).unwrap().append_to(&mut two).unwrap();
        let mut three = Fds::default();
        TeamResources::open(3).unwrap().append_to(&mut three).unwrap();
        let _ = three.take("workers");
        three.push("workers", two.take("workers").unwrap());
        assert!(TeamResources::take_back(&mut three, 3).unwrap_err().contains("of 2 workers"));
    }
}
