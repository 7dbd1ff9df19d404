//! The verbs `start` and `park`: a node that is set up, and one that is a supervisor and nothing else.
//!
//! ```text
//!   start   node file read anew -> caches, on a thread -> sockets, program, rings -> workers -> serves: answered
//!   park    packets to the kernel -> workers drain -> front, capture end -> everything closed
//!                                                    -> readers detach -> memory given back: answered
//! ```
//!
//! The control region stays over both. What the node was last told to be is remembered before anything is done
//! ([`Remembered`]), so that the next supervisor goes on with it.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, TryRecvError};

use nautilus_shm::attach::Code;
use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::event_log::EventKind;
use nautilus_shm::life::NodePhase;

use super::{DRAIN_NS, Node, check};
use crate::config::{Begin, PortKind, Resolved};
use crate::kill_point::kill_point;
use crate::supervisor::attach::Access;
use crate::supervisor::cache_changes::CacheChanges;
use crate::supervisor::caches::{CacheOpenError, OpenCache};
use crate::supervisor::explain::Explains;
use crate::supervisor::host::{Host, run_on, settle};
use crate::supervisor::interfaces::Interfaces;
use crate::supervisor::journal::{Event, milliseconds};
use crate::supervisor::kill_switch;
use crate::supervisor::parked::{bury, make_caches};
use crate::supervisor::publish::{publish_caches, publish_interfaces, publish_next_hops};
use crate::supervisor::reaper::Reaper;
use crate::supervisor::remembered::Remembered;
use crate::supervisor::resources::Resources;
use crate::supervisor::seat::Seat;
use crate::supervisor::workers::{Workers, last_generation};

/// How long a start may take, once everything is open, before whoever asked is told that nobody serves.
const SERVE_NS: u64 = 30_000_000_000;

/// Where the node is, and who waits for it to get there.
#[derive(Debug)]
pub(super) struct Life {
    step: Step,
    waiting: Vec<OwnedFd>,
    since_ns: u64,
}

#[derive(Debug)]
enum Step {
    Running,
    Parked,
    Making(Box<Resolved>, String, Receiver<Result<Vec<OpenCache>, CacheOpenError>>),
    Finishing,
    Burying(Receiver<()>),
}

impl Life {
    /// Of a node that has its resources, or has none.
    pub fn new(is_parked: bool) -> Self {
        let step = if is_parked { Step::Parked } else { Step::Running };
        Self { step, waiting: Vec::new(), since_ns: monotonic_ns() }
    }

    /// As readers are told.
    pub fn phase(&self) -> NodePhase {
        match self.step {
            Step::Running => NodePhase::Running,
            Step::Parked => NodePhase::Parked,
            Step::Making(..) => NodePhase::Starting,
            Step::Finishing | Step::Burying(_) => NodePhase::Parking,
        }
    }

    fn enter(&mut self, step: Step, waiting: Vec<OwnedFd>) {
        *self = Self { step, waiting, since_ns: monotonic_ns() };
    }
}

impl Node {
    /// Whether the node has its resources and keeps them.
    pub(super) fn is_running(&self) -> bool {
        matches!(self.life.step, Step::Running)
    }

    pub(super) fn show_phase(&self) {
        self.resources.control.supervisor().life().set_phase(self.life.phase());
    }

    /// Somebody wants the node to serve.
    pub(super) fn start_asked(&mut self, peer: OwnedFd) {
        match self.life.step {
            Step::Running if self.all_serve(|_| true) => {
                self.tell(&[peer], Code::Ok, &format!("node {} serves already", self.id()));
            }
            Step::Running => {
                if self.life.waiting.is_empty() {
                    self.life.since_ns = monotonic_ns();
                }
                self.life.waiting.push(peer);
            }
            Step::Making(..) => self.life.waiting.push(peer),
            Step::Finishing | Step::Burying(_) => {
                let text = format!("node {} is being parked; ask again then", self.id());
                self.tell(&[peer], Code::NotReady, &text);
            }
            Step::Parked => match self.begin_start() {
                Ok(step) => {
                    self.life.enter(step, vec![peer]);
                    self.show_phase();
                }
                Err(problem) => self.start_failed(vec![peer], &problem),
            },
        }
    }

