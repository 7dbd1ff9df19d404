//! What a supervisor says to the front it has started. The front answers with
//! [`FromWorker`](super::handover::FromWorker): `ready` with its notes, `serving`, `changed`, `looked`, or `failed`.

use std::os::fd::BorrowedFd;

use serde::{Deserialize, Serialize};

use super::caches::CacheOpened;
use super::handover::{Fds, HandoverError, receive};

/// Everything a front needs besides descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrontAssignment {
    /// [`VERSION`](super::handover::VERSION) of the sender.
    pub version: u32,
    /// The supervisor's own pid.
    pub supervisor_pid: u32,
    /// +1 per front of this node; in the front region, too.
    pub generation: u64,
    /// It waits for `serve` before it takes the place of the one that serves; its generation comes with that.
    pub waits: bool,
    /// CPU to be pinned to, if any.
    pub core: Option<u32>,
    /// Caches, by place.
    pub caches: Vec<CacheOpened>,
    /// The node file.
    pub node: String,
}

/// Supervisor to front.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case", deny_unknown_fields)]
pub enum ToFront {
    /// Serve.
    Assign {
        /// Names of the descriptors: `control`, `front.0` and `wake.0` and so on, one a worker, and of each
        /// cache its memory (read-only), that for told hits, listeners and sockets.
        fds: Vec<String>,
        /// What to do with them.
        assignment: FrontAssignment,
    },
    /// The front before leaves, or is dead: take its place as soon as it lets go of the region.
    Serve,
    /// Serve one more cache.
    Add {
        /// Number of this change; the answer carries it.
        number: u64,
        /// Names of its descriptors.
        fds: Vec<String>,
        /// The cache.
        opened: CacheOpened,
    },
    /// Look at what the control region says, now and not at the next tick; answered when it has been obeyed.
    Look {
        /// Number of this look; the answer carries it.
        number: u64,
    },
    /// Serve a cache no more.
    Forget {
        /// Number of this change; the answer carries it.
        number: u64,
        /// Where it is.
        place: u16,
        /// Which it is.
        generation: u32,
    },
}

/// Receives a message of the supervisor.
pub fn receive_as_front(socket: BorrowedFd<'_>) -> Result<(ToFront, Fds), HandoverError> {
    let (message, packet) = receive::<ToFront>(socket)?;
    let names: &[String] = match &message {
        ToFront::Assign { fds, .. } | ToFront::Add { fds, .. } => fds,
        ToFront::Forget { .. } | ToFront::Look { .. } | ToFront::Serve => &[],
    };
    let fds = Fds::zip(names, packet.fds)?;
    Ok((message, fds))
}
