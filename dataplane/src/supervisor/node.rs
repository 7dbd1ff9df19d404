//! The supervisor's life: start or take over, watch, stop.
//!
//! One thread, one `poll`; a second thread only reaps ([`super::reaper`]). It is woken by the death of a worker (pidfd), by what a worker says, by
//! netlink, by readers, by signals, and every 10 ms to look after neighbour requests and its own
//! heartbeat.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::control_region::SUPERVISOR_PROCESS;
use nautilus_shm::event_log::EventKind;
use nautilus_shm::metrics::Counter;
use nautilus_shm::metrics::table as metrics;
use nautilus_shm::region::RegionError;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::attach::Readers;
use super::cache_changes::CacheChanges;
use super::capture::CaptureKeeper;
use super::counters;
use super::explain::Explains;
use super::fill::fill;
use super::front::Front;
use super::host::{HostError, facts};
use super::host_changes::HostChanges;
use super::inspect::Refusal;
use super::interfaces::Interfaces;
use super::journal::{Event, milliseconds, publish, say};
use super::mirror::{Mirror, Touched};
use super::neighbours::Neighbours;
use super::netlink::{NetlinkError, NetlinkSocket};
use super::publish::{publish_interfaces, publish_next_hops};
use super::reaper::Reaper;
use super::remembered::Remembered;
use super::resources::{OpenError, Resources};
use super::run_dir::{RunDir, RunDirError};
use super::seat::Seat;
use super::workers::{Context, Workers};
use crate::config::{ConfigError, ResolveError, Resolved, place_of};
use draining::Draining;
use life::Life;
use probing::Probing;
use swap::Swap;

mod asked;
mod draining;
mod exec;
mod life;
mod probing;
mod start;
mod swap;
mod wait;

pub use exec::Origin;

/// Longest sleep of the loop. Too low: the supervisor takes time from other processes of its core.
/// Too high: a worker waits that long for an unknown neighbour.
const TICK_MS: u16 = 25;

/// How often counters of the kernel are copied into the metric bank.
const COPY_NS: u64 = 100_000_000;

/// How long a worker may take to finish at a clean stop.
const DRAIN_NS: u64 = 1_000_000_000;

