//! The audit trail: what was changed or refused, by whom, on disk before the answer is given.
//!
//! Owned by one process, which holds the folder's lock. Read by `nautilus-audit`, which has no line of
//! this module. The format is in `README.md` beside this file.
//!
//! ```text
//!   request --> Auditor --queue----> thread "audit" --one write, one fdatasync--> audit-N.log
//!      ^                                  |
//!      '------- durable, or why not ------'
//! ```

mod auditor;
pub mod clock;
mod json;
mod key;
mod record;
mod retention;
mod trail;

use std::path::PathBuf;
use std::time::Duration;

pub use auditor::Auditor;
pub use key::SigningKey;
pub use record::{Actor, Entry, Hash, Outcome, hex};
pub use trail::{Head, Trail};

/// How a trail is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditOptions {
    /// The folder of its files.
    pub dir: PathBuf,
    /// The key that signs; made when there is none.
    pub key: PathBuf,
    /// A file of more bytes is followed by the next one. Too low: folders of many files; too high:
    /// long starts, since the last file is read.
    pub rotate_bytes: u64,
    /// Exported files beyond this many go. What was not exported always stays.
    pub keep_files: usize,
    /// Records between signatures. Too low: a signature (20 us) for each; too high: more at the end
    /// that could be cut unseen.
    pub checkpoint_records: u64,
    /// The longest that a record waits for a signature.
    pub checkpoint_age: Duration,
}

impl AuditOptions {
    /// The trail in this folder, with its key beside it and all else as usual.
    pub fn of(dir: PathBuf) -> Self {
        Self {
            key: dir.with_added_extension("key"),
            dir,
            rotate_bytes: 16 << 20,
            keep_files: 64,
            checkpoint_records: 64,
            checkpoint_age: Duration::from_secs(10),
        }
    }
}

/// Why something could not be recorded. What is not recorded is not done.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A file or the folder could not be used.
    #[error("audit trail: {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Another process writes here.
    #[error("audit trail: another process writes in {}", .0.display())]
    Busy(PathBuf),
    /// What is there is not what was written.
    #[error("audit trail: {} is altered at byte {at_bytes}: nautilus-audit verify says more; move the folder away to begin a new trail", path.display())]
    Altered {
        /// Which file.
        path: PathBuf,
        /// Where what does not fit begins.
        at_bytes: u64,
    },
    /// The key is not one.
    #[error("audit key {}: {reason}", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// After a failed flush nobody knows what is on the disk; a new start reads it.
    #[error("audit trail: a flush failed before ({0}); restart once the disk is well")]
    Poisoned(String),
    /// More waits to be recorded than the disk takes.
    #[error("audit trail: too much waits for the disk")]
    Overloaded,
    /// The writer is gone.
    #[error("audit trail: closed")]
    Closed,
}
