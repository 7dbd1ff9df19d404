//! Programs that stand beside this one and are executed in its place, with the same arguments:
//! `nautilus replay` becomes `nautilus-replay`, which belongs to the data plane, `nautilus audit` and
//! `nautilus ca` become `nautilus-audit` and `nautilus-ca`, which share no code with the rest.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Arguments of such a command.
#[derive(Debug, clap::Args)]
pub struct Companion {
    /// Arguments and options of the program (--help lists them)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    arguments: Vec<OsString>,
}

impl Companion {
    /// Becomes the program. Returns only when it cannot, with what to say.
    /// `verb`: what stands before the arguments.
    pub fn run(self, name: &str, verb: Option<&str>) -> String {
        let ours = std::env::current_exe().unwrap_or_default();
        let program = ours.with_file_name(name);
        let error = Command::new(&program).args(verb).args(self.arguments).exec();
        format!("cannot execute {}: {error}", program.display())
    }
}
