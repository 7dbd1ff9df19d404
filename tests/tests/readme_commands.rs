//! Every command in an `sh` block of a README runs, as written, from the repository's root.
//!
//! A block is one script: its commands run in order and the first failure ends it. A `cargo test`
//! line is run with `--list`: its tests have a stage of their own, but the line must still build and
//! select at least one.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nautilus_tests::repository::{self, ShellBlock};

/// A README block ends within this, cold builds included. Too low: a slow machine fails; too high: a
/// hang holds the run up.
const BLOCK_SECONDS_MAX: u64 = 1500;

/// The line as it is run here.
fn runnable(command: &str) -> String {
    let command = command.strip_prefix("sudo ").unwrap_or(command);
    if !command.contains("cargo test") {
        return command.to_owned();
    }
    let separator = if command.contains(" -- ") { "" } else { " --" };
    let ignored = if command.contains("ignored") { "" } else { " --include-ignored" };
    // Read to the end: a reader that leaves at the first match breaks the writer's pipe.
    format!("{{ {command}{separator} --list{ignored} || exit 1; }} | grep ': test$' >/dev/null")
}

fn script(block: &ShellBlock) -> String {
    let root = nix::unistd::geteuid().is_root();
    let mut script = String::from("set -euo pipefail\n");
    for command in &block.commands {
        script += &match repository::reason_not_run(command) {
            Some(reason) => format!("echo 'not run: {reason}'\n"),
            None if command.starts_with("sudo ") && !root => {
                format!("echo 'SKIPPED {command}: needs root'\n")
            }
            None => format!("{}\n", runnable(command)),
        };
    }
    script
}

fn run_block(block: &ShellBlock) -> Result<(), String> {
    let script = script(block);
    println!("== {}:{}\n{script}", block.readme.display(), block.line);
    let started = Instant::now();
    let status = Command::new("timeout")
        .args(["--kill-after=30", &BLOCK_SECONDS_MAX.to_string(), "bash", "-c", &script])
        .current_dir(repository::root())
        .env("CI", "true")
        .stdin(Stdio::null())
        .status()
        .map_err(|error| format!("bash: {error}"))?;
    println!("== ended with {status} after {:?}", Duration::from_secs(started.elapsed().as_secs()));
    if status.success() {
        return Ok(());
    }
    Err(format!("{}:{}: {status}", block.readme.display(), block.line))
}

#[test]
#[ignore = "slow: builds and runs whole labs; scripts/test.sh runs it in a stage of its own"]
fn readme_blocks_run() {
    let root = repository::root();
    let mut failures = Vec::new();
    for file in repository::files() {
        if file.file_name() != Some("README.md".as_ref()) {
            continue;
        }
        let text = std::fs::read_to_string(root.join(&file)).expect("a README is text");
        for block in repository::shell_blocks(&file, &text) {
            failures.extend(run_block(&block).err());
        }
    }
    assert!(failures.is_empty(), "README commands failed:\n{}", failures.join("\n"));
}

#[test]
fn a_failing_command_fails_its_block() {
    let block = |commands: &[&str]| ShellBlock {
        readme: Path::new("README.md").to_owned(),
        line: 1,
        commands: commands.iter().map(|&command| command.to_owned()).collect(),
    };
    assert!(run_block(&block(&["true", "false", "true"])).is_err());
    assert!(run_block(&block(&["true", "vagrant up"])).is_ok());
}
