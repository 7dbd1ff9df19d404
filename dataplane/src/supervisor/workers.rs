//! The active worker and its running standby.
//!
//! ```text
//!   start -> standby Starting -> Ready --(nobody active)--> Promoted -> Serving
//!                                  ^                                       |
//!                 a new standby ---+------ pidfd <-- killed, or dies ------+
//! ```
//!
//! A node has one such pair for each of its workers. A worker is promoted only after the pidfd of the one before it has fired: all threads of that one
//! are gone and its memory is unmapped, so no two ever own a frame. Where a worker has sockets
//! of its own (`fresh.rs`) they are bound before it is promoted.

use std::os::fd::AsFd;
use std::rc::Rc;

use nautilus_shm::cells::{WorkerIdentity, WorkerState};
use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::control_region::{ControlRegion, HistogramId, SUPERVISOR_PROCESS, WORKERS_MAX};
use nautilus_shm::event_log::EventKind;
use nautilus_shm::metrics::Counter;
use nautilus_shm::metrics::table as metrics;
use nautilus_shm::worker_rings::NODE_WORKERS_MAX;

use super::backoff::Backoff;
use super::handover::{Assignment, Fds, FromWorker, ToWorker, VERSION};
use super::handover::{receive_as_supervisor, send};
use super::hang::HangWatch;
use super::journal::{Event, milliseconds, publish};
use super::reaper::Reaper;
use super::resources::Resources;
use super::run_dir::RunDir;
use super::seat::{Identity, Phase, Seat};
use crate::config::{PollPolicy, PortKind, Resolved};
use crate::kill_point::kill_point;
use crate::xsk::BIND_PATIENCE;

mod told;

/// A worker that ends sooner than this after it was promoted has failed.
const YOUNG_NS: u64 = 1_000_000_000;

/// Failures that such an end counts as.
const DEATH_AS_FAILURES: u32 = 10;

/// What the workers are started with, lent by the node.
pub struct Context<'a> {
    /// The decided node file.
    pub resolved: &'a Resolved,
    /// Its text.
    pub node_text: &'a str,
    /// Where sockets are made.
    pub run_dir: &'a RunDir,
    /// What is handed out.
    pub resources: &'a mut Resources,
}

impl Context<'_> {
    /// Tells an event.
    pub fn publish(&self, event: &Event) {
        publish(&self.resolved.config.node.id, &self.resources.control, event);
    }

    /// Counts one.
    pub fn count(&self, counter: Counter) {
        self.resources.control.metrics(SUPERVISOR_PROCESS).add(counter, 1);
    }
}

/// Both seats of one of the node's workers, and what their deaths left behind.
#[derive(Debug)]
pub struct Workers {
    /// Which worker, below `worker.count`.
    pub number: u32,
    /// Watches the active one's heartbeat.
    pub hang: HangWatch,
    /// Serves, or is about to.
    pub active: Option<Seat>,
    /// Waits.
    pub standby: Option<Seat>,
    /// Promotions so far.
    pub generation: u64,
    backoff: Backoff,
    /// No start before this moment.
    start_after_ns: u64,
    /// When the last active worker was found dead; 0 once its successor serves.
    killed_ns: u64,
    /// Since when a queue is waited for that the standby's own sockets are for; 0 when none is.
    unbound_since_ns: u64,
    /// What was last said about a failed bind, so that it is said once.
    said: String,
    /// The node is being parked: nobody is started or promoted.
    is_closing: bool,
    /// Standbys that ended before they were ready, one that ended young while it served counting as many, and
    /// the last words.
    failures: (u32, String),
    /// Number of a change of the caches that one of them could not make, and why.
    pub refused: Option<(u64, String)>,
    reaper: Rc<Reaper>,
}

impl Workers {
    /// Nobody yet, or the worker that outlived another supervisor. `generation` is the last one there was.
    pub fn new(number: u32, active: Option<Seat>, generation: u64, reaper: Rc<Reaper>) -> Self {
        Self {
            number,
            hang: HangWatch::default(),
            generation: active.as_ref().map_or(generation, |seat| seat.generation),
            active,
            standby: None,
            backoff: Backoff::default(),
            start_after_ns: 0,
            killed_ns: 0,
            unbound_since_ns: 0,
            said: String::new(),
            is_closing: false,
            failures: (0, String::new()),
            refused: None,
            reaper,
        }
    }

