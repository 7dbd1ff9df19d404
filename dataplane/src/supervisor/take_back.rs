//! A new supervisor takes a node over from the worker that outlived the old one.
//!
//! ```text
//!   worker-<pid>.sock  <- connect (SO_PASSCRED)
//!   holding {assignment, generation, fds}   pid vouched for by the kernel -> pidfd
//!   every descriptor is examined: sealed regions of our layout, AF_XDP sockets of the queues named,
//!   links that carry our program; pid and generation must be what the control region says
//!   adopt {generation} ->  the worker never stopped serving
//! ```
//!
//! The worker is not trusted: it runs unprivileged and may have been taken over. What it hands back
//! is only kernel objects of checked types; a worker that fails a check is killed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nautilus_ebpf::{Steering, XdpLink, intf};
use nautilus_shm::attach::CACHES_MAX;
use nautilus_shm::cache_cell::CacheState;
use nautilus_shm::capture_region::CaptureRegion;
use nautilus_shm::control_region::{ControlRegion, WORKERS_MAX};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::caches::{CacheOpened, OpenCache};
use super::counters::Counted;
use super::front_resources::FrontResources;
use super::handover::{
    Assignment, FromWorker, HandoverError, ToWorker, VERSION, receive_as_supervisor, send,
};
use super::resources::{Opened, Queue, Resources};
use super::run_dir::RunDir;
use super::seat::Seat;
use super::sys::{pidfd_kill, pidfd_open};
use super::team_resources::TeamResources;
use super::workers::slots;
use crate::config::{Resolved, change_in_place};
use crate::kill_point::kill_point;
use crate::xsk::{Given, XskFds};

/// How long a worker may take to answer, in ms. Its helper thread has nothing else to do.
const ANSWER_MS: u16 = 2000;

/// Why nothing was taken back from a worker. It is killed then.
#[derive(Debug, thiserror::Error)]
pub enum TakeBackError {
    /// The messages.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// No answer.
    #[error("worker {0} did not answer within {ANSWER_MS} ms")]
    Silent(u32),
    /// Something about it is wrong.
    #[error("worker {pid}: {problem}")]
    Worker {
        /// The worker.
        pid: u32,
        /// What is wrong.
        problem: String,
    },
}

/// A worker and all it held.
#[derive(Debug)]
pub struct TakenBack {
    /// The worker.
    pub seat: Seat,
    /// Everything it handed back.
    pub resources: Resources,
    /// What it was told when it became a standby.
    pub assignment: Assignment,
}

