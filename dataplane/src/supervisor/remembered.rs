//! What outlives a supervisor in the run directory: whether the node was started or parked.
//!
//! Written as a whole or not at all, by the supervisor that holds the directory. A clean stop forgets it: then
//! the node file says how the node begins, as it does after the host was started anew.

use serde::{Deserialize, Serialize};

use super::run_dir::{REMEMBERED, RunDir, RunDirError};
use crate::config::Begin;

/// Longest file that is read.
const BYTES_MAX: u64 = 4096;

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remembered {
    /// What the node was last told to be; none: what its node file says.
    pub begin: Option<Begin>,
}

impl Remembered {
    /// What the last supervisor wrote, or nothing, with what there is to say about a file nobody can read.
    pub fn read(run_dir: &RunDir) -> (Self, Option<String>) {
        let path = run_dir.path().join(REMEMBERED);
        let text = match path.metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return (Self::default(), None);
            }
            Ok(found) if found.len() > BYTES_MAX => Err("is too long".to_owned()),
            Ok(_) => std::fs::read_to_string(&path).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let read = text.and_then(|text| {
            toml::from_str(&text).map_err(|error: toml::de::Error| error.message().to_owned())
        });
        match read {
            Ok(this) => (this, None),
            Err(problem) => {
                let place = path.display();
                let said = format!("{place}: {problem}; the node begins as its node file says");
                (Self::default(), Some(said))
            }
        }
    }

    /// Writes it for the next supervisor.
    pub fn write(&self, run_dir: &RunDir) -> Result<(), RunDirError> {
        // A table of strings always has a text.
        run_dir.write(REMEMBERED, &toml::to_string(self).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nonsense_is_said() {
        let root = tempfile::tempdir().unwrap();
        let run_dir = RunDir::take(&root.path().join("n")).unwrap();
        assert_eq!(Remembered::read(&run_dir), (Remembered::default(), None));
        for begin in [Begin::Parked, Begin::Serving] {
            let this = Remembered { begin: Some(begin) };
            this.write(&run_dir).unwrap();
            assert_eq!(Remembered::read(&run_dir), (this, None));
        }
        for nonsense in ["begin = \"maybe\"".to_owned(), "#".repeat(5000)] {
            run_dir.write(REMEMBERED, &nonsense).unwrap();
            let (this, said) = Remembered::read(&run_dir);
            assert!(this == Remembered::default() && said.is_some());
        }
        let path = run_dir.path().to_owned();
        run_dir.clear();
        assert!(!path.exists(), "a clean stop forgets it");
    }
}
