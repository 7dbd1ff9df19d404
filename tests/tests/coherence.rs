//! Writers and readers on all five ways to a cache at once: one order a key explains what they saw, and
//! nothing acknowledged is lost while workers, fronts and control are killed. `scripts/test.sh --long` runs
//! them whole: 60 s, and 1,000 kills.

use std::process::Command;

use nautilus_tests::repository::long_shows;

/// Runs `nautilus-coherence` and returns its exit code and what it said.
fn coherence(arguments: &[String]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nautilus-coherence"));
    let output = command.args(arguments).output().expect("the command runs");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    println!("{said}");
    (output.status.code(), said.into_owned())
}

fn of_several(workers: u32) {
    let seconds = if long_shows() { 60 } else { 5 };
    let (code, said) = coherence(&[format!("--seconds={seconds}"), format!("--workers={workers}")]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("linearizable per key, all paths together"), "{said}");
}

fn killed(workers: u32) {
    let kills = if long_shows() { 1_000 } else { 40 };
    let (code, said) = coherence(&[
        "--seconds=1".into(),
        format!("--kills={kills}"),
        format!("--workers={workers}"),
    ]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("acknowledged values lost: 0 keys; stale reads: 0 keys"), "{said}");
    assert!(said.contains("workers killed: clients without an answer for p50"), "{said}");
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn xdp_worker_front_and_shared_memory_are_linearizable_together() {
    of_several(1);
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn so_they_are_with_two_workers() {
    of_several(2);
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn nothing_acknowledged_is_lost_and_nothing_stale_is_read_while_workers_and_fronts_are_killed() {
    killed(1);
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn nothing_is_lost_or_stale_while_either_of_two_workers_is_killed() {
    killed(2);
}

#[test]
fn nonsense_is_refused() {
    for nonsense in ["--seconds=0", "--workers=0", "--kills=-1", "--history"] {
        assert_eq!(coherence(&[nonsense.into()]).0, Some(2), "{nonsense}");
    }
}
