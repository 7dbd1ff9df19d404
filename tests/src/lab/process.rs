//! A child process that ends with its guard.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{LabError, NetNs, RunId, at};
use crate::wait::wait_until;

/// Names the run in the environment of every process it starts.
pub(super) const RUN_VARIABLE: &str = "NAUTILUS_LAB_RUN";

/// How long a process has between SIGTERM and SIGKILL. Too low: it cannot put things back; too high:
/// a hung one holds the tests up.
const TERMINATE_MAX: Duration = Duration::from_secs(5);

/// A started process. Dropping it sends SIGTERM, then SIGKILL, and reaps it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts `program` inside `namespace`; both outputs are appended to `log`.
    pub fn start(
        run: RunId,
        namespace: &NetNs,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        log: &Path,
    ) -> Result<Self, LabError> {
        let mut command = namespace.command(program.as_ref());
        command.args(arguments);
        Self::start_command(run, command, &program.as_ref().to_string_lossy(), log)
    }

    /// Starts a prepared command; both outputs are appended to `log`.
    pub fn start_command(
        run: RunId,
        mut command: Command,
        name: &str,
        log: &Path,
    ) -> Result<Self, LabError> {
        let output = at(log, OpenOptions::new().create(true).append(true).open(log))?;
        let errors = at(log, output.try_clone())?;
        let child = command
            .env(RUN_VARIABLE, run.as_str())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            // Ctrl-C is for whoever started the lab; it ends its processes in order.
            .process_group(0)
            .spawn()
            .map_err(|source| LabError::Start { program: name.to_owned(), source })?;
        Ok(Self { child, name: name.to_owned() })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// How it ended; None while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Sends a signal; quiet when the process has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            // It may end between the look and the signal.
            let _ = kill(Pid::from_raw(self.pid()), signal);
        }
    }

    /// Kills and reaps.
    pub fn kill(&mut self) -> ExitStatus {
        self.signal(Signal::SIGKILL);
        self.child.wait().expect("a child can be waited for")
    }

    /// Asks it to end, kills it when it does not, and says how it ended.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        match wait_until("the process ends", TERMINATE_MAX, || self.ended().is_some()) {
            Ok(()) => self.child.wait().expect("a child can be waited for"),
            Err(error) => {
                eprintln!("{} (pid {}): {error}; killed", self.name, self.pid());
                self.kill()
            }
        }
    }

    /// Waits at most `timeout` for the end; an error when it ended badly or not at all.
    pub fn finish(&mut self, timeout: Duration) -> Result<(), LabError> {
        let what = format!("{} ended", self.name);
        wait_until(what, timeout, || self.ended().is_some())?;
        let status = self.child.wait().expect("a child can be waited for");
        if status.success() {
            return Ok(());
        }
        Err(LabError::Command(crate::command::CommandError::Failed {
            command: self.name.clone(),
            status,
            stderr: format!("signal {:?}; see its log", status.signal()),
        }))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.terminate();
    }
}

/// Where the workspace's programs lie: `$NAUTILUS_BIN_DIR`, else the folder of the running program
/// (of a test: the folder above `deps`).
pub fn bin_dir() -> PathBuf {
    if let Some(folder) = std::env::var_os("NAUTILUS_BIN_DIR") {
        return folder.into();
    }
    let program = std::env::current_exe().expect("a running program has a path");
    let folder = program.parent().expect("a program lies in a folder");
    match folder.file_name() {
        Some(name) if name == "deps" => folder.parent().expect("deps lies in a folder").to_owned(),
        _ => folder.to_owned(),
    }
}

/// The workspace program `name`, built beforehand (`cargo build --workspace --bins`).
pub fn binary(name: &str) -> PathBuf {
    bin_dir().join(name)
}