    fn begin_start(&mut self) -> Result<Step, String> {
        let (resolved, text, mirror) = check(&self.path).map_err(|error| error.to_string())?;
        let known = &self.resolved;
        if resolved.config.node.id != known.config.node.id || resolved.run_dir != known.run_dir {
            return Err("node: its file names another id or run_dir; start it anew".into());
        }
        if resolved.config.port.kind == PortKind::Xdp {
            // The file may have named another kind when this supervisor looked at its host.
            Host::probe().map_err(|error| error.to_string())?;
        }
        self.mirror = mirror;
        let last = self.resources.clear_places();
        let made = make_caches(&resolved, last)
            .map_err(|error| format!("no thread for its caches: {error}"))?;
        Ok(Step::Making(Box::new(resolved), text, made))
    }

    /// Somebody wants the node to give everything back.
    pub(super) fn park_asked(&mut self, peer: OwnedFd) {
        let id = self.id();
        match self.life.step {
            Step::Parked => self.tell(&[peer], Code::Ok, &format!("node {id} is parked already")),
            Step::Finishing | Step::Burying(_) => self.life.waiting.push(peer),
            Step::Making(..) => {
                let text = format!("node {id} is being started; ask again then");
                self.tell(&[peer], Code::NotReady, &text);
            }
            Step::Running if self.cache_changes.is_busy() => {
                let text = format!("a cache of node {id} comes or goes; ask again then");
                self.tell(&[peer], Code::NotReady, &text);
            }
            Step::Running => match self.remember(Begin::Parked) {
                Ok(()) => {
                    let waiting = std::mem::take(&mut self.life.waiting);
                    self.tell(&waiting, Code::Impossible, &format!("node {id} is being parked"));
                    self.begin_parking(vec![peer]);
                }
                Err(problem) => self.tell(&[peer], Code::Impossible, &problem),
            },
        }
    }

    /// Packets to the kernel, and the workers told to finish.
    pub(super) fn begin_parking(&mut self, waiting: Vec<OwnedFd>) {
        kill_point("supervisor.parks");
        let text = format!("node {} is being parked", self.id());
        self.publish(&Event::new(EventKind::Notice, (0, 0), text));
        self.end_drain();
        self.resources.control.supervisor().set_serving(false);
        self.resources.stop_steering();
        self.workers.iter_mut().for_each(Workers::drain);
        self.life.enter(Step::Finishing, waiting);
        self.show_phase();
    }

    /// Goes on with what was begun.
    pub(super) fn keep_life(&mut self) {
        let now_ns = monotonic_ns();
        let age_ns = now_ns.saturating_sub(self.life.since_ns);
        match std::mem::replace(&mut self.life.step, Step::Parked) {
            Step::Running => {
                self.life.step = Step::Running;
                if self.life.waiting.is_empty() {
                    return;
                }
                let waiting = if self.all_serve(|_| true) || age_ns > SERVE_NS {
                    std::mem::take(&mut self.life.waiting)
                } else {
                    return;
                };
                if self.all_serve(|_| true) {
                    let text = format!("node {} serves, after {}", self.id(), milliseconds(age_ns));
                    self.tell(&waiting, Code::Ok, &text);
                } else {
                    let text = "everything is open, but no worker serves; see the node's events";
                    self.tell(&waiting, Code::NotReady, text);
                }
            }
            Step::Parked => {}
            Step::Making(resolved, text, made) => match made.try_recv() {
                Err(TryRecvError::Empty) => self.life.step = Step::Making(resolved, text, made),
                Err(TryRecvError::Disconnected) => self.take_up("its caches were not made".into()),
                Ok(Err(error)) => self.take_up(error.to_string()),
                Ok(Ok(caches)) => {
                    if let Err(problem) = self.open(*resolved, text, caches) {
                        let _ = self.remember(Begin::Parked);
                        self.take_up(problem);
                    }
                }
            },
            Step::Finishing => {
                let seats = || {
                    let pairs = self.workers.iter();
                    pairs.flat_map(|pair| [&pair.active, &pair.standby]).flatten()
                };
                self.life.step = Step::Finishing;
                if seats().next().is_none() {
                    self.give_back();
                } else if age_ns > DRAIN_NS {
                    seats().for_each(Seat::kill);
                }
            }
            Step::Burying(buried) => match buried.try_recv() {
                Err(TryRecvError::Empty) => self.life.step = Step::Burying(buried),
                _ => {
                    let waiting = std::mem::take(&mut self.life.waiting);
                    self.life.enter(Step::Parked, Vec::new());
                    self.show_phase();
                    let text = format!("node {} is parked", self.id());
                    self.publish(&Event::new(EventKind::Notice, (0, 0), &text));
                    self.tell(&waiting, Code::Ok, &text);
                }
            },
        }
    }

