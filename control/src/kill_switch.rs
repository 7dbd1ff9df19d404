//! The kill switch: prices suspect and publishers silent, on one node or on all of a site, until it is released.
//!
//! Asked of each node's supervisor, by whoever may command it; it works while the daemon is dead. Nodes are asked at
//! once, each on a thread of its own: one whose supervisor does not answer keeps no other waiting.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use nautilus_shm::cells::WorkerState;
use nautilus_shm::control_region::{ControlReader, WORKERS_MAX};
use nautilus_shm::kill_switch::KillSwitchState;
use serde::Serialize;
use utoipa::ToSchema;

use crate::attach::{ReachError, attach, turn_kill_switch};
use crate::config::{Config, ConfigError, DEFAULT_PATH};

/// How long a supervisor that does not answer is asked again: another one takes a dead one's place. Too low: a node
/// in that moment stays on. Too high: an operator waits to hear that nobody is there.
const PATIENCE: Duration = Duration::from_secs(3);

/// Between two attempts, and two looks at whether a worker obeys.
const PAUSE: Duration = Duration::from_millis(1);

/// How long workers are waited for. One that is stopped is killed by its supervisor meanwhile.
const OBEY_PATIENCE: Duration = Duration::from_millis(500);

/// What became of one node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Turned {
    /// Whether the switch is on.
    pub on: bool,
    /// What the supervisor said.
    pub said: String,
    /// From the change until the last active worker obeyed; `None` when one had not by the time this was written.
    pub obeyed_after_s: Option<f64>,
}

/// The switch as a node's region shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct KillSwitchStatus {
    /// Whether prices are suspect and publishers silent.
    pub on: bool,
    /// Seconds since it was set so; 0 if it never was.
    pub since_s: f64,
    /// User who set it.
    pub uid: u32,
    /// Why, in his words.
    pub reason: String,
    /// From the change until the last active worker obeyed; `None` while one does not.
    pub obeyed_after_s: Option<f64>,
}

impl KillSwitchStatus {
    /// What the region says at `now_ns`.
    pub fn of(region: &ControlReader, now_ns: u64) -> Self {
        // A supervisor killed inside the state leaves the turn readable, and its successor writes both.
        let Ok(state) = region.kill_switch() else { return Self::default() };
        let KillSwitchState { is_on, since_ns, uid, reason } = state;
        let is_known = since_ns != 0;
        Self {
            on: is_on,
            since_s: if is_known { seconds(now_ns.saturating_sub(since_ns)) } else { 0.0 },
            uid,
            reason: reason.chars().filter(|c| !c.is_control()).collect(),
            obeyed_after_s: is_known.then(|| obeyed_after_s(region, since_ns)).flatten(),
        }
    }
}

