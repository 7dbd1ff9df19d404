//! `nautilus audit`: the trail through a control; its verifier and exports, which need none.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::connect::Connect;
use super::exit::{Exit, Failure};
use super::sheet::sheet;
use super::table::{Columns, list, rows_of};
use crate::client::Call;
use crate::companion::Companion;

/// The record of every action, and what verifies it
#[derive(Args, Debug)]
pub struct Audit {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Shows records through a control
    List {
        #[command(flatten)]
        connect: Connect,
        /// Records at most
        #[arg(long)]
        limit: Option<u64>,
        /// Any other part of the query; may be repeated
        #[arg(long = "query", value_name = "KEY=VALUE")]
        query: Vec<String>,
    },
    /// Says whether a trail is whole, and where it is not; needs no control
    #[command(disable_help_flag = true)]
    Verify(Companion),
    /// Verifies a trail and writes its records to standard output; needs no control
    #[command(disable_help_flag = true)]
    Export(Companion),
}

const RECORDS: Columns<'_> = &[
    ("SEQUENCE", "/sequence"),
    ("TIME", "/time"),
    ("WHO", "/actor/name"),
    ("ROLE", "/actor/role"),
    ("VERB", "/verb"),
    ("OBJECT", "/object"),
    ("OUTCOME", "/outcome"),
    ("REASON", "/reason"),
    ("REQUEST", "/request_id"),
];

impl Audit {
    /// Does it.
    pub fn run(self) -> Result<Exit, Failure> {
        match self.verb {
            Verb::Verify(other) => Err(other.instead("nautilus-audit", Some("verify"))),
            Verb::Export(other) => Err(other.instead("nautilus-audit", Some("export"))),
            Verb::List { connect, limit, query } => {
                let mut call = Call::get("audit", &[]).with_some("limit", limit);
                for pair in &query {
                    let (key, value) = pair.split_once('=').ok_or_else(|| {
                        Failure::usage(format!("--query {pair}: KEY=VALUE is needed"))
                    })?;
                    call = call.with(key, value);
                }
                connect.perform(&call, records_text)
            }
        }
    }
}

fn records_text(document: &Value) -> String {
    let records = document.as_array().map_or(rows_of(document, "records"), Vec::as_slice);
    if records.is_empty() { sheet(document) } else { list(records, RECORDS) }
}
