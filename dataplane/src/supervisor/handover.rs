//! What a supervisor and its worker say to each other. What it says to the front is in
//! `front_messages.rs`; the front answers as a worker does.
//!
//! One `SOCK_SEQPACKET` connection per worker: a socketpair made at spawn (the worker's standard
//! input), or, after the death of a supervisor, the connection a new one made to
//! `worker-<pid>.sock`. One packet is one message, TOML text of at most 64 KiB; descriptors travel
//! in the same packet, named in order by its `fds`.
//!
//! ```text
//!   supervisor                         worker
//!     | assign {node, fds}        ->   |  maps everything, prefaults, recovers nothing yet
//!     |   <- ready                     |  standby: blocks here, pinned
//!     | promote {generation, fds} ->   |  gets links and listener, recovers, serves
//!     |   <- serving {generation}      |
//!     | add, forget {cache, fds}  ->   |  a cache that came or goes while the node runs; to a standby, too
//!     |   <- changed                   |
//!     | drain                     ->   |  finishes what it has taken, exits 0
//!
//!   (supervisor dies; worker serves on; a new supervisor connects to worker-<pid>.sock)
//!     |   <- holding {node, fds}       |  everything the worker was ever handed
//!     | adopt {generation}        ->   |  and both go on as above
//! ```

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::caches::CacheOpened;
use super::sys::{Packet, recv_packet, send_packet};

/// Largest message; a node file is at most half of it.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Largest node file that is handed on.
pub const NODE_FILE_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 2;

/// Version of these messages. A supervisor takes nothing back from a worker of another one.
pub const VERSION: u32 = 7;

/// One receive queue as it was opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueOpened {
    /// Index into [`Assignment::interfaces`].
    pub interface: u16,
    /// Receive queue.
    pub queue: u32,
    /// UMEM on huge pages.
    pub huge_pages: bool,
    /// Number of the worker that serves it.
    pub worker: u32,
}

/// One interface as it was opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InterfaceOpened {
    /// Kernel name.
    pub name: String,
    /// Kernel index.
    pub ifindex: u32,
    /// Largest IP packet.
    pub mtu: u32,
}

/// Everything a worker needs besides descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    /// [`VERSION`] of the sender.
    pub version: u32,
    /// Which of the node's workers it is, below `worker.count`.
    pub worker: u32,
    /// Which cell and metric bank of the control region is the worker's.
    pub worker_index: u32,
    /// CPU to be pinned to.
    pub core: u32,
    /// Bytes of one frame.
    pub chunk_bytes: u32,
    /// The supervisor's own pid.
    pub supervisor_pid: u32,
    /// Uid whose connections to `worker-<pid>.sock` are answered.
    pub supervisor_uid: u32,
    /// Counts the sets of descriptors opened on this node; changes when an interface is re-created.
    pub resources: u64,
    /// The node file.
    pub node: String,
    /// Interfaces, in the order of the node file.
    pub interfaces: Vec<InterfaceOpened>,
    /// All queues, in the order of their descriptors: every worker holds them, so that a new supervisor
    /// finds all of them with any.
    pub queues: Vec<QueueOpened>,
    /// Caches, by place.
    pub caches: Vec<CacheOpened>,
}

/// Supervisor to worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case", deny_unknown_fields)]
pub enum ToWorker {
    /// Become a standby.
    Assign {
        /// Names of the descriptors.
        fds: Vec<String>,
        /// What to do with them.
        assignment: Assignment,
    },
    /// The worker before is dead, no thread of it is left: serve.
    Promote {
        /// +1 per promotion on this node.
        generation: u64,
        /// When the supervisor learnt of the death, `CLOCK_MONOTONIC` ns; 0 for the first worker.
        killed_ns: u64,
        /// Names of the descriptors only an active worker holds.
        fds: Vec<String>,
    },
    /// A new supervisor has taken everything over.
    Adopt {
        /// Must be the worker's own.
        generation: u64,
        /// Pid of the new supervisor.
        supervisor_pid: u32,
    },
    /// Serve one more cache.
    Add {
        /// Number of this change; the answer carries it.
        number: u64,
        /// Names of its descriptors.
        fds: Vec<String>,
        /// The cache.
        opened: CacheOpened,
    },
    /// Serve a cache no more. One that is not there is forgotten already.
    Forget {
        /// Number of this change; the answer carries it.
        number: u64,
        /// Where it is.
        place: u16,
        /// Which it is.
        generation: u32,
    },
    /// Finish and exit.
    Drain,
}

