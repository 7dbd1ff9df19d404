//! `nautilus-lab`: labs that outlive the command that started them.
//!
//! ```text
//!   up ----starts----> keep ----owns----> namespaces, links, supervisors, control
//!                       |  writes lab.json          (ends them all on SIGTERM)
//!   status, shell <-----+
//!   release, deployment: what its nodes may run, and a document that says so
//!   down --SIGTERM----> keep, then sweeps by run id whatever is left
//! ```

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use nautilus_tests::lab::releases::{
    STRATEGIES, add_release, deployment, find_release, open_to_all, release_name,
};
use nautilus_tests::lab::state::{MemberState, State, WireState};
use nautilus_tests::lab::{Folder, Lab, RunId, WireAt, bin_dir, left_behind, sweep};
use nautilus_tests::wait::wait_until;
use nix::sys::signal::{Signal, kill};
use signal_hook::consts::{SIGINT, SIGTERM};

/// Labs of network namespaces: nodes, a client and a venue on one bridge, one control for all nodes.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Args)]
struct Which {
    /// Which lab; labs with different names run side by side.
    #[arg(long, default_value = "lab", value_parser = lab_name)]
    name: String,
}

#[derive(Subcommand)]
enum Verb {
    /// Starts a lab of COUNT nodes.
    Up {
        /// Nodes, 1..=200.
        count: usize,
        #[command(flatten)]
        which: Which,
        /// Prints the lab as JSON.
        #[arg(long)]
        json: bool,
        /// Starts no control process.
        #[arg(long)]
        no_control: bool,
        /// Puts a wire between the venue, or MEMBER, and the bridge that harms packets as FILE says (see
        /// `nautilus-fault --print-default`). Once a member.
        #[arg(long = "faults", value_name = "[MEMBER=]FILE")]
        wires: Vec<WireAt>,
        /// Nodes wait for a deployment instead of serving at once.
        #[arg(long)]
        parked: bool,
    },
    /// Puts programs where the nodes of a lab may be given them, as a release.
    Release {
        /// Its name.
        #[arg(value_parser = release_name)]
        release: String,
        #[command(flatten)]
        which: Which,
        /// Folder of the programs; those beside this one unless said.
        #[arg(long, value_name = "FOLDER")]
        from: Option<PathBuf>,
    },
    /// Prints a deployment of all nodes of a lab, for `nautilus nodes deploy`.
    Deployment {
        /// Its id.
        id: String,
        #[command(flatten)]
        which: Which,
        /// The order in which they change.
        #[arg(long = "type", default_value = "all_at_once", value_parser = STRATEGIES)]
        strategy: String,
        /// The release that the nodes shall run.
        #[arg(long, value_parser = release_name)]
        release: String,
        /// The deployment in whose place it comes.
        #[arg(long)]
        replaces: Option<String>,
    },
    /// Ends a lab and takes everything of it away; does nothing when there is none.
    Down {
        #[command(flatten)]
        which: Which,
    },
    /// Prints the members of a lab and their processes.
    Status {
        #[command(flatten)]
        which: Which,
        /// Prints the lab as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Runs a command, or a shell, inside a member's namespace.
    Shell {
        /// `node1`, `client`, `venue`, `control` ...
        member: String,
        #[command(flatten)]
        which: Which,
        /// The command; a shell when there is none.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Keeps a lab in the foreground: what `up` starts.
    #[command(hide = true)]
    Keep {
        count: usize,
        #[command(flatten)]
        which: Which,
        #[arg(long)]
        no_control: bool,
        #[arg(long = "faults")]
        wires: Vec<WireAt>,
        #[arg(long)]
        parked: bool,
    },
}

fn lab_name(text: &str) -> Result<String, String> {
    let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=20).contains(&text.len()) && text.bytes().all(fine) {
        return Ok(text.to_owned());
    }
    Err("1 to 20 of a-z, 0-9 and -".into())
}

/// Where all labs have their folders and logs.
const LABS: &str = "/run/nautilus-lab";

/// How long `up` waits: twice the bound of the nodes' own readiness.
const UP_MAX: Duration = Duration::from_secs(90);

/// How long `down` waits before it ends the lab by force.
const DOWN_MAX: Duration = Duration::from_secs(30);

/// How often the state file follows the processes.
const STATE_PAUSE: Duration = Duration::from_millis(100);

impl Which {
    fn folder(&self) -> PathBuf {
        Path::new(LABS).join(&self.name)
    }

