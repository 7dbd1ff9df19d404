//! Takes away what a bench leaves behind that is killed; `ground.rs` starts it and says how it works.
//! Arguments: run id, folder. Standard input: a pipe whose other end only the bench has.

use std::process::ExitCode;

use anyhow::Context;
use nautilus_bench::ground::guard;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nautilus-bench-guardian: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let run = arguments.next().context("the run id is missing")?;
    let run = run.to_str().context("a run id is ASCII")?.parse()?;
    let folder = arguments.next().context("the folder is missing")?;
    guard(run, folder.as_ref(), std::io::stdin())
}
