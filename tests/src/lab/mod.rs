//! A lab: nodes, clients and a venue as network namespaces on one bridge, on one machine.
//!
//! ```text
//!   ne<run>-node1   ne<run>-node2   ne<run>-client   ne<run>-venue   ne<run>-control
//!      eth0            eth0             eth0             eth0             eth0
//!       |               |                |                |                |     veth pairs
//!   ====+===============+================+================+================+==== ne<run>-bridge
//! ```
//!
//! Where a member is given a fault file, a wire that harms packets lies between its link and the bridge
//! ([`Wire`]).
//!
//! No link ever exists in the namespace the lab was started from. Every name carries the run id, so
//! labs do not meet; what a lab made goes when its guards are dropped, or by [`sweep`] when they
//! could not be.

mod address;
mod attach;
mod fleet;
mod folder;
mod leaks;
mod link;
mod member;
mod netns;
pub mod node_file;
mod process;
pub mod releases;
mod run_id;
mod service;
pub mod state;
mod wire;

pub use address::{Address, CLIENT, CONTROL, NODES_MAX, SUBNETS, VENUE, node};
pub use attach::{AttachFailed, active_worker, attach, status};
pub use fleet::{CONTROL_PORT, Lab, Node};
pub use folder::Folder;
pub use leaks::{left_behind, sweep};
pub use link::{Bridge, End, LINK_MTU_BYTES, VethPair};
pub use member::{Member, WireAt};
pub use netns::NetNs;
pub use node_file::NodeFile;
pub use process::{Process, bin_dir, binary};
pub use run_id::RunId;
pub use service::{Service, ServiceStatus};
pub use wire::{Wire, WireLine, WireReport};

use std::path::PathBuf;

use crate::command::CommandError;
use crate::wait::TimedOut;

/// Why a lab, or a part of it, could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A tool (`ip`, `ethtool`, `bridge`) failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Something did not come up in time.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
    /// A file or folder of the lab.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A namespace could not be entered.
    #[error("network namespace {name}: {source}")]
    Namespace {
        /// Its name.
        name: String,
        /// What the kernel said.
        source: nix::Error,
    },
    /// The passing XDP program could not be attached.
    #[error("XDP program on {interface} in {namespace}: {source}")]
    Program {
        /// The interface.
        interface: String,
        /// Its namespace.
        namespace: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A process could not be started.
    #[error("starting {program}: {source}")]
    Start {
        /// Its path.
        program: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A wire that did not connect, or did not say what became of its packets.
    #[error("the wire of {name}: {problem}")]
    Wire {
        /// Whose.
        name: String,
        /// What it said.
        problem: String,
    },
    /// More nodes than the address plan has room for, or none.
    #[error("{0} nodes: a lab has 1..={NODES_MAX}")]
    Nodes(usize),
}

/// Attaches the path to an I/O error.
pub(crate) fn at<T>(path: impl Into<PathBuf>, result: std::io::Result<T>) -> Result<T, LabError> {
    result.map_err(|source| LabError::File { path: path.into(), source })
}
