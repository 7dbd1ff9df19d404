//! Options of every verb that asks a control, and asking it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::exit::{Exit, Failure};
use super::output::print;
use crate::client::{Answer, Call, Client, Where, Wishes};

/// Where to ask, and how to show it.
#[derive(Args, Clone, Debug, Default)]
pub struct Connect {
    /// The control: HOST:PORT, https://HOST:PORT, http://LOOPBACK:PORT or unix:PATH
    #[arg(long, env = "NAUTILUS_CONTROL", global = true, value_name = "WHERE")]
    control: Option<String>,
    /// Folder of identity.pem and ca.pem, as `nautilus ca enrol` leaves it
    #[arg(long, env = "NAUTILUS_IDENTITY", global = true, value_name = "DIR")]
    identity: Option<PathBuf>,
    /// File that says both; ~/.config/nautilus/client.toml or /etc/nautilus/client.toml unless said
    #[arg(long, env = "NAUTILUS_CLIENT_CONFIG", global = true, value_name = "FILE")]
    client_config: Option<PathBuf>,
    /// Seconds an answer may take; 30 unless said
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout_s: Option<u64>,
    /// Prints the document exactly as it came
    #[arg(long, global = true)]
    pub json: bool,
}

impl Connect {
    /// Reads what is needed to ask; nobody is asked yet.
    pub fn client(&self) -> Result<Client, Failure> {
        let place = Where::resolve(Wishes {
            control: self.control.clone(),
            identity: self.identity.clone(),
            timeout: self.timeout_s.map(Duration::from_secs),
            file: self.client_config.clone(),
        })?;
        Ok(Client::open(place)?)
    }

    /// Asks; everything but success is a failure.
    pub fn ask(&self, client: &Client, call: &Call) -> Result<Answer, Failure> {
        let answer = client.ask(call)?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        Err(Failure::refused(&answer, call.changes(), self.json))
    }

    /// Asks for a document and shows it.
    pub fn perform(&self, call: &Call, show: impl Fn(&Value) -> String) -> Result<Exit, Failure> {
        let client = self.client()?;
        let answer = self.ask(&client, call)?;
        self.show(&client, call, &answer, show)
    }

    /// Shows an answer as it was asked to be shown.
    pub fn show(
        &self,
        client: &Client,
        call: &Call,
        answer: &Answer,
        show: impl Fn(&Value) -> String,
    ) -> Result<Exit, Failure> {
        if answer.body.is_empty() {
            return Ok(Exit::Done);
        }
        let document = document(client, call, answer)?;
        match self.json {
            true => print(&answer.body),
            false => print(show(&document)),
        };
        Ok(Exit::Done)
    }
}

/// What an answer holds. An answer that holds none leaves open what was done.
pub fn document(client: &Client, call: &Call, answer: &Answer) -> Result<Value, Failure> {
    answer.document().map_err(|reason| client.silent(call, reason).into())
}
