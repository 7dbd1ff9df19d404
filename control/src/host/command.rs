//! `nautilus host check|init|fini|record|explain`.
//!
//! | exit code | `check` | `init` | `fini` |
//! | --- | --- | --- | --- |
//! | 0 | nothing is lost for the tier | every change of the plan was made | all is as before |
//! | 1 | something is lost | a change was refused, or left to another program | something was left |
//! | 2 | bad usage | bad usage, or not confirmed | bad usage |
//! | 3 | a node cannot run here | the state file cannot be used | the state file cannot be used |

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use super::apply::{self, Result as Applied};
use super::by_node;
use super::facts::Choice;
use super::knob::Stage;
use super::machine::Machine;
use super::plan::Plan;
use super::recording;
use super::report::Report;
use super::state::{BOOT_ID, DEFAULT_STATE, State, StateError};
use super::survey::Survey;
use super::table;
use super::tier::Tier;
use super::value::core_list;

pub(super) const LOST: u8 = 1;
pub(super) const USAGE: u8 = 2;
pub(super) const CANNOT: u8 = 3;

/// Looks at this host, and changes it so that it can be undone
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// Says what this host can keep of the promises, and what is lost where it cannot
    Check {
        /// What is looked at
        #[command(flatten)]
        target: Target,
        /// Tier that the exit code is for
        #[arg(long, value_enum, default_value = "ultra")]
        tier: TierName,
        /// Shows what the tier does not ask for too
        #[arg(long)]
        all: bool,
        /// Prints one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Shows what differs from a tier's wishes, and changes it once confirmed
    Init {
        /// What is looked at
        #[command(flatten)]
        target: Target,
        /// Tier whose wishes count
        #[arg(long, value_enum, default_value = "ultra")]
        tier: TierName,
        /// How it can be undone
        #[command(flatten)]
        undo: Undo,
        /// Stage to change; may be repeated; all of them unless said
        #[arg(long = "stage", value_enum, value_name = "STAGE")]
        stages: Vec<Stage>,
        /// Shows the plan and ends
        #[arg(long)]
        dry_run: bool,
        /// Changes without asking
        #[arg(long)]
        yes: bool,
    },
    /// Makes everything that init changed as it was
    Fini {
        /// What is looked at
        #[command(flatten)]
        target: Target,
        /// How it can be undone
        #[command(flatten)]
        undo: Undo,
    },
    /// Copies what the doctor reads into a folder, for --root
    Record {
        /// The folder; must not be there yet
        folder: PathBuf,
        /// What is looked at
        #[command(flatten)]
        target: Target,
        /// Writes it as one text file too
        #[arg(long, value_name = "FILE")]
        pack: Option<PathBuf>,
    },
    /// Says what a knob is, why it matters, and what too little and too much of it do
    Explain {
        /// Its name; every knob without one
        knob: Option<String>,
    },
}

/// What is looked at.
#[derive(Debug, Args)]
pub struct Target {
    /// Looks at a recorded machine
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Interface to look at; may be repeated; all with a device unless said
    #[arg(long = "interface", value_name = "NAME")]
    interfaces: Vec<String>,
    /// Worker cores as a list (1-3,8); the isolated ones unless said, else all but the first
    #[arg(long, value_name = "LIST")]
    cores: Option<String>,
}

/// How a change can be undone.
#[derive(Debug, Args)]
pub struct Undo {
    /// File that holds what was there before; needed with --root
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Overwrites what another program changed since
    #[arg(long)]
    force: bool,
    /// Has the supervisor of this run directory do it, for the interfaces and cores of its node, and without root
    #[arg(long, value_name = "RUN_DIR", conflicts_with_all = ["root", "interfaces", "cores", "state"])]
    node: Option<PathBuf>,
}

/// A tier as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum TierName {
    /// p99 below 100 us
    Ultra,
    /// p99 below 500 us
    High,
    /// p99 below 2 ms
    Standard,
    /// No budget
    Lab,
}

impl TierName {
    fn tier(self) -> Tier {
        match self {
            Self::Ultra => Tier::Ultra,
            Self::High => Tier::High,
            Self::Standard => Tier::Standard,
            Self::Lab => Tier::Lab,
        }
    }
}

/// Why a command ended early: exit code and words.
pub(super) type Failure = (u8, String);

impl Target {
    fn open(&self) -> Result<(Machine, Choice), Failure> {
        let machine = match &self.root {
            None => Machine::running(),
            Some(root) if root.is_dir() => Machine::recorded(root),
            Some(root) => return Err((USAGE, format!("{} is no folder", root.display()))),
        };
        let workers = match self.cores.as_deref().map(core_list) {
            None => None,
            Some(Ok(cores)) if !cores.is_empty() => Some(cores),
            Some(Ok(_)) => return Err((USAGE, "--cores names no core".into())),
            Some(Err(why)) => return Err((USAGE, format!("--cores: {why}"))),
        };
        Ok((machine, Choice { interfaces: self.interfaces.clone(), workers, allowed: None }))
    }

    /// The state file, opened for this machine.
    fn state(&self, machine: &Machine, undo: &Undo) -> Result<State, Failure> {
        let path = match (&undo.state, &self.root) {
            (Some(path), _) => path.as_path(),
            (None, None) => Path::new(DEFAULT_STATE),
            (None, Some(_)) => return Err((USAGE, "--root needs --state FILE".into())),
        };
        let root = match &self.root {
            None => "/".into(),
            Some(root) => {
                root.canonicalize().unwrap_or_else(|_| root.clone()).display().to_string()
            }
        };
        let cannot = |error: StateError| (CANNOT, error.to_string());
        let (state, is_anew) = State::of_machine(machine, path, &root).map_err(cannot)?;
        if is_anew {
            eprintln!("nautilus: {}: of an earlier boot, whose settings have gone", path.display());
        }
        Ok(state)
    }
}