/// Takes everything back from the worker behind `socket`, whose socket file carries `named_pid`.
pub fn take_back(named_pid: u32, socket: OwnedFd) -> Result<TakenBack, TakeBackError> {
    let wrong = |problem: String| TakeBackError::Worker { pid: named_pid, problem };
    let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    if poll(&mut ready, PollTimeout::from(ANSWER_MS)).unwrap_or(0) == 0 {
        return Err(TakeBackError::Silent(named_pid));
    }
    let (message, mut fds, pid) = receive_as_supervisor(socket.as_fd())?;
    let FromWorker::Holding { generation, assignment, .. } = message else {
        return Err(wrong(format!("said {message:?} instead of what it holds")));
    };
    if pid != Some(named_pid) {
        return Err(wrong(format!("its packet came from process {pid:?}")));
    }
    if assignment.version != VERSION {
        return Err(wrong(format!("speaks version {}, we {VERSION}", assignment.version)));
    }
    if assignment.worker_index as usize >= WORKERS_MAX {
        return Err(wrong(format!("claims slot {}", assignment.worker_index)));
    }
    // The connection is still open after the pidfd was made, so the pid was not reused.
    let pidfd =
        pidfd_open(named_pid).map_err(|error| wrong(format!("cannot watch it: {error}")))?;
    let control = ControlRegion::attach_writer(fds.take("control")?)
        .map_err(|error| wrong(format!("control region: {error}")))?;
    let config = crate::config::parse(&assignment.node, "(worker)")
        .map_err(|error| wrong(format!("its node file: {error}")))?;
    let workers = config.worker.count as usize;
    if assignment.worker as usize >= workers || !is_slot_of(&assignment) {
        return Err(wrong(format!("claims to be number {}", assignment.worker)));
    }
    let has_front = config.has_front();
    let take = |opened| OpenCache::take_back(opened, has_front, &mut fds);
    let caches =
        assignment.caches.iter().map(take).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    let front = match has_front {
        true => Some(FrontResources::take_back(&mut fds, workers).map_err(wrong)?),
        false => None,
    };
    let capture = match config.capture {
        Some(_) => {
            let region = CaptureRegion::attach(fds.take("capture")?)
                .map_err(|error| wrong(format!("capture region: {error}")))?;
            if region.workers() != workers {
                return Err(wrong("its capture region is of other workers".into()));
            }
            Some(region)
        }
        None => None,
    };
    let team = TeamResources::take_back(&mut fds, workers).map_err(wrong)?;
    let known = control.worker(assignment.worker_index as usize).own_identity();
    if (known.pid, known.generation) != (named_pid, generation) {
        return Err(wrong(format!(
            "claims generation {generation}, the control region has process {} of generation {}",
            known.pid, known.generation
        )));
    }
    let (mut interfaces, mut steering, mut place) = (Vec::new(), None, 0);
    let mut entries = Vec::new();
    for (index, interface) in assignment.interfaces.iter().enumerate() {
        let link = XdpLink::from_fd(fds.take(&format!("link.{index}"))?)
            .map_err(|error| wrong(format!("link of {}: {error}", interface.name)))?;
        if steering.is_none() {
            let found = Steering::from_link(&link)
                .map_err(|error| wrong(format!("program on {}: {error}", interface.name)))?;
            entries = found.interfaces().map_err(|error| wrong(error.to_string()))?;
            steering = Some(found);
        }
        // An interface that came back with fewer queues left room before the next one's places.
        let entry = entries.iter().find(|(ifindex, _)| *ifindex == interface.ifindex);
        let Some((_, intf::Interface { first_socket, .. })) = entry.copied() else {
            return Err(wrong(format!("the program does not know {}", interface.name)));
        };
        let mut opened =
            Opened { interface: interface.clone(), first_socket, queues: Vec::new(), link };
        for row in assignment.queues.iter().filter(|row| usize::from(row.interface) == index) {
            let socket = fds.take(&format!("xsk.{place}"))?;
            let umem = fds.take(&format!("umem.{place}"))?;
            place += 1;
            let pair = XskFds { socket, umem };
            let given = Given::examine(&pair).map_err(|error| {
                wrong(format!("{} queue {}: {error}", interface.name, row.queue))
            })?;
            if (given.ifindex, given.queue) != (interface.ifindex, row.queue) {
                return Err(wrong(format!(
                    "its socket of {} queue {} was bound to ifindex {} queue {}",
                    interface.name, row.queue, given.ifindex, given.queue
                )));
            }
            opened.queues.push(Queue {
                queue: row.queue,
                huge_pages: row.huge_pages,
                worker: row.worker,
                fds: pair,
                counted: Counted::default(),
                maps_when_bound: given.maps_when_bound,
                unbound: None,
            });
        }
        interfaces.push(opened);
    }
    let serial = assignment.resources;
    let hot_hits = steering.as_ref().map(Steering::hot_hits).transpose();
    let hot_hits = hot_hits.map_err(|error| wrong(error.to_string()))?;
    let (fresh, memberships, changes) = (None, Vec::new(), 0);
    let resources = Resources {
        control,
        caches,
        front,
        capture,
        team,
        steering,
        hot_hits,
        interfaces,
        fresh,
        memberships,
        serial,
        changes,
    };
    let adopt = ToWorker::Adopt { generation, supervisor_pid: std::process::id() };
    send(socket.as_fd(), &adopt, &[])?;
    let index = assignment.worker_index;
    let seat = Seat::adopted(index, named_pid, generation, serial, pidfd, socket);
    Ok(TakenBack { seat, resources, assignment })
}

/// Whether the place in the control region is one of its worker's.
fn is_slot_of(assignment: &Assignment) -> bool {
    let (first, second) = slots(assignment.worker);
    [first, second].contains(&assignment.worker_index)
}

