//! What a run left behind, and how it is taken away when no guard could.

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::RunId;
use super::process::RUN_VARIABLE;
use crate::command;
use crate::wait::wait_until;

/// How long killed processes may take to go. Their memory is torn down first.
const EXIT_MAX: Duration = Duration::from_secs(10);

/// Process ids inside the namespace `name`; none when it does not exist.
pub(super) fn processes_in(name: &str) -> Vec<i32> {
    let listed = command::run_words("ip", &format!("netns pids {name}")).unwrap_or_default();
    listed.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Kills what is inside and deletes the namespace; quiet when it is gone already.
pub(super) fn delete_namespace(name: &str) {
    let own = std::process::id() as i32;
    let gone = wait_until("the namespace is empty", EXIT_MAX, || {
        let inside: Vec<i32> = processes_in(name).into_iter().filter(|&pid| pid != own).collect();
        for &pid in &inside {
            // It may have gone since it was listed.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        inside.is_empty()
    });
    if let Err(error) = gone {
        eprintln!("namespace {name}: {error}");
    }
    if let Err(error) = command::run_words("ip", &format!("netns delete {name}"))
        && super::netns::namespace_path(name).exists()
    {
        eprintln!("{error}");
    }
}

/// Namespaces of this run that exist.
fn namespaces(run: RunId) -> Vec<String> {
    let prefix = run.prefix();
    let entries = std::fs::read_dir("/run/netns").into_iter().flatten();
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(&prefix))
        .collect()
}

/// Processes whose environment names this run, other than the calling one: (pid, command).
fn processes(run: RunId) -> Vec<(i32, String)> {
    let mark = format!("{RUN_VARIABLE}={run}");
    let own = std::process::id() as i32;
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // A process may end while it is looked at: then it is no leak.
        let Ok(environment) = std::fs::read(entry.path().join("environ")) else { continue };
        if pid != own && environment.split(|&byte| byte == 0).any(|one| one == mark.as_bytes()) {
            let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            found.push((pid, name.trim().to_owned()));
        }
    }
    found
}

/// Everything of this run that is still there, one line each: namespaces (and with them links),
/// processes (and with them sockets, memfds and huge pages), links in the calling namespace.
pub fn left_behind(run: RunId) -> Vec<String> {
    let mut left: Vec<String> =
        namespaces(run).into_iter().map(|name| format!("namespace {name}")).collect();
    left.extend(processes(run).into_iter().map(|(pid, name)| format!("process {pid} ({name})")));
    let links = command::run_words("ip", "-o link show").unwrap_or_default();
    left.extend(
        links.lines().filter(|line| line.contains(run.as_str())).map(|line| format!("link {line}")),
    );
    let folders: [PathBuf; 2] = ["/dev/shm".into(), "/sys/fs/bpf".into()];
    for folder in folders {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains(run.as_str()) {
                left.push(format!("file {}", entry.path().display()));
            }
        }
    }
    left
}

/// Takes away all of this run that is left. Idempotent.
pub fn sweep(run: RunId) {
    for (pid, _) in processes(run) {
        // It may have gone since it was listed.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    for name in namespaces(run) {
        delete_namespace(&name);
    }
}
