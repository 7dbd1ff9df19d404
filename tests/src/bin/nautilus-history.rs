//! `nautilus-history`: merges recorded histories and says whether they are linearizable per key.
//!
//! Exit codes: 0 they are; 1 a key has no order; 2 a file cannot be read; 3 a key was not decided.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use nautilus_tests::history::{CONFIGURATIONS_MAX, check_within, read_all};

/// Says whether the histories that clients of one host recorded are linearizable per key.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Configurations one key's search may remember (about 40 bytes each)
    #[arg(long, default_value_t = CONFIGURATIONS_MAX)]
    limit: usize,
    /// Files of one run
    #[arg(required = true)]
    file: Vec<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let history = match read_all(&arguments.file) {
        Ok(history) => history,
        Err(error) => {
            eprintln!("nautilus-history: {error}");
            return ExitCode::from(2);
        }
    };
    let checked = check_within(&history, arguments.limit);
    print!("{checked}");
    if !checked.violations.is_empty() {
        ExitCode::FAILURE
    } else if !checked.undecided.is_empty() {
        ExitCode::from(3)
    } else {
        println!("linearizable per key");
        ExitCode::SUCCESS
    }
}
