//! What can go wrong with a store.

use std::path::PathBuf;

use super::{KEY_BYTES_MAX, LeaseId, OPERATIONS_MAX, Revision, TRANSACTION_BYTES_MAX};

/// Why a store did not do what it was asked. Whatever the variant, no transaction is applied in part.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the file open.
    #[error(
        "{}: another process has this store open; one control per host may run: stop the other first",
        .0.display()
    )]
    InUse(PathBuf),
    /// The file cannot be opened or made.
    #[error("{}: {source}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The file is not a store of this version, or its checksums do not hold.
    #[error("{}: damaged, or no store of this version: {reason}; restore it from a backup", path.display())]
    Corrupt {
        /// Which.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The disk, the quota or the process's limit of file size is full. Nothing was changed, or (if it
    /// happened at the very end) all of it was: read to know.
    #[error("{}: no space left: free some, the store goes on by itself", .0.display())]
    Full(PathBuf),
    /// Reading or writing failed. As with [`Self::Full`], read to know whether a commit happened.
    #[error("{}: {reason}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What failed.
        reason: String,
    },
    /// A server could not be asked, or did not answer: a commit may or may not have happened.
    #[error("store not available: {0}")]
    Unavailable(String),
    /// The store was closed while a watch was open.
    #[error("the store has been closed")]
    Closed,
    /// A key that cannot be one.
    #[error("key {0:?}: 1 to {KEY_BYTES_MAX} bytes without control characters")]
    Key(String),
    /// Too many conditions or operations.
    #[error("a transaction of {0} conditions or operations, at most {OPERATIONS_MAX} are possible")]
    Operations(usize),
    /// Too many bytes.
    #[error("a transaction of {0} bytes, at most {TRANSACTION_BYTES_MAX} are possible")]
    Bytes(usize),
    /// Two operations of one transaction on one key: their order would be a guess.
    #[error("two operations of one transaction concern {0:?}")]
    Duplicate(String),
    /// The lease has ended or never was.
    #[error("there is no lease {}", .0.0)]
    NoLease(LeaseId),
    /// A time to live that is zero or absurd.
    #[error("a lease lives 1 s to 30 days, not {0} s")]
    Ttl(f64),
    /// A revision that has not happened.
    #[error("revision {} is yet to come, the store is at {}", asked.0, current.0)]
    Future {
        /// Asked for.
        asked: Revision,
        /// The store's.
        current: Revision,
    },
}
