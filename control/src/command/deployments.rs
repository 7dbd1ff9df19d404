//! `nautilus deployments`: what is wanted.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::connect::Connect;
use super::exit::{Exit, Failure};
use super::sheet::sheet;
use super::table::{Columns, list, rows_of};
use crate::client::Call;

/// Deployments that are wanted
#[derive(Args, Debug)]
pub struct Deployments {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Shows all of them
    List,
    /// Shows one with its nodes
    Show {
        /// The deployment
        deployment_id: String,
    },
}

const DEPLOYMENTS: Columns<'_> = &[
    ("DEPLOYMENT", "/deployment_id"),
    ("TYPE", "/deployment_type"),
    ("NODES", "/nodes"),
    ("REPLACES", "/replaces"),
];

impl Deployments {
    /// Does it.
    pub fn run(self) -> Result<Exit, Failure> {
        match self.verb {
            Verb::List => self.connect.perform(&Call::get("deployments", &[]), all_text),
            Verb::Show { deployment_id } => {
                self.connect.perform(&Call::get("deployments/{}", &[&deployment_id]), sheet)
            }
        }
    }
}

fn all_text(document: &Value) -> String {
    let all = rows_of(document, "deployments").iter().filter(|one| one.is_object());
    let all = all.cloned().map(|mut one| {
        let nodes = rows_of(&one, "nodes").iter().filter_map(|node| node["node_id"].as_str());
        one["nodes"] = nodes.collect::<Vec<_>>().join(",").into();
        one
    });
    list(&all.collect::<Vec<_>>(), DEPLOYMENTS)
}
