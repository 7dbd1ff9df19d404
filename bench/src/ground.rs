//! What a row runs on, and how it goes away again, however the bench ends.
//!
//! ```text
//!   nautilus-bench --- pipe ---> nautilus-bench-guardian
//!     ends in order: says so        ends
//!     SIGTERM, SIGINT, SIGKILL      kills the run's processes, deletes its namespaces and its folder
//! ```
//!
//! Guards cannot run in a process that was killed, and the servers that are not being measured are
//! stopped, so that they would not hear a request to end either. The guardian is in a process group of
//! its own, and no signal that means its parent ends it.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;
use nautilus_tests::lab::{Folder, RunId, binary, left_behind, sweep};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// What a bench says whose guards have run.
const IN_ORDER: &[u8] = b".";

/// Pause between two looks for what is left. Too low: a namespace that a command of the dead bench is
/// still making is overlooked. Too high: names of the run stay longer.
const PAUSE: Duration = Duration::from_millis(200);

/// Sweeps after the end of a bench.
const SWEEPS_MAX: usize = 50;

/// Run id, folder and guardian of one row.
pub struct Ground {
    /// In the name of everything the row makes.
    pub run: RunId,
    /// Configuration, sockets and logs.
    pub folder: Arc<Folder>,
    // Last: by then there is nothing left to guard.
    _guardian: Guardian,
}

impl Ground {
    /// A run with nothing in it.
    pub fn new() -> anyhow::Result<Self> {
        let run = RunId::draw();
        let folder = Arc::new(Folder::create(run)?);
        let _guardian = Guardian::over(run, folder.path())?;
        Ok(Self { run, folder, _guardian })
    }
}

/// The process that cleans up. Dropping it says that there is nothing to do.
struct Guardian(Child);

impl Guardian {
    fn over(run: RunId, folder: &Path) -> anyhow::Result<Self> {
        let program = binary("nautilus-bench-guardian");
        let child = Command::new(&program)
            .arg(run.as_str())
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| {
                format!("starting {}: scripts/bench.sh builds it", program.display())
            })?;
        Ok(Self(child))
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        if let Some(mut pipe) = self.0.stdin.take() {
            // One that has ended has nothing to hear.
            let _ = pipe.write_all(IN_ORDER);
        }
        let _ = self.0.wait();
    }
}

/// The guardian's life: waits on `pipe` for the end of the bench, and cleans up after one that did not
/// end in order.
pub fn guard(run: RunId, folder: &Path, mut pipe: impl Read) -> anyhow::Result<()> {
    let seen = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&seen))?;
    }
    let mut said = Vec::new();
    // A pipe that fails has no bench at its other end either.
    let _ = pipe.read_to_end(&mut said);
    if said == IN_ORDER {
        return Ok(());
    }
    let mut left = Vec::new();
    // The first look may come before the last command of the bench has made what it makes.
    for round in 0..SWEEPS_MAX {
        sweep(run);
        if folder.exists() {
            // What still writes into it goes with the next sweep.
            let _ = std::fs::remove_dir_all(folder);
        }
        left = left_behind(run);
        left.extend(folder.exists().then(|| format!("folder {}", folder.display())));
        if left.is_empty() && round > 0 {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
    anyhow::bail!("the bench left behind:\n{}", left.join("\n"))
}
