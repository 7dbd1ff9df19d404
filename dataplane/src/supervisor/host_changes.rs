//! Stages of the host doctor, carried out for whoever may ask, and undone; and what the host lacks of an order.
//!
//! ```text
//!   control: host-apply {tier, stages, digest 0} --> plan, its digest      nothing is changed
//!            host-apply {the same, digest}       --> plan again: the same digest? --> applied, journalled
//!            host-restore                        --> last change first, byte for byte
//!            host-check   {what a node orders}   --> what the host lacks of it      nothing is changed
//! ```
//!
//! Only numbers of closed lists arrive. What they stand for, the values and where these are written is
//! `nautilus-host`, which `nautilus host init` of an operator uses too; interfaces and cores are those of the
//! node file. The work is done on a thread of its own, under the normal scheduler: a driver that is given other
//! rings takes its time. Writer of the state file: that thread, while it holds the file's lock.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use nautilus_host::apply;
use nautilus_host::facts::Choice;
use nautilus_host::knob::{Stage, TIERS, name_of};
use nautilus_host::machine::Machine;
use nautilus_host::order::{self, Node, Order, Worker, lacking, memory_by_node};
use nautilus_host::plan::Plan;
use nautilus_host::state::State;
use nautilus_host::survey::Survey;
use nautilus_host::tier::Tier;
use nautilus_host::value::{Cores, core_list};
use nautilus_shm::attach::{Code, HostAnswer, HostOrder, HostRequest, Verb};
use nix::sched::CpuSet;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::attach::{Answer, Readers, Reply};
use super::host::{allowed_cores, run_on};
use crate::config::{HostSettings, PortKind, Resolved};

/// What came of a request.
#[derive(Debug)]
struct Done {
    answer: HostAnswer,
    /// For an operator.
    text: String,
    /// For the event log; nothing where nothing was changed.
    event: Option<String>,
}

#[derive(Debug)]
struct Work {
    peer: OwnedFd,
    done: Receiver<Result<Done, String>>,
}

/// What is being changed; one thing at a time.
#[derive(Debug, Default)]
pub struct HostChanges {
    work: Option<Work>,
}

/// What a thread needs to know of the node.
struct Task {
    settings: HostSettings,
    choice: Choice,
    what: What,
}

/// What a thread is to do.
enum What {
    Change { request: HostRequest, stages: Vec<Stage>, tier: Tier },
    Check { order: Order, bypasses: bool, workers: Vec<u32> },
}

impl HostChanges {
    /// Begins what was asked; `peer` is answered by [`Self::keep`].
    pub fn ask(
        &mut self,
        request: &HostRequest,
        resolved: &Resolved,
        peer: BorrowedFd<'_>,
    ) -> io::Result<Reply> {
        let impossible = |why: String| Ok(Reply::Say(Code::Impossible, why));
        if self.work.is_some() {
            return impossible("another stage of the host is at work; ask again".into());
        }
        let settings = resolved.config.host.clone();
        let stages = Stage::of_bits(request.stages);
        let refused: Vec<String> = stages
            .iter()
            .filter(|stage| !settings.approved().contains(stage))
            .map(name_of)
            .collect();
        if !refused.is_empty() {
            let why = "not among host.stages of the node file";
            return impossible(format!("{}: {why}", refused.join(", ")));
        }
        let Some(tier) = TIERS.get(request.tier as usize).copied() else {
            return impossible("there is no such tier".into());
        };
        self.begin(Task::of(resolved, What::Change { request: *request, stages, tier }), peer)
    }

    /// Begins to look for what an order lacks; `workers` are the processes that serve.
    pub fn check(
        &mut self,
        order: &HostOrder,
        workers: Vec<u32>,
        resolved: &Resolved,
        peer: BorrowedFd<'_>,
    ) -> io::Result<Reply> {
        if self.work.is_some() {
            return Ok(Reply::Say(Code::NotReady, "the host is being looked at; ask again".into()));
        }
        let Some(tier) = TIERS.get(order.tier as usize).copied() else {
            return Ok(Reply::Say(Code::Impossible, "there is no such tier".into()));
        };
        let order = Order {
            tier,
            kernel_bypass: order.kernel_bypass,
            cpu_isolation: order.cpu_isolation,
            numa_optimization: order.numa_optimization,
            cpu_cores: order.cpu_cores,
            memory_gb: order.memory_gb,
        };
        let bypasses = resolved.config.port.kind == PortKind::Xdp;
        self.begin(Task::of(resolved, What::Check { order, bypasses, workers }), peer)
    }

    fn begin(&mut self, task: Task, peer: BorrowedFd<'_>) -> io::Result<Reply> {
        let (say, done) = channel();
        std::thread::Builder::new().name("host-stage".into()).spawn(move || {
            // Nobody waits any more when the node has stopped.
            let _ = say.send(task.run());
        })?;
        self.work = Some(Work { peer: peer.try_clone_to_owned()?, done });
        Ok(Reply::Later)
    }