/// Worker to supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case", deny_unknown_fields)]
pub enum FromWorker {
    /// Mapped, prefaulted, pinned; blocks until promoted.
    Ready {
        /// What was refused on the way (pinning, memory lock), each a sentence.
        notes: Vec<String>,
    },
    /// The first turn of the loop has begun.
    Serving {
        /// As promoted.
        generation: u64,
        /// When, `CLOCK_MONOTONIC` ns.
        since_ns: u64,
    },
    /// A change of the caches was made, or not.
    Changed {
        /// Which.
        number: u64,
        /// Why it was not; empty when it was.
        refused: String,
    },
    /// A front's answer to `look`: it has counted its connections since.
    Looked {
        /// Which look.
        number: u64,
    },
    /// Cannot go on; the process exits after this.
    Failed {
        /// Why.
        reason: String,
    },
    /// Answer to a new supervisor: here is everything.
    Holding {
        /// The worker's generation.
        generation: u64,
        /// Names of the descriptors.
        fds: Vec<String>,
        /// As assigned.
        assignment: Assignment,
    },
}

/// Why a message did not pass.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The socket.
    #[error("hand-over socket: {0}")]
    Socket(#[from] io::Error),
    /// The other end is gone.
    #[error("the other end has closed the connection")]
    Closed,
    /// Not one of our messages.
    #[error("unknown message: {0}")]
    Message(String),
    /// Too long to be sent.
    #[error("message of {0} bytes; at most 65536 fit (is the node file too long?)")]
    TooLong(usize),
    /// Fewer or more descriptors than named.
    #[error("{named} descriptors named, {came} came")]
    Descriptors {
        /// In the message.
        named: usize,
        /// With the packet.
        came: usize,
    },
    /// A descriptor that is needed is not there.
    #[error("descriptor {0:?} is missing")]
    Missing(String),
}

/// A bag of named descriptors.
#[derive(Debug, Default)]
pub struct Fds(Vec<(String, OwnedFd)>);

impl Fds {
    /// Adds one; names are unique by construction of the callers.
    pub fn push(&mut self, name: impl Into<String>, fd: OwnedFd) {
        self.0.push((name.into(), fd));
    }

    /// Takes one out.
    pub fn take(&mut self, name: &str) -> Result<OwnedFd, HandoverError> {
        let missing = || HandoverError::Missing(name.into());
        let index = self.0.iter().position(|(known, _)| known == name).ok_or_else(missing)?;
        Ok(self.0.swap_remove(index).1)
    }

    /// Looks at one.
    pub fn get(&self, name: &str) -> Result<BorrowedFd<'_>, HandoverError> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, fd)| fd.as_fd()).ok_or_else(|| HandoverError::Missing(name.into()))
    }

    /// The names, in order.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| name.clone()).collect()
    }

    /// The descriptors, in order.
    pub fn borrowed(&self) -> Vec<BorrowedFd<'_>> {
        self.0.iter().map(|(_, fd)| fd.as_fd()).collect()
    }

    /// Second descriptors of the same files.
    pub fn try_clone(&self) -> io::Result<Self> {
        let clone = |(name, fd): &(String, OwnedFd)| Ok((name.clone(), fd.try_clone()?));
        self.0.iter().map(clone).collect::<io::Result<_>>().map(Self)
    }

    /// Adds all of `other`.
    pub fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Drops those `keep` says no to.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|(name, _)| keep(name));
    }

    pub(super) fn zip(names: &[String], fds: Vec<OwnedFd>) -> Result<Self, HandoverError> {
        if names.len() != fds.len() {
            return Err(HandoverError::Descriptors { named: names.len(), came: fds.len() });
        }
        Ok(Self(names.iter().cloned().zip(fds).collect()))
    }
}

/// Sends a message with its descriptors.
pub fn send(
    socket: BorrowedFd<'_>,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> Result<(), HandoverError> {
    let text =
        toml::to_string(message).map_err(|error| HandoverError::Message(error.to_string()))?;
    if text.len() > MESSAGE_BYTES_MAX {
        return Err(HandoverError::TooLong(text.len()));
    }
    Ok(send_packet(socket, text.as_bytes(), fds)?)
}

