//! The verb `swap`: other programs, or another node file, for a node that goes on serving.
//!
//! ```text
//!   old supervisor   release looked at: trusted? same contract? takes the node file?     no: refused, nothing done
//!                    remembered; the standby ends; execve: same process id, other program
//!   new supervisor   takes the node back from the worker, which never stopped
//!                    standby of its own -> old worker drains -> promoted        one worker after the other
//!                    front of its own, which waits -> old front leaves -> serves
//!                    all of them serve for a second: settled, answered
//!   no good          while the old worker serves, or after another of the old release was promoted again:
//!                    execve of the supervisor before, which does the same the other way round
//! ```
//!
//! A supervisor that dies in the middle is followed by the one of the host, which goes on by what is remembered
//! (`remembered.rs`). The steering program is not exchanged: it is attached when a node is started.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use nautilus_shm::attach::{Code, HOST_RELEASE};
use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::event_log::EventKind;
use nautilus_shm::life::{NodePhase, Release};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::exec::{Origin, execute, runs};
use super::{Node, check};
use crate::config::change_in_place;
use crate::kill_point::kill_point;
use crate::supervisor::host::run_on;
use crate::supervisor::journal::{Event, milliseconds};
use crate::supervisor::releases::{ReleaseError, contract, described_contract, find, known_name};
use crate::supervisor::remembered::{Remembered, SwapUnderWay};
use crate::supervisor::seat::{Phase, Seat};
use crate::supervisor::workers::Workers;

/// How long new workers and front have to serve before the swap counts as done. Too low: one that crashes a
/// moment later is kept; too high: whoever asked waits.
const SETTLE_NS: u64 = 1_000_000_000;

/// Standbys of a release that may end before they are ready.
const STANDBYS_MAX: u32 = 2;

/// How long a swap may take before it is turned back.
const PATIENCE_NS: u64 = 60_000_000_000;

/// Pause before that a swap has ended is written down again. Too low: a full disk is asked all day; too high: whoever
/// asks again waits.
const AGAIN_NS: u64 = 500_000_000;

/// How long standbys may take to end before the exchange, in ms.
const END_MS: u16 = 1000;

/// A swap, and who waits for its end.
#[derive(Debug)]
pub(super) struct Swap {
    step: Step,
    waiting: Vec<OwnedFd>,
    since_ns: u64,
    /// Workers that serve by another program, or by another node file.
    stale: Vec<u32>,
    /// Since when everything is new.
    new_ns: u64,
    gap_ns: u64,
    /// When that it has ended is to be written down again; 0: it has not ended, or could be written.
    again_ns: u64,
}

#[derive(Debug)]
enum Step {
    Idle,
    /// A release is asked what it is.
    Looking(Option<String>, PathBuf, Receiver<Result<(), String>>),
    /// Workers, then the front, are exchanged.
    Handing,
    /// A worker of the release crashed although it served: those of the one before are brought back first.
    Fleeing(String),
}

impl Swap {
    /// Of a supervisor that has just begun. `stale` are workers that it found.
    pub fn new(remembered: &Remembered, origin: Origin, stale: Vec<u32>) -> Self {
        let step = if remembered.swap.is_some() { Step::Handing } else { Step::Idle };
        let (waiting, since_ns) = (origin.waiting, monotonic_ns());
        Self { step, waiting, since_ns, stale, new_ns: 0, gap_ns: 0, again_ns: 0 }
    }

    /// Whether none is under way.
    pub fn is_idle(&self) -> bool {
        matches!(self.step, Step::Idle)
    }
}

/// Name of a release for an operator.
pub(super) fn named(release: Option<&str>) -> String {
    release.map_or("the host's release".into(), |name| format!("release {name}"))
}

impl Node {
    /// Somebody wants another release, or the node file read anew.
    pub(super) fn swap_asked(&mut self, name: &str, peer: OwnedFd) {
        let running = self.remembered.release.clone();
        let wanted = match name {
            "" => Ok(running.clone()),
            name => known_name(name).map(|known| known.map(str::to_owned)),
        };
        let wanted = match wanted {
            Ok(wanted) => wanted,
            Err(error) => return self.tell(&[peer], Code::Impossible, &error.to_string()),
        };
        let under_way = match (&self.swap.step, &self.remembered.swap) {
            (Step::Idle, _) => None,
            (Step::Looking(to, ..), _) => Some(to.clone()),
            (_, Some(swap)) if swap.failed.is_none() => Some(swap.to.clone()),
            _ => Some(Some("(back)".into())),
        };
        if let Some(to) = under_way {
            if to == wanted {
                self.swap.waiting.push(peer);
            } else {
                let text = "another swap is under way; ask again then";
                self.tell(&[peer], Code::NotReady, text);
            }
            return;
        }
        // The host is looked at, by us and by the release, as it was when this supervisor was started.
        run_on(&self.cores);
        let begun = self.begin_swap(wanted.clone());
        run_on(&self.own_cores());
        match begun {
            Ok(Some(step)) => {
                self.swap.step = step;
                self.swap.since_ns = monotonic_ns();
                self.swap.waiting = vec![peer];
            }
            Ok(None) => {
                let text = format!("node {} runs {} already", self.id(), named(wanted.as_deref()));
                self.tell(&[peer], Code::Ok, &text);
            }
            Err((code, problem)) => self.tell(&[peer], code, &problem),
        }
    }

