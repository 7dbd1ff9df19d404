//! The operator's command. `src/command/` has its verbs, `README.md` of the crate its exit codes.

use std::process::ExitCode;

use clap::Parser;
use nautilus_control::command::Arguments;

fn main() -> ExitCode {
    Arguments::parse().run()
}
