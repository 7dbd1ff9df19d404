//! A worker process. Started by `nautilus-supervisor`, whose socket is its standard input.

use std::io::Write;
use std::os::fd::AsFd;
use std::process::ExitCode;

fn main() -> ExitCode {
    let run = || -> anyhow::Result<()> {
        let socket = std::io::stdin().as_fd().try_clone_to_owned();
        let socket = socket.map_err(|error| anyhow::anyhow!("standard input: {error}"))?;
        Ok(nautilus_dataplane::standby::live(socket)?)
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Each error names its cause itself.
            let _ = writeln!(std::io::stderr(), "nautilus-worker: {error}");
            ExitCode::FAILURE
        }
    }
}