    /// Answers what is done; what was changed is returned, for the event log.
    pub fn keep(&mut self, readers: &Readers) -> Option<String> {
        let work = self.work.take()?;
        let done = match work.done.try_recv() {
            Ok(done) => done,
            Err(TryRecvError::Empty) => {
                self.work = Some(work);
                return None;
            }
            Err(TryRecvError::Disconnected) => Err("its thread panicked".into()),
        };
        match done.and_then(|done| Ok((text_fd(&done.text)?, done))) {
            Ok((text, done)) => {
                let payload = done.answer.encode().to_vec();
                readers.give(work.peer.as_fd(), &Answer { payload, fds: vec![text] });
                done.event
            }
            Err(why) => {
                readers.say(work.peer.as_fd(), Code::Impossible, why);
                None
            }
        }
    }
}

impl Task {
    fn of(resolved: &Resolved, what: What) -> Self {
        let interfaces = resolved.config.interface.iter().map(|wanted| wanted.name.clone());
        let choice = Choice {
            interfaces: interfaces.collect(),
            workers: Some(resolved.cores.iter().copied().collect()),
            allowed: None,
        };
        Self { settings: resolved.config.host.clone(), choice, what }
    }

    fn run(mut self) -> Result<Done, String> {
        let root = self.settings.root.clone();
        let (machine, name) = if root == Path::new("/") {
            self.choice.allowed = Some(pinnable());
            (Machine::running(), "/".to_owned())
        } else {
            let whole = root.canonicalize().map_err(|error| format!("host.root: {error}"))?;
            (Machine::recorded(&root), whole.display().to_string())
        };
        match &self.what {
            What::Change { request, stages, tier } if request.verb == Verb::HostApply => {
                self.apply(&machine, &name, (request, stages, *tier))
            }
            What::Change { request, .. } => self.restore(&machine, &name, request.force),
            What::Check { order, bypasses, workers } => {
                let workers = workers.iter().map(|pid| worker(*pid)).collect();
                let node = Node { bypasses: *bypasses, workers };
                self.judge(&machine, order, &node)
            }
        }
    }

    fn judge(&self, machine: &Machine, order: &Order, node: &Node) -> Result<Done, String> {
        let lacking = lacking(order, &Survey::of(machine, &self.choice), machine, node);
        let changes = lacking.iter().filter(|one| one.by_init).count() as u32;
        let answer = HostAnswer { digest: 0, changes, left: lacking.len() as u32 };
        let text = order::to_text(&lacking);
        Ok(Done { answer, text, event: None })
    }

    fn apply(
        &self,
        machine: &Machine,
        root: &str,
        (request, stages, tier): (&HostRequest, &[Stage], Tier),
    ) -> Result<Done, String> {
        let mut plan = Plan::of(&Survey::of(machine, &self.choice), machine, tier);
        plan.keep(stages);
        let (digest, left) = (plan.digest(), plan.left.len() as u32);
        if request.digest == 0 {
            let answer = HostAnswer { digest, changes: plan.steps.len() as u32, left };
            return Ok(Done { answer, text: plan.to_text(tier), event: None });
        }
        if request.digest != digest {
            return Err(
                "the host is not as it was when the plan was shown; look at it again".into()
            );
        }
        let mut state = self.state(machine, root)?;
        let results = apply::init(machine, &mut state, &plan, request.force, &mut |_| {});
        let results = results.map_err(|error| error.to_string())?;
        forget_if_settled(state)?;
        Ok(done(&results, "changed"))
    }

    fn restore(&self, machine: &Machine, root: &str, force: bool) -> Result<Done, String> {
        let mut state = self.state(machine, root)?;
        let results = apply::fini(machine, &mut state, force, &mut |_| {});
        let results = results.map_err(|error| error.to_string())?;
        forget_if_settled(state)?;
        Ok(done(&results, "as before"))
    }

    fn state(&self, machine: &Machine, root: &str) -> Result<State, String> {
        let opened = State::of_machine(machine, &self.settings.state, root);
        opened.map(|(state, _)| state).map_err(|error| error.to_string())
    }
}

/// Cores that the kernel lets a worker be pinned to. The supervisor keeps off the workers' cores itself, so the
/// calling thread, which ends soon, asks for every one and looks at what it got.
fn pinnable() -> Cores {
    run_on(&(0..CpuSet::count() as u32).collect::<Vec<_>>());
    allowed_cores().into_iter().collect()
}

/// A worker as the kernel has it.
fn worker(pid: u32) -> Worker {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))
    };
    let cores = read("status").and_then(|text| {
        let list = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        core_list(list.unwrap_or_default().trim())
    });
    Worker { pid, cores, memory: read("numa_maps").map(|text| memory_by_node(&text)) }
}

fn forget_if_settled(state: State) -> Result<(), String> {
    if state.standing().is_empty() {
        state.remove().map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn done(results: &[apply::Result], word: &str) -> Done {
    let (text, left) = apply::told(results, word);
    let (changes, left) = ((results.len() - left) as u32, left as u32);
    let event = format!("settings of the host: {changes} {word}, {left} left");
    Done { answer: HostAnswer { digest: 0, changes, left }, text, event: Some(event) }
}

/// A text that is longer than a packet, read-only.
fn text_fd(text: &str) -> Result<OwnedFd, String> {
    let failed = |error: io::Error| format!("no memory for the answer: {error}");
    let memory = memfd_create("nautilus-host", MFdFlags::MFD_CLOEXEC)
        .map_err(|errno| failed(errno.into()))?;
    let mut file = std::fs::File::from(memory);
    file.write_all(text.as_bytes()).map_err(failed)?;
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    std::fs::File::open(path).map(OwnedFd::from).map_err(failed)
}