impl HostCommand {
    /// Runs it.
    pub fn run(&self) -> ExitCode {
        let done = match self {
            Self::Check { target, tier, all, json } => check(target, tier.tier(), *all, *json),
            Self::Init { target, tier, undo, stages, dry_run, yes } => {
                if let Some(node) = &undo.node {
                    return ended(by_node::init(
                        node,
                        tier.tier(),
                        stages,
                        undo.force,
                        *dry_run,
                        *yes,
                    ));
                }
                let plan = plan(target, tier.tier(), stages);
                plan.and_then(|(machine, plan)| init(target, &machine, &plan, undo, *dry_run, *yes))
            }
            Self::Fini { target, undo } => match &undo.node {
                Some(node) => by_node::fini(node, undo.force),
                None => fini(target, undo),
            },
            Self::Record { folder, target, pack } => record(folder, target, pack.as_deref()),
            Self::Explain { knob } => explain(knob.as_deref()),
        };
        ended(done)
    }
}

fn ended(done: Result<ExitCode, Failure>) -> ExitCode {
    done.unwrap_or_else(|(code, why)| {
        eprintln!("nautilus: {why}");
        ExitCode::from(code)
    })
}

/// Writes to stdout; that nobody reads it is no error.
pub(super) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn check(target: &Target, tier: Tier, all: bool, json: bool) -> Result<ExitCode, Failure> {
    let (machine, choice) = target.open()?;
    let report = Report::of(&Survey::of(&machine, &choice), tier);
    if json {
        print(&(serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"));
    } else {
        print(&report.to_text(all));
    }
    Ok(match report.verdict() {
        "cannot_run" => ExitCode::from(CANNOT),
        "lost" => ExitCode::from(LOST),
        _ => ExitCode::SUCCESS,
    })
}

/// What would be changed; printed.
fn plan(target: &Target, tier: Tier, stages: &[Stage]) -> Result<(Machine, Plan), Failure> {
    let (machine, choice) = target.open()?;
    let mut plan = Plan::of(&Survey::of(&machine, &choice), &machine, tier);
    if !stages.is_empty() {
        plan.keep(stages);
    }
    print(&plan.to_text(tier));
    Ok((machine, plan))
}

fn init(
    target: &Target,
    machine: &Machine,
    plan: &Plan,
    undo: &Undo,
    dry_run: bool,
    yes: bool,
) -> Result<ExitCode, Failure> {
    if dry_run || plan.steps.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    if !yes && !confirmed(plan.steps.len())? {
        return Err((USAGE, "not confirmed: nothing was changed".into()));
    }
    let mut state = target.state(machine, undo)?;
    let results = apply::init(machine, &mut state, plan, undo.force, &mut |_| {})
        .map_err(|error| (CANNOT, error.to_string()))?;
    if state.standing().is_empty() {
        state.remove().map_err(|error| (CANNOT, error.to_string()))?;
    }
    Ok(told(&results, "changed"))
}

pub(super) fn confirmed(count: usize) -> Result<bool, Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err((USAGE, "nobody to ask: add --yes; nothing was changed".into()));
    }
    print(&format!("make these {count} changes? [y/N] "));
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    Ok(read.is_ok() && ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

fn fini(target: &Target, undo: &Undo) -> Result<ExitCode, Failure> {
    let (machine, _) = target.open()?;
    let mut state = target.state(&machine, undo)?;
    let cannot = |error: StateError| (CANNOT, error.to_string());
    let results = apply::fini(&machine, &mut state, undo.force, &mut |_| {}).map_err(cannot)?;
    if state.standing().is_empty() {
        state.remove().map_err(cannot)?;
    }
    Ok(told(&results, "as before"))
}

fn told(results: &[Applied], done: &str) -> ExitCode {
    let (text, left) = apply::told(results, done);
    print(&text);
    if left == 0 { ExitCode::SUCCESS } else { ExitCode::from(LOST) }
}

fn record(folder: &Path, target: &Target, pack: Option<&Path>) -> Result<ExitCode, Failure> {
    let (machine, choice) = target.open()?;
    if folder.exists() {
        return Err((USAGE, format!("{} is there already", folder.display())));
    }
    std::fs::create_dir_all(folder).map_err(|error| (CANNOT, error.to_string()))?;
    let machine = machine.copying_to(folder);
    let survey = Survey::of(&machine, &choice);
    // Not a knob, but what a state file is compared with.
    let _ = machine.text(BOOT_ID);
    let cannot = |error: recording::RecordingError| (CANNOT, error.to_string());
    let count = recording::files(folder).map_err(cannot)?.len();
    if let Some(file) = pack {
        let text = recording::pack(folder).map_err(cannot)?;
        std::fs::write(file, text)
            .map_err(|error| (CANNOT, format!("{}: {error}", file.display())))?;
    }
    print(&format!(
        "{count} files for {} knobs at {} places\n",
        survey.knobs.len(),
        survey.place_count()
    ));
    Ok(ExitCode::SUCCESS)
}

fn explain(knob: Option<&str>) -> Result<ExitCode, Failure> {
    match knob {
        None => {
            for knob in table::all() {
                print(&table::explanation(knob));
            }
        }
        Some(name) => match table::knob(name) {
            Some(knob) => print(&table::explanation(knob)),
            None => {
                return Err((USAGE, format!("there is no knob {name:?}; host explain lists all")));
            }
        },
    }
    Ok(ExitCode::SUCCESS)
}