/// Why a node does not run.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The node file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A value of it does not hold on this host.
    #[error("{place}: {source}")]
    Resolve {
        /// File, and line where the key is written.
        place: String,
        /// What does not hold.
        source: ResolveError,
    },
    /// The host.
    #[error(transparent)]
    Host(#[from] HostError),
    /// No interface in the node file.
    #[error("interface: the node file names none; add an [[interface]] section")]
    NoInterface,
    /// An interface.
    #[error(transparent)]
    Interface(#[from] Refusal),
    /// The run directory.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// The kernel's network tables.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Regions, sockets, the program.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A region that was taken over.
    #[error("control region: {0}")]
    Region(#[from] RegionError),
    /// Signals or polling.
    #[error("cannot {0}: {1}")]
    System(&'static str, nix::Error),
    /// The thread that reaps.
    #[error("cannot start the reaper thread: {0}")]
    Reaper(#[source] std::io::Error),
}

/// A running node.
pub struct Node {
    resolved: Resolved,
    node_text: String,
    run_dir: RunDir,
    resources: Resources,
    mirror: Mirror,
    changes: NetlinkSocket,
    requests: NetlinkSocket,
    /// In the order of their numbers.
    workers: Vec<Workers>,
    reaper: Rc<Reaper>,
    front: Front,
    capture: CaptureKeeper,
    interfaces: Interfaces,
    readers: Readers,
    explains: Explains,
    signals: SignalFd,
    neighbours: Neighbours,
    cache_changes: CacheChanges,
    host_changes: HostChanges,
    copied_ns: u64,
    started_ns: u64,
    /// Its node file.
    path: PathBuf,
    /// CPUs that the supervisor was started on.
    cores: Vec<u32>,
    remembered: Remembered,
    life: Life,
    draining: Draining,
    swap: Swap,
    probing: Option<Probing>,
}

/// Reads the node file and what the host has to say to it. Opens nothing.
pub fn check(path: &Path) -> Result<(Resolved, String, Mirror), NodeError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let config = crate::config::parse(&text, &path.display().to_string())?;
    if config.interface.is_empty() {
        return Err(NodeError::NoInterface);
    }
    let mirror = Mirror::from_dump(NetlinkSocket::for_requests()?.dump_all()?);
    let facts = facts(&mirror, &text, path)?;
    let resolved = Resolved::new(config, &facts).map_err(|source| {
        let place = place_of(&text, &path.display().to_string(), source.key());
        NodeError::Resolve { place, source }
    })?;
    Ok((resolved, text, mirror))
}

impl Node {
    /// Runs until told to stop by SIGTERM or SIGINT, then leaves nothing behind.
    pub fn run(mut self) -> Result<(), NodeError> {
        loop {
            let stop = self.wait()?;
            if stop {
                self.stop();
                return Ok(());
            }
            let (all, front, reaper, mut context) = self.split();
            for workers in all {
                workers.promote(&mut context);
                workers.keep_standby(&mut context);
            }
            front.keep(&mut context, reaper);
            if self.is_running() {
                self.keep_capture();
                self.change_caches();
            }
            self.keep_host_changes();
            self.keep_life();
            self.keep_swap();
            self.keep_probing();
            self.keep_draining();
            self.tick();
        }
    }

    fn split(&mut self) -> (&mut Vec<Workers>, &mut Front, &Reaper, Context<'_>) {
        let context = Context {
            resolved: &self.resolved,
            node_text: &self.node_text,
            run_dir: &self.run_dir,
            resources: &mut self.resources,
        };
        (&mut self.workers, &mut self.front, &self.reaper, context)
    }

    fn keep_capture(&mut self) {
        let mut capture = std::mem::take(&mut self.capture);
        let (_, _, reaper, mut context) = self.split();
        capture.keep(&mut context, reaper);
        self.capture = capture;
    }

    fn tick(&mut self) {
        let now_ns = monotonic_ns();
        self.resources.control.supervisor().beat(now_ns);
        let _ = self.resources.control.region().beat(now_ns);
        for cache in self.resources.caches.iter().filter(|cache| cache.is_handed()) {
            let _ = cache.memory.beat(now_ns);
        }
        let limit_ns = self.resolved.config.supervisor.hang_limit_ms * 1_000_000;
        for number in 0..self.workers.len() {
            let Workers { active, hang, .. } = &mut self.workers[number];
            let Some(seat) = active else { continue };
            let index = seat.index as usize;
            let pulse = self.resources.control.worker(index).pulse();
            let silent = hang.look(seat, &pulse, now_ns, limit_ns);
            let kernel = &mut self.requests;
            self.neighbours.serve(index, now_ns, &self.mirror, &self.resources, kernel);
            if let Some(silent_ns) = silent {
                self.end_hung(number, silent_ns);
            }
        }
        let serves = self.is_running() && self.all_serve(|_| true);
        self.resources.control.supervisor().set_serving(serves);
        if now_ns.saturating_sub(self.copied_ns) >= COPY_NS {
            self.copied_ns = now_ns;
            self.explains.tick(now_ns);
            self.copy_counters();
            self.look_after_interfaces(Touched::default());
        }
    }

    fn follow_changes(&mut self) {
        let mut heard = Vec::new();
        let complete = self.changes.changes(|change| heard.push(change)).unwrap_or(false);
        let touched = if complete {
            self.mirror.apply_all(heard)
        } else {
            // Notifications were lost: look at everything again.
            match self.requests.dump_all() {
                Ok(all) => self.mirror = Mirror::from_dump(all),
                Err(error) => say(&self.resolved.config.node.id, &error.to_string()),
            }
            Touched { links: true, addresses: true, hops: true }
        };
        if touched.any() {
            self.look_after_interfaces(touched);
        }
    }

    /// The active worker does nothing any more; its pidfd says when it is gone.
    fn end_hung(&mut self, number: usize, silent_ns: u64) {
        let Some(seat) = self.workers[number].active.as_mut().filter(|seat| !seat.condemned) else {
            return;
        };
        seat.condemned = true;
        seat.kill();
        let (pid, index) = (seat.pid, seat.index);
        self.count(metrics::WORKER_HANGS);
        let text = format!(
            "worker {pid} is killed: no heartbeat for {} (supervisor.hang_limit_ms)",
            milliseconds(silent_ns)
        );
        self.publish(&Event::new(EventKind::Notice, (silent_ns, 0), text).of_worker(index));
    }

    fn copy_counters(&mut self) {
        counters::copy(&mut self.resources, self.resolved.config.port.zero_copy);
    }

    fn look_after_interfaces(&mut self, touched: Touched) {
        if !self.is_running() {
            return publish_interfaces(&self.resolved, &self.mirror, &self.resources);
        }
        if touched.links {
            // A rebind ends the sockets whose counters these are.
            self.copy_counters();
        }
        let events =
            self.interfaces.look(&self.resolved, &self.mirror, &mut self.resources, touched);
        if events.rebound {
            // Sockets that are bound later are counted then.
            if !self.resources.binds_per_worker() {
                self.count(metrics::REBINDS);
            }
            self.workers.iter_mut().for_each(Workers::renew_standby);
        }
        if (touched.addresses || touched.links || events.rebound)
            && let Some(steering) = &self.resources.steering
            && let caches = &self.resources.caches
            && let Err(error) = fill(steering, caches, &self.resolved.config, &self.mirror)
        {
            say(&self.resolved.config.node.id, &error.to_string());
        }
        if touched.any() || events.rebound {
            publish_next_hops(&self.resolved, &self.mirror, &self.resources);
            publish_interfaces(&self.resolved, &self.mirror, &self.resources);
        }
        for event in &events.events {
            self.publish(event);
        }
        if self.interfaces.awaiting_service() && self.serves_current() {
            for event in self.interfaces.served_again(monotonic_ns()) {
                self.resources.control.supervisor().set_last_gap(event.numbers.1);
                self.publish(&event);
            }
        }
    }

    /// Whether the active workers serve the current set of sockets.
    fn serves_current(&self) -> bool {
        self.all_serve(|seat| seat.resources == self.resources.serial)
    }

    /// Whether every worker serves, and is such a one.
    fn all_serve(&self, is_such: impl Fn(&Seat) -> bool) -> bool {
        let mut active = self.workers.iter().map(|workers| workers.active.as_ref());
        active.all(|seat| {
            seat.is_some_and(|seat| seat.phase == super::seat::Phase::Serving && is_such(seat))
        })
    }

    /// Packets to the kernel, then the worker, then the files.
    fn stop(mut self) {
        let text = format!("supervisor {} stops", std::process::id());
        self.publish(&Event::new(EventKind::SupervisorStopping, (0, 0), text));
        self.resources.control.supervisor().set_serving(false);
        self.resources.stop_steering();
        self.workers.iter_mut().for_each(Workers::drain);
        let deadline_ns = monotonic_ns() + DRAIN_NS;
        let seats = self.workers.iter().flat_map(|workers| [&workers.active, &workers.standby]);
        for seat in seats.flatten() {
            let left_ms = deadline_ns.saturating_sub(monotonic_ns()) / 1_000_000;
            let mut gone = [PollFd::new(seat.pidfd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left_ms as i32).unwrap_or(PollTimeout::ZERO);
            if poll(&mut gone, timeout).unwrap_or(0) == 0 {
                seat.kill();
            }
        }
        let Self { run_dir, resources, workers, front, capture, reaper, .. } = self;
        capture.stop(&reaper);
        front.stop(&reaper);
        workers.into_iter().for_each(Workers::reap_all);
        for cache in &resources.caches {
            // Its readers must not take it for the live one for another second.
            let _ = cache.memory.beat(0);
        }
        drop(resources);
        run_dir.clear();
    }

    fn publish(&self, event: &Event) {
        publish(&self.resolved.config.node.id, &self.resources.control, event);
    }

    fn count(&self, counter: Counter) {
        self.resources.control.metrics(SUPERVISOR_PROCESS).add(counter, 1);
    }
}

fn signals() -> Result<SignalFd, NodeError> {
    let failed = |errno| NodeError::System("take signals", errno);
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    set.thread_block().map_err(failed)?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(failed)
}
