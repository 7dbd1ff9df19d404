//! `nautilus replay`: the program that replays stands beside this one and is executed in its place, with the
//! same arguments; it belongs to the data plane, whose books it uses.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Arguments of `nautilus replay`.
#[derive(clap::Args)]
pub struct Replay {
    /// Captures, and options of nautilus-replay: --offline NODE_FILE, --interface NAME, --pace, ...
    /// (`nautilus replay --help` lists all)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    arguments: Vec<OsString>,
}

impl Replay {
    /// Becomes the program. Returns only when it cannot, with what to say.
    pub fn run(self) -> String {
        let ours = std::env::current_exe().unwrap_or_default();
        let program = ours.with_file_name("nautilus-replay");
        let error = Command::new(&program).args(self.arguments).exec();
        format!("cannot execute {}: {error}", program.display())
    }
}
