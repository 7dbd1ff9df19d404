//! Real nodes: orders by way of their supervisors.
//!
//! | action | what is done |
//! | --- | --- |
//! | provision | the supervisor is asked for its regions: it runs, parked or serving, and is the right node; its host is what the settings order |
//! | drain | new TCP clients are refused, those that are there served to their end, at most [`DRAIN_MS`]; UDP goes on |
//! | tune | the release is swapped in place, the node file read anew, until the new programs serve; refused where the host is not what the settings order, or the port is of the other kind |
//! | warm | a parked node is started and takes no clients yet; then a worker serves, a standby stands by, the interfaces are up; it runs on the cores, and its memory lies, where the settings order it |
//! | judge | the answers of the period, from the `xdp_to_tx` histogram; where they will be too few the node measures itself for the rest of it. Meanwhile the node watches its new programs, and has to be content with them |
//! | admit | it serves as after warm, is content with what is wanted of it, and clients are let in |
//! | retire | the node is parked: only its supervisor stays |
//!
//! The host is judged by the supervisor, which reads it from the kernel (`host.rs`); nothing is changed on it. Orders are
//! given to nodes that this control has claimed (`claims.rs`).
//!
//! Each verb is fine where the node is so already, so an order that is given again changes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nautilus_host::order::Shortfall;
use nautilus_shm::attach::{Code, HOST_RELEASE};
use nautilus_shm::cells::{InterfaceState, XdpMode};
use nautilus_shm::life::NodePhase;

use super::actuator::{ActuatorError, NodeActuator, Order};
use super::claims::{ClaimError, Claims};
use super::host;
use super::plan::Action;
use super::spec::EdgeNodeSpec;
use super::tier::Measurement;
use crate::attach::{
    Attached, ReachError, attach, check_host, drain_node, exchange_node, park_node, resume_node,
    settle_node, start_node,
};
use crate::link::{HEARTBEAT_MAX_NS, silence_ns};
use crate::snapshot::Snapshot;

mod measured;

/// How long clients may stay on a node that drains. Too low: their commands are cut off; too high: a rolling
/// deployment waits that long at each node with a client that never leaves.
pub const DRAIN_MS: u32 = 10_000;

/// How long a node that has just been started or is swapped may take until it is as it should be.
const SETTLE: Duration = Duration::from_secs(10);

/// Pause between two looks at such a node.
const LOOK: Duration = Duration::from_millis(50);

/// Nodes by the run directories of their supervisors.
#[derive(Debug, Default)]
pub struct Supervisors {
    /// By node id.
    pub run_dirs: BTreeMap<String, PathBuf>,
    /// Those that are this control's.
    pub claims: Claims,
}

impl Supervisors {
    fn run_dir(&self, node_id: &str) -> Result<&Path, ActuatorError> {
        self.run_dirs.get(node_id).map(PathBuf::as_path).ok_or_else(|| {
            ActuatorError::Refused(format!("no run directory is configured for {node_id}"))
        })
    }

    /// Has the supervisor of the right node do something.
    fn tell<T>(
        &self,
        node_id: &str,
        verb: impl FnOnce(&Path) -> Result<T, ReachError>,
    ) -> Result<T, ActuatorError> {
        let _ = self.attach(node_id)?;
        let run_dir = self.run_dir(node_id)?;
        match self.claims.hold(run_dir) {
            Ok(()) => {}
            Err(ClaimError::Reach(error)) => return Err(told(error)),
            Err(error @ ClaimError::Taken(_)) => {
                return Err(ActuatorError::Refused(error.to_string()));
            }
            Err(error) => return Err(ActuatorError::NotNow(error.to_string())),
        }
        verb(run_dir).map_err(told)
    }

    /// That the host is what is ordered; a node that goes back served where it is.
    fn fits(&self, order: &Order<'_>) -> Result<(), ActuatorError> {
        if order.is_rollback {
            return Ok(());
        }
        let lacking = self.lacks(order.node_id, order.spec)?;
        if lacking.is_empty() {
            return Ok(());
        }
        Err(ActuatorError::Refused(host::in_words(order.spec, &lacking)))
    }

