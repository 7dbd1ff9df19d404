//! The front: TCP, and the kernel's UDP, of a node's caches. `README.md` has the figure; start reading at
//! [`server`].
//!
//! This file is the life of the process: everything comes from the supervisor, on standard input; it has
//! no privilege and opens nothing.

pub mod caches;
mod changes;
pub mod client;
pub mod clients;
pub mod connection;
pub mod counts;
pub mod datagrams;
pub mod fetches;
pub mod guardian;
pub mod link;
pub mod links;
mod peer;
pub mod protocol;
pub mod reads;
pub mod ring;
pub mod server;
pub mod settings;
pub mod snapshots;
mod unsent;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nautilus_sandbox::{Files, Kind};
use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::control_region::{ControlRegion, FRONT_PROCESS};
use nautilus_shm::front_region::FrontRegion;
use nautilus_shm::region::RegionError;
use nautilus_shm::table::LayoutError;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;
use nix::unistd::Pid;

use crate::config::{ConfigError, Feed, NodeConfig};
use crate::kill_point;
use crate::supervisor::front_messages::{FrontAssignment, ToFront, receive_as_front};
use crate::supervisor::handover::{Fds, FromWorker, HandoverError, VERSION, send};
use crate::supervisor::region_lock::whole_file;
use caches::{FrontCaches, Served};
use changes::Changes;
use counts::Counts;
use fetches::Fetches;
use guardian::Guardian;
use link::Link;
use links::Links;
use ring::{Ring, RingError};
use server::Server;
use settings::Settings;
use snapshots::Snapshots;

/// Descriptors that are no connection: listeners, regions, and one for a connection that is refused.
const DESCRIPTORS_RESERVED: u64 = 64;

