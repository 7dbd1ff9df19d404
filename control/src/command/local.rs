//! Nodes of this host, asked through their supervisors: what works while control is dead.

use std::path::{Path, PathBuf};

use clap::Args;

use super::exit::{Exit, Failure};
use crate::config::{Config, DEFAULT_PATH};
use crate::health::{Health, HealthDocument};
use crate::link::{Attachment, Link};
use crate::view::NodeView;
use crate::watcher;

/// Which of them.
#[derive(Args, Debug)]
pub struct LocalNodes {
    /// Run directory of a node; may be repeated
    #[arg(long = "node", value_name = "RUN_DIR", conflicts_with = "config")]
    run_dirs: Vec<PathBuf>,
    /// File with the list of nodes
    #[arg(long, env = "NAUTILUS_CONTROL_CONFIG")]
    config: Option<PathBuf>,
}

impl LocalNodes {
    /// Whether any are named; else the file in its usual place counts.
    pub fn is_named(&self) -> bool {
        !self.run_dirs.is_empty() || self.config.is_some()
    }

    /// Ways to them; nobody is asked yet.
    pub fn links(&self) -> Result<Vec<Link>, Failure> {
        let usage = |error: crate::config::ConfigError| Failure::usage(error.to_string());
        let config = if self.run_dirs.is_empty() {
            Config::load(self.config.as_deref().unwrap_or(Path::new(DEFAULT_PATH)))
        } else {
            Config::of_run_dirs(&self.run_dirs)
        }
        .map_err(usage)?;
        Ok(config.nodes.into_iter().map(Link::new).collect())
    }
}

/// Looks at each once.
pub fn look(links: &mut [Link]) -> Vec<NodeView> {
    links.iter_mut().for_each(Link::look);
    watcher::views(links)
}

/// 0 when all are healthy, 1 when one is not, 3 when none could be reached.
pub fn verdict(views: &[NodeView]) -> Exit {
    if views.iter().all(|view| view.attachment == Attachment::Unreachable) {
        return Exit::Unreachable;
    }
    let healthy = |view| HealthDocument::of(view).health == Health::Healthy;
    if views.iter().all(healthy) { Exit::Done } else { Exit::SaidNo }
}

/// The name a document has for it.
pub fn spelled(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}

/// What there is, or a dash.
pub fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

/// Seconds as microseconds.
pub fn us(seconds: Option<f64>) -> String {
    or_dash(seconds.map(|seconds| format!("{:.1}", seconds * 1e6)))
}
