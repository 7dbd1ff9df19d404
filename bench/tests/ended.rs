//! A bench that is killed leaves nothing: no namespace, no process, stopped ones among them, no folder.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nautilus_bench::row::{ROWS_TOML, Rows};
use nautilus_bench::stage::find_peer;
use nautilus_tests::lab::{RunId, binary, left_behind, sweep};
use nautilus_tests::wait::wait_until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A row that has two sides, one of them stopped at any time.
const ROW: &str = "A7";

fn start(temporary: &Path) -> Child {
    Command::new(binary("nautilus-bench"))
        .args(["--quick", ROW])
        .env("TMPDIR", temporary)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Run id and folder of the bench whose folders lie in `temporary`.
fn run_in(temporary: &Path) -> Option<(RunId, PathBuf)> {
    let entry = std::fs::read_dir(temporary).unwrap().flatten().next()?;
    let name = entry.file_name().into_string().ok()?;
    Some((name.strip_prefix("nautilus-")?.parse().ok()?, entry.path()))
}

/// Whether a process of the run is stopped.
fn one_is_stopped(run: RunId) -> bool {
    let pids = left_behind(run);
    let pids = pids.iter().filter_map(|line| line.strip_prefix("process ")?.split(' ').next());
    pids.filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()).any(|stat| {
        let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
        state.is_some_and(|state| state.starts_with('T'))
    })
}

fn killed_by(signal: Signal) {
    let temporary = tempfile::tempdir().unwrap();
    let mut bench = start(temporary.path());
    let mut found = None;
    let ready = wait_until("one side is stopped", Duration::from_secs(60), || {
        found = found.take().or_else(|| run_in(temporary.path()));
        found.as_ref().is_some_and(|(run, _)| one_is_stopped(*run))
    });
    let Some((run, folder)) = found else {
        bench.kill().unwrap();
        panic!("the bench made no folder: {ready:?}");
    };
    kill(Pid::from_raw(bench.id() as i32), signal).unwrap();
    bench.wait().unwrap();
    ready.unwrap();
    let mut left = Vec::new();
    let gone = wait_until("nothing is left", Duration::from_secs(15), || {
        left = left_behind(run);
        left.is_empty() && !folder.exists()
    });
    sweep(run);
    gone.unwrap_or_else(|error| panic!("{signal}: {error}: {left:?}, {}", folder.display()));
}

#[test]
#[ignore = "privileged: namespaces, XDP"]
fn a_bench_that_is_killed_leaves_nothing() {
    let rows = Rows::parse(ROWS_TOML).unwrap();
    let peer = rows.get(ROW).unwrap().peer.as_ref().unwrap();
    if let Err(why) = find_peer(peer) {
        println!("SKIPPED: without a peer no side is ever stopped: {why}");
        return;
    }
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
        killed_by(signal);
    }
}
