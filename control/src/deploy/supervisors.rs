//! Real nodes: orders by way of their supervisors, as far as these have verbs for it.
//!
//! | action | what is done |
//! | --- | --- |
//! | provision | the supervisor is asked for its regions: it runs, is the right node, has been set up |
//! | warm | a worker serves, a standby stands by, the interfaces are up |
//! | judge | the answers of the period, from the `xdp_to_tx` histogram: 0 samples where nobody asks |
//! | admit | the same as warm: a node lets clients in by serving |
//! | tune | what the node runs with is compared; refused where the settings ask for isolation, NUMA or a release: no verb applies them |
//! | drain, retire | refused: no verb leads clients away or stops a node |
//!
//! So new nodes of a lab, which ask nothing of their hosts, can be deployed and judged. Everything else is
//! refused with the verb that is missing, and turned back; it is never passed over.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use nautilus_shm::cells::XdpMode;
use nautilus_shm::control_region::HistogramId;

use super::actuator::{ActuatorError, NodeActuator, Order};
use super::plan::Action;
use super::tier::Measurement;
use crate::attach::{Attached, attach};
use crate::link::{HEARTBEAT_MAX_NS, silence_ns};
use crate::snapshot::Snapshot;

/// Nodes by the run directories of their supervisors.
#[derive(Clone, Debug)]
pub struct Supervisors {
    /// By node id.
    pub run_dirs: BTreeMap<String, PathBuf>,
}

impl Supervisors {
    fn attach(&self, node_id: &str) -> Result<Attached, ActuatorError> {
        let run_dir = self.run_dirs.get(node_id).ok_or_else(|| {
            ActuatorError::Refused(format!("no run directory is configured for {node_id}"))
        })?;
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
        if !attached.region.supervisor().is_serving() {
            return Err(ActuatorError::NotNow(format!("{node_id} is still being set up")));
        }
        Ok(())
    }

    /// Whether nothing has to be applied: the node runs as wanted, as far as can be seen.
    fn is_tuned(&self, order: &Order<'_>) -> Result<bool, ActuatorError> {
        let spec = order.spec;
        if spec.cpu_isolation || spec.numa_optimization || spec.release.is_some() {
            return Ok(false);
        }
        let snapshot = Snapshot::take(&self.attach(order.node_id)?.region);
        let bypasses = |mode| matches!(mode, XdpMode::Native | XdpMode::Generic);
        let mut interfaces = snapshot.interfaces.iter();
        Ok(interfaces.all(|interface| bypasses(interface.xdp_mode) == spec.kernel_bypass))
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

impl NodeActuator for Supervisors {
    fn perform(&self, order: &Order<'_>) -> Result<(), ActuatorError> {
        let missing = |reason: &str| {
            let reason = format!("the supervisor has no verb that {reason}");
            Err(ActuatorError::NotSupported { action: order.action, reason })
        };
        match order.action {
            Action::Provision => self.provision(order.node_id),
            Action::Warm | Action::Admit | Action::Judge => self.serves(order.node_id),
            Action::Tune if self.is_tuned(order)? => Ok(()),
            Action::Tune => missing("applies host stages, settings or a release"),
            Action::Drain => missing("leads clients away"),
            Action::Retire => missing("stops a node"),
        }
    }

    fn measure(&self, node_id: &str, period: Duration) -> Result<Measurement, ActuatorError> {
        let before = Snapshot::take(&self.attach(node_id)?.region);
        std::thread::sleep(period);
        // Attached anew: its supervisor may have made another region meanwhile.
        let after = Snapshot::take(&self.attach(node_id)?.region);
        if after.supervisor.generation != before.supervisor.generation {
            let said = format!("{node_id}: its supervisor was replaced while it was measured");
            return Err(ActuatorError::NotNow(said));
        }
        let id = HistogramId::XdpToTx;
        let taken = after.histogram(id).since(&before.histogram(id));
        Ok(Measurement {
            samples: taken.count(),
            p50_ns: taken.quantile(0.5),
            p99_ns: taken.quantile(0.99),
            p999_ns: taken.quantile(0.999),
        })
    }
}
