//! `[host]`: what control may have changed on the host, through the supervisor.

use std::path::{Path, PathBuf};

use nautilus_host::knob::{STAGES, Stage};
use nautilus_host::state::DEFAULT_STATE;
use serde::Deserialize;

use super::check::{Problem, refuse};
use super::{Auto, NodeConfig};

/// `[host]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostSettings {
    /// Stages of the host doctor that the supervisor carries out when it is asked; `auto` is every one.
    pub stages: Auto<Vec<Stage>>,
    /// The file that holds what was there before.
    pub state: PathBuf,
    /// The machine: `/`, or the folder of a recorded one.
    pub root: PathBuf,
}

impl Default for HostSettings {
    fn default() -> Self {
        Self { stages: Auto::Auto, state: DEFAULT_STATE.into(), root: "/".into() }
    }
}

impl HostSettings {
    /// The stages that may be carried out.
    pub fn approved(&self) -> &[Stage] {
        self.stages.value().map_or(&STAGES, Vec::as_slice)
    }
}

/// Checks `[host]`.
pub(super) fn check(config: &NodeConfig) -> Result<(), Problem> {
    let HostSettings { state, root, .. } = &config.host;
    for (key, path) in [("host.state", state), ("host.root", root)] {
        if !path.is_absolute() {
            return refuse(key, format!("{} is not absolute", path.display()));
        }
    }
    if root != Path::new("/") && state == Path::new(DEFAULT_STATE) {
        return refuse("host.state", "a recorded machine needs a file of its own");
    }
    Ok(())
}
