//! How long a node's work takes in a period: answers to clients and records of feeds where there are enough, else
//! answers to itself.
//!
//! ```text
//!   0 ----- a tenth ----------------------------------------- period
//!     clients  |  enough by this rate? go on looking at them
//!     feeds    |  else: the node is asked by packets of its own
//! ```
//!
//! A node that hears a feed cannot be asked so, since the feed would lose packets; what it makes of them is timed
//! from the same stamp.

use std::time::{Duration, Instant};

use nautilus_shm::attach::{PROBE_MS_MAX, Probed};
use nautilus_shm::control_region::HistogramId;
use nautilus_shm::histogram::HistogramSnapshot;

use super::Supervisors;
use crate::attach::probe_node;
use crate::deploy::actuator::ActuatorError;
use crate::deploy::tier::{Measurement, SAMPLES_MIN};
use crate::snapshot::Snapshot;

/// What is timed of a node's work: from the receive stamp to the answer, or to the record that clients read.
const KINDS: [HistogramId; 2] = [HistogramId::XdpToTx, HistogramId::XdpToBook];

/// Part of a measurement after which is judged whether the node is asked enough by others. Too low: half of the
/// time is lost with one that is not; too high: a pause of its clients is taken for its load.
const LOOK_SHARE: u32 = 10;

impl Supervisors {
    /// The work of a period. A node that is given too little asks itself, for the rest of it.
    pub(super) fn measured(
        &self,
        node_id: &str,
        period: Duration,
    ) -> Result<Measurement, ActuatorError> {
        let begun = Instant::now();
        let before = Snapshot::take(&self.attach(node_id)?.region);
        std::thread::sleep(period / LOOK_SHARE);
        let first = self.done_since(node_id, &before)?;
        if first.iter().all(|kind| kind.count() * u64::from(LOOK_SHARE) < SAMPLES_MIN) {
            // It is given too little: it asks itself for the rest of the time.
            let rest = period.saturating_sub(begun.elapsed());
            if let Some(probed) = self.probe(node_id, rest)? {
                std::thread::sleep(period.saturating_sub(begun.elapsed()));
                // The figures of one that was replaced meanwhile are of two lives.
                let _ = self.done_since(node_id, &before)?;
                return Ok(probed);
            }
        }
        std::thread::sleep(period.saturating_sub(begun.elapsed()));
        let taken = self.done_since(node_id, &before)?.map(|kind| measurement(&kind));
        let enough = taken.iter().filter(|kind| kind.samples >= SAMPLES_MIN);
        if let Some(worst) = enough.copied().reduce(|worst, kind| worst.worse(&kind)) {
            return Ok(worst);
        }
        if let Some(probed) = self.probe(node_id, period)? {
            return Ok(probed);
        }
        // Too little is no verdict where a tier needs one.
        let [answers, records] = taken;
        Ok(if records.samples > answers.samples { records } else { answers })
    }

    /// How long each kind of work took since then.
    fn done_since(
        &self,
        node_id: &str,
        before: &Snapshot,
    ) -> Result<[HistogramSnapshot; 2], ActuatorError> {
        // Attached anew: its supervisor may have made another region meanwhile.
        let after = Snapshot::take(&self.attach(node_id)?.region);
        if after.supervisor.generation != before.supervisor.generation {
            let said = format!("{node_id}: its supervisor was replaced while it was measured");
            return Err(ActuatorError::NotNow(said));
        }
        Ok(KINDS.map(|kind| after.histogram(kind).since(&before.histogram(kind))))
    }

    /// What the node measures of itself; none where it has no way to.
    fn probe(&self, node_id: &str, period: Duration) -> Result<Option<Measurement>, ActuatorError> {
        let period_ms = u32::try_from(period.as_millis()).unwrap_or(u32::MAX).min(PROBE_MS_MAX);
        match self.tell(node_id, |run_dir| probe_node(run_dir, period_ms)) {
            Ok(Probed { samples, p50_ns, p99_ns, p999_ns }) => {
                Ok(Some(Measurement { samples, p50_ns, p99_ns, p999_ns }))
            }
            Err(error) if error.is_worth_a_try() => Err(error),
            Err(_) => Ok(None),
        }
    }
}

fn measurement(taken: &HistogramSnapshot) -> Measurement {
    Measurement {
        samples: taken.count(),
        p50_ns: taken.quantile(0.5),
        p99_ns: taken.quantile(0.99),
        p999_ns: taken.quantile(0.999),
    }
}
