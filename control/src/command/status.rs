//! `nautilus status`: every node of this host once.

use clap::Args;

use super::exit::{Exit, Failure};
use super::local::{LocalNodes, look, or_dash, spelled, us, verdict};
use super::output::print;
use super::table::{headers, table};
use crate::health::HealthDocument;
use crate::status::{InterfaceStatus, NodeStatus, StatusDocument};
use crate::view::NodeView;

/// Shows every node of this host once
#[derive(Args, Debug)]
pub struct Status {
    #[command(flatten)]
    nodes: LocalNodes,
    /// Prints the document of GET /api/v1/edge/nodes/status
    #[arg(long)]
    json: bool,
}

impl Status {
    /// Does it.
    pub fn run(self) -> Result<Exit, Failure> {
        let mut links = self.nodes.links()?;
        let views = look(&mut links);
        let document = StatusDocument::of(&views);
        if self.json {
            // Strings, numbers and lists of ours: always a document.
            print(serde_json::to_string_pretty(&document).unwrap_or_default());
        } else {
            print(status_table(&document.nodes, &views));
        }
        Ok(verdict(&views))
    }
}

fn status_table(nodes: &[NodeStatus], views: &[NodeView]) -> String {
    let mut rows = vec![headers(&[
        "NODE", "STATE", "CONTROL", "WORKER", "CORE", "POLL", "BUSY", "STANDBY", "IF", "P50 us",
        "P99 us", "P99.9 us", "GAP ms",
    ])];
    for node in nodes {
        let active = node.workers.iter().find(|worker| worker.state == "active");
        let standby = node.workers.iter().find(|worker| worker.state == "standby");
        let interface = |i: &InterfaceStatus| {
            format!("{}:{}{}", i.name, i.xdp_mode, if i.up { "" } else { "(down)" })
        };
        let interfaces: Vec<String> = node.interfaces.iter().map(interface).collect();
        let gap = node.supervisor.as_ref().map(|s| s.last_gap_s).filter(|gap| *gap > 0.0);
        rows.push(vec![
            node.node_id.clone(),
            spelled(&node.state),
            spelled(&node.attachment),
            or_dash(active.map(|worker| worker.pid)),
            or_dash(active.map(|worker| worker.core)),
            or_dash(active.map(|worker| worker.poll)),
            or_dash(active.map(|worker| format!("{:.0}%", worker.busy_share * 100.0))),
            or_dash(standby.map(|worker| worker.pid)),
            if interfaces.is_empty() { "-".into() } else { interfaces.join(",") },
            us(node.xdp_to_tx.p50_s),
            us(node.xdp_to_tx.p99_s),
            us(node.xdp_to_tx.p999_s),
            or_dash(gap.map(|gap| format!("{:.3}", gap * 1e3))),
        ]);
    }
    let mut text = table(&rows) + &cache_table(nodes);
    for view in views {
        for check in HealthDocument::of(view).checks {
            if check.holds == Some(false) {
                text += &format!("{}: {}: {}\n", view.id, check.name, check.detail);
            }
        }
    }
    text
}

/// A row a cache; nothing where there is none.
pub fn cache_table(nodes: &[NodeStatus]) -> String {
    let mut rows = vec![headers(&[
        "NODE", "CACHE", "STATE", "PORT", "MiB", "USED", "ITEMS", "HITS", "MISSES", "EVICTED",
        "HOT",
    ])];
    for node in nodes {
        for cache in &node.caches {
            let used = cache.used_bytes as f64 / cache.limit_bytes.max(1) as f64;
            rows.push(vec![
                node.node_id.clone(),
                cache.cache_id.clone(),
                cache.state.into(),
                cache.port.to_string(),
                cache.max_memory_mb.to_string(),
                format!("{:.1}%", used * 100.0),
                cache.items.to_string(),
                cache.hits.to_string(),
                cache.misses.to_string(),
                cache.evictions.to_string(),
                if cache.hot_set { "yes" } else { "no" }.into(),
            ]);
        }
    }
    if rows.len() > 1 { table(&rows) } else { String::new() }
}