    fn releases(&self) -> PathBuf {
        self.folder().join("releases")
    }

    fn log(&self) -> PathBuf {
        Path::new(LABS).join(format!("{}.log", self.name))
    }

    /// The running lab.
    fn state(&self) -> anyhow::Result<State> {
        match State::read(&self.folder()) {
            Some(state) if state.keeper.is_alive() => Ok(state),
            Some(_) => bail!("lab {}: its keeper died; `down` takes the rest away", self.name),
            None => bail!("lab {} is not up", self.name),
        }
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("nautilus-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        bail!("a lab is made of network namespaces: run this as root");
    }
    match verb {
        Verb::Up { count, which, json, no_control, wires, parked } => {
            up(&which, &Wanted { count, has_control: !no_control, wires, parked }, json)?;
        }
        Verb::Release { release, which, from } => {
            which.state()?;
            let from = from.unwrap_or_else(bin_dir);
            let made = add_release(&which.releases(), &release, &from)?;
            println!("release {release}: {}", made.display());
        }
        Verb::Deployment { id, which, strategy, release, replaces } => {
            let state = which.state()?;
            find_release(&which.releases(), &release)?;
            let nodes = state.members.iter().map(|member| member.name.as_str());
            let nodes = nodes.filter(|name| name.starts_with("node"));
            let document = deployment(&id, &strategy, nodes, &release, replaces.as_deref());
            println!("{}", serde_json::to_string_pretty(&document)?);
        }
        Verb::Down { which } => down(&which)?,
        Verb::Status { which, json } => print(&which.state()?, json),
        Verb::Shell { member, which, command } => shell(&which.state()?, &member, &command)?,
        Verb::Keep { count, which, no_control, wires, parked } => {
            keep(&which, &Wanted { count, has_control: !no_control, wires, parked })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What lab is wanted.
struct Wanted {
    count: usize,
    has_control: bool,
    wires: Vec<WireAt>,
    parked: bool,
}

fn up(which: &Which, wanted: &Wanted, json: bool) -> anyhow::Result<()> {
    if let Ok(state) = which.state() {
        bail!("lab {} is up already (run {}); `down` ends it", which.name, state.run);
    }
    down(which)?;
    std::fs::create_dir_all(LABS).context(LABS)?;
    let log_path = which.log();
    let log = File::create(&log_path).with_context(|| log_path.display().to_string())?;
    let mut keeper = Command::new(std::env::current_exe()?);
    keeper.args(["keep", &wanted.count.to_string(), "--name", &which.name]);
    if !wanted.has_control {
        keeper.arg("--no-control");
    }
    if wanted.parked {
        keeper.arg("--parked");
    }
    for WireAt { member, faults } in &wanted.wires {
        keeper.arg("--faults").arg(format!("{member}={}", faults.display()));
    }
    let mut keeper = keeper.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
    let mut ready = None;
    let waited = wait_until(format!("lab {} is up", which.name), UP_MAX, || {
        ready = State::read(&which.folder()).filter(|state| state.ready);
        ready.is_some() || matches!(keeper.try_wait(), Ok(Some(_)))
    });
    let Some(state) = ready else {
        let told = std::fs::read_to_string(&log_path).unwrap_or_default();
        if waited.is_err() {
            // It hangs; `down` asks it to end, then ends it.
            down(which)?;
        }
        bail!("lab {} did not come up ({}):\n{}", which.name, log_path.display(), told.trim());
    };
    print(&state, json);
    Ok(())
}

fn down(which: &Which) -> anyhow::Result<()> {
    let folder = which.folder();
    let Some(state) = State::read(&folder) else {
        // A keeper that died before it wrote its state had made nothing but the folder.
        let _ = std::fs::remove_dir_all(&folder);
        return Ok(());
    };
    let keeper = nix::unistd::Pid::from_raw(state.keeper.pid);
    if state.keeper.is_alive() {
        // It may end between the look and the signal.
        let _ = kill(keeper, Signal::SIGTERM);
        let ended = wait_until("the keeper ends", DOWN_MAX, || !state.keeper.is_alive());
        if let Err(error) = ended {
            eprintln!("nautilus-lab: {error}; killed");
            let _ = kill(keeper, Signal::SIGKILL);
        }
    }
    let run: RunId = state.run.parse()?;
    sweep(run);
    let _ = std::fs::remove_dir_all(&folder);
    let left = left_behind(run);
    if !left.is_empty() {
        bail!("lab {} left behind:\n{}", which.name, left.join("\n"));
    }
    Ok(())
}

fn print(state: &State, json: bool) {
    if json {
        println!("{}", serde_json::to_string_pretty(state).expect("plain data"));
        return;
    }
    println!("lab {} (run {})", state.name, state.run);
    println!("{:<9} {:<18} {:<14} {:<15} service", "member", "namespace", "v4", "v6");
    for MemberState { name, namespace, v4, v6, service, wire } in &state.members {
        let service = service.as_ref().map_or("-".into(), |service| {
            let pid = service.pid.map_or("starting".into(), |pid| format!("pid {pid}"));
            let ports: Vec<String> =
                service.ports.iter().map(|(name, port)| format!("{name} {port}")).collect();
            format!(
                "{} {pid}, {} restarts, {}",
                service.program,
                service.restarts,
                ports.join(", ")
            )
        });
        println!("{name:<9} {namespace:<18} {v4:<14} {v6:<15} {service}");
        if let Some(WireState { namespace, pid, faults }) = wire {
            println!("{:<9} {namespace:<18} pid {pid}, faults {}", "  wire", faults.display());
        }
    }
}

fn shell(state: &State, member: &str, words: &[String]) -> anyhow::Result<()> {
    let names: Vec<&str> = state.members.iter().map(|member| member.name.as_str()).collect();
    let Some(inside) = state.members.iter().find(|one| one.name == member) else {
        bail!("lab {} has no member {member:?}; it has {}", state.name, names.join(", "));
    };
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &inside.namespace]);
    if words.is_empty() {
        command.arg(std::env::var_os("SHELL").unwrap_or_else(|| "bash".into()));
    } else {
        command.args(words);
    }
    // Only comes back when it could not start.
    Err(command.exec()).context("ip netns exec")
}

fn keep(which: &Which, wanted: &Wanted) -> anyhow::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    // A lab outlives the terminal it was started from. Refused to a process group's leader, which a
    // foreground keeper is; it then ends with its terminal.
    let _ = nix::unistd::setsid();

    let run = RunId::draw();
    let folder = Arc::new(Folder::create_at(run, which.folder())?);
    State::starting(&which.name, run).write(folder.path())?;
    let releases = which.releases();
    std::fs::create_dir_all(&releases).with_context(|| releases.display().to_string())?;
    open_to_all(&releases)?;
    let Wanted { count, wires, parked, .. } = wanted;
    let started = Lab::start_wired(Arc::clone(&folder), run, *count, wires, |_, _, file| {
        file.releases = Some(releases.clone());
        file.parked = *parked;
        Ok(())
    });
    let mut lab = match started {
        Ok(lab) => lab,
        Err(error) => {
            quote_logs(folder.path());
            return Err(error.into());
        }
    };
    if wanted.has_control {
        lab.start_control()?;
    }
    let mut written = None;
    while !stop.load(Ordering::Relaxed) {
        let state = State::of(&which.name, &lab);
        if written.as_ref() != Some(&state) {
            state.write(folder.path())?;
            written = Some(state);
        }
        std::thread::sleep(STATE_PAUSE);
    }
    Ok(())
}

/// Copies the ends of the logs to stderr before their folder goes.
fn quote_logs(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let end = &lines[lines.len().saturating_sub(20)..];
            eprintln!("-- {}\n{}", entry.file_name().to_string_lossy(), end.join("\n"));
        }
    }
}
