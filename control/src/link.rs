//! Control's hold on one node: attached, or trying to be.
//!
//! ```text
//!   Unreachable --attach ok--> Attached --heartbeat older than 1 s--> Detached --attach ok--> Attached
//! ```
//!
//! A detached node is asked again at every look; what it answers with replaces the mapping, for a new
//! supervisor may have made a new region. Until then the old mapping is still read: a worker serves on
//! without its supervisor, and its counters go on there.

use std::sync::Arc;

use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::control_region::ControlReader;
use serde::Serialize;

use crate::attach::{self, Attached};
use crate::config::NodeSpec;

/// A region whose heartbeat is older than this is not to be trusted (the product's rule for every
/// shared-memory reader).
pub const HEARTBEAT_MAX_NS: u64 = 1_000_000_000;

/// How a node is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Attachment {
    /// Mapped, and its supervisor is alive.
    Attached,
    /// Mapped, and its supervisor has been silent for more than a second.
    Detached,
    /// Never mapped since this process started.
    Unreachable,
}

/// One node as control holds it.
#[derive(Clone, Debug)]
pub struct Link {
    /// What the configuration says.
    pub spec: NodeSpec,
    /// The mapping, as far as there is one.
    pub attached: Option<Arc<Attached>>,
    /// Why the last attempt failed; empty after one that did not.
    pub reason: String,
}

impl Link {
    /// A node not looked at yet.
    pub fn new(spec: NodeSpec) -> Self {
        Self { spec, attached: None, reason: "not asked yet".into() }
    }

    /// How the node is held now.
    pub fn attachment(&self) -> Attachment {
        match &self.attached {
            None => Attachment::Unreachable,
            Some(attached) if silence_ns(&attached.region) <= HEARTBEAT_MAX_NS => {
                Attachment::Attached
            }
            Some(_) => Attachment::Detached,
        }
    }

    /// Attaches where that is needed. Takes up to a second when a supervisor hangs.
    pub fn look(&mut self) {
        if self.attachment() == Attachment::Attached {
            self.reason.clear();
            return;
        }
        match attach::attach(&self.spec.run_dir) {
            Ok(attached) => match self.check_id(&attached) {
                Ok(()) => {
                    self.attached = Some(Arc::new(attached));
                    self.reason.clear();
                }
                Err(reason) => self.reason = reason,
            },
            Err(error) => self.reason = error.to_string(),
        }
    }

    fn check_id(&self, attached: &Attached) -> Result<(), String> {
        let Some(wanted) = &self.spec.id else { return Ok(()) };
        let found = attached.region.supervisor().identity().unwrap_or_default().node_id;
        if *wanted == found {
            return Ok(());
        }
        let run_dir = self.spec.run_dir.display();
        Err(format!("{run_dir}: the node there is {found:?}, {wanted:?} was expected"))
    }
}

/// How long the supervisor has said nothing.
pub fn silence_ns(region: &ControlReader) -> u64 {
    let heartbeat_ns = region.heartbeat_ns().max(region.supervisor().heartbeat_ns());
    let now_ns = monotonic_ns();
    // A beat from the future is not this boot's clock: the region lies.
    if heartbeat_ns > now_ns + HEARTBEAT_MAX_NS {
        return u64::MAX;
    }
    now_ns.saturating_sub(heartbeat_ns)
}
