//! The verb `swap`: other programs, or another node file, for a node that goes on serving.
//!
//! ```text
//!   old supervisor   release looked at: trusted? same contract? takes the node file?     no: refused, nothing done
//!                    remembered; the standby ends; execve: same process id, other program
//!   new supervisor   takes the node back from the worker, which never stopped
//!                    standby of its own -> old worker drains -> promoted        one worker after the other
//!                    front of its own, which waits -> old front leaves -> serves
//!                    all of them serve: `exchange` is answered; for a second: settled, `swap` is answered
//!   no good          while the old worker serves, or after another of the old release was promoted again:
//!                    execve of the supervisor before, which does the same the other way round
//! ```
//!
//! A supervisor that dies in the middle is followed by the one of the host, which goes on by what is remembered
//! (`remembered.rs`). The steering program is not exchanged: it is attached when a node is started.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError};

use nautilus_shm::attach::{Code, HOST_RELEASE};
use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::event_log::EventKind;
use nautilus_shm::life::Release;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Node;
use super::exec::{Origin, execute, runs};
use crate::kill_point::kill_point;
use crate::supervisor::host::run_on;
use crate::supervisor::journal::{Event, milliseconds};
use crate::supervisor::remembered::{Remembered, SwapUnderWay};
use crate::supervisor::seat::{Phase, Seat};
use crate::supervisor::workers::Workers;

mod asked;
mod front;

/// How long new workers and front have to serve before the swap counts as done. Too low: one that crashes a
/// moment later is kept; too high: whoever asked waits. On the way back nothing is watched that was there before.
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

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// Everything is exchanged and serves.
    Exchanged,
    /// It has served for a while.
    Settled,
}

/// A swap, and who waits for its end.
#[derive(Debug)]
pub(super) struct Swap {
    step: Step,
    waiting: Vec<OwnedFd>,
    /// Those that wait until everything is exchanged, or for a failure.
    waiting_soon: Vec<OwnedFd>,
    /// Why the last one that was asked of this supervisor, or the one before it, failed.
    failure: Option<String>,
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
        let Origin { waiting, waiting_soon, .. } = origin;
        let (failure, since_ns, new_ns, gap_ns, again_ns) = (None, monotonic_ns(), 0, 0, 0);
        Self { step, waiting, waiting_soon, failure, since_ns, stale, new_ns, gap_ns, again_ns }
    }

    /// Whether none is under way.
    pub fn is_idle(&self) -> bool {
        matches!(self.step, Step::Idle)
    }

    /// Whether a thread is waited for, which wakes nobody.
    pub fn is_looking(&self) -> bool {
        matches!(self.step, Step::Looking(..))
    }

    fn wait(&mut self, until: Until, peer: OwnedFd) {
        match until {
            Until::Exchanged => self.waiting_soon.push(peer),
            Until::Settled => self.waiting.push(peer),
        }
    }
}

/// Name of a release for an operator.
pub(super) fn named(release: Option<&str>) -> String {
    release.map_or("the host's release".into(), |name| format!("release {name}"))
}

impl Node {
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
        let waiting = self.swap.waiting.iter().map(|fd| ("--answer", fd.as_fd()));
        let soon = self.swap.waiting_soon.iter().map(|fd| ("--answer-soon", fd.as_fd()));
        let front = self.front.seat().filter(|seat| seat.messages().is_some());
        let front = front.map(|seat| ("--front", seat.socket()));
        let left: Vec<_> = waiting.chain(soon).chain(front).collect();
        execute(program, &self.path, &release, &left)
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
        let keeps_front = is_back && self.has_front_of_before();
        if !keeps_front {
            // It becomes ready beside the workers, and waits for them.
            self.prepare_front();
        }
        if self.exchange_a_worker() {
            return;
        }
        if !self.all_serve(|_| true) || !(keeps_front || self.exchange_front()) {
            self.swap.new_ns = 0;
            return;
        }
        if self.swap.new_ns == 0 {
            self.swap.new_ns = now_ns;
        }
        if !is_back {
            self.tell_exchanged(&swap);
        }
        let is_watched = !(keeps_front && self.all_serve(|seat| !seat.is_child()));
        if !is_watched || now_ns - self.swap.new_ns > SETTLE_NS {
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

    /// Tells those who wait for it that everything is exchanged.
    fn tell_exchanged(&mut self, swap: &SwapUnderWay) {
        if self.swap.waiting_soon.is_empty() {
            return;
        }
        let took = milliseconds(monotonic_ns().saturating_sub(self.swap.since_ns));
        let release = named(swap.to.as_deref());
        let text = format!("node {}: {release} serves, after {took}, and is watched", self.id());
        let waiting = std::mem::take(&mut self.swap.waiting_soon);
        self.tell(&waiting, Code::Ok, &text);
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
        let soon = std::mem::take(&mut self.swap.waiting_soon);
        let waiting = std::mem::take(&mut self.swap.waiting);
        self.tell(&soon, Code::NotReady, &text);
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
        self.swap.failure = (code != Code::Ok).then(|| text.clone());
        let soon = std::mem::take(&mut self.swap.waiting_soon);
        let waiting = std::mem::take(&mut self.swap.waiting);
        self.tell(&soon, code, &text);
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