/// Whether both descriptors are of one file.
fn same_file(one: impl AsFd, other: impl AsFd) -> bool {
    let file =
        |fd: BorrowedFd<'_>| nix::sys::stat::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    file(one.as_fd()).is_ok_and(|one| file(other.as_fd()) == Ok(one))
}

/// What was found of a node.
#[derive(Debug, Default)]
pub struct TakenOver {
    /// What the first worker handed back, with it.
    pub first: Option<TakenBack>,
    /// The other workers, with their numbers.
    pub others: Vec<(u32, Seat)>,
    /// Every cache that one of them holds.
    listed: Vec<CacheOpened>,
}

/// Asks every worker that outlived a supervisor for what it holds. All workers of one node are taken
/// over, with what the first of them holds: they hold the same. One that fails a check, serves another
/// configuration or has a number that is taken, is killed and its death awaited.
pub fn take_over(run_dir: &RunDir, resolved: &Resolved) -> (TakenOver, Vec<String>) {
    let mut notes = Vec::new();
    let mut over = TakenOver::default();
    let orphans = match run_dir.orphans() {
        Ok(orphans) => orphans,
        Err(error) => {
            notes.push(error.to_string());
            Vec::new()
        }
    };
    for (pid, socket) in orphans {
        kill_point("supervisor.before_take_back");
        let problem = match take_back(pid, socket) {
            Ok(found) => {
                let same = crate::config::parse(&found.assignment.node, "(worker)")
                    .is_ok_and(|config| change_in_place(&config, &resolved.config).is_ok());
                if same && found.assignment.chunk_bytes == resolved.chunk_bytes {
                    over.add(found).err()
                } else {
                    Some("it serves another configuration".into())
                }
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(problem) = problem {
            notes.push(format!("worker {pid} is stopped, not taken over: {problem}"));
            if let Ok(pidfd) = pidfd_open(pid) {
                let _ = pidfd_kill(pidfd.as_fd());
                let mut gone = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut gone, PollTimeout::from(2000u16));
            }
            run_dir.remove(&run_dir.worker_socket(pid));
        }
    }
    (over, notes)
}

impl TakenOver {
    fn add(&mut self, found: TakenBack) -> Result<(), String> {
        let number = found.assignment.worker;
        let listed = found.assignment.caches.clone();
        let Some(first) = &self.first else {
            self.first = Some(found);
            self.listed = listed;
            return Ok(());
        };
        let numbers = self.others.iter().map(|(number, _)| *number);
        if numbers.chain([first.assignment.worker]).any(|taken| taken == number) {
            return Err("another worker of its number was taken over already".into());
        }
        let same = same_file(found.resources.control.fd(), first.resources.control.fd())
            && found.assignment.resources == first.assignment.resources;
        if !same {
            return Err("it holds other resources than the worker that was taken over".into());
        }
        self.others.push((number, found.seat));
        self.listed.extend(listed);
        Ok(())
    }

    /// Has the workers forget the caches whose creation or removal was not finished when the last supervisor
    /// died: only what its cell says is served is held by all of them. Returns their ids.
    pub fn forget_unfinished(&mut self) -> Vec<String> {
        let Some(first) = &mut self.first else { return Vec::new() };
        let control = &first.resources.control;
        let is_served = |opened: &CacheOpened| {
            let known = control.cache(usize::from(opened.place)).own_identity();
            known.state == CacheState::Serving && known.generation == opened.generation
        };
        let mut gone = std::mem::take(&mut self.listed);
        gone.retain(|opened| usize::from(opened.place) < CACHES_MAX && !is_served(opened));
        first.resources.caches.retain(|cache| is_served(&cache.opened));
        // Counted as a change: the next one waits until all have let go of ports and memory.
        first.resources.changes = u64::from(!gone.is_empty());
        let seats = self.others.iter().map(|(_, seat)| seat).chain([&first.seat]);
        for seat in seats {
            for CacheOpened { place, generation, .. } in &gone {
                let forget = ToWorker::Forget { number: 1, place: *place, generation: *generation };
                let _ = send(seat.socket(), &forget, &[]);
            }
        }
        let mut ids: Vec<String> = gone.into_iter().map(|opened| opened.section.id).collect();
        ids.sort();
        ids.dedup();
        ids
    }
}
