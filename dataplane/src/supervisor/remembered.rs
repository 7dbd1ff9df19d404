//! What outlives a supervisor in the run directory: whether the node was started or parked, and which release
//! it runs, or is on its way to.
//!
//! ```text
//!   supervisor is started (by systemd, a lab) -> a swap under way?  -> become the supervisor of that release
//!                                                (died in it too often -> of the release before)
//!                                             -> another release?   -> become its supervisor
//! ```
//!
//! Written as a whole or not at all, by the supervisor that holds the directory. A clean stop forgets it: then
//! the node file says how the node begins, as it does after the host was started anew.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::run_dir::{REMEMBERED, RunDir, RunDirError};
use crate::config::Begin;

/// Longest file that is read.
const BYTES_MAX: u64 = 16_384;

/// How often a supervisor may die in one swap before that is turned back.
const SWAP_TRIES_MAX: u32 = 3;

/// Longest reason that is kept.
const REASON_BYTES_MAX: usize = 1000;

/// A swap that has begun and has not come to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwapUnderWay {
    /// The release it leads to; none for the programs the node was started with.
    pub to: Option<String>,
    /// Supervisors that have been started in it.
    pub tries: u32,
    /// Why another swap was turned back, where this one is the way back.
    pub failed: Option<String>,
}

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remembered {
    /// What the node was last told to be; none: what its node file says.
    pub begin: Option<Begin>,
    /// The release that runs; none for the programs the node was started with.
    pub release: Option<String>,
    /// The supervisor that the node was started with.
    pub host_program: Option<PathBuf>,
    /// Whether a swap is under way.
    pub swap: Option<SwapUnderWay>,
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
        // A table of strings and numbers always has a text.
        run_dir.write(REMEMBERED, &toml::to_string(self).unwrap_or_default())
    }

    /// A supervisor was started that is told nothing: counts it in the swap under way, which is turned back
    /// when too many have died in it, and says which release is to run.
    pub fn begin_anew(&mut self) -> Option<String> {
        let Some(swap) = &mut self.swap else { return self.release.clone() };
        swap.tries += 1;
        if swap.tries > SWAP_TRIES_MAX && swap.failed.is_none() {
            let died = swap.tries - 1;
            self.turn_back(format!("{died} supervisors ended in the middle of it"));
        }
        self.swap.as_ref().and_then(|swap| swap.to.clone())
    }

    /// The swap under way leads back to the release before it.
    pub fn turn_back(&mut self, mut reason: String) {
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        self.swap = Some(SwapUnderWay { to: self.release.clone(), tries: 1, failed: Some(reason) });
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
        let swap = SwapUnderWay { to: Some("r2".into()), tries: 2, failed: Some("\"no\"".into()) };
        for this in [
            Remembered { begin: Some(Begin::Parked), ..Remembered::default() },
            Remembered {
                begin: Some(Begin::Serving),
                release: Some("r1".into()),
                host_program: Some("/opt/a b".into()),
                swap: Some(swap),
            },
        ] {
            this.write(&run_dir).unwrap();
            assert_eq!(Remembered::read(&run_dir), (this, None));
        }
        for nonsense in ["begin = \"maybe\"".to_owned(), "#".repeat(20_000)] {
            run_dir.write(REMEMBERED, &nonsense).unwrap();
            let (this, said) = Remembered::read(&run_dir);
            assert!(this == Remembered::default() && said.is_some());
        }
        let path = run_dir.path().to_owned();
        run_dir.clear();
        assert!(!path.exists(), "a clean stop forgets it");
    }

    #[test]
    fn a_swap_in_which_supervisors_die_is_turned_back() {
        let to = Some("r2".to_owned());
        let mut this = Remembered { release: Some("r1".into()), ..Remembered::default() };
        assert_eq!(this.begin_anew(), Some("r1".into()));
        this.swap = Some(SwapUnderWay { to: to.clone(), tries: 1, failed: None });
        assert_eq!((this.begin_anew(), this.begin_anew()), (to.clone(), to));
        assert_eq!(this.begin_anew(), Some("r1".into()));
        let swap = this.swap.clone().unwrap();
        assert!(swap.failed.unwrap().contains("3 supervisors"));
        // The way back has no other.
        for _ in 0..9 {
            assert_eq!(this.begin_anew(), Some("r1".into()));
        }
        this.turn_back("ü".repeat(1000));
        assert!(this.swap.unwrap().failed.unwrap().len() <= REASON_BYTES_MAX);
    }
}
