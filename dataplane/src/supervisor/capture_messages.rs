//! What a supervisor says to the capture process it has started, which answers with
//! [`FromWorker`](super::handover::FromWorker): `ready` with its notes, as often as it has some, `serving`, or
//! `failed`.

use std::os::fd::BorrowedFd;

use serde::{Deserialize, Serialize};

use super::handover::{Fds, HandoverError, QueueOpened, receive};

/// Everything a capture process needs besides descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptureAssignment {
    /// [`VERSION`](super::handover::VERSION) of the sender.
    pub version: u32,
    /// The supervisor's own pid.
    pub supervisor_pid: u32,
    /// +1 per capture process that this supervisor started.
    pub generation: u64,
    /// The node file.
    pub node: String,
    /// All queues.
    pub queues: Vec<QueueOpened>,
}

/// Supervisor to capture process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case", deny_unknown_fields)]
pub enum ToCapture {
    /// Write.
    Assign {
        /// Names of the descriptors: `control`, `capture`.
        fds: Vec<String>,
        /// What to do with them.
        assignment: CaptureAssignment,
    },
    /// The workers are gone: write what they left, finish the file and exit.
    Finish,
}

/// Receives a message of the supervisor.
pub fn receive_as_capture(socket: BorrowedFd<'_>) -> Result<(ToCapture, Fds), HandoverError> {
    let (message, packet) = receive::<ToCapture>(socket)?;
    let names: &[String] = match &message {
        ToCapture::Assign { fds, .. } => fds,
        ToCapture::Finish => &[],
    };
    let fds = Fds::zip(names, packet.fds)?;
    Ok((message, fds))
}
