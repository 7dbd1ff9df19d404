//! `nautilus nodes`: nodes through a control, and bringing them about.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::connect::Connect;
use super::document;
use super::exit::{Exit, Failure};
use super::operations::{Begin, plan_text};
use super::table::{Columns, list, rows_of, table};
use crate::client::Call;

/// Nodes of the site, through its control
#[derive(Args, Debug)]
pub struct Nodes {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Shows every node
    Status,
    /// Shows one node's checks, and ends with 1 if it is unhealthy
    Health {
        /// The node
        node_id: String,
    },
    /// Brings nodes about as a deployment says, and shows how far it is
    Deploy {
        /// EdgeDeploymentConfig in JSON or TOML; - for standard input
        #[arg(required_unless_present = "plan_id")]
        file: Option<PathBuf>,
        /// Carries out the plan that an earlier --dry-run printed, if nothing has changed since
        #[arg(long, value_name = "ID", conflicts_with = "file")]
        plan_id: Option<String>,
        #[command(flatten)]
        begin: Begin,
    },
    /// Takes a node out of service: clients are led away, those left are served to the end
    Drain {
        /// The node
        node_id: String,
        #[command(flatten)]
        begin: Begin,
    },
    /// Puts a drained node back into service
    Resume {
        /// The node
        node_id: String,
        #[command(flatten)]
        begin: Begin,
    },
    /// Takes a node out of service for good
    Retire {
        /// The node
        node_id: String,
        #[command(flatten)]
        begin: Begin,
    },
}

const STATUS: Columns<'_> = &[
    ("NODE", "/node_id"),
    ("REGION", "/region"),
    ("TIER", "/tier"),
    ("STATE", "/state"),
    ("HALTED", "/kill_switch/on"),
    ("LIFE", "/lifecycle"),
    ("DEPLOYMENT", "/deployment_id"),
    ("RELEASE", "/supervisor/release"),
    ("CONTROL", "/attachment"),
    ("WORKERS", "/workers"),
    ("CACHES", "/caches"),
    ("P50 us", "/xdp_to_tx/p50_s"),
    ("P99 us", "/xdp_to_tx/p99_s"),
    ("P99.9 us", "/xdp_to_tx/p999_s"),
    ("REASON", "/reason"),
];

const DRIFT: Columns<'_> = &[
    ("NODE", "/node_id"),
    ("WHAT", "/kind"),
    ("WANTED", "/wanted"),
    ("FOUND", "/found"),
    ("REASON", "/reason"),
];

impl Nodes {
    /// Does it.
    pub fn run(self) -> Result<Exit, Failure> {
        let connect = &self.connect;
        let begin = |path: &str, node_id: &str, begin: Begin| {
            begin.run(connect, Call::post(path, &[node_id]), plan_text)
        };
        match self.verb {
            Verb::Status => connect.perform(&Call::get("nodes/status", &[]), status_text),
            Verb::Health { node_id } => health(connect, &node_id),
            Verb::Deploy { file, plan_id, begin } => {
                let body = match (&file, plan_id) {
                    (Some(file), _) => document::read(file)?,
                    (None, plan_id) => json!({ "plan_id": plan_id }),
                };
                begin.run(connect, Call::post("nodes/deploy", &[]).json(&body), plan_text)
            }
            Verb::Drain { node_id, begin: how } => begin("nodes/{}/drain", &node_id, how),
            Verb::Resume { node_id, begin: how } => begin("nodes/{}/resume", &node_id, how),
            Verb::Retire { node_id, begin: how } => begin("nodes/{}/retire", &node_id, how),
        }
    }
}

/// One node: 1 when it is unhealthy.
fn health(connect: &Connect, node_id: &str) -> Result<Exit, Failure> {
    let call = Call::get("nodes/{}/health", &[node_id]);
    let client = connect.client()?;
    let answer = connect.ask(&client, &call)?;
    connect.show(&client, &call, &answer, health_text)?;
    let health = super::connect::document(&client, &call, &answer)?;
    Ok(if health["health"] == "unhealthy" { Exit::SaidNo } else { Exit::Done })
}

fn status_text(document: &Value) -> String {
    let nodes = rows_of(document, "nodes").iter();
    let mut nodes: Vec<Value> = nodes.filter(|node| node.is_object()).cloned().collect();
    for node in &mut nodes {
        for list in ["workers", "caches"] {
            node[list] = node[list].as_array().map_or(0, Vec::len).into();
        }
        for percentile in ["p50_s", "p99_s", "p999_s"] {
            let seconds = node["xdp_to_tx"][percentile].as_f64();
            let text = seconds.map_or("-".into(), |seconds| format!("{:.1}", seconds * 1e6));
            node["xdp_to_tx"][percentile] = text.into();
        }
    }
    let drift = rows_of(document, "drift");
    let between = if drift.is_empty() { "" } else { "\ndrift\n" };
    let trouble = document["store_trouble"].as_str().filter(|text| !text.is_empty());
    let trouble = trouble.map_or(String::new(), |text| {
        let text: String = text.chars().filter(|c| !c.is_control()).collect();
        format!("store: {text}\n")
    });
    list(&nodes, STATUS) + between + &list(drift, DRIFT) + &trouble
}

fn health_text(document: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut rows = vec![vec![text(&document["node_id"]), text(&document["health"]), String::new()]];
    for check in rows_of(document, "checks") {
        let holds = match check["holds"].as_bool() {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "cannot be judged",
        };
        rows.push(vec![text(&check["name"]), holds.into(), text(&check["detail"])]);
    }
    table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_health_is_shown_check_by_check() {
        let document = json!({
            "node_id": "ny4-1", "health": "degraded",
            "checks": [
                {"name": "worker", "holds": true, "detail": "beats"},
                {"name": "p99", "holds": false, "detail": "212 us, the tier has 100 us"},
                {"name": "gap", "holds": null, "detail": ""},
            ]
        });
        assert_eq!(
            health_text(&document),
            "ny4-1   degraded\n\
             worker  yes               beats\n\
             p99     NO                212 us, the tier has 100 us\n\
             gap     cannot be judged\n"
        );
    }

    #[test]
    fn a_node_that_lies_about_itself_is_still_shown() {
        for nodes in [json!([{}]), json!([1, "x", null]), json!({}), json!([{"workers": 7}])] {
            status_text(&json!({ "nodes": nodes }));
        }
        health_text(&json!([1]));
    }
}
