//! The operator's command, a file for each noun.
//!
//! ```text
//!   status, top, explain, host, cache --node   this host's nodes, asked through their supervisors: they
//!                                              work while control is dead
//!   nodes, operations, cache, placement, ...   a control, asked over its API (../client)
//!   config                                     files, and what runs of this host
//!   replay, ca, audit verify|export            programs that stand beside this one
//! ```

mod audit;
mod cache;
mod cache_items;
mod certificates;
mod completion;
mod config;
mod connect;
mod daemon;
mod deployments;
mod document;
mod exit;
mod explain;
mod failover;
mod filled;
mod local;
mod monitoring;
mod nodes;
mod operations;
mod output;
mod performance;
mod placement;
mod progress;
mod sheet;
mod status;
mod table;
mod top;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use exit::Exit;

use crate::companion::Companion;
use crate::host::command::HostCommand;
use crate::node_verbs::NodeVerb;
use exit::Failure;

/// Runs a site's nodes
#[derive(Debug, Parser)]
#[command(name = "nautilus", version, after_help = EXIT_CODES)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// Shown below the list of commands.
const EXIT_CODES: &str = "Exit codes: 0 done; 1 said no; 2 bad usage or file; 3 not reachable; \
                          4 not available in this version; 5 outcome unknown";

#[derive(Debug, Subcommand)]
enum Command {
    Status(status::Status),
    Top(top::Top),
    Explain(explain::Explain),
    Nodes(nodes::Nodes),
    Deployments(deployments::Deployments),
    Operations(operations::Operations),
    Cache(cache::Cache),
    Placement(placement::Placement),
    Performance(performance::Performance),
    Failover(failover::Failover),
    Monitoring(monitoring::Monitoring),
    Certificates(certificates::Certificates),
    Audit(audit::Audit),
    Config(config::Config),
    Control(daemon::Daemon),
    Version(daemon::Version),
    Completion(completion::Completion),
    /// Replays captures: onto an interface, or into the records a node published
    #[command(disable_help_flag = true)]
    Replay(Companion),
    /// Makes certificates; enrols with a control, and renews
    #[command(disable_help_flag = true)]
    Ca(Companion),
    /// Starts, parks, drains, resumes, swaps and probes a node by its supervisor, without a control
    #[command(subcommand)]
    Node(NodeVerb),
    /// Looks at this host, and changes it so that it can be undone
    #[command(subcommand)]
    Host(HostCommand),
}

impl Arguments {
    /// Does what was asked, and says how it went.
    pub fn run(self) -> ExitCode {
        let result = match self.command {
            Command::Status(status) => status.run(),
            Command::Top(top) => top.run(),
            Command::Explain(explain) => explain.run(),
            Command::Nodes(nodes) => nodes.run(),
            Command::Deployments(deployments) => deployments.run(),
            Command::Operations(operations) => operations.run(),
            Command::Cache(cache) => cache.run(),
            Command::Placement(placement) => placement.run(),
            Command::Performance(performance) => performance.run(),
            Command::Failover(failover) => failover.run(),
            Command::Monitoring(monitoring) => monitoring.run(),
            Command::Certificates(certificates) => certificates.run(),
            Command::Audit(audit) => audit.run(),
            Command::Config(config) => config.run(),
            Command::Control(daemon) => daemon.run(),
            Command::Version(version) => version.run(),
            Command::Completion(completion) => Ok(completion.run()),
            Command::Replay(other) => Err(other.instead("nautilus-replay", None)),
            Command::Ca(other) => Err(other.instead("nautilus-ca", None)),
            Command::Node(verb) => return verb.run(),
            Command::Host(host) => return host.run(),
        };
        result.unwrap_or_else(|failure| failure.tell()).into()
    }
}

impl Companion {
    /// Becomes the program. Returns only when there is none.
    fn instead(self, name: &str, verb: Option<&str>) -> Failure {
        Failure::new(Exit::Unreachable, self.run(name, verb))
    }
}