/// Why a front ends.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// Started by hand, or the supervisor died first.
    #[error("standard input is not a supervisor's socket: {0}; start nautilus-supervisor instead")]
    NotStarted(#[source] HandoverError),
    /// A message or a descriptor did not pass.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// A message that has no place here.
    #[error("unexpected message: the first one assigns nothing")]
    Unexpected,
    /// Another version of the messages.
    #[error("the supervisor speaks version {0}, this front {VERSION}: run the same release")]
    Version(u32),
    /// The node file as the supervisor passed it on.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A region.
    #[error("{0}: {1}")]
    Region(&'static str, #[source] RegionError),
    /// The cache's table.
    #[error("cache: {0}")]
    Table(#[from] LayoutError),
    /// Another front lives.
    #[error("another front holds the front region: {0}")]
    Held(#[source] io::Error),
    /// The kernel's UDP sockets.
    #[error("cannot examine a UDP socket: {0}")]
    Socket(#[source] io::Error),
    /// The ring.
    #[error(transparent)]
    Ring(#[from] RingError),
}

/// Lives as a front on `socket`, the supervisor's end of which is told everything. Returns when nobody is
/// left who would look after it.
pub fn live(socket: OwnedFd) -> Result<(), FrontError> {
    // The supervisor blocks signals for its own use; ours are the default ones.
    let _ = SigSet::empty().thread_set_mask();
    let _ = nix::sys::prctl::set_name(c"nautilus-front");
    // Sleeps between two looks at the answer ring are shorter than the default slack of 50 us.
    let _ = nix::sys::prctl::set_timerslack(1);
    let (assignment, fds) = match receive_as_front(socket.as_fd()) {
        Ok((ToFront::Assign { assignment, .. }, fds)) => (assignment, fds),
        Ok(_) => return Err(FrontError::Unexpected),
        Err(HandoverError::Closed) => return Ok(()),
        Err(error) => return Err(FrontError::NotStarted(error)),
    };
    let result = serve(&socket, &assignment, fds);
    if let Err(error) = &result {
        let _ = send(socket.as_fd(), &FromWorker::Failed { reason: error.to_string() }, &[]);
    }
    result
}

fn serve(socket: &OwnedFd, assignment: &FrontAssignment, mut fds: Fds) -> Result<(), FrontError> {
    if assignment.version != VERSION {
        return Err(FrontError::Version(assignment.version));
    }
    let config = crate::config::parse(&assignment.node, "node file")?;
    let control = ControlRegion::attach_writer(fds.take("control")?)
        .map_err(|error| FrontError::Region("control region", error))?;
    // Mapped until the process ends, as what looks at it lives.
    let control: &'static ControlRegion = Box::leak(Box::new(control));
    let workers = config.worker.count;
    let mut regions = Vec::new();
    for worker in 0..workers {
        let region = FrontRegion::attach(fds.take(&format!("front.{worker}"))?)
            .map_err(|error| FrontError::Region("front region", error))?;
        regions.push(region);
    }
    let mut changes = Changes::new(socket, config.clone());
    let mut caches = FrontCaches::default();
    for opened in &assignment.caches {
        let access = config.access_to(&opened.section);
        caches.insert(Served::take(opened, access, &mut fds)?);
    }
    let wakes = (0..workers).map(|worker| fds.take(&format!("wake.{worker}")));
    let wakes = wakes.collect::<Result<Vec<_>, _>>()?;
    let ring = Ring::new()?;
    let mut generation = assignment.generation;
    if assignment.waits {
        let _ = send(socket.as_fd(), &FromWorker::Ready { notes: Vec::new() }, &[]);
        match receive_as_front(socket.as_fd()) {
            Ok((ToFront::Serve, _)) => {}
            Ok(_) => return Err(FrontError::Unexpected),
            Err(HandoverError::Closed) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    // Ends with the process; the next supervisor learns from it who we are.
    let lock = whole_file(nix::libc::F_WRLCK);
    let how = if assignment.waits { FcntlArg::F_SETLKW(&lock) } else { FcntlArg::F_SETLK(&lock) };
    fcntl(regions[0].fd(), how).map_err(|errno| FrontError::Held(errno.into()))?;
    if assignment.waits {
        // As the supervisor does for a front that does not wait: the first one's comes last.
        for region in regions.iter().rev() {
            generation = region.advance_front();
        }
    }
    // Each by its own count: they are one after the other when they are moved on.
    let link = |(region, wake)| Link::new(region, wake, FrontRegion::front_generation(region));
    let links = Links::new(regions.iter().zip(wakes).map(link).collect());
    let mut notes = Vec::new();
    if let Some(core) = assignment.core {
        notes.extend(pin(core));
    }
    let (connections_max, note) = descriptors(config.front.max_connections.into());
    notes.extend(note);
    let settings = Settings {
        connections_max,
        idle_timeout_ns: u64::from(config.front.idle_timeout_s) * 1_000_000_000,
        held_bytes_max: (config.front.max_buffer_mb as usize) << 20,
        poll: config.front.poll,
    };
    let fetches = Fetches::new(&config.feed);
    let attempts = FrontRegion::front_generation(&regions[0]);
    let snapshots = Snapshots::new(&config, attempts, control.kill_switch(), &mut notes);
    let files = Files { read: passwords(&config), write: kill_point::folders() };
    let entered = nautilus_sandbox::enter(Kind::Front, &files);
    control.set_confinement(FRONT_PROCESS, entered.confinement.0);
    notes.extend(entered.notes);
    let mut server = Server::new(ring, links, caches, settings, (fetches, snapshots));
    let _ = send(socket.as_fd(), &FromWorker::Ready { notes }, &[]);
    let serving = FromWorker::Serving { generation, since_ns: monotonic_ns() };
    let _ = send(socket.as_fd(), &serving, &[]);
    let bank = control.metrics(FRONT_PROCESS);
    let mut guardian = Guardian::new(assignment.supervisor_pid);
    let mut published = Counts::default();
    server.drain_until(control.supervisor().life().drain_until_ns());
    server.listen_to(socket.as_fd());
    server.run(|server, counts| {
        changes.look(server);
        if control.supervisor().life().front_leave() >= generation {
            server.leave();
        }
        server.drain_until(control.supervisor().life().drain_until_ns());
        counts.publish(&published, &bank, |place| control.cache_metrics(FRONT_PROCESS, place));
        published = *counts;
        changes.answer_look(server);
        guardian.is_anyone_left(control)
    })?;
    // Whoever waits need not wait for the end of this process.
    let _ = fcntl(regions[0].fd(), FcntlArg::F_SETLK(&whole_file(nix::libc::F_UNLCK)));
    Ok(())
}

/// Folders of the password files, which are read when a connection needs them: a new file may be put in an old one's place.
fn passwords(config: &NodeConfig) -> Vec<PathBuf> {
    let fetched =
        |feed: &Feed| Some(feed.recovery.as_ref()?.snapshot.as_ref()?.password_file.clone());
    let served =
        |feed: &Feed| Some(feed.republish.as_ref()?.snapshot.as_ref()?.password_file.clone());
    let files = config.feed.iter().flat_map(|feed| [fetched(feed), served(feed)]).flatten();
    files.filter_map(|file| file.parent().map(Path::to_owned)).collect()
}

/// Pins the calling thread. A refusal is survived and said.
fn pin(core: u32) -> Option<String> {
    let mut set = CpuSet::new();
    let pinned = set.set(core as usize).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
    pinned.err().map(|errno| format!("not pinned to CPU {core}: {errno}"))
}

/// Raises the limit of open files as far as it goes; returns how many connections there can be, and what
/// is to be said about it.
fn descriptors(wanted: u64) -> (usize, Option<String>) {
    let needed = wanted + DESCRIPTORS_RESERVED;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    let granted = if soft >= needed {
        soft
    } else {
        // Beyond the hard limit only for those who may; then as far as it is.
        let raised = [(needed, hard.max(needed)), (needed.min(hard), hard)]
            .into_iter()
            .find(|&(soft, hard)| setrlimit(Resource::RLIMIT_NOFILE, soft, hard).is_ok());
        raised.map_or(soft, |(soft, _)| soft)
    };
    let possible = wanted.min(granted.saturating_sub(DESCRIPTORS_RESERVED).max(1));
    let note = (possible < wanted).then(|| {
        format!(
            "front.max_connections is {possible}, not {wanted}: the hard limit of open files is {hard}"
        )
    });
    (possible as usize, note)
}
