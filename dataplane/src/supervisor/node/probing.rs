//! The verb `probe`: the node is asked by packets of its own and its answers are timed, from the receive stamp in
//! XDP to the transmit ring.
//!
//! ```text
//!   drained?  -> second instance loaded (thread) -> sockets out of the running program: what comes from outside
//!                goes to the kernel, and the front answers it -> 1,500 requests -> sockets back -> answered
//! ```
//!
//! Only a node that drains is probed, one that is not admitted yet: requests from outside take the slower way
//! meanwhile ([`nautilus_ebpf::Prober`] says why they must). Where something would be lost it is refused.

use std::os::fd::{AsFd, OwnedFd};

use nautilus_shm::attach::{Code, PROBE_MS_MAX, Probed};
use nautilus_shm::control_region::HistogramId;
use nautilus_shm::histogram::HistogramSnapshot;
use nautilus_shm::metrics::table as metrics;

use super::Node;
use crate::config::PortKind;
use crate::supervisor::attach::Answer;
use crate::supervisor::journal::say;
use crate::supervisor::probe::{Asking, Said, probes};

/// A probe that is under way.
#[derive(Debug)]
pub(super) struct Probing {
    asking: Asking,
    before: Option<HistogramSnapshot>,
    waiting: OwnedFd,
}

impl Node {
    /// Somebody wants the node to measure itself.
    pub(super) fn probe_asked(&mut self, period_ms: u32, peer: OwnedFd) {
        if self.probing.is_some() {
            let text = "the node is being probed; ask again then";
            return self.tell(&[peer], Code::NotReady, text);
        }
        if !self.is_running() || !self.all_serve(|_| true) {
            return self.tell(&[peer], Code::NotReady, "the node does not serve");
        }
        match self.begin_probing(period_ms) {
            Ok(asking) => {
                self.probing = Some(Probing { asking, before: None, waiting: peer });
            }
            Err(problem) => {
                let text = format!("node {} cannot be probed: {problem}", self.id());
                self.tell(&[peer], Code::Impossible, &text);
            }
        }
    }

    fn begin_probing(&self, period_ms: u32) -> Result<Asking, String> {
        let config = &self.resolved.config;
        if !(1..=PROBE_MS_MAX).contains(&period_ms) {
            return Err(format!("1..={PROBE_MS_MAX} ms are possible, not {period_ms}"));
        }
        let Some(steering) = &self.resources.steering else {
            return Err("port.kind is \"socket\": no program steers its packets".into());
        };
        debug_assert!(config.port.kind == PortKind::Xdp);
        if config.port.zero_copy {
            return Err("with port.zero_copy only the driver fills the sockets".into());
        }
        if self.resources.control.supervisor().life().drain_until_ns() == 0 {
            return Err(
                "it takes clients, who would be answered more slowly; drain it first".into()
            );
        }
        if !config.cache.is_empty() && !config.has_front() {
            return Err("it has no front to answer its clients meanwhile".into());
        }
        let heard = self.workers.iter().filter_map(|workers| workers.active.as_ref()).any(|seat| {
            let bank = self.resources.control.snapshot(seat.index as usize);
            bank.gauge(metrics::FEED_CHANNELS) > 0
        });
        if heard {
            return Err("a feed is heard, which would lose what comes meanwhile".into());
        }
        let with = probes(&self.resolved, &self.mirror, &self.resources)?;
        let live = steering.try_clone().map_err(|error| error.to_string())?;
        Asking::start(live, self.resolved.chunk_bytes, with, period_ms)
            .map_err(|error| format!("no thread: {error}"))
    }

    /// Goes on with a probe.
    pub(super) fn keep_probing(&mut self) {
        let Some(probing) = &mut self.probing else { return };
        let Some(said) = probing.asking.heard() else { return };
        match said {
            Ok(Said::Loaded) => {
                self.resources.stop_steering();
                let before = self.answer_times();
                if let Some(probing) = &mut self.probing {
                    probing.before = Some(before);
                    probing.asking.go();
                }
            }
            Ok(Said::Asked(count)) => {
                let times = self.answer_times();
                let Some(Probing { before, waiting, .. }) = self.end_probing() else { return };
                let taken = times.since(&before.unwrap_or_default());
                let probed = Probed {
                    samples: taken.count(),
                    p50_ns: taken.quantile(0.5),
                    p99_ns: taken.quantile(0.99),
                    p999_ns: taken.quantile(0.999),
                };
                let text = format!("probed: {} of {count} answers, {probed:?}", probed.samples);
                say(&self.id(), &text);
                let answer = Answer { payload: probed.encode().to_vec(), fds: Vec::new() };
                self.readers.give(waiting.as_fd(), &answer);
            }
            Err(problem) => {
                let Some(Probing { waiting, .. }) = self.end_probing() else { return };
                let text = format!("node {} cannot be probed: {problem}", self.id());
                self.tell(&[waiting], Code::Impossible, &text);
            }
        }
    }

    /// Packets from outside go to the workers again.
    fn end_probing(&mut self) -> Option<Probing> {
        if self.is_running()
            && let Err(error) = self.resources.steer()
        {
            say(&self.id(), &error.to_string());
        }
        self.probing.take()
    }

    /// How long answers took, of all workers together.
    fn answer_times(&self) -> HistogramSnapshot {
        let mut all = HistogramSnapshot::default();
        for seat in self.workers.iter().filter_map(|workers| workers.active.as_ref()) {
            let of = self.resources.control.histogram(seat.index as usize, HistogramId::XdpToTx);
            all.merge(&of.snapshot());
        }
        all
    }
}
