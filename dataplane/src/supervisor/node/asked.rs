//! What is asked at `supervisor.sock`, and the changes of the caches that come of it.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use nautilus_shm::attach::{Ask, Code};
use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::event_log::EventKind;
use nautilus_shm::kill_switch::KillSwitchState;
use nautilus_shm::metrics::table as metrics;
use nix::sys::socket::{getsockopt, sockopt};

use nautilus_shm::life::NodePhase;

use super::Node;
use super::swap::Until;
use crate::config::Resolved;
use crate::supervisor::attach::{
    Access, Answer, Outcome, Reply, attach_answer, cache_answer, connect_answer, hits_answer,
    memory_of,
};
use crate::supervisor::journal::{Event, publish};
use crate::supervisor::kill_switch;
use crate::supervisor::publish::{front_status, status};
use crate::supervisor::resources::Resources;

/// What is asked of the node as a whole.
enum OfNode {
    Start,
    Park,
    Drain(u32),
    Resume,
    Swap(String, Until),
    Settle,
    Probe(u32),
}

impl Node {
    /// Answers what a reader has asked.
    pub(super) fn answer(&mut self, index: usize) {
        let (resolved, resources) = (&self.resolved, &self.resources);
        let status = status((resolved, &self.mirror, resources), &self.workers, self.started_ns);
        let status = front_status(status, &self.front);
        let (caches, changes) = (resources.caches.as_slice(), &mut self.cache_changes);
        let (explains, workers) = (&mut self.explains, &self.workers);
        let run_dir = self.run_dir.path();
        let (host_changes, claim) = (&mut self.host_changes, &self.run_dir);
        let (phase, swaps) = (self.life.phase(), !self.swap.is_idle());
        let drains = resources.control.supervisor().life().drain_until_ns() > 0;
        let mut of_node: Option<(OfNode, OwnedFd)> = None;
        let outcome = self.readers.answer(index, |ask, peer| {
            let mut later = |what| -> io::Result<Reply> {
                of_node = Some((what, peer.try_clone_to_owned()?));
                Ok(Reply::Later)
            };
            match ask {
                Ask::Attach => {
                    attach_answer(resources.control.reopen_read_only(), caches).map(Reply::Give)
                }
                Ask::Status => {
                    Ok(Reply::Give(Answer { payload: status.into_bytes(), fds: Vec::new() }))
                }
                Ask::Cache(name) => cache_answer(name, memory_of(name, caches)).map(Reply::Give),
                Ask::Hits(name) => hits_answer(name, memory_of(name, caches)).map(Reply::Give),
                Ask::Start => later(OfNode::Start),
                Ask::Park => later(OfNode::Park),
                Ask::Drain(within_ms) => later(OfNode::Drain(*within_ms)),
                Ask::Resume => later(OfNode::Resume),
                Ask::Host(request) => host_changes.ask(request, resolved, peer),
                Ask::HostCheck(order) => {
                    let serving = workers.iter().filter_map(|one| Some(one.active.as_ref()?.pid));
                    host_changes.check(order, serving.collect(), resolved, peer)
                }
                Ask::Claim => {
                    let fds = vec![claim.claim()?];
                    Ok(Reply::Give(Answer { payload: Vec::new(), fds }))
                }
                Ask::Swap(release) => later(OfNode::Swap((*release).into(), Until::Settled)),
                Ask::Exchange(release) => later(OfNode::Swap((*release).into(), Until::Exchanged)),
                Ask::Settle => later(OfNode::Settle),
                Ask::Probe(period_ms) => later(OfNode::Probe(*period_ms)),
                Ask::Explain(_) | Ask::Create(_) | Ask::Remove(_)
                    if phase != NodePhase::Running || swaps =>
                {
                    let doing = if swaps { "being swapped" } else { phase.name() };
                    let text = format!("the node is {doing}");
                    Ok(Reply::Say(Code::Impossible, text))
                }
                Ask::Explain(request) => explains
                    .answer(request, (resolved, resources), workers, monotonic_ns())
                    .map(Reply::Give),
                Ask::Connect(_) if drains => {
                    let text = "the node drains: it takes no clients".into();
                    Ok(Reply::Say(Code::Impossible, text))
                }
                Ask::Connect(name) => connect_answer(name, caches),
                Ask::Create(section) => changes.create(section, (resolved, resources), peer),
                Ask::Remove(name) => changes.remove(name, (resolved, resources), peer),
                Ask::Halt(reason) => {
                    turn_kill_switch((true, reason), (run_dir, resolved, resources), peer)
                }
                Ask::Release(reason) => {
                    turn_kill_switch((false, reason), (run_dir, resolved, resources), peer)
                }
            }
        });
        match of_node {
            Some((OfNode::Start | OfNode::Park, peer)) if !self.swap.is_idle() => {
                let text = "a swap is under way; ask again then";
                self.tell(&[peer], Code::NotReady, text);
            }
            Some((OfNode::Start, peer)) => self.start_asked(peer),
            Some((OfNode::Park, peer)) => self.park_asked(peer),
            Some((OfNode::Drain(within_ms), peer)) => self.drain_asked(within_ms, peer),
            Some((OfNode::Resume, peer)) => self.resume_asked(peer),
            Some((OfNode::Swap(release, until), peer)) => self.swap_asked(&release, until, peer),
            Some((OfNode::Settle, peer)) => self.settle_asked(peer),
            Some((OfNode::Probe(period_ms), peer)) => self.probe_asked(period_ms, peer),
            None => {}
        }
        match outcome {
            Outcome::Attached(_) => self.count(metrics::ATTACHES),
            Outcome::Refused { uid, list } => {
                self.count(metrics::ATTACHES_REFUSED);
                let text = format!("uid {uid} may not attach ({list})");
                self.publish(&Event::new(EventKind::Refused, (uid.into(), 0), text));
            }
            Outcome::Told | Outcome::Closed => {}
        }
    }

