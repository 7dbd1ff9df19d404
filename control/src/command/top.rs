//! `nautilus top`: rates, live.

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;

use super::exit::{Exit, Failure};
use super::local::{LocalNodes, look, or_dash, spelled, us, verdict};
use super::output::print;
use super::table::{headers, table};
use crate::link::{Attachment, Link};
use crate::rates::NodeRates;

/// Shows rates, percentiles, busy cores and drops, live
#[derive(Args, Debug)]
pub struct Top {
    #[command(flatten)]
    nodes: LocalNodes,
    /// Prints one interval and ends
    #[arg(long)]
    once: bool,
    /// Prints one JSON line a node and interval
    #[arg(long)]
    json: bool,
    /// Length of an interval in milliseconds
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(50..=60_000))]
    interval_ms: u64,
}

impl Top {
    /// Does it, until nobody reads it any more.
    pub fn run(self) -> Result<Exit, Failure> {
        let interval = Duration::from_millis(self.interval_ms);
        Ok(top(self.nodes.links()?, self.once, self.json, interval))
    }
}

fn top(mut links: Vec<Link>, once: bool, json: bool, interval: Duration) -> Exit {
    let clear = std::io::stdout().is_terminal() && !json && !once;
    let mut before = look(&mut links);
    loop {
        std::thread::sleep(interval);
        let now = look(&mut links);
        let rates: Vec<NodeRates> = now
            .iter()
            .map(|node| NodeRates::between(before.iter().find(|other| other.id == node.id), node))
            .collect();
        let mut text = String::new();
        if json {
            for node in &rates {
                text += &serde_json::to_string(node).unwrap_or_default();
                text.push('\n');
            }
        } else {
            if clear {
                text += "\x1b[H\x1b[2J";
            }
            text += &top_table(&rates);
        }
        if !print(&text) || once {
            return verdict(&now);
        }
        before = now;
    }
}

fn top_table(nodes: &[NodeRates]) -> String {
    let mut rows = vec![headers(&[
        "NODE", "STATE", "RX/s", "TX/s", "ECHO/s", "GET/s", "HIT", "FEED/s", "P50 us", "P99 us",
        "P99.9 us", "BOOK P99", "GAP ms",
    ])];
    for node in nodes {
        rows.push(vec![
            node.node_id.clone(),
            if node.attachment == Attachment::Attached {
                spelled(&node.state)
            } else {
                spelled(&node.attachment)
            },
            format!("{:.0}", node.rx_packets_per_s),
            format!("{:.0}", node.tx_packets_per_s),
            format!("{:.0}", node.echoes_per_s),
            format!("{:.0}", node.lookups_per_s),
            or_dash(node.hit_share.map(|share| format!("{:.1}%", share * 100.0))),
            format!("{:.0}", node.feed_messages_per_s),
            us(node.xdp_to_tx.p50_s),
            us(node.xdp_to_tx.p99_s),
            us(node.xdp_to_tx.p999_s),
            us(node.xdp_to_book.p99_s),
            format!("{:.3}", node.last_gap_s * 1e3),
        ]);
    }
    let mut text = table(&rows);
    for node in nodes {
        for cache in &node.caches {
            text += &format!(
                "{} cache {} {:.0} lookups/s, hits {}, {} items, {:.1}% of its memory used\n",
                node.node_id,
                cache.cache_id,
                cache.lookups_per_s,
                or_dash(cache.hit_share.map(|share| format!("{:.1}%", share * 100.0))),
                cache.items,
                cache.used_share * 100.0
            );
        }
        for core in &node.cores {
            let filled = (core.busy_share.clamp(0.0, 1.0) * 20.0).round() as usize;
            text += &format!(
                "{} core {} worker {} {} {} [{:<20}] {:.0}% busy\n",
                node.node_id,
                core.core,
                core.worker,
                core.state,
                core.poll,
                "#".repeat(filled),
                core.busy_share * 100.0
            );
        }
        for drop in &node.drops {
            let (metric, reason) = (drop.metric, &drop.reason);
            text += &format!(
                "{} drops {metric} {reason} {:.0}/s, {} in all\n",
                node.node_id, drop.per_s, drop.total
            );
        }
        if !node.reason.is_empty() {
            text += &format!("{}: {}\n", node.node_id, node.reason);
        }
    }
    text
}
