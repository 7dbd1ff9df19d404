//! The folder of one lab or test: configuration, sockets, logs. Kept when the test fails.

use std::path::{Path, PathBuf};

use super::process::bin_dir;
use super::{LabError, RunId, at};
use crate::command;

/// Deleted on drop; of a panicking thread, kept beside the build and named on stderr.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    run: RunId,
}

impl Folder {
    /// A folder for this run below the system's folder for temporary files: short, because a Unix
    /// socket's path has 108 bytes.
    pub fn create(run: RunId) -> Result<Self, LabError> {
        Self::create_at(run, std::env::temp_dir().join(format!("nautilus-{run}")))
    }

    /// The same at a place of the caller's choice.
    pub fn create_at(run: RunId, path: PathBuf) -> Result<Self, LabError> {
        at(&path, std::fs::create_dir_all(&path))?;
        Ok(Self { path, run })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path inside.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Makes a folder inside, open to every user (the unprivileged worker among them).
    pub fn make(&self, name: &str) -> Result<PathBuf, LabError> {
        let path = self.join(name);
        at(&path, std::fs::create_dir_all(&path))?;
        Ok(path)
    }

    /// Writes a file inside.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf, LabError> {
        let path = self.join(name);
        at(&path, std::fs::write(&path, text))?;
        Ok(path)
    }

    fn keep(&self) {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("test").replace("::", ".");
        let kept = bin_dir().join("../test/artefacts").join(format!("{test}-{}", self.run));
        let moved = std::fs::create_dir_all(&kept).is_ok()
            && command::run_words(
                "cp",
                &format!("-r --no-target-directory {} {}", self.path.display(), kept.display()),
            )
            .is_ok();
        if moved {
            eprintln!("kept: {}", kept.canonicalize().unwrap_or(kept).display());
        } else {
            eprintln!("could not keep {}", self.path.display());
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep();
        }
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("{}: {error}", self.path.display());
        }
    }
}
