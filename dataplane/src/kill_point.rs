//! Named places where a test has the process killed.
//!
//! With the feature `kill-points` (tests only) a process whose environment has
//! `NAUTILUS_KILL_POINT=<name>` gets SIGKILL when it passes that place while the file named by
//! `NAUTILUS_KILL_FILE` exists; it removes the file first, so that one file is one death. Without the
//! feature all of this compiles to nothing.
//!
//! The place `worker.store` is every store of the frame ledger: the file holds how many more stores
//! are let pass once it has been seen.
//!
//! With the same feature, `NAUTILUS_BOUND_RINGS=refused` in the environment makes the process see what
//! kernels below Linux 6.4 show: the rings of a bound AF_XDP socket cannot be mapped.

use nautilus_shm::ledger::{Recovered, StorePoint};

/// Dies here if a test asked for it.
#[inline(always)]
pub fn kill_point(name: &str) {
    #[cfg(feature = "kill-points")]
    armed::pass(name);
    #[cfg(not(feature = "kill-points"))]
    let _ = name;
}

/// Folders that a confined process must be able to write in for [`kill_point`] to work: none in a release.
pub fn folders() -> Vec<std::path::PathBuf> {
    #[cfg(feature = "kill-points")]
    return armed::folders();
    #[cfg(not(feature = "kill-points"))]
    Vec::new()
}

/// Whether mapping the rings of a bound socket has to fail, as it does below Linux 6.4.
#[inline(always)]
pub fn bound_rings_are_refused() -> bool {
    #[cfg(feature = "kill-points")]
    return std::env::var("NAUTILUS_BOUND_RINGS").is_ok_and(|value| value == "refused");
    #[cfg(not(feature = "kill-points"))]
    false
}

/// The kill point `worker.store`: between any two stores of the frame ledger.
#[derive(Clone, Copy, Debug)]
pub struct EveryStore;

impl StorePoint for EveryStore {
    #[inline(always)]
    fn stored(&self) {
        #[cfg(feature = "kill-points")]
        armed::stored();
    }
}

/// Lets a test see in the supervisor's log what a successor found.
#[inline(always)]
pub fn recovered(found: &Recovered) {
    #[cfg(feature = "kill-points")]
    eprintln!("recovered {found:?}");
    #[cfg(not(feature = "kill-points"))]
    let _ = found;
}

#[cfg(feature = "kill-points")]
mod armed {
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use nix::sys::signal::{Signal, raise};

    /// Stores between two looks for the file.
    const LOOK_EVERY: u64 = 16;

    pub fn folders() -> Vec<PathBuf> {
        let file = std::env::var_os("NAUTILUS_KILL_FILE").map(PathBuf::from);
        file.and_then(|file| Some(file.parent()?.to_owned())).into_iter().collect()
    }

    fn wanted(name: &str) -> Option<&'static PathBuf> {
        static WANTED: OnceLock<Option<(String, PathBuf)>> = OnceLock::new();
        let wanted = WANTED.get_or_init(|| {
            let name = std::env::var("NAUTILUS_KILL_POINT").ok()?;
            Some((name, std::env::var_os("NAUTILUS_KILL_FILE")?.into()))
        });
        wanted.as_ref().and_then(|(wanted, file)| (wanted == name).then_some(file))
    }

    fn die(file: &PathBuf) {
        if std::fs::remove_file(file).is_ok() {
            let _ = raise(Signal::SIGKILL);
        }
    }

    pub fn pass(name: &str) {
        if let Some(file) = wanted(name) {
            die(file);
        }
    }

    pub fn stored() {
        static SEEN: AtomicU64 = AtomicU64::new(0);
        static LEFT: AtomicU64 = AtomicU64::new(u64::MAX);
        let Some(file) = wanted("worker.store") else { return };
        let left = LEFT.load(Ordering::Relaxed);
        if left == 0 {
            die(file);
        } else if left != u64::MAX {
            LEFT.store(left - 1, Ordering::Relaxed);
        } else if SEEN.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOK_EVERY) {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            LEFT.store(text.trim().parse().unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }
}
