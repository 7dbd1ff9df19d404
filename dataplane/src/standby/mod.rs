//! The worker process around the run loop: it waits as a standby, serves when promoted, and outlives
//! its supervisor.
//!
//! ```text
//!   main thread (pinned)          helper thread (the supervisor's cores)
//!   assign: map, prefault
//!   ready; blocks ---------------> blocks
//!   promote: recover, run loop     reads the supervisor's messages
//!      |                           supervisor dead: accepts at worker-<pid>.sock, gives a new
//!      v                           supervisor duplicates of everything
//!   stop flag  <------------------ drain
//! ```
//!
//! A standby owns no frame and ends with its supervisor (pidfd). An active worker holds duplicates
//! of all it serves with, so the death of the supervisor costs it nothing. Messages are those of
//! [`crate::supervisor::handover`].

mod apps;
mod caches;
mod captured;
mod changes;
mod helper;
mod serve;
mod xdp_maps;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::sync_channel;

use nautilus_sandbox::{Files, Kind};
use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::control_region::ControlRegion;
use nautilus_shm::front_region::FrontRegion;
use nautilus_shm::region::RegionError;
use nautilus_shm::worker_rings::WorkerRings;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::SigSet;
use nix::unistd::Pid;

use crate::config::{ConfigError, NodeConfig};
use crate::kill_point::{self, kill_point};
use crate::supervisor::handover::{
    Assignment, Fds, FromWorker, HandoverError, ToWorker, VERSION, receive_as_worker, send,
};
use crate::supervisor::sys::pidfd_open;
use crate::worker::Peers;
use crate::xsk::XskError;
use changes::Changes;
use helper::Charge;

/// A standby beats its heart this often, in ms.
const STANDBY_BEAT_MS: u16 = 100;

