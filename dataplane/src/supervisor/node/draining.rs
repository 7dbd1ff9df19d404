//! The verbs `drain` and `resume`: clients are led away from a node that goes on serving.
//!
//! ```text
//!   drain    moment written into the control region -> the front closes its listeners, serves on who is there
//!                                  -> nobody is left, or the moment has come: the rest is closed -> answered
//!   resume   moment taken back -> listeners listen -> answered
//! ```
//!
//! UDP has no clients to lead away: it is answered on, by XDP and by the worker. The moment stands in the
//! control region, so it outlives the supervisor and the front.

use std::os::fd::OwnedFd;

use nautilus_shm::attach::{Code, DRAIN_MS_MAX};
use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::control_region::FRONT_PROCESS;
use nautilus_shm::event_log::EventKind;
use nautilus_shm::life::NodePhase;
use nautilus_shm::metrics::table as metrics;

use super::Node;
use crate::supervisor::journal::{Event, milliseconds};

/// After this long a front that cannot be told has seen the moment: it looks ten times a second.
const SEEN_NS: u64 = 250_000_000;

/// How long after the moment connections may be left before the front is replaced.
const PATIENCE_NS: u64 = 1_500_000_000;

/// Who waits until the last client is gone.
#[derive(Debug, Default)]
pub(super) struct Draining {
    waiting: Vec<OwnedFd>,
    since_ns: u64,
    /// The front was told; it answers when the clients that are left have been counted.
    look: Option<u64>,
}

impl Node {
    /// Somebody wants clients to be led away.
    pub(super) fn drain_asked(&mut self, within_ms: u32, peer: OwnedFd) {
        let id = self.id();
        if within_ms > DRAIN_MS_MAX {
            let text = format!("a node is drained within 0..={DRAIN_MS_MAX} ms, not {within_ms}");
            return self.tell(&[peer], Code::Impossible, &text);
        }
        if self.life.phase() != NodePhase::Running {
            let text = format!("node {id} is {}: it has no clients", self.life.phase().name());
            return self.tell(&[peer], Code::Impossible, &text);
        }
        let now_ns = monotonic_ns();
        let life = self.resources.control.supervisor().life();
        let known_ns = life.drain_until_ns();
        let until_ns = now_ns + u64::from(within_ms) * 1_000_000;
        if known_ns == 0 || self.draining.since_ns == 0 {
            // One that drained under the supervisor before has done so for as long as we are here.
            self.draining.since_ns = if known_ns == 0 { now_ns } else { self.started_ns };
        }
        if known_ns == 0 {
            let text = format!(
                "node {id} drains: no new TCP connection, those that are left are closed in {} ms",
                within_ms
            );
            self.publish(&Event::new(EventKind::Notice, (within_ms.into(), 0), text));
        }
        // A later request moves the moment, which is never 0.
        life.set_drain_until(until_ns.max(1));
        self.draining.look = self.front.look();
        self.draining.waiting.push(peer);
    }

    /// Somebody wants clients to be let in again.
    pub(super) fn resume_asked(&mut self, peer: OwnedFd) {
        let id = self.id();
        if self.life.phase() != NodePhase::Running {
            let text = format!("node {id} is {}: start it", self.life.phase().name());
            return self.tell(&[peer], Code::Impossible, &text);
        }
        let drained = self.resources.control.supervisor().life().drain_until_ns() > 0;
        self.end_drain();
        for cache in &self.resources.caches {
            if let Err(error) = cache.sockets.listen() {
                let text = format!("cache {}: {error}", cache.opened.section.id);
                return self.tell(&[peer], Code::Impossible, &text);
            }
        }
        // Who connects from now on is taken at once.
        let _ = self.front.look();
        let text = if drained { "takes clients again" } else { "takes clients already" };
        let text = format!("node {id} {text}");
        if drained {
            self.publish(&Event::new(EventKind::Notice, (0, 0), &text));
        }
        self.tell(&[peer], Code::Ok, &text);
    }

    /// No longer draining; those who wait are told.
    pub(super) fn end_drain(&mut self) {
        self.resources.control.supervisor().life().set_drain_until(0);
        let waiting = std::mem::take(&mut self.draining.waiting);
        self.tell(&waiting, Code::NotReady, "the node drains no longer");
    }

    /// Tells those who wait when the last client is gone.
    pub(super) fn keep_draining(&mut self) {
        let until_ns = self.resources.control.supervisor().life().drain_until_ns();
        if until_ns == 0 || self.draining.waiting.is_empty() {
            return;
        }
        let now_ns = monotonic_ns();
        let has_front = self.front.seat().is_some();
        let has_looked = self.draining.look.is_some_and(|look| self.front.has_looked(look));
        if has_front && !has_looked && now_ns.saturating_sub(self.draining.since_ns) < SEEN_NS {
            return;
        }
        let bank = self.resources.control.snapshot(FRONT_PROCESS);
        let left = if has_front { bank.gauge(metrics::FRONT_CONNECTIONS) } else { 0 };
        if left > 0 {
            if now_ns > until_ns + PATIENCE_NS {
                let text = format!("the front is replaced: it still has {left} connections");
                self.publish(&Event::new(EventKind::Notice, (left, 0), text));
                self.front.replace();
            }
            return;
        }
        let took = milliseconds(now_ns.saturating_sub(self.draining.since_ns));
        let text = format!("node {} is drained, after {took}", self.id());
        self.publish(&Event::new(EventKind::Notice, (0, 0), &text));
        let waiting = std::mem::take(&mut self.draining.waiting);
        self.tell(&waiting, Code::Ok, &text);
    }
}
