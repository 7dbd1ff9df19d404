//! A capture process. Started by `nautilus-supervisor`, whose socket is its standard input.
#![forbid(unsafe_code)]

use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::Context;

fn main() -> ExitCode {
    let run = || -> anyhow::Result<()> {
        let socket = std::io::stdin().as_fd().try_clone_to_owned().context("standard input")?;
        Ok(nautilus_dataplane::capture::live(socket)?)
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nautilus-capture: {error:#}");
            ExitCode::FAILURE
        }
    }
}