/// From the change until the last active worker obeyed. The front is not waited for: with a client it looks every 200 us,
/// and without one it sleeps and has nothing to say.
fn obeyed_after_s(region: &ControlReader, since_ns: u64) -> Option<f64> {
    let is_active = |slot: &usize| {
        region.worker(*slot).identity().is_ok_and(|worker| worker.state == WorkerState::Active)
    };
    let workers = (0..WORKERS_MAX).filter(is_active).map(|slot| region.kill_switch_obeyed_ns(slot));
    let workers: Option<Vec<u64>> = workers.collect();
    let last_ns = workers?.into_iter().max()?;
    Some(seconds(last_ns.saturating_sub(since_ns)))
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// Turns the switch of one node, and waits until its workers obey.
pub fn turn(run_dir: &Path, on: bool, reason: &str) -> Result<Turned, ReachError> {
    let end = Instant::now() + PATIENCE;
    let said = loop {
        match turn_kill_switch(run_dir, on, reason) {
            Err(ReachError::Connect { .. } | ReachError::Answer { .. }) if Instant::now() < end => {
                std::thread::sleep(PAUSE);
            }
            answer => break answer?,
        }
    };
    let attached = attach(run_dir)?;
    let end = Instant::now() + OBEY_PATIENCE;
    loop {
        let now_ns = nautilus_shm::clock::monotonic_ns();
        let status = KillSwitchStatus::of(&attached.region, now_ns);
        if status.obeyed_after_s.is_some() || Instant::now() >= end {
            return Ok(Turned { on: status.on, said, obeyed_after_s: status.obeyed_after_s });
        }
        std::thread::sleep(PAUSE);
    }
}

/// Turns the switches of all these nodes at the same time; the answers in their order.
pub fn turn_all(run_dirs: &[PathBuf], on: bool, reason: &str) -> Vec<Result<Turned, ReachError>> {
    std::thread::scope(|scope| {
        let begin = run_dirs.iter().map(|run_dir| scope.spawn(move || turn(run_dir, on, reason)));
        // All of them, before the first is waited for.
        let threads: Vec<_> = begin.collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    })
}

/// Makes all prices of feeds suspect and silences every publisher, until it is released
#[derive(Debug, Subcommand)]
pub enum KillSwitchCommand {
    /// Turns it on
    On(KillSwitchTurn),
    /// Releases it: prices are what their feeds make of them from then on
    Off(KillSwitchTurn),
    /// Says where it is on; exit code 1 if it is anywhere
    Status(KillSwitchNodes),
}

/// Where, and why.
#[derive(Args, Debug)]
pub struct KillSwitchTurn {
    #[command(flatten)]
    nodes: KillSwitchNodes,
    /// Why, for the event log and everybody who asks
    #[arg(long, default_value = "")]
    reason: String,
}

/// Which nodes.
#[derive(Args, Debug)]
pub struct KillSwitchNodes {
    /// Run directory of a node; may be repeated. All nodes of the configuration unless said
    #[arg(long = "node", value_name = "RUN_DIR", conflicts_with = "config")]
    run_dirs: Vec<PathBuf>,
    /// File with the list of nodes
    #[arg(long, env = "NAUTILUS_CONTROL_CONFIG")]
    config: Option<PathBuf>,
    /// Prints one JSON document, by run directory
    #[arg(long)]
    json: bool,
}

impl KillSwitchNodes {
    fn run_dirs(&self) -> Result<Vec<PathBuf>, ConfigError> {
        if !self.run_dirs.is_empty() {
            return Ok(self.run_dirs.clone());
        }
        let config = Config::load(self.config.as_deref().unwrap_or(Path::new(DEFAULT_PATH)))?;
        Ok(config.nodes.into_iter().map(|node| node.run_dir).collect())
    }
}

impl KillSwitchCommand {
    /// Does it and says how that went: 0 done everywhere (`status`: off everywhere), 1 a node said no (`status`: on
    /// somewhere), 2 bad usage, 3 a node could not be asked.
    pub fn run(&self) -> ExitCode {
        let (nodes, turns) = match self {
            Self::On(turn) => (&turn.nodes, Some((true, &turn.reason))),
            Self::Off(turn) => (&turn.nodes, Some((false, &turn.reason))),
            Self::Status(nodes) => (nodes, None),
        };
        let run_dirs = match nodes.run_dirs() {
            Ok(run_dirs) => run_dirs,
            Err(error) => {
                eprintln!("nautilus: {error}");
                return ExitCode::from(2);
            }
        };
        match turns {
            Some((on, reason)) => {
                tell_turned(&run_dirs, turn_all(&run_dirs, on, reason), nodes.json)
            }
            None => tell_status(&run_dirs, nodes.json),
        }
    }
}

fn tell_turned(
    run_dirs: &[PathBuf],
    answers: Vec<Result<Turned, ReachError>>,
    json: bool,
) -> ExitCode {
    let mut worst = 0;
    let mut document = serde_json::Map::new();
    for (run_dir, answer) in run_dirs.iter().zip(answers) {
        let name = run_dir.display().to_string();
        match answer {
            Ok(turned) if json => {
                document.insert(name, serde_json::to_value(&turned).unwrap_or_default());
            }
            Ok(Turned { said, obeyed_after_s, .. }) => {
                println!("{name}: {said}, {}", obeyed(obeyed_after_s))
            }
            Err(error) => {
                worst = worst.max(if matches!(error, ReachError::Refused { .. }) { 1 } else { 3 });
                eprintln!("nautilus: {error}");
            }
        }
    }
    if json {
        println!("{}", serde_json::Value::Object(document));
    }
    ExitCode::from(worst)
}

fn tell_status(run_dirs: &[PathBuf], json: bool) -> ExitCode {
    let mut worst = 0;
    let mut document = serde_json::Map::new();
    for run_dir in run_dirs {
        let name = run_dir.display().to_string();
        let attached = match attach(run_dir) {
            Ok(attached) => attached,
            Err(error) => {
                worst = 3;
                eprintln!("nautilus: {error}");
                continue;
            }
        };
        let now_ns = nautilus_shm::clock::monotonic_ns();
        let status = KillSwitchStatus::of(&attached.region, now_ns);
        worst = worst.max(status.on.into());
        if json {
            document.insert(name, serde_json::to_value(&status).unwrap_or_default());
        } else {
            println!("{name}: {}", shown(&status));
        }
    }
    if json {
        println!("{}", serde_json::Value::Object(document));
    }
    ExitCode::from(worst)
}

/// The switch in words.
pub fn shown(status: &KillSwitchStatus) -> String {
    let KillSwitchStatus { on, since_s, uid, reason, obeyed_after_s } = status;
    match on {
        true => {
            let because = if reason.is_empty() { "" } else { ": " };
            format!(
                "on for {since_s:.1} s by uid {uid}{because}{reason}, {}",
                obeyed(*obeyed_after_s)
            )
        }
        false => "off".into(),
    }
}

fn obeyed(after_s: Option<f64>) -> String {
    match after_s {
        Some(after_s) => format!("obeyed after {:.3} ms", after_s * 1e3),
        None => "a worker does not obey yet".into(),
    }
}