    /// Looks at what is asked for; none where there is nothing to do.
    fn begin_swap(&self, to: Option<String>) -> Result<Option<Step>, (Code, String)> {
        let impossible = |text: String| (Code::Impossible, text);
        let is_parked = self.life.phase() == NodePhase::Parked;
        let serves = self.is_running() && self.all_serve(|_| true);
        if !(serves || is_parked) || self.cache_changes.is_busy() {
            let text = "the node is changing otherwise, or does not serve; ask again then";
            return Err((Code::NotReady, text.into()));
        }
        let is_same = to == self.remembered.release;
        let (resolved, text, _) =
            check(&self.path).map_err(|error| impossible(error.to_string()))?;
        if is_same && (text == self.node_text || is_parked) {
            return Ok(None);
        }
        let config = &resolved.config;
        if !is_parked {
            change_in_place(&self.resolved.config, config)
                .map_err(|key| impossible(format!("{key}: {CANNOT_CHANGE}")))?;
        }
        if !is_same && config.worker.program.value().is_some() {
            let text = "worker.program: the node file names one, so no release has another";
            return Err(impossible(text.into()));
        }
        let program = match &to {
            Some(name) => find(config.supervisor.releases.as_deref(), name)
                .map_err(|error| impossible(error.to_string()))?,
            None => self.host_program().map_err(impossible)?,
        };
        let (done, found) = channel();
        let (name, asked, path) = (named(to.as_deref()), program.clone(), self.path.clone());
        let look = move || {
            let described = described_contract(&name, &asked, &path);
            let ours = contract();
            let _ = done.send(match described {
                Ok(theirs) if theirs == ours || is_parked => Ok(()),
                Ok(theirs) => Err(ReleaseError::Contract { name, theirs, ours }.to_string()),
                Err(error) => Err(error.to_string()),
            });
        };
        let thread = std::thread::Builder::new().name("release".into()).spawn(look);
        thread.map_err(|error| impossible(format!("no thread to look at it: {error}")))?;
        Ok(Some(Step::Looking(to, program, found)))
    }

    fn host_program(&self) -> Result<PathBuf, String> {
        match &self.remembered.host_program {
            Some(program) => Ok(program.clone()),
            None => std::env::current_exe().map_err(|error| error.to_string()),
        }
    }

    /// The supervisor of a release that has run.
    fn supervisor_of(&self, release: Option<&str>) -> Result<PathBuf, String> {
        match release {
            None => self.host_program(),
            Some(name) => {
                let releases = self.resolved.config.supervisor.releases.as_deref();
                find(releases, name).map_err(|error| error.to_string())
            }
        }
    }

    /// Goes on with a swap.
    pub(super) fn keep_swap(&mut self) {
        match std::mem::replace(&mut self.swap.step, Step::Idle) {
            Step::Idle => {}
            Step::Looking(to, program, found) => match found.try_recv() {
                Err(TryRecvError::Empty) => self.swap.step = Step::Looking(to, program, found),
                Err(TryRecvError::Disconnected) => self.end_swap(Err("nobody looked".into())),
                Ok(Err(problem)) => self.end_swap(Err(problem)),
                Ok(Ok(())) => {
                    let problem = self.become_release(to, &program);
                    run_on(&self.own_cores());
                    self.forget_swap();
                    self.end_swap(Err(problem));
                }
            },
            Step::Handing => {
                self.swap.step = Step::Handing;
                self.hand_on();
            }
            Step::Fleeing(reason) => {
                self.swap.step = Step::Fleeing(reason.clone());
                self.flee(&reason);
            }
        }
    }