    /// Starts a standby when there is none and the time has come.
    pub fn keep_standby(&mut self, context: &mut Context<'_>) {
        let now_ns = monotonic_ns();
        if self.standby.is_some() || self.is_closing || now_ns < self.start_after_ns {
            return;
        }
        if let Err(text) = self.start(context, now_ns) {
            let delay_ns = self.backoff.died(0).max(100_000_000);
            self.start_after_ns = now_ns + delay_ns;
            self.failures = (self.failures.0 + 1, text.clone());
            let text = format!("{text}; next try in {}", milliseconds(delay_ns));
            context.publish(&Event::new(EventKind::Notice, (0, 0), text));
        }
    }

    fn start(&mut self, context: &mut Context<'_>, now_ns: u64) -> Result<(), String> {
        let resolved = context.resolved;
        let taken = self.active.as_ref().map(|seat| seat.index);
        let (first, second) = slots(self.number);
        let index = if taken == Some(first) { second } else { first };
        let root = nix::unistd::geteuid().is_root();
        let user = root.then_some((resolved.worker_uid, resolved.worker_gid));
        let identity = Identity { name: "nautilus-worker", program: &resolved.program, user };
        context.resources.prepare_standby(resolved).map_err(|error| error.to_string())?;
        let serial = context.resources.serial;
        let fds = context.resources.for_standby().map_err(|error| error.to_string())?;
        let cell = context.resources.control.worker(index as usize);
        cell.begin(now_ns, poll_policy(resolved.config.worker.poll));
        let mut seat =
            Seat::spawn(identity, index, serial, now_ns).map_err(|error| error.to_string())?;
        seat.changes = context.resources.changes;
        let assignment = Assignment {
            version: VERSION,
            worker: self.number,
            worker_index: index,
            core: resolved.cores[self.number as usize],
            chunk_bytes: resolved.chunk_bytes,
            supervisor_pid: std::process::id(),
            supervisor_uid: nix::unistd::geteuid().as_raw(),
            resources: serial,
            node: context.node_text.into(),
            interfaces: context.resources.interfaces.iter().map(|o| o.interface.clone()).collect(),
            queues: context.resources.queues_opened(),
            caches: context.resources.caches_handed(),
        };
        let assign = ToWorker::Assign { fds: fds.names(), assignment };
        if let Err(error) = send(seat.socket(), &assign, &fds.borrowed()) {
            let text = format!("worker {}: {error}", seat.pid);
            seat.kill();
            self.reaper.reap(seat);
            return Err(text);
        }
        context.count(metrics::WORKER_STARTS);
        write_cell(context, self.number, &seat, WorkerState::Standby);
        let text = format!("worker {} started as standby", seat.pid);
        context.publish(&Event::new(EventKind::WorkerStarted, (0, 0), text).of_worker(index));
        self.standby = Some(seat);
        Ok(())
    }

    /// Makes the standby active when nobody is and it is ready.
    pub fn promote(&mut self, context: &mut Context<'_>) {
        if self.is_closing
            || self.active.is_some()
            || self.standby.as_ref().is_none_or(|seat| seat.phase != Phase::Ready)
            || (context.resources.binds_per_worker() && !self.bind(context))
        {
            return;
        }
        let Some(mut seat) = self.standby.take() else { return };
        kill_point("supervisor.before_promote");
        self.generation += 1;
        seat.generation = self.generation;
        seat.promoted_ns = monotonic_ns();
        match self.send_promotion(context, &seat) {
            Ok(()) => {
                seat.phase = Phase::Promoted;
                write_cell(context, self.number, &seat, WorkerState::Active);
                context.count(metrics::PROMOTIONS);
            }
            Err(text) => {
                seat.kill();
                let text = format!("worker {} cannot be promoted: {text}", seat.pid);
                context.publish(&Event::new(EventKind::Notice, (0, 0), text));
            }
        }
        self.active = Some(seat);
        kill_point("supervisor.after_promote");
    }

    /// Binds the standby's own sockets; `false` while that cannot be.
    fn bind(&mut self, context: &mut Context<'_>) -> bool {
        let Some(seat) = &self.standby else { return false };
        if seat.resources != context.resources.serial {
            // Its sockets are of an interface that is gone; it has been killed.
            return false;
        }
        let now_ns = monotonic_ns();
        let zero_copy = context.resolved.config.port.zero_copy;
        match context.resources.bind_for_promotion(zero_copy) {
            Ok(true) => {
                (self.unbound_since_ns, self.said) = (0, String::new());
                if self.generation > 0 {
                    context.count(metrics::REBINDS);
                }
                return true;
            }
            Ok(false) if self.unbound_since_ns == 0 => self.unbound_since_ns = now_ns,
            Ok(false) => {
                if now_ns - self.unbound_since_ns > BIND_PATIENCE.as_nanos() as u64 {
                    // Another program has a queue, or the standby has bound a socket itself.
                    self.unbound_since_ns = 0;
                    seat.kill();
                    let text = format!(
                        "worker {} is killed: its sockets could not be bound within \
                         {BIND_PATIENCE:?}; the next tries with new ones",
                        seat.pid
                    );
                    context.publish(&Event::new(EventKind::Notice, (0, 0), text));
                }
            }
            // The interface is down or gone, which is told and ends elsewhere.
            Err(error) => {
                self.unbound_since_ns = 0;
                let text = error.to_string();
                if text != self.said {
                    context.publish(&Event::new(EventKind::Notice, (0, 0), &text));
                    self.said = text;
                }
            }
        }
        false
    }

