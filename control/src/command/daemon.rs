//! `nautilus control`: the daemon itself; `nautilus version`.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::connect::Connect;
use super::exit::{Exit, Failure};
use super::output::print;
use super::sheet::sheet;
use crate::client::Call;

/// The control itself
#[derive(Args, Debug)]
pub struct Daemon {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Verb {
    /// Says whether it runs
    Live,
    /// Says whether it has every node; 1 if not, and which
    Ready,
    /// Prints its metrics, Prometheus text
    Metrics,
    /// Prints the OpenAPI document
    Openapi,
}

impl Daemon {
    /// Does it.
    pub fn run(self) -> Result<Exit, Failure> {
        let call = match self.verb {
            Verb::Live => Call::outside("/livez"),
            Verb::Ready => Call::outside("/readyz"),
            Verb::Metrics => Call::outside("/metrics"),
            Verb::Openapi => Call::get("openapi.json", &[]),
        };
        let answer = self.connect.ask(&self.connect.client()?, &call)?;
        print(&answer.body);
        Ok(Exit::Done)
    }
}

/// Says the version of this program and of the control
#[derive(Args, Debug)]
pub struct Version {
    #[command(flatten)]
    connect: Connect,
}

impl Version {
    /// Does it. This program's is said whatever the control says.
    pub fn run(self) -> Result<Exit, Failure> {
        if !self.connect.json {
            print(format!("client  {}", env!("CARGO_PKG_VERSION")));
        }
        self.connect.perform(&Call::get("version", &[]), |document: &Value| {
            sheet(&serde_json::json!({ "control": document }))
        })
    }
}
