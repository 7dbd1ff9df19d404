//! `nautilus certificates`: the site's authority, through a control that has it.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::connect::Connect;
use super::exit::{Exit, Failure};
use super::table::{Columns, list, rows_of};
use crate::client::Call;

/// Certificates of the site, through a control that has its authority (`nautilus ca` works on the folder)
#[derive(Args, Debug)]
pub struct Certificates {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Shows what was issued
    List,
    /// Prints a token with which one node or person may enrol once
    Token {
        /// What enrols: node or person
        #[arg(long, value_parser = ["node", "person"])]
        kind: String,
        /// Its name
        #[arg(long)]
        name: String,
        /// What it may do
        #[arg(long, value_parser = ["viewer", "operator", "admin"])]
        role: String,
    },
    /// Revokes a certificate
    Revoke {
        /// Its serial number, as `list` prints it
        serial: String,
    },
}

const ISSUED: Columns<'_> = &[
    ("SERIAL", "/serial"),
    ("IDENTITY", "/identity"),
    ("VALID UNTIL s", "/not_after_s"),
    ("REVOKED s", "/revoked_s"),
];

impl Certificates {
    /// Does it.
    pub fn run(self) -> Result<Exit, Failure> {
        let connect = &self.connect;
        match self.verb {
            Verb::List => connect.perform(&Call::get("certificates", &[]), issued_text),
            Verb::Token { kind, name, role } => {
                let body = json!({ "kind": kind, "name": name, "role": role });
                let call = Call::post("certificates/tokens", &[]).json(&body);
                connect.perform(&call, |document| match document["token"].as_str() {
                    Some(token) => token.to_owned(),
                    None => super::sheet::sheet(document),
                })
            }
            Verb::Revoke { serial } => {
                let call = Call::post("certificates/{}/revoke", &[&serial]);
                connect.perform(&call, super::sheet::sheet)
            }
        }
    }
}

fn issued_text(document: &Value) -> String {
    let issued = document.as_array().map_or(rows_of(document, "certificates"), Vec::as_slice);
    list(issued, ISSUED)
}