    fn attach(&self, node_id: &str) -> Result<Attached, ActuatorError> {
        let run_dir = self.run_dir(node_id)?;
        let attached = attach(run_dir).map_err(|error| ActuatorError::NotNow(error.to_string()))?;
        let found = attached.region.supervisor().identity().unwrap_or_default().node_id;
        if found != node_id {
            let place = run_dir.display();
            return Err(ActuatorError::Refused(format!("{place}: the node there is {found:?}")));
        }
        Ok(attached)
    }

    fn provision(&self, node_id: &str) -> Result<(), ActuatorError> {
        let attached = self.attach(node_id)?;
        let silence_ms = silence_ns(&attached.region) / 1_000_000;
        if silence_ms > HEARTBEAT_MAX_NS / 1_000_000 {
            let said = format!("{node_id}: its supervisor has been silent for {silence_ms} ms");
            return Err(ActuatorError::NotNow(said));
        }
        let supervisor = attached.region.supervisor();
        if !supervisor.is_serving() && supervisor.phase() != NodePhase::Parked {
            return Err(ActuatorError::NotNow(format!("{node_id} is still being set up")));
        }
        Ok(())
    }

    /// Gives the node its release and has it read its node file anew.
    fn tune(&self, order: &Order<'_>) -> Result<(), ActuatorError> {
        let (spec, node_id) = (order.spec, order.node_id);
        let release = spec.release.as_deref().unwrap_or(HOST_RELEASE);
        let is_other = self.release(node_id)? != spec.release.as_deref().unwrap_or("");
        // The same again has the node file read anew.
        let name = if is_other { release } else { "" };
        self.tell(node_id, |run_dir| exchange_node(run_dir, name))?;
        let snapshot = Snapshot::take(&self.attach(node_id)?.region);
        let bypasses = |mode| matches!(mode, XdpMode::Native | XdpMode::Generic);
        let wanted = |interface: &InterfaceState| {
            // A parked node has no program anywhere.
            interface.xdp_mode == XdpMode::None
                || bypasses(interface.xdp_mode) == spec.kernel_bypass
        };
        match snapshot.interfaces.iter().find(|interface| !wanted(interface)) {
            None => Ok(()),
            Some(other) => Err(ActuatorError::Refused(format!(
                "{node_id}: interface {} is {}; kernel_bypass is port.kind of the node file",
                other.name,
                other.xdp_mode.name()
            ))),
        }
    }

    /// Starts a parked node, which takes clients when it is admitted.
    fn warm(&self, order: &Order<'_>) -> Result<(), ActuatorError> {
        let node_id = order.node_id;
        let phase = self.attach(node_id)?.region.supervisor().phase();
        if phase != NodePhase::Running {
            self.tell(node_id, start_node)?;
            self.tell(node_id, |run_dir| drain_node(run_dir, 0))?;
        }
        self.settles(node_id)?;
        // Where its workers run and its memory lies shows only now.
        patiently(|| self.fits(order))
    }

    /// Waits a while until it serves as it should.
    fn settles(&self, node_id: &str) -> Result<(), ActuatorError> {
        patiently(|| self.serves(node_id))
    }

    fn admit(&self, order: &Order<'_>) -> Result<(), ActuatorError> {
        let node_id = order.node_id;
        self.settles(node_id)?;
        self.is_content(node_id)?;
        let (runs, wanted) = (self.release(node_id)?, order.spec.release.as_deref().unwrap_or(""));
        if runs != wanted {
            // It went back, and the supervisor that knew why is gone.
            let said = format!("{node_id} runs release {runs:?}, not {wanted:?}");
            return Err(ActuatorError::Refused(said));
        }
        self.tell(node_id, resume_node).map(|_| ())
    }