    /// Answers what was changed on the host.
    pub(super) fn keep_host_changes(&mut self) {
        if let Some(text) = self.host_changes.keep(&self.readers) {
            self.publish(&Event::new(EventKind::Notice, (0, 0), text));
        }
    }

    /// Goes on with the creation or removal of a cache.
    pub(super) fn change_caches(&mut self) {
        let mut changes = std::mem::take(&mut self.cache_changes);
        let mirror = std::mem::take(&mut self.mirror);
        let (workers, front, _, mut context) = self.split();
        let told = changes.keep(&mut context, workers, front, &mirror);
        (self.cache_changes, self.mirror) = (changes, mirror);
        if let Some(told) = told {
            self.readers.set_access(Access::of(&self.resolved, &self.resources.caches));
            told.say(&self.readers);
        }
    }
}

/// Turns the kill switch on or off for the reason given, as whoever `peer` is.
fn turn_kill_switch(
    (is_on, reason): (bool, &str),
    (run_dir, resolved, resources): (&Path, &Resolved, &Resources),
    peer: BorrowedFd<'_>,
) -> io::Result<Reply> {
    let uid = getsockopt(&peer, sockopt::PeerCredentials)?.uid();
    let state = KillSwitchState { is_on, since_ns: 0, uid, reason: reason.to_owned() };
    match kill_switch::turn(resources, run_dir, state) {
        Ok((event, text)) => {
            if let Some(event) = event {
                publish(&resolved.config.node.id, &resources.control, &event);
            }
            Ok(Reply::Say(Code::Ok, text))
        }
        Err(error) => {
            let text = format!("the kill switch is on, but not all of this is done: {error}");
            let event = Event::new(EventKind::Notice, (uid.into(), 0), text.clone());
            publish(&resolved.config.node.id, &resources.control, &event);
            Ok(Reply::Say(Code::Impossible, text))
        }
    }
}
