//! `[capture]`: what workers saw is written to files.

use std::path::PathBuf;

use nautilus_shm::capture_region::CAPTURE_RING_MB_MAX;
use serde::Deserialize;

use super::check::{Problem, port, refuse, within};
use super::{Auto, NodeConfig};

/// Other ports that are captured, at most.
const PORTS_MAX: usize = 16;

/// `[capture]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capture {
    /// Where the files are; it must exist and be writable by the worker's user.
    pub directory: PathBuf,
    /// MiB of one file, 1..=65,536.
    #[serde(default = "default_file_mb")]
    pub file_mb: u32,
    /// Files kept, 2..=10,000; the oldest is removed before there is one more.
    #[serde(default = "default_files")]
    pub files: u32,
    /// MiB of the ring of each worker, 1..=[`CAPTURE_RING_MB_MAX`], rounded up to a power of two.
    #[serde(default = "default_buffer_mb")]
    pub buffer_mb: u32,
    /// Every line of every feed, the replies to their requests, and what else moves them.
    #[serde(default = "default_feeds")]
    pub feeds: bool,
    /// UDP ports of other services, at most 16: what arrives, not what is answered.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// Path of `nautilus-capture`; `auto` is the supervisor's own directory.
    #[serde(default)]
    pub program: Auto<PathBuf>,
}

fn default_file_mb() -> u32 {
    256
}

fn default_files() -> u32 {
    16
}

fn default_buffer_mb() -> u32 {
    16
}

fn default_feeds() -> bool {
    true
}

impl Capture {
    /// What it will do, for an operator.
    pub fn describe(&self, config: &NodeConfig) -> String {
        let mut what: Vec<String> = Vec::new();
        if self.feeds && !config.feed.is_empty() {
            what.push(format!("{} feeds", config.feed.len()));
        }
        what.extend(self.ports.iter().map(|port| format!("port {port}")));
        let disk_mb = u64::from(self.file_mb) * u64::from(self.files);
        let buffer_mb = u64::from(self.buffer_mb.next_power_of_two());
        format!(
            "capture of {} into {}: at most {} files of {} MiB, {disk_mb} MiB in all; \
             {} MiB of memory",
            what.join(", "),
            self.directory.display(),
            self.files,
            self.file_mb,
            buffer_mb * u64::from(config.worker.count)
        )
    }
}

pub(super) fn check(config: &NodeConfig) -> Result<(), Problem> {
    let Some(capture) = &config.capture else { return Ok(()) };
    if !capture.directory.is_absolute() {
        let text = format!("{} is not absolute", capture.directory.display());
        return refuse("capture.directory", text);
    }
    within("capture.file_mb", capture.file_mb.into(), 1, 65_536)?;
    within("capture.files", capture.files.into(), 2, 10_000)?;
    within("capture.buffer_mb", capture.buffer_mb.into(), 1, CAPTURE_RING_MB_MAX.into())?;
    if capture.ports.len() > PORTS_MAX {
        return refuse("capture.ports", format!("more than {PORTS_MAX} ports"));
    }
    for number in &capture.ports {
        port("capture.ports", *number)?;
    }
    let has_feeds = capture.feeds && !config.feed.is_empty();
    if !has_feeds && capture.ports.is_empty() {
        let text = "captures nothing: the node has no feed to capture, and no ports are named";
        return refuse("capture", text);
    }
    Ok(())
}
