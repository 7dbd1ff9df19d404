//! Who asks for a swap, and how one went; whether it can be.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc::channel;

use nautilus_shm::attach::Code;
use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::life::NodePhase;

use super::{Node, Step, Until, named};
use crate::config::change_in_place;
use crate::supervisor::host::run_on;
use crate::supervisor::node::check;
use crate::supervisor::releases::{ReleaseError, contract, described_contract, find, known_name};

/// What is said of a key that a running node cannot follow.
const CANNOT_CHANGE: &str = "cannot change while the node runs; park the node and start it";

impl Node {
    /// Somebody wants another release, or the node file read anew.
    pub(in crate::supervisor::node) fn swap_asked(
        &mut self,
        name: &str,
        until: Until,
        peer: OwnedFd,
    ) {
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
                self.swap.wait(until, peer);
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
                self.swap.failure = None;
                // The supervisor that a parked node is given may know less than this one.
                let until = if self.is_running() { until } else { Until::Settled };
                self.swap.wait(until, peer);
            }
            Ok(None) => {
                self.swap.failure = None;
                let text = format!("node {} runs {} already", self.id(), named(wanted.as_deref()));
                self.tell(&[peer], Code::Ok, &text);
            }
            Err((code, problem)) => self.tell(&[peer], code, &problem),
        }
    }

    /// Somebody wants to know how the last swap went.
    pub(in crate::supervisor::node) fn settle_asked(&mut self, peer: OwnedFd) {
        if !self.swap.is_idle() {
            return self.swap.wait(Until::Settled, peer);
        }
        match self.swap.failure.clone() {
            Some(text) => self.tell(&[peer], Code::Impossible, &text),
            None => {
                let release = named(self.remembered.release.as_deref());
                self.tell(&[peer], Code::Ok, &format!("node {} runs {release}", self.id()));
            }
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

    pub(super) fn host_program(&self) -> Result<PathBuf, String> {
        match &self.remembered.host_program {
            Some(program) => Ok(program.clone()),
            None => std::env::current_exe().map_err(|error| error.to_string()),
        }
    }

    /// The supervisor of a release that has run.
    pub(super) fn supervisor_of(&self, release: Option<&str>) -> Result<PathBuf, String> {
        match release {
            None => self.host_program(),
            Some(name) => {
                let releases = self.resolved.config.supervisor.releases.as_deref();
                find(releases, name).map_err(|error| error.to_string())
            }
        }
    }
}
