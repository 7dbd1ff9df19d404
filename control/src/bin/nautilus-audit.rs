//! Verifies and exports audit trails. It needs no daemon, and shares no code with what writes trails.
//!
//! Exit codes: 0 the trail is whole; 1 it is not, and where; 2 bad usage; 3 a file could not be used.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use nautilus_control::verifier::{
    self, Expected, Format, VerifierError, Window, archive, export, verify,
};

/// Verifies and exports audit trails
#[derive(Parser)]
#[command(name = "nautilus-audit", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Says whether a trail is whole, and where it is not
    Verify {
        #[command(flatten)]
        trail: Trail,
    },
    /// Verifies a trail and writes its records to stdout
    Export {
        #[command(flatten)]
        trail: Trail,
        /// Records at or after this time, RFC 3339 in UTC or the front of one
        #[arg(long)]
        since: Option<String>,
        /// Records before this time
        #[arg(long)]
        until: Option<String>,
        /// One JSON object a line, or CSV
        #[arg(long, value_enum, default_value = "json")]
        format: Written,
        /// Copies the closed files into this folder instead, and leaves receipts: those files may go
        #[arg(long, value_name = "DIR", conflicts_with_all = ["since", "until"])]
        archive: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Written {
    Json,
    Csv,
}

#[derive(clap::Args)]
struct Trail {
    /// Folder of the trail
    dir: PathBuf,
    /// File with public keys that may have signed it, one a line; may be repeated
    #[arg(long, value_name = "FILE", required = true)]
    key: Vec<PathBuf>,
    /// A record that must be there: SEQUENCE:HASH as an earlier run printed it
    #[arg(long, value_name = "HEAD")]
    expect_head: Option<String>,
}

impl Trail {
    fn expected(&self) -> Result<Expected, VerifierError> {
        let mut keys = Vec::new();
        for path in &self.key {
            keys.extend(verifier::keys_in(path)?);
        }
        let head = self.expect_head.as_deref().map(head_of).transpose()?;
        Ok(Expected { keys, head })
    }
}

fn head_of(text: &str) -> Result<(u64, [u8; 32]), VerifierError> {
    let parts = text.split_once(':');
    let head =
        parts.and_then(|(number, hash)| Some((number.parse().ok()?, verifier::hash_of(hash)?)));
    head.ok_or_else(|| VerifierError::Usage(format!("{text:?} is no SEQUENCE:HASH")))
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nautilus-audit: {error}");
            ExitCode::from(match error {
                VerifierError::Fault(_) => 1,
                VerifierError::Usage(_) => 2,
                VerifierError::Io { .. } => 3,
            })
        }
    }
}

fn run(command: Command) -> Result<(), VerifierError> {
    match command {
        Command::Verify { trail } => {
            let report = verify(&verifier::load(&trail.dir)?, &trail.expected()?)?;
            for note in &report.notes {
                println!("note    {note}");
            }
            let unsigned = report.last - report.signed;
            println!("trail   {}", report.trail);
            println!("records {} to {}, all as written", report.first, report.last);
            println!("signed  to {}; {unsigned} behind it wait for a signature", report.signed);
            println!("head    {}:{}", report.last, verifier::hash_text(&report.head));
            Ok(())
        }
        Command::Export { trail, since, until, format, archive: destination } => {
            let (files, expected) = (verifier::load(&trail.dir)?, trail.expected()?);
            if let Some(destination) = destination {
                return store(&files, &expected, &trail.dir, &destination);
            }
            let window = Window::new(since.as_deref(), until.as_deref())?;
            let format = match format {
                Written::Json => Format::Json,
                Written::Csv => Format::Csv,
            };
            let mut out = std::io::BufWriter::new(std::io::stdout().lock());
            export(&files, &expected, &window, format, &mut out)?;
            std::io::Write::flush(&mut out)
                .map_err(|source| VerifierError::Io { path: "output".into(), source })
        }
    }
}

fn store(
    files: &verifier::Files,
    expected: &Expected,
    dir: &Path,
    destination: &Path,
) -> Result<(), VerifierError> {
    for name in archive(files, expected, dir, destination)? {
        println!("{}", destination.join(name).display());
    }
    Ok(())
}
