//! Which nodes are this control's to deploy to: one control at a time, on one host.
//!
//! ```text
//!   control --claim--> supervisor: may it ask? --> <run_dir>/control.lock, opened anew
//!           --flock--> held until this process ends, or lets go
//! ```
//!
//! The file belongs to the supervisor's user and nobody else can open it, so nobody else can take the lock first:
//! whoever may ask the supervisor for anything gets it, and nobody without. A supervisor that dies leaves the file,
//! and the lock stays held. One that stops takes it along; the next makes another, which is claimed before the next
//! order is given.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nautilus_shm::attach::{CLAIM_FILE, Code};

use crate::attach::{ReachError, claim_file};

/// Times a claim is asked for whose file is taken away in between.
const TRIES: usize = 3;

/// Why a node could not be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another control holds it.
    #[error(
        "{}: another control on this host deploys to this node: stop it, or take the node out of one \
         configuration", .0.display()
    )]
    Taken(PathBuf),
    /// Its supervisor could not be asked.
    #[error(transparent)]
    Reach(#[from] ReachError),
    /// A file operation, or a file that is not there for long enough.
    #[error("{}: cannot be claimed: {source}", path.display())]
    File {
        /// The run directory.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// What is claimed, by run directory.
#[derive(Debug, Default)]
pub struct Claims {
    held: Mutex<BTreeMap<PathBuf, File>>,
}

impl Claims {
    /// Claims a node, or sees that it still is. A supervisor of a release that knows no claims is left
    /// unclaimed: it was deployed to before there were any.
    pub fn hold(&self, run_dir: &Path) -> Result<(), ClaimError> {
        // Each holder leaves it whole.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.get(run_dir).is_some_and(|file| is_that_of(file, run_dir)) {
            return Ok(());
        }
        held.remove(run_dir);
        for _ in 0..TRIES {
            let file = match claim_file(run_dir) {
                Ok(fd) => File::from(fd),
                Err(ReachError::Refused { code: Code::BadRequest, .. }) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(std::fs::TryLockError::WouldBlock) => {
                    return Err(ClaimError::Taken(run_dir.into()));
                }
                Err(std::fs::TryLockError::Error(source)) => {
                    return Err(ClaimError::File { path: run_dir.into(), source });
                }
            }
            // A supervisor that was just stopping may have removed the name of what we hold.
            if is_that_of(&file, run_dir) {
                held.insert(run_dir.into(), file);
                return Ok(());
            }
        }
        let source = std::io::ErrorKind::NotFound.into();
        Err(ClaimError::File { path: run_dir.into(), source })
    }
}

/// Whether this file is the one that the node's next claimant would be given.
fn is_that_of(file: &File, run_dir: &Path) -> bool {
    let (held, named) = (file.metadata(), run_dir.join(CLAIM_FILE).metadata());
    let place = |found: std::fs::Metadata| (found.dev(), found.ino());
    matches!((held.map(place), named.map(place)), (Ok(held), Ok(named)) if held == named)
}
