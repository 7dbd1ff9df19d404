//! `nautilus node ...`: the verbs of a supervisor about its node as a whole, by hand. Each returns when the node
//! has done it, and is fine where the node is so already.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use nautilus_shm::attach::{Code, DRAIN_MS_MAX, PROBE_MS_MAX};

use crate::attach::{
    ReachError, drain_node, park_node, probe_node, resume_node, start_node, swap_node,
};

/// Which node.
#[derive(Args, Debug)]
pub struct Which {
    /// Run directory of the node
    #[arg(long, value_name = "RUN_DIR")]
    node: PathBuf,
}

/// A verb.
#[derive(Debug, Subcommand)]
pub enum NodeVerb {
    /// Has a parked node serve
    Start(Which),
    /// Gives back sockets, interfaces and memory; only the supervisor stays
    Park(Which),
    /// Takes no new TCP connection, and waits until the last one has ended
    Drain {
        // No doc comment: clap would take it for the help of the options.
        #[command(flatten)]
        #[allow(missing_docs)]
        which: Which,
        /// Closes those that are left after so many milliseconds
        #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u32).range(..=DRAIN_MS_MAX as i64))]
        within_ms: u32,
    },
    /// Takes clients again
    Resume(Which),
    /// Exchanges the running programs for those of a release, and has the node file read anew
    Swap {
        // No doc comment: clap would take it for the help of the options.
        #[command(flatten)]
        #[allow(missing_docs)]
        which: Which,
        /// Name of the release; the one that runs unless said
        #[arg(long, default_value = "")]
        release: String,
    },
    /// Measures the node with packets of its own
    Probe {
        // No doc comment: clap would take it for the help of the options.
        #[command(flatten)]
        #[allow(missing_docs)]
        which: Which,
        /// For so many milliseconds
        #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=PROBE_MS_MAX as i64))]
        period_ms: u32,
    },
}

impl NodeVerb {
    /// Has it done and says how that went: 0 done, 1 the node said no and why, 3 no supervisor answered.
    pub fn run(&self) -> ExitCode {
        tell(match self {
            Self::Start(Which { node }) => start_node(node),
            Self::Park(Which { node }) => park_node(node),
            Self::Drain { which, within_ms } => drain_node(&which.node, *within_ms),
            Self::Resume(Which { node }) => resume_node(node),
            Self::Swap { which, release } => swap_node(&which.node, release),
            Self::Probe { which, period_ms } => probe_node(&which.node, *period_ms).map(|probed| {
                let us = |ns: u64| ns as f64 / 1e3;
                format!(
                    "{} answers: p50 {:.1} us, p99 {:.1} us, p99.9 {:.1} us, jitter {:.1} us",
                    probed.samples,
                    us(probed.p50_ns),
                    us(probed.p99_ns),
                    us(probed.p999_ns),
                    us(probed.p999_ns.saturating_sub(probed.p50_ns))
                )
            }),
        })
    }
}

fn tell(answer: Result<String, ReachError>) -> ExitCode {
    match answer {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("nautilus: {error}");
            let said_no = matches!(error, ReachError::Refused { .. });
            let not_asked =
                matches!(error, ReachError::Refused { code: Code::BadRequest | Code::Version, .. });
            ExitCode::from(if said_no && !not_asked { 1 } else { 3 })
        }
    }
}