    /// Whether the standby only waits for the kernel to let go of a queue.
    pub fn awaits_binding(&self) -> bool {
        self.unbound_since_ns > 0
    }

    fn send_promotion(&self, context: &Context<'_>, seat: &Seat) -> Result<(), String> {
        let mut fds: Fds = context.resources.for_active().map_err(|error| error.to_string())?;
        let path = context.run_dir.worker_socket(seat.pid);
        let listener = context.run_dir.listen(&path, 0o600).map_err(|error| error.to_string())?;
        fds.push("listener", listener);
        let promote = ToWorker::Promote {
            generation: seat.generation,
            killed_ns: self.killed_ns,
            fds: fds.names(),
        };
        send(seat.socket(), &promote, &fds.borrowed()).map_err(|error| error.to_string())
    }

    /// The active worker's pidfd has fired.
    pub fn active_died(&mut self, context: &mut Context<'_>) {
        let Some(seat) = self.active.take() else { return };
        let now_ns = monotonic_ns();
        if self.killed_ns == 0 {
            self.killed_ns = now_ns;
        }
        // First things first: the packets wait.
        self.promote(context);
        if let Some(wake) = context.resources.team.wakes.get(self.number as usize) {
            // It may have been woken to finish, and has not taken that back.
            let _ = nix::unistd::read(wake, &mut [0; 8]);
        }
        context.run_dir.remove(&context.run_dir.worker_socket(seat.pid));
        self.bury(context, seat, now_ns);
    }

    /// The standby's pidfd has fired.
    pub fn standby_died(&mut self, context: &Context<'_>) {
        let Some(seat) = self.standby.take() else { return };
        self.bury(context, seat, monotonic_ns());
    }

    fn bury(&mut self, context: &Context<'_>, seat: Seat, now_ns: u64) {
        let (status, words) = seat.status();
        let role = if seat.promoted_ns > 0 || seat.phase == Phase::Serving {
            "active worker"
        } else {
            "standby"
        };
        let mut text = format!("{role} {} ended: {words}", seat.pid);
        let age_ns = now_ns.saturating_sub(seat.promoted_ns);
        if seat.phase == Phase::Starting {
            self.failures = (self.failures.0 + 1, text.clone());
        } else if seat.promoted_ns > 0 && age_ns < YOUNG_NS && !seat.condemned {
            self.failures = (self.failures.0.saturating_add(DEATH_AS_FAILURES), text.clone());
        }
        // A worker that was replaced on purpose is no sign of a crash loop.
        if seat.resources == context.resources.serial {
            let from_ns = if seat.promoted_ns > 0 { seat.promoted_ns } else { seat.started_ns };
            let delay_ns = self.backoff.died(now_ns.saturating_sub(from_ns));
            self.start_after_ns = now_ns + delay_ns;
            if delay_ns > 0 {
                let deaths = self.backoff.young_deaths();
                text += &format!(
                    "; {deaths} died young in a row, next start in {}",
                    milliseconds(delay_ns)
                );
            }
        }
        context.count(metrics::WORKER_DEATHS);
        let cell = context.resources.control.worker(seat.index as usize);
        cell.set_identity(&WorkerIdentity { state: WorkerState::Dead, ..cell.own_identity() });
        context
            .publish(&Event::new(EventKind::WorkerDied, (status, 0), text).of_worker(seat.index));
        self.reaper.reap(seat);
    }

