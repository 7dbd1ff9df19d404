//! Why there is no value, and why there is no cache.

use std::path::PathBuf;

use nautilus_shm::attach::Code;
use nautilus_shm::region::RegionError;
use nautilus_shm::table::{self, LayoutError};
use nix::errno::Errno;

/// Why a read gave no value. The buffer may hold parts of one all the same: it is to be ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The key is not there: never written, deleted, expired, flushed or evicted.
    #[error("no such key")]
    Miss,
    /// The key's feed has a gap, is silent, or its worker is dead: a value exists and must not be used.
    #[error("the feed of this key has a gap or is silent")]
    Suspect,
    /// The cache's leader has lost its lease: no value of the cache may be used here.
    #[error("the lease of this cache has run out")]
    LeaseExpired,
    /// The key's bucket changed under 64 tries in a row. Nothing is wrong; try again.
    #[error("the writer was faster than this reader, try again")]
    WriterBusy,
    /// The buffer is smaller than the value; nothing of it was copied.
    #[error("the value has {value_bytes} bytes, the buffer is smaller")]
    BufferTooSmall {
        /// Length of the value, at most 1 MiB.
        value_bytes: usize,
    },
    /// The memory's owner has not been heard for 1 s: the node is gone or its supervisor is dead. Reads
    /// go on by themselves when that supervisor comes back; when a new node has started,
    /// [`crate::CacheReader::reattach`] finds its memory.
    #[error("the cache is detached from its node, attach again")]
    Detached,
}

impl From<table::ReadError> for ReadError {
    #[inline]
    fn from(error: table::ReadError) -> Self {
        match error {
            table::ReadError::Miss => Self::Miss,
            table::ReadError::Suspect => Self::Suspect,
            table::ReadError::LeaseExpired => Self::LeaseExpired,
            table::ReadError::WriterBusy => Self::WriterBusy,
            table::ReadError::BufferTooSmall { value_bytes } => {
                Self::BufferTooSmall { value_bytes }
            }
            table::ReadError::Detached => Self::Detached,
        }
    }
}

/// How a wait ended without a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// The key is as it was.
    #[error("no change in time")]
    TimedOut,
    /// The change: the key is gone ([`ReadError::Miss`]) or may not be used; or what keeps the wait
    /// from going on.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why a cache could not be attached to.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Not an id a cache can have.
    #[error("{0:?} is not the id of a cache: 1 to 63 bytes")]
    CacheId(String),
    /// The path does not fit a Unix socket address (107 bytes).
    #[error("{}: the path is too long for a socket", .0.display())]
    Path(PathBuf),
    /// No supervisor listens there, or the directory does not let this user in.
    #[error("{}: {errno}: {}", path.display(), if *errno == Errno::EACCES { "a directory above it is closed to this user" } else { "no supervisor is listening" })]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
    /// The supervisor did not answer in time, or hung up.
    #[error("{}: no answer from the supervisor: {errno}", path.display())]
    Answer {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
    /// The supervisor said no.
    #[error("{}: {}{}{text}", path.display(), code.explain(), if text.is_empty() { "" } else { ": " })]
    Refused {
        /// The socket.
        path: PathBuf,
        /// Why.
        code: Code,
        /// The supervisor's own words, if any.
        text: String,
    },
    /// What came back is not an attach reply of one cache.
    #[error("{}: bad answer: {problem}", path.display())]
    Reply {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The descriptor is not that of a cache this program can read.
    #[error("cache {id}: {source}")]
    Region {
        /// The cache asked for.
        id: String,
        /// What is wrong with it.
        source: RegionError,
    },
    /// The memory holds no table this program can read.
    #[error("cache {id}: {source}")]
    Table {
        /// The cache asked for.
        id: String,
        /// What is wrong with it.
        source: LayoutError,
    },
}
