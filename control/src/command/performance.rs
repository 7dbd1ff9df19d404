//! `nautilus performance`: how regions do, and what would make them do better.

use clap::{Args, Subcommand, ValueEnum};

use super::connect::Connect;
use super::exit::{Exit, Failure};
use super::filled;
use super::sheet::sheet;
use crate::client::Call;

/// How regions do, and what would make them do better
#[derive(Args, Debug)]
pub struct Performance {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Shows all regions
    Summary,
    /// Puts a region's profile in place
    Profile {
        #[command(flatten)]
        body: filled::Body,
    },
    /// Recommends changes for a region, or applies them
    Optimize {
        /// The region
        region_id: String,
        /// What to do
        #[arg(long, value_enum, default_value = "recommend")]
        mode: Mode,
        /// Says what would be applied, and applies nothing
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    Recommend,
    Apply,
}

impl Performance {
    /// Does it.
    pub fn run(self) -> Result<Exit, Failure> {
        let call = match self.verb {
            Verb::Summary => Call::get("performance/summary", &[]),
            Verb::Profile { body } => body.of(Call::post("performance/profiles", &[]))?,
            Verb::Optimize { region_id, mode, dry_run } => {
                let mode = match mode {
                    Mode::Recommend => "recommend",
                    Mode::Apply => "apply",
                };
                let call = Call::post("performance/optimize/{}", &[&region_id]);
                call.json(&serde_json::json!({ "mode": mode })).with_flag("dry_run", dry_run)
            }
        };
        self.connect.perform(&call, sheet)
    }
}