    /// Reads what a worker said. `active` says which.
    pub fn heard(&mut self, context: &Context<'_>, active: bool) {
        let seat = if active { &mut self.active } else { &mut self.standby };
        let Some(seat) = seat else { return };
        let (pid, index) = (seat.pid, seat.index);
        match receive_as_supervisor(seat.socket()) {
            Ok((FromWorker::Ready { notes }, ..)) => {
                if seat.phase == Phase::Starting {
                    seat.phase = Phase::Ready;
                }
                let newer = seat.resources == context.resources.serial;
                for note in notes {
                    let text = format!("worker {pid}: {note}");
                    context.publish(&Event::new(EventKind::Notice, (0, 0), text).of_worker(index));
                }
                if newer
                    && let Some(old) = &self.active
                    && old.resources != context.resources.serial
                {
                    // It works with an interface that is gone; its successor is ready.
                    old.kill();
                }
            }
            Ok((FromWorker::Serving { generation, since_ns }, ..)) => {
                seat.phase = Phase::Serving;
                self.serves(context, pid, index, generation, since_ns);
            }
            Ok((FromWorker::Changed { number, refused }, ..)) => {
                seat.changes = seat.changes.max(number);
                if !refused.is_empty() {
                    self.refused = Some((number, format!("worker {pid}: {refused}")));
                }
            }
            Ok((FromWorker::Failed { reason }, ..)) => {
                let text = format!("worker {pid} cannot go on: {reason}");
                context.publish(&Event::new(EventKind::Notice, (0, 0), text).of_worker(index));
            }
            Ok((FromWorker::Holding { .. } | FromWorker::Looked { .. }, ..)) => {}
            // Its pidfd says the rest. A worker that talks nonsense or hangs up is of no use.
            Err(_) => seat.hang_up(),
        }
    }

    fn serves(
        &mut self,
        context: &Context<'_>,
        pid: u32,
        index: u32,
        generation: u64,
        since_ns: u64,
    ) {
        let killed_ns = std::mem::take(&mut self.killed_ns);
        let gap_ns = if killed_ns == 0 { 0 } else { since_ns.saturating_sub(killed_ns) };
        let mut text = format!("worker {pid} serves, generation {generation}");
        if context.resolved.config.worker.count > 1 {
            text =
                format!("worker {pid} serves as number {}, generation {generation}", self.number);
        }
        if killed_ns > 0 {
            text += &format!(", gap {}", milliseconds(gap_ns));
            if context.resources.binds_per_worker() {
                text += ", on new sockets (kernel below 6.4)";
            }
            let control = &context.resources.control;
            control.supervisor().set_last_gap(gap_ns);
            control.histogram(SUPERVISOR_PROCESS, HistogramId::PromotionGap).record(gap_ns);
        }
        let event = Event::new(EventKind::WorkerPromoted, (generation, gap_ns), text);
        context.publish(&event.of_worker(index));
    }

    /// Replaces the standby by one that is given the current resources.
    pub fn renew_standby(&mut self) {
        if let Some(seat) = &self.standby {
            seat.kill();
        }
        self.start_after_ns = 0;
    }

    /// Tells the active worker to finish; the standby is killed, and nobody follows.
    pub fn drain(&mut self) {
        self.is_closing = true;
        if let Some(seat) = &self.standby {
            seat.kill();
        }
        if let Some(seat) = &self.active
            && send(seat.socket().as_fd(), &ToWorker::Drain, &[]).is_err()
        {
            seat.kill();
        }
    }

    /// Hands both, finished or killed, to the reaper.
    pub fn reap_all(self) {
        let Self { active, standby, reaper, .. } = self;
        for seat in [active, standby].into_iter().flatten() {
            reaper.reap(seat);
        }
    }
}

/// The last generation of a worker that the control region knows of; 0 for a new node.
pub fn last_generation(control: &ControlRegion, number: u32) -> u64 {
    let (first, second) = slots(number);
    let of = |slot| control.worker(slot as usize).own_identity().generation;
    of(first).max(of(second))
}

/// Places of a worker and its standby in the control region, in either order.
pub fn slots(number: u32) -> (u32, u32) {
    const { assert!(NODE_WORKERS_MAX * 2 <= WORKERS_MAX, "two places a worker") };
    (2 * number, 2 * number + 1)
}

fn write_cell(context: &Context<'_>, number: u32, seat: &Seat, state: WorkerState) {
    context.resources.control.worker(seat.index as usize).set_identity(&WorkerIdentity {
        pid: seat.pid,
        state,
        core: context.resolved.cores[number as usize],
        generation: seat.generation,
        started_ns: seat.started_ns,
        promoted_ns: seat.promoted_ns,
    });
}

/// The policy as the worker's cell names it.
pub fn poll_policy(policy: PollPolicy) -> nautilus_shm::cells::PollPolicy {
    match policy {
        PollPolicy::Busy => nautilus_shm::cells::PollPolicy::Busy,
        PollPolicy::Adaptive => nautilus_shm::cells::PollPolicy::Adaptive,
        PollPolicy::Interrupt => nautilus_shm::cells::PollPolicy::Interrupt,
    }
}

/// How the steering program is attached, as the interface's state names it.
pub fn xdp_mode(kind: PortKind) -> nautilus_shm::cells::XdpMode {
    match kind {
        PortKind::Xdp => nautilus_shm::cells::XdpMode::Native,
        PortKind::Socket => nautilus_shm::cells::XdpMode::Socket,
    }
}
