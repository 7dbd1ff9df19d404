//! Stages of the host doctor, carried out for whoever may ask, and undone.
//!
//! ```text
//!   control: host-apply {tier, stages, digest 0} --> plan, its digest      nothing is changed
//!            host-apply {the same, digest}       --> plan again: the same digest? --> applied, journalled
//!            host-restore                        --> last change first, byte for byte
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
use nautilus_host::plan::Plan;
use nautilus_host::state::State;
use nautilus_host::survey::Survey;
use nautilus_host::tier::Tier;
use nautilus_shm::attach::{Code, HostAnswer, HostRequest, Verb};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::attach::{Answer, Readers, Reply};
use crate::config::{HostSettings, Resolved};

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
    request: HostRequest,
    stages: Vec<Stage>,
    tier: Tier,
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
        let interfaces = resolved.config.interface.iter().map(|wanted| wanted.name.clone());
        let choice = Choice {
            interfaces: interfaces.collect(),
            workers: Some(resolved.cores.iter().copied().collect()),
        };
        let task = Task { settings, choice, request: *request, stages, tier };
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
    fn run(&self) -> Result<Done, String> {
        let root = &self.settings.root;
        let (machine, name) = if root == Path::new("/") {
            (Machine::running(), "/".to_owned())
        } else {
            let whole = root.canonicalize().map_err(|error| format!("host.root: {error}"))?;
            (Machine::recorded(root), whole.display().to_string())
        };
        match self.request.verb {
            Verb::HostApply => self.apply(&machine, &name),
            _ => self.restore(&machine, &name),
        }
    }

    fn apply(&self, machine: &Machine, root: &str) -> Result<Done, String> {
        let mut plan = Plan::of(&Survey::of(machine, &self.choice), machine, self.tier);
        plan.keep(&self.stages);
        let (digest, left) = (plan.digest(), plan.left.len() as u32);
        if self.request.digest == 0 {
            let answer = HostAnswer { digest, changes: plan.steps.len() as u32, left };
            return Ok(Done { answer, text: plan.to_text(self.tier), event: None });
        }
        if self.request.digest != digest {
            return Err(
                "the host is not as it was when the plan was shown; look at it again".into()
            );
        }
        let mut state = self.state(machine, root)?;
        let force = self.request.force;
        let results = apply::init(machine, &mut state, &plan, force, &mut |_| {});
        let results = results.map_err(|error| error.to_string())?;
        forget_if_settled(state)?;
        Ok(done(&results, "changed"))
    }

    fn restore(&self, machine: &Machine, root: &str) -> Result<Done, String> {
        let mut state = self.state(machine, root)?;
        let results = apply::fini(machine, &mut state, self.request.force, &mut |_| {});
        let results = results.map_err(|error| error.to_string())?;
        forget_if_settled(state)?;
        Ok(done(&results, "as before"))
    }

    fn state(&self, machine: &Machine, root: &str) -> Result<State, String> {
        let opened = State::of_machine(machine, &self.settings.state, root);
        opened.map(|(state, _)| state).map_err(|error| error.to_string())
    }
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