    /// Waits until the node has watched for long enough what it was given, and says so if it went back.
    fn is_content(&self, node_id: &str) -> Result<(), ActuatorError> {
        // A supervisor on its way back is away for a moment.
        patiently(|| self.tell(node_id, settle_node).map(|_| ()))
    }

    /// Name of the release that it runs; empty for the host's.
    fn release(&self, node_id: &str) -> Result<String, ActuatorError> {
        Ok(Snapshot::take(&self.attach(node_id)?.region).release.name)
    }

    fn drain(&self, node_id: &str) -> Result<(), ActuatorError> {
        if self.attach(node_id)?.region.supervisor().phase() == NodePhase::Parked {
            return Ok(());
        }
        self.tell(node_id, |run_dir| drain_node(run_dir, DRAIN_MS)).map(|_| ())
    }

    fn serves(&self, node_id: &str) -> Result<(), ActuatorError> {
        self.provision(node_id)?;
        let snapshot = Snapshot::take(&self.attach(node_id)?.region);
        let not_now = |what: &str| Err(ActuatorError::NotNow(format!("{node_id}: {what}")));
        match snapshot.active() {
            None => return not_now("no worker serves"),
            Some(worker) if worker.pulse.silent_ns(snapshot.now_ns) > HEARTBEAT_MAX_NS => {
                return not_now("its worker is silent");
            }
            Some(_) => {}
        }
        if !snapshot.has_standby() {
            return not_now("no standby is running: a death would be a cold start");
        }
        match snapshot.interfaces.iter().find(|interface| !interface.up) {
            Some(down) => not_now(&format!("interface {} is down", down.name)),
            None => Ok(()),
        }
    }
}

fn told(error: ReachError) -> ActuatorError {
    match error {
        ReachError::Refused { code: Code::Impossible | Code::Refused, .. } => {
            ActuatorError::Refused(error.to_string())
        }
        other => ActuatorError::NotNow(other.to_string()),
    }
}

/// Tries until it is done, refused, or has taken too long.
fn patiently(act: impl Fn() -> Result<(), ActuatorError>) -> Result<(), ActuatorError> {
    let begun = Instant::now();
    loop {
        match act() {
            Err(error) if error.is_worth_a_try() && begun.elapsed() < SETTLE => {
                std::thread::sleep(LOOK);
            }
            other => return other,
        }
    }
}

impl NodeActuator for Supervisors {
    fn perform(&self, order: &Order<'_>) -> Result<(), ActuatorError> {
        let node_id = order.node_id;
        match order.action {
            Action::Provision => self.provision(node_id).and_then(|()| self.fits(order)),
            Action::Warm => self.warm(order),
            Action::Judge => self.settles(node_id),
            Action::Admit => self.admit(order),
            // Its supervisor may have died of it, and is started again.
            Action::Tune => {
                patiently(|| self.fits(order)).and_then(|()| patiently(|| self.tune(order)))
            }
            Action::Drain => self.drain(node_id),
            Action::Retire => self.tell(node_id, park_node).map(|_| ()),
        }
    }

    fn lacks(&self, node_id: &str, spec: &EdgeNodeSpec) -> Result<Vec<Shortfall>, ActuatorError> {
        let _ = self.attach(node_id)?;
        match check_host(self.run_dir(node_id)?, &host::order(spec)) {
            // An older release judges nothing. What is ordered by name is then not known to be so.
            Err(ReachError::Refused { code: Code::BadRequest, .. }) if host::names_host(spec) => {
                let why = "its supervisor is of a release that cannot judge its host: upgrade it";
                Err(ActuatorError::Refused(format!("{node_id}: {why}")))
            }
            Err(ReachError::Refused { code: Code::BadRequest, .. }) => Ok(Vec::new()),
            other => other.map_err(told),
        }
    }

    fn measure(&self, node_id: &str, period: Duration) -> Result<Measurement, ActuatorError> {
        let measured = self.measured(node_id, period);
        // What was measured of a node that went back says nothing about what it was given.
        self.is_content(node_id)?;
        measured
    }
}
