//! `nautilus failover`: what takes over from what, and doing it by hand.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::connect::Connect;
use super::exit::{Exit, Failure};
use super::filled;
use super::operations::Begin;
use super::sheet::sheet;
use crate::client::Call;

/// What takes over from what, and doing it by hand
#[derive(Args, Debug)]
pub struct Failover {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Shows every node's stand-ins and what they lag behind
    Status,
    /// Says what takes over from a node
    Configure {
        #[command(flatten)]
        body: filled::Body,
    },
    /// Moves the work of a node elsewhere
    Manual {
        /// The node that is moved away from
        node_id: String,
        /// How
        #[arg(long, value_enum, default_value = "graceful")]
        strategy: Strategy,
        /// Where to; chosen unless said
        #[arg(long, value_name = "NODE_ID")]
        target: Option<String>,
        /// Milliseconds it may take
        #[arg(long, default_value_t = 30_000)]
        deadline_ms: u64,
        /// Why, for the record
        #[arg(long)]
        reason: String,
        /// Milliseconds of changes that may be lost
        #[arg(long, default_value_t = 0)]
        accept_loss_ms: u64,
        #[command(flatten)]
        begin: Begin,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Strategy {
    Immediate,
    Graceful,
    Rolling,
}

impl Failover {
    /// Does it.
    pub fn run(self) -> Result<Exit, Failure> {
        let connect = &self.connect;
        match self.verb {
            Verb::Status => connect.perform(&Call::get("failover/status", &[]), sheet),
            Verb::Configure { body } => {
                connect.perform(&body.of(Call::post("failover/configure", &[]))?, sheet)
            }
            Verb::Manual {
                node_id,
                strategy,
                target,
                deadline_ms,
                reason,
                accept_loss_ms,
                begin,
            } => {
                let strategy = match strategy {
                    Strategy::Immediate => "immediate",
                    Strategy::Graceful => "graceful",
                    Strategy::Rolling => "rolling",
                };
                let mut body = json!({
                    "strategy": strategy, "deadline_ms": deadline_ms, "reason": reason,
                    "accept_loss_ms": accept_loss_ms, "force": begin.is_forced(),
                });
                if let Some(target) = target {
                    body["target"] = target.into();
                }
                let call = Call::post("failover/manual/{}", &[&node_id]).json(&body);
                begin.run_with_force_in_body(connect, call, sheet)
            }
        }
    }
}