    /// A start that came to nothing.
    fn take_up(&mut self, problem: String) {
        let waiting = std::mem::take(&mut self.life.waiting);
        self.life.enter(Step::Parked, Vec::new());
        run_on(&self.cores);
        self.show_phase();
        self.start_failed(waiting, &problem);
    }

    fn start_failed(&self, waiting: Vec<OwnedFd>, problem: &str) {
        let text = format!("node {} was not started: {problem}", self.id());
        self.publish(&Event::new(EventKind::Notice, (0, 0), &text));
        self.tell(&waiting, Code::Impossible, &text);
    }

    /// Opens everything else and has the workers started.
    fn open(
        &mut self,
        resolved: Resolved,
        node_text: String,
        caches: Vec<OpenCache>,
    ) -> Result<(), String> {
        let said = |error: &dyn std::fmt::Display| error.to_string();
        self.remember(Begin::Serving)?;
        kill_point("supervisor.starts");
        let control = self.resources.control_again().map_err(|error| said(&error))?;
        let (resources, mut notes) = Resources::open_with(control, caches, &resolved, &self.mirror)
            .map_err(|error| said(&error))?;
        notes.extend(kill_switch::restore(&resources, self.run_dir.path()));
        notes.extend(settle(&resolved));
        // On the CPUs that are left to us.
        self.reaper = Rc::new(Reaper::start().map_err(|error| said(&error))?);
        let worker = |number| {
            let generation = last_generation(&resources.control, number);
            Workers::new(number, None, generation, self.reaper.clone())
        };
        self.workers = (0..resolved.config.worker.count).map(worker).collect();
        self.resources = resources;
        self.interfaces = Interfaces::new(&resolved, &self.mirror);
        (self.resolved, self.node_text) = (resolved, node_text);
        (self.explains, self.cache_changes) = (Explains::default(), CacheChanges::default());
        self.readers.set_access(Access::of(&self.resolved, &self.resources.caches));
        for note in notes {
            self.publish(&Event::new(EventKind::Notice, (0, 0), note));
        }
        let waiting = std::mem::take(&mut self.life.waiting);
        self.life.enter(Step::Running, waiting);
        self.show();
        Ok(())
    }

    /// The workers are gone: closes all but the control region.
    fn give_back(&mut self) {
        let control = match self.resources.control_again() {
            Ok(control) => control,
            Err(error) => {
                // Tried again with the next turn of the loop.
                self.publish(&Event::new(EventKind::Notice, (0, 0), error.to_string()));
                return;
            }
        };
        std::mem::take(&mut self.capture).stop(&self.reaper);
        std::mem::take(&mut self.front).stop(&self.reaper);
        self.copy_counters();
        let mut gone = std::mem::replace(&mut self.resources, Resources::none(control));
        let caches = std::mem::take(&mut gone.caches);
        drop(gone);
        self.workers.clear();
        self.explains = Explains::default();
        run_on(&self.cores);
        self.readers.set_access(Access::of(&self.resolved, &[]));
        kill_point("supervisor.gave_back");
        let waiting = std::mem::take(&mut self.life.waiting);
        self.life.enter(Step::Burying(bury(caches)), waiting);
        self.show();
    }

    /// What is remembered when this supervisor dies.
    fn remember(&mut self, begin: Begin) -> Result<(), String> {
        let wanted = Remembered { begin: Some(begin), ..self.remembered.clone() };
        wanted.write(&self.run_dir).map_err(|error| error.to_string())?;
        self.remembered = wanted;
        Ok(())
    }

    /// Tells readers where the node is and what it has.
    pub(super) fn show(&self) {
        self.show_phase();
        publish_next_hops(&self.resolved, &self.mirror, &self.resources);
        publish_interfaces(&self.resolved, &self.mirror, &self.resources);
        publish_caches(&self.resolved, &self.mirror, &self.resources);
    }

    /// Answers those who waited.
    pub(super) fn tell(&self, waiting: &[OwnedFd], code: Code, text: &str) {
        for fd in waiting {
            self.readers.say(fd.as_fd(), code, text.into());
        }
    }

    pub(super) fn id(&self) -> String {
        self.resolved.config.node.id.clone()
    }
}
