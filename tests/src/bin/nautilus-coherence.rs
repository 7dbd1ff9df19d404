//! `nautilus-coherence`: a node in a lab of its own, changed and read by every way at once, and whether
//! one order a key explains what clients saw. As root.
//!
//! Exit codes: 0 it does; 1 it does not; 2 the run failed; 3 the run shows less than it should.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Parser;
use nautilus_tests::coherence::{Plan, run};
use nautilus_tests::lab::{RunId, left_behind, sweep};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Changes and reads a node's cache by XDP, worker, front and shared memory at once, and says whether
/// all of them together are linearizable per key.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// How long clients are at work
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Workers of the node, which divide the keys
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    workers: u32,
    /// Workers and fronts killed (SIGKILL) meanwhile; the run is as long as they take
    #[arg(long, default_value_t = 0)]
    kills: u32,
    /// Of the clients' choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep the history here, for nautilus-history
    #[arg(long)]
    history: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        if let Err(error) = signal_hook::flag::register(signal, Arc::clone(&stop)) {
            eprintln!("nautilus-coherence: {error}");
            return ExitCode::from(2);
        }
    }
    let id = RunId::draw();
    let code = judge(&arguments, id, &stop);
    sweep(id);
    let left = left_behind(id);
    if !left.is_empty() {
        eprintln!("nautilus-coherence left behind:\n{}", left.join("\n"));
        return ExitCode::from(2);
    }
    ExitCode::from(code)
}

fn judge(arguments: &Arguments, id: RunId, stop: &AtomicBool) -> u8 {
    let folder = std::env::temp_dir();
    let own = folder.join(format!("nautilus-{id}.history"));
    let file = arguments.history.clone().unwrap_or_else(|| own.clone());
    let plan = Plan {
        duration: Duration::from_secs(arguments.seconds),
        workers: arguments.workers,
        kills: arguments.kills,
        seed: arguments.seed,
    };
    if file.exists() {
        eprintln!("nautilus-coherence: {} is there already", file.display());
        return 2;
    }
    let outcome = run(&plan, id, &file, stop);
    if arguments.history.is_none() {
        // Gone already if the run never began.
        let _ = std::fs::remove_file(own);
    }
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            eprintln!("nautilus-coherence: {error:#}");
            return 2;
        }
    };
    print!("{outcome}");
    if outcome.is_violated() {
        println!("NOT linearizable per key");
        return 1;
    }
    match outcome.shortcoming() {
        Some(why) => {
            eprintln!("nautilus-coherence: {why}");
            3
        }
        None => {
            println!("linearizable per key, all paths together");
            0
        }
    }
}