    /// Executes the supervisor of another release; says why that was not possible.
    fn become_release(&mut self, to: Option<String>, program: &Path) -> String {
        let text = format!(
            "node {}: supervisor {} becomes that of {}",
            self.id(),
            std::process::id(),
            named(to.as_deref())
        );
        let host_program = match self.host_program() {
            Ok(program) => program,
            Err(problem) => return problem,
        };
        let mut wanted = Remembered { host_program: Some(host_program), ..self.remembered.clone() };
        let failed = wanted.swap.take().and_then(|swap| swap.failed);
        wanted.swap = Some(SwapUnderWay { to: to.clone(), tries: 1, failed });
        if let Err(error) = wanted.write(&self.run_dir) {
            return error.to_string();
        }
        self.remembered = wanted;
        self.publish(&Event::new(EventKind::Notice, (0, 0), text));
        kill_point("supervisor.before_exec");
        // Our own children until here: nobody else reaps them. A standby would end by itself anyway.
        for seat in self.workers.iter_mut().filter_map(Workers::take_standby) {
            seat.kill();
            let mut gone = [PollFd::new(seat.pidfd(), PollFlags::POLLIN)];
            let _ = poll(&mut gone, PollTimeout::from(END_MS));
            self.reaper.reap(seat);
        }
        if let Some(seat) = self.front.take_next() {
            seat.kill();
            self.reaper.reap(seat);
        }
        self.copy_counters();
        run_on(&self.cores);
        let release = to.unwrap_or_else(|| HOST_RELEASE.into());
        execute(program, &self.path, &release, &self.swap.waiting)
    }

    /// Exchanges what is old, one after the other, and says when everything is new.
    fn hand_on(&mut self) {
        let now_ns = monotonic_ns();
        let Some(swap) = self.remembered.swap.clone() else {
            return self.end_swap(Ok("nothing was under way".into()));
        };
        if self.swap.again_ns > 0 {
            if now_ns >= self.swap.again_ns {
                self.settle_swap(swap);
            }
            return;
        }
        if !self.is_running() {
            // A parked node has nothing to exchange.
            return self.settle_swap(swap);
        }
        let is_back = swap.failed.is_some();
        if is_back && now_ns.saturating_sub(self.swap.since_ns) > PATIENCE_NS {
            return self.stay("its processes do not serve");
        }
        if !is_back && let Some(problem) = self.problem_of_release(now_ns) {
            let has_new = self
                .workers
                .iter()
                .any(|workers| workers.active.as_ref().is_some_and(|seat| !self.is_stale(seat)));
            let any = self.workers.iter().all(|workers| workers.active.is_some());
            if has_new || !any {
                self.begin_fleeing(problem)
            } else {
                self.turn_back(problem)
            }
            return;
        }
        if self.exchange_a_worker() {
            return;
        }
        if !self.all_serve(|_| true) || !self.exchange_front() {
            self.swap.new_ns = 0;
            return;
        }
        if self.swap.new_ns == 0 {
            self.swap.new_ns = now_ns;
        } else if now_ns - self.swap.new_ns > SETTLE_NS {
            if let Some(seat) = self.capture.seat().filter(|seat| !seat.is_child()) {
                // What it has not written waits in the ring for the next one.
                seat.kill();
            }
            self.settle_swap(swap);
        }
    }

    /// What is wrong with the programs of this release.
    fn problem_of_release(&self, now_ns: u64) -> Option<String> {
        let of_workers = self.workers.iter().find_map(|workers| workers.failure(STANDBYS_MAX));
        let of_front = self.front.failure_of_next(STANDBYS_MAX);
        let late = now_ns.saturating_sub(self.swap.since_ns) > PATIENCE_NS;
        of_workers.or(of_front).or_else(|| late.then(|| "its processes do not serve".into()))
    }

    fn is_stale(&self, seat: &Seat) -> bool {
        self.swap.stale.contains(&seat.pid) || !runs(seat.pid, &self.resolved.program)
    }

    /// Has the next old worker replaced by a standby that is ready; whether one is still old.
    fn exchange_a_worker(&mut self) -> bool {
        let stale = |seat: &Seat| self.is_stale(seat);
        let of = |workers: &Workers| workers.active.as_ref().is_none_or(stale);
        let Some(number) = self.workers.iter().position(of) else { return false };
        let workers = &self.workers[number];
        let ready = |seat: &Seat| seat.phase == Phase::Ready && !self.is_stale(seat);
        if workers.active.is_some() && workers.standby.as_ref().is_some_and(ready) {
            kill_point("supervisor.hands_over");
            self.workers[number].hand_over();
        } else if workers.standby.as_ref().is_some_and(stale) {
            self.workers[number].renew_standby();
        }
        true
    }

    /// The same for the front; whether it is new and serves.
    fn exchange_front(&mut self) -> bool {
        if self.resources.front.is_none() {
            return true;
        }
        let program = self.resolved.front_program.clone();
        let is_new = |seat: &Seat| seat.is_child() && runs(seat.pid, &program);
        match self.front.seat() {
            Some(seat) if is_new(seat) => seat.phase == Phase::Serving,
            Some(_) => {
                let (_, front, reaper, mut context) = self.split();
                front.exchange(&mut context, reaper);
                false
            }
            // Started by itself.
            None => false,
        }
    }

