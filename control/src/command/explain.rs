//! `nautilus explain`: where a packet would go.

use std::path::{Path, PathBuf};

use clap::Args;
use nautilus_shm::attach::ExplainRequest;

use super::exit::{Exit, Failure};
use super::output::print;
use crate::explain::{ExplainError, Explanation};
use crate::packet::Packet;

/// Says where a packet would go, and why, without touching anything the node counts
#[derive(Args, Debug)]
pub struct Explain {
    /// A frame in hexadecimal, CAPTURE.pcap[:NUMBER], or a description:
    /// "udp 198.18.0.2:4000 > 198.18.0.1:11211 'get k'"
    packet: String,
    /// Run directory of the node that is asked
    #[arg(long, value_name = "RUN_DIR", required_unless_present = "config")]
    node: Option<PathBuf>,
    /// Asks no node: loads the program, filled from this node file (needs root)
    #[arg(long, value_name = "FILE", conflicts_with = "node")]
    config: Option<PathBuf>,
    /// The interface it arrives on; the node's first unless said
    #[arg(long, default_value = "")]
    interface: String,
    /// The receive queue it arrives on
    #[arg(long, default_value_t = 0)]
    queue: u32,
    /// Gives it the interface's own MAC as its destination, as a description has it anyway
    #[arg(long)]
    to_us: bool,
    /// Prints one JSON document
    #[arg(long)]
    json: bool,
}

impl Explain {
    /// Does it.
    pub fn run(self) -> Result<Exit, Failure> {
        let packet =
            Packet::parse(&self.packet).map_err(|error| Failure::usage(error.to_string()))?;
        let to_us = self.to_us || packet.to_us;
        let frame = packet.frame.into();
        let (interface, queue) = (self.interface, self.queue);
        let request = ExplainRequest { interface, queue, to_us, frame };
        let told = match (&self.node, &self.config) {
            (Some(run_dir), _) => Explanation::of_node(run_dir, &request),
            (None, config) => {
                let ours = std::env::current_exe().unwrap_or_default();
                let program = ours.with_file_name("nautilus-supervisor");
                let config = config.as_deref().unwrap_or(Path::new(""));
                Explanation::of_config(&program, config, &request)
            }
        };
        let told = told.map_err(|error| {
            let unreachable =
                matches!(error, ExplainError::Reach(_) | ExplainError::Program { .. });
            let exit = if unreachable { Exit::Unreachable } else { Exit::Usage };
            Failure::new(exit, error.to_string())
        })?;
        match self.json {
            true => print(serde_json::to_string_pretty(&told).unwrap_or_default()),
            false => print(told.to_text()),
        };
        Ok(Exit::Done)
    }
}
