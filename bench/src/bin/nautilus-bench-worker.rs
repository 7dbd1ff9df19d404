//! The product's worker with an allocator that counts: row B3 puts its path into `[worker] program`.
//! A second thread writes the count to the log; the worker's own thread only counts.

use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use nautilus_bench::allocations::{self, Counting, MARK};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nautilus-bench-worker: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let pid = std::process::id();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_millis(50));
            eprintln!("worker {pid} {MARK}{}", allocations::count());
        }
    });
    allocations::count_this_thread();
    let socket = std::io::stdin().as_fd().try_clone_to_owned().context("standard input")?;
    Ok(nautilus_dataplane::standby::live(socket)?)
}
