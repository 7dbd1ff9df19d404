//! `nautilus placement`: demand, and where nodes should stand.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::connect::Connect;
use super::exit::{Exit, Failure};
use super::sheet::sheet;
use super::{document, filled};
use crate::client::Call;

/// Demand, and where nodes should stand
#[derive(Args, Debug)]
pub struct Placement {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Adds trading activity: JSON, NDJSON (.ndjson) or CSV (.csv), all of it or nothing
    Activities {
        /// The file; - for JSON from standard input
        file: PathBuf,
        /// Says what would be added, and adds nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Solves a placement problem
    Optimize {
        #[command(flatten)]
        body: filled::Body,
    },
    /// Shows what was found
    Recommendations,
}

impl Placement {
    /// Does it.
    pub fn run(self) -> Result<Exit, Failure> {
        let call = match self.verb {
            Verb::Activities { file, dry_run } => {
                let bytes = document::bytes(&file)?;
                let kind = match file.extension().and_then(|extension| extension.to_str()) {
                    Some("ndjson" | "jsonl") => "application/x-ndjson",
                    Some("csv") => "text/csv",
                    _ => "application/json",
                };
                let call = Call::post("placement/activities", &[]).bytes(kind, bytes);
                call.with_flag("dry_run", dry_run)
            }
            Verb::Optimize { body } => body.of(Call::post("placement/optimize", &[]))?,
            Verb::Recommendations => Call::get("placement/recommendations", &[]),
        };
        self.connect.perform(&call, sheet)
    }
}