pub(super) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
) -> Result<(T, Packet), HandoverError> {
    let packet = recv_packet(socket, MESSAGE_BYTES_MAX)?;
    if packet.bytes.is_empty() {
        return Err(HandoverError::Closed);
    }
    let text = std::str::from_utf8(&packet.bytes)
        .map_err(|error| HandoverError::Message(error.to_string()))?;
    let message =
        toml::from_str(text).map_err(|error| HandoverError::Message(error.message().into()))?;
    Ok((message, packet))
}

/// Receives a message of the supervisor.
pub fn receive_as_worker(socket: BorrowedFd<'_>) -> Result<(ToWorker, Fds), HandoverError> {
    let (message, packet) = receive::<ToWorker>(socket)?;
    let names: &[String] = match &message {
        ToWorker::Assign { fds, .. }
        | ToWorker::Promote { fds, .. }
        | ToWorker::Add { fds, .. } => fds,
        ToWorker::Adopt { .. } | ToWorker::Forget { .. } | ToWorker::Drain => &[],
    };
    let fds = Fds::zip(names, packet.fds)?;
    Ok((message, fds))
}

/// Receives a message of a worker: what, with which descriptors, and (where the socket asks for
/// it) the sender's pid as the kernel knows it.
pub fn receive_as_supervisor(
    socket: BorrowedFd<'_>,
) -> Result<(FromWorker, Fds, Option<u32>), HandoverError> {
    let (message, packet) = receive::<FromWorker>(socket)?;
    let names: &[String] = match &message {
        FromWorker::Holding { fds, .. } => fds,
        _ => &[],
    };
    let fds = Fds::zip(names, packet.fds)?;
    Ok((message, fds, packet.pid))
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    fn assignment() -> Assignment {
        Assignment {
            version: VERSION,
            worker: 1,
            worker_index: 0,
            core: 1,
            chunk_bytes: 2048,
            supervisor_pid: 5,
            supervisor_uid: 0,
            resources: 1,
            node: crate::config::DEFAULT_TOML.into(),
            interfaces: vec![InterfaceOpened { name: "eth0".into(), ifindex: 2, mtu: 1500 }],
            queues: vec![QueueOpened { interface: 0, queue: 0, huge_pages: false, worker: 0 }],
            caches: vec![CacheOpened {
                place: 7,
                generation: 9,
                section: toml::from_str("id = \"q\"\nreaders = [\"1005\"]").unwrap(),
            }],
        }
    }

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    #[test]
    fn messages_survive_the_socket_with_their_descriptors() {
        let (supervisor, worker) = pair();
        let file = OwnedFd::from(tempfile::tempfile().unwrap());
        let mut fds = Fds::default();
        fds.push("umem.0", file.try_clone().unwrap());
        fds.push("control", file);
        let assign = ToWorker::Assign { fds: fds.names(), assignment: assignment() };
        send(supervisor.as_fd(), &assign, &fds.borrowed()).unwrap();
        let (message, mut came) = receive_as_worker(worker.as_fd()).unwrap();
        assert_eq!(message, assign);
        assert!(came.take("control").is_ok() && came.take("umem.0").is_ok());
        assert!(matches!(came.take("umem.0"), Err(HandoverError::Missing(_))));

        for message in [
            FromWorker::Ready { notes: vec!["not pinned".into()] },
            FromWorker::Serving { generation: 3, since_ns: 9 },
            FromWorker::Failed { reason: "no".into() },
            FromWorker::Changed { number: 4, refused: "no memory".into() },
            FromWorker::Looked { number: 5 },
        ] {
            send(worker.as_fd(), &message, &[]).unwrap();
            assert_eq!(receive_as_supervisor(supervisor.as_fd()).unwrap().0, message);
        }
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        let (supervisor, worker) = pair();
        let promote = ToWorker::Promote { generation: 1, killed_ns: 0, fds: vec!["link.0".into()] };
        send(supervisor.as_fd(), &promote, &[]).unwrap();
        let error = receive_as_worker(worker.as_fd()).unwrap_err();
        assert!(matches!(error, HandoverError::Descriptors { named: 1, came: 0 }), "{error}");
        send_packet(supervisor.as_fd(), b"say = \"sing\"", &[]).unwrap();
        assert!(matches!(receive_as_worker(worker.as_fd()), Err(HandoverError::Message(_))));
        send_packet(supervisor.as_fd(), &[0xff, 0xfe], &[]).unwrap();
        assert!(matches!(receive_as_worker(worker.as_fd()), Err(HandoverError::Message(_))));
        drop(supervisor);
        assert!(matches!(receive_as_worker(worker.as_fd()), Err(HandoverError::Closed)));
    }
}