    fn settle_swap(&mut self, swap: SwapUnderWay) {
        let gap_ns = self.swap.gap_ns.max(self.resources.control.supervisor().last_gap_ns());
        let took = milliseconds(monotonic_ns().saturating_sub(self.swap.since_ns));
        let release = named(swap.to.as_deref());
        let settled = Remembered { release: swap.to, swap: None, ..self.remembered.clone() };
        if let Err(error) = settled.write(&self.run_dir) {
            return self.settle_later(&release, &error.to_string());
        }
        (self.remembered, self.swap.again_ns) = (settled, 0);
        self.show_release();
        let how = match self.is_running() {
            true => format!("serves, after {took}, last gap {}", milliseconds(gap_ns)),
            false => "is what it runs when it is started".into(),
        };
        match swap.failed {
            None => self.end_swap(Ok(format!("{release} {how}"))),
            Some(reason) => self.end_swap(Err(format!("went back, {release} {how}: {reason}"))),
        }
    }

    /// Supervisors that are started now go on with the swap, and turn it back when too many have died: nobody is told
    /// that it has ended before that is written down.
    fn settle_later(&mut self, release: &str, problem: &str) {
        let text = format!(
            "node {}: {release} serves, but that cannot be remembered: {problem}; ask again",
            self.id()
        );
        if self.swap.again_ns == 0 {
            self.publish(&Event::new(EventKind::Notice, (0, 0), &text));
        }
        self.swap.again_ns = monotonic_ns() + AGAIN_NS;
        let waiting = std::mem::take(&mut self.swap.waiting);
        self.tell(&waiting, Code::NotReady, &text);
    }

    /// The supervisor before takes over, while a worker serves.
    fn turn_back(&mut self, reason: String) {
        let text = format!("node {}: the swap is turned back: {reason}", self.id());
        self.publish(&Event::new(EventKind::Notice, (0, 0), text));
        self.remembered.turn_back(reason);
        let back = self.remembered.release.clone();
        let program = match self.supervisor_of(back.as_deref()) {
            Ok(program) => program,
            Err(problem) => return self.stay(&problem),
        };
        let problem = self.become_release(back, &program);
        self.stay(&problem);
    }

    /// There is no way back either.
    fn stay(&mut self, problem: &str) {
        run_on(&self.own_cores());
        self.forget_swap();
        self.end_swap(Err(format!("the way back failed as well: {problem}")));
    }

    fn begin_fleeing(&mut self, reason: String) {
        let back = self.remembered.release.clone();
        match self.supervisor_of(back.as_deref()) {
            Ok(program) => {
                let text =
                    format!("node {}: workers of before are brought back: {reason}", self.id());
                self.publish(&Event::new(EventKind::Notice, (0, 0), text));
                self.resolved.program = program.with_file_name("nautilus-worker");
                self.workers.iter_mut().for_each(Workers::renew_standby);
                self.swap.step = Step::Fleeing(reason);
            }
            Err(problem) => self.stay(&problem),
        }
    }

    /// Waits until workers of the release before serve, and turns back.
    fn flee(&mut self, reason: &str) {
        if !self.exchange_a_worker() && self.all_serve(|_| true) {
            self.turn_back(reason.into());
        }
    }

    /// The CPUs that are left to us when the workers have theirs.
    fn own_cores(&self) -> Vec<u32> {
        let is_own = |core: &&u32| self.workers.is_empty() || !self.resolved.cores.contains(core);
        let own: Vec<u32> = self.cores.iter().filter(is_own).copied().collect();
        if own.is_empty() { self.cores.clone() } else { own }
    }

    fn forget_swap(&mut self) {
        self.remembered.swap = None;
        if let Err(error) = self.remembered.write(&self.run_dir) {
            self.publish(&Event::new(EventKind::Notice, (0, 0), error.to_string()));
        }
    }

    fn end_swap(&mut self, end: Result<String, String>) {
        self.swap.step = Step::Idle;
        let (code, text) = match end {
            Ok(text) => (Code::Ok, text),
            Err(text) => (Code::Impossible, format!("not swapped: {text}")),
        };
        let text = format!("node {}: {text}", self.id());
        self.publish(&Event::new(EventKind::Notice, (0, 0), &text));
        let waiting = std::mem::take(&mut self.swap.waiting);
        self.tell(&waiting, code, &text);
    }

    /// Says what runs.
    pub(super) fn show_release(&self) {
        let release = Release {
            name: self.remembered.release.clone().unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").into(),
        };
        self.resources.control.supervisor().life().set_release(&release);
    }
}

/// What is said of a key that a running node cannot follow.
const CANNOT_CHANGE: &str = "cannot change while the node runs; park the node and start it";