/// Why a worker process ends before it serves, or cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum StandbyError {
    /// Started by hand, or the supervisor died first.
    #[error("standard input is not a supervisor's socket: {0}; start nautilus-supervisor instead")]
    NotStarted(#[source] HandoverError),
    /// A message did not pass.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// Another version of the messages.
    #[error("the supervisor speaks version {0}, this worker {VERSION}: run the same release")]
    Version(u32),
    /// A message that has no place here.
    #[error("unexpected message: {0}")]
    Unexpected(&'static str),
    /// The node file as the supervisor passed it on.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The control region.
    #[error("control region: {0}")]
    Region(#[from] RegionError),
    /// A socket could not be mapped or taken over.
    #[error("queue {place}: {source}")]
    Socket {
        /// Place in the list of queues.
        place: usize,
        /// What failed.
        source: XskError,
    },
    /// The cache's table.
    #[error("cache: {0}")]
    Table(nautilus_shm::table::LayoutError),
    /// A venue that the node file's check should have refused.
    #[error("feed.venue cannot be part of a key")]
    Venue,
    /// The steering program's maps.
    #[error("steering program: {0}")]
    Hot(#[from] nautilus_ebpf::SteeringError),
    /// A kernel socket of the `socket` port.
    #[error(transparent)]
    Kernel(#[from] crate::port::socket::SocketError),
    /// The request ring of the next hops.
    #[error("neighbour requests: {0}")]
    Requests(nautilus_shm::spsc::RingError),
    /// Threads, descriptors, polling.
    #[error("cannot {0}: {1}")]
    System(&'static str, #[source] io::Error),
}

/// A worker that has mapped everything and waits.
struct Standby {
    socket: OwnedFd,
    assignment: Assignment,
    config: NodeConfig,
    region: &'static ControlRegion,
    mapped: serve::Mapped,
    apps: apps::Prepared,
    maps: xdp_maps::XdpMaps,
    /// Duplicates of everything handed over, for a later supervisor.
    held: Fds,
}

/// Lives as a worker on `socket`, the supervisor's end of which is told everything. Returns when
/// the supervisor is gone before a promotion, or after a drain.
pub fn live(socket: OwnedFd) -> Result<(), StandbyError> {
    // The supervisor blocks signals for its own use; ours are the default ones.
    let _ = SigSet::empty().thread_set_mask();
    let _ = nix::sys::prctl::set_name(c"nautilus-worker");
    let result = run(socket.try_clone().map_err(system("duplicate the socket"))?);
    if let Err(error) = &result {
        let _ = send(socket.as_fd(), &FromWorker::Failed { reason: error.to_string() }, &[]);
    }
    result
}

fn run(socket: OwnedFd) -> Result<(), StandbyError> {
    let Some(mut standby) = prepare(socket)? else { return Ok(()) };
    // It has been given everything; nothing that a packet makes it do needs more.
    let files = Files { write: kill_point::folders(), ..Files::default() };
    let entered = nautilus_sandbox::enter(Kind::Worker, &files);
    let index = standby.assignment.worker_index as usize;
    standby.region.set_confinement(index, entered.confinement.0);
    let (hand, charge) = sync_channel::<Charge>(1);
    let stop = Arc::new(AtomicBool::new(false));
    // Started before the main thread is pinned: it keeps the supervisor's CPUs, which leave out the
    // worker's core.
    helper::start(charge, stop.clone()).map_err(system("start the helper thread"))?;
    let mut notes = pin(standby.assignment.core);
    notes.extend(entered.notes);
    send(standby.socket.as_fd(), &FromWorker::Ready { notes }, &[])?;
    kill_point("worker.ready");
    let Some((generation, handed)) = wait(&mut standby)? else { return Ok(()) };
    kill_point("worker.promoted");
    let Standby { socket, assignment, config, region, mapped, apps, maps, mut held } = standby;
    let (to_loop, from_loop, inbox) = changes::slots();
    let mut apps = apps.take_over(region, assignment.worker_index as usize, generation)?;
    apps.take_changes_from(inbox);
    held.append(handed);
    let serving = |since_ns| {
        // The helper tells the supervisor; the loop starts at once.
        let _ = hand.send(Charge {
            socket,
            assignment: assignment.clone(),
            held,
            changes: Changes { region, config: config.clone(), maps, to_loop, from_loop },
            generation,
            since_ns,
        });
    };
    let (assignment, config) = (&assignment, &config);
    let applied = apps.applied_lines();
    let job = serve::Job { mapped, apps, applied, assignment, config, region, generation };
    serve::serve(job, &stop, serving)
}

fn system(step: &'static str) -> impl FnOnce(io::Error) -> StandbyError {
    move |source| StandbyError::System(step, source)
}

/// Receives the assignment and maps everything; `None` when the supervisor is gone.
fn prepare(socket: OwnedFd) -> Result<Option<Standby>, StandbyError> {
    let (message, mut fds) = match receive_as_worker(socket.as_fd()) {
        Ok(received) => received,
        Err(HandoverError::Closed) => return Ok(None),
        Err(error) => return Err(StandbyError::NotStarted(error)),
    };
    let ToWorker::Assign { assignment, .. } = message else {
        return Err(StandbyError::Unexpected("the first one assigns nothing"));
    };
    if assignment.version != VERSION {
        return Err(StandbyError::Version(assignment.version));
    }
    let config = crate::config::parse(&assignment.node, "node file")?;
    let held = fds.try_clone().map_err(system("duplicate descriptors"))?;
    // Lives as long as the process: the loop, the next hops and the report all refer to it.
    let region: &'static ControlRegion =
        Box::leak(Box::new(ControlRegion::attach_writer(fds.take("control")?)?));
    let mapped = serve::Mapped::map(&assignment, &config, &mut fds)?;
    let number = assignment.worker;
    let maps = xdp_maps::XdpMaps::take(&config, number, &mut fds)?;
    let is_alone = config.worker.count == 1;
    let prepare = |opened| {
        let place = caches::Place { opened, number, is_alone };
        caches::PreparedCache::new(&place, &config, &maps, &mut fds)
    };
    let caches = assignment.caches.iter().map(prepare).collect::<Result<Vec<_>, _>>()?;
    let wakes = (0..config.worker.count).map(|worker| fds.take(&format!("wake.{worker}")));
    let wakes = wakes.collect::<Result<Vec<OwnedFd>, _>>()?;
    let front = match config.has_front() {
        true => {
            // As the control region: it lives as long as the process.
            let region = FrontRegion::attach(fds.take(&format!("front.{number}"))?)?;
            let wake = wakes[number as usize].try_clone();
            Some((&*Box::leak(Box::new(region)), wake.map_err(system("duplicate an eventfd"))?))
        }
        false => None,
    };
    let peers = match config.worker.count {
        0 | 1 => None,
        _ => {
            let rings = &*Box::leak(Box::new(WorkerRings::attach(fds.take("workers")?)?));
            if rings.workers() != wakes.len() {
                return Err(StandbyError::Unexpected("rings of another number of workers"));
            }
            Some(Peers::new(rings, number as usize, wakes))
        }
    };
    let capture = captured::PreparedCapture::take(&config, &assignment, &mut fds)?;
    let apps = apps::Prepared::new(&config, caches, front, peers, capture);
    Ok(Some(Standby { socket, assignment, config, region, mapped, apps, maps, held }))
}

/// Pins the calling thread. A refusal is survived and said.
fn pin(core: u32) -> Vec<String> {
    let mut set = CpuSet::new();
    let pinned = set.set(core as usize).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
    match pinned {
        Ok(()) => Vec::new(),
        Err(errno) => vec![format!("not pinned to CPU {core}: {errno}")],
    }
}

/// Blocks until promoted; `None` when the supervisor is gone or wants no standby.
fn wait(standby: &mut Standby) -> Result<Option<(u64, Fds)>, StandbyError> {
    let parent = pidfd_open(standby.assignment.supervisor_pid);
    let parent: Option<OwnedFd> = parent.ok();
    let cell = standby.region.worker(standby.assignment.worker_index as usize);
    loop {
        let mut fds: Vec<PollFd<'_>> = vec![PollFd::new(standby.socket.as_fd(), PollFlags::POLLIN)];
        let gone: Option<BorrowedFd<'_>> = parent.as_ref().map(AsFd::as_fd);
        fds.extend(gone.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::from(STANDBY_BEAT_MS)) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(StandbyError::System("poll", errno.into())),
        }
        cell.beat(monotonic_ns());
        if fds[0].any().unwrap_or(false) {
            return match receive_as_worker(standby.socket.as_fd()) {
                Ok((ToWorker::Promote { generation, .. }, fds)) => Ok(Some((generation, fds))),
                Ok((message @ (ToWorker::Add { .. } | ToWorker::Forget { .. }), fds)) => {
                    let answer = standby.change(message, fds);
                    send(standby.socket.as_fd(), &answer, &[])?;
                    continue;
                }
                Ok((ToWorker::Drain, _)) | Err(HandoverError::Closed) => Ok(None),
                Ok(_) => Err(StandbyError::Unexpected("a standby is promoted or drained")),
                Err(error) => Err(error.into()),
            };
        }
        if fds.get(1).is_some_and(|fd| fd.any().unwrap_or(false)) {
            return Ok(None);
        }
    }
}
