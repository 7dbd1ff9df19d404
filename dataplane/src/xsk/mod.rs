//! AF_XDP sockets that outlive the worker that uses them.
//!
//! ```text
//!   supervisor (root)                          worker (no capability)
//!   Binding::create: UMEM memfd, socket,       Mapped::map: mmap memfd and the four rings
//!     four rings, frames given to the fill       of the bound socket (Linux 6.4)
//!     ring, bind                               Mapped::take_over: ledger recovered,
//!   keeps both fds, unmaps everything            XskSocket receives and sends
//!           |                                           ^
//!           +-------- socket fd + memfd, SCM_RIGHTS ----+
//! ```
//!
//! The memfd is `[frames][state bytes][intents] ... [header]`; [`nautilus_shm::ledger`] says who
//! owns which frame. A standby maps early and takes over once its predecessor has ended; a
//! record lock on the memfd refuses two owners at a time. Below Linux 6.4 a standby maps sockets of
//! its own that are not bound yet ([`Unbound`]).
//!
//! This module and the shared-memory crate are the only places with `unsafe`. Whatever the kernel
//! wrote into a ring is bounded before it is used; a value out of bounds is counted.
#![allow(unsafe_code)]

mod binding;
mod header;
mod mapping;
mod ring;
mod socket;
mod sys;
mod umem;

pub use binding::{BIND_PATIENCE, Binding, BindingSpec, CopyMode, Unbound, XskFds};
pub use socket::{Given, Mapped, RxFrame, SocketCounters, TxFrame, XskSocket};
pub use sys::{Statistics, statistics};
pub use umem::{Umem, UmemSpec};

use nautilus_shm::ledger::RecoverError;

/// What went wrong with a socket, by step.
#[derive(Debug, thiserror::Error)]
pub enum XskError {
    /// A specification no UMEM can have.
    #[error("UMEM of {frames} frames of {chunk_bytes} bytes: {problem}")]
    Spec {
        /// Frames asked for.
        frames: u32,
        /// Chunk size asked for.
        chunk_bytes: u32,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A system call failed.
    #[error("{step}: {source}")]
    System {
        /// What was being done.
        step: &'static str,
        /// The errno.
        source: std::io::Error,
    },
    /// The kernel refuses to map the rings of a bound socket.
    #[error(
        "the rings of a bound AF_XDP socket cannot be mapped: this takes Linux 6.4; on older \
         kernels a new worker needs a new socket and packets are lost while it binds"
    )]
    RingsOfBoundSocket,
    /// The interface refuses the mode.
    #[error("{mode} is refused by interface {ifindex} queue {queue}: {source}")]
    Bind {
        /// `XDP_COPY` or `XDP_ZEROCOPY`.
        mode: &'static str,
        /// Which interface.
        ifindex: u32,
        /// Which of its queues.
        queue: u32,
        /// The errno. EBUSY: another socket has the queue. EOPNOTSUPP: no zero copy in this driver.
        source: std::io::Error,
    },
    /// The memfd is not one of ours.
    #[error("the UMEM memfd {problem}")]
    Header {
        /// What its header or size says.
        problem: String,
    },
    /// Another process works with this UMEM.
    #[error("the UMEM is still owned by process {pid}; it must be killed first")]
    Owned {
        /// The owner; 0 when it is another socket of this process.
        pid: i32,
    },
    /// The ledger holds what no worker wrote.
    #[error("the frame ledger cannot be taken over, the socket must be bound anew")]
    Ledger(#[from] RecoverError),
}

impl XskError {
    /// The queue belongs to another socket, perhaps one whose closing the kernel has not finished.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Bind { source, .. } if source.raw_os_error() == Some(libc::EBUSY))
    }

    fn system(step: &'static str) -> Self {
        Self::System { step, source: std::io::Error::last_os_error() }
    }
}
