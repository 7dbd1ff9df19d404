//! A process that is started again when it dies, as systemd does for a host (`Restart=always`).

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{LabError, NetNs, Process, RunId};

/// Pause between a death and the next start (`RestartSec`, whose default is 100 ms). Too low: a
/// process that cannot start spins; too high: the node is unsupervised for longer.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// How often the process is looked at.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// What is started.
#[derive(Clone, Debug)]
struct Plan {
    run: RunId,
    namespace: Option<Arc<NetNs>>,
    program: PathBuf,
    arguments: Vec<OsString>,
    log: PathBuf,
}

impl Plan {
    fn start(&self) -> Result<Process, LabError> {
        let mut command = match &self.namespace {
            Some(namespace) => namespace.command(&self.program),
            None => Command::new(&self.program),
        };
        command.args(&self.arguments);
        Process::start_command(self.run, command, &self.program.to_string_lossy(), &self.log)
    }
}

/// The service as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceStatus {
    /// Process id, None between a death and the next start.
    pub pid: Option<i32>,
    /// Starts after the first.
    pub restarts: u32,
}

#[derive(Debug)]
struct Shared {
    process: Option<Process>,
    restarts: u32,
    held: bool,
}

/// A process under watch. Dropping it ends the process for good.
#[derive(Debug)]
pub struct Service {
    shared: Arc<Mutex<Shared>>,
    stop: Option<Sender<()>>,
    watcher: Option<JoinHandle<()>>,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().expect("no holder panics")
}

impl Service {
    /// Starts `program` inside `namespace`, or where the caller is, and keeps it running; outputs are
    /// appended to `log`.
    pub fn start(
        run: RunId,
        namespace: Option<&Arc<NetNs>>,
        program: PathBuf,
        arguments: Vec<OsString>,
        log: PathBuf,
    ) -> Result<Self, LabError> {
        let plan = Plan { run, namespace: namespace.cloned(), program, arguments, log };
        let shared =
            Arc::new(Mutex::new(Shared { process: Some(plan.start()?), restarts: 0, held: false }));
        let (stop, stopped) = channel();
        let watched = Arc::clone(&shared);
        let watcher = std::thread::Builder::new()
            .name("restarts".into())
            .spawn(move || watch(&plan, &watched, &stopped))
            .map_err(|source| LabError::Start { program: "a watching thread".into(), source })?;
        Ok(Self { shared, stop: Some(stop), watcher: Some(watcher) })
    }

    /// Its process now.
    pub fn status(&self) -> ServiceStatus {
        let shared = lock(&self.shared);
        ServiceStatus { pid: shared.process.as_ref().map(Process::pid), restarts: shared.restarts }
    }

    /// Kills the process (SIGKILL) without stopping the service: it is started again.
    pub fn kill(&self) {
        if let Some(process) = lock(&self.shared).process.as_mut() {
            process.signal(nix::sys::signal::Signal::SIGKILL);
        }
    }

    /// Kills the process and leaves it dead until [`Self::release`].
    pub fn kill_and_hold(&self) {
        lock(&self.shared).held = true;
        self.kill();
    }

    /// Lets a held process be started again.
    pub fn release(&self) {
        lock(&self.shared).held = false;
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
        // Ends with the guard inside.
        lock(&self.shared).process = None;
    }
}

fn watch(plan: &Plan, shared: &Mutex<Shared>, stopped: &Receiver<()>) {
    let mut pause = LOOK_PAUSE;
    while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        let mut shared = lock(shared);
        let ended = shared.process.as_mut().map(|process| process.ended().is_some());
        match ended {
            Some(false) => pause = LOOK_PAUSE,
            Some(true) => {
                shared.process = None;
                pause = RESTART_PAUSE;
            }
            None if shared.held => {}
            None => {
                match plan.start() {
                    Ok(process) => {
                        shared.process = Some(process);
                        shared.restarts += 1;
                    }
                    Err(error) => eprintln!("{error}"),
                }
                pause = LOOK_PAUSE;
            }
        }
    }
}
