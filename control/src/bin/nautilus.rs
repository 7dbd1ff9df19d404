//! The operator's command. It asks supervisors directly, so it works while control is dead.
//!
//! Exit codes: 0 every node is healthy (`host check`: nothing is lost); 1 one is not (something is
//! lost); 2 bad usage or configuration; 3 no node could be reached (`host check`: a node cannot run
//! here).

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use nautilus_control::caches::{CacheToCreate, CacheToRemove};
use nautilus_control::companion::Companion;
use nautilus_control::config::{Config, ConfigError, DEFAULT_PATH};
use nautilus_control::explain::{ExplainError, Explanation};
use nautilus_control::health::{Health, HealthDocument};
use nautilus_control::host::command::HostCommand;
use nautilus_control::kill_switch::KillSwitchCommand;
use nautilus_control::link::{Attachment, Link};
use nautilus_control::packet::Packet;
use nautilus_control::rates::NodeRates;
use nautilus_control::status::{NodeStatus, StatusDocument};
use nautilus_control::view::NodeView;
use nautilus_control::watcher;
use nautilus_shm::attach::ExplainRequest;

const UNHEALTHY: u8 = 1;
const USAGE: u8 = 2;
const UNREACHABLE: u8 = 3;

/// Looks at the nodes of this host
#[derive(Parser)]
#[command(name = "nautilus", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows every node once
    Status {
        #[command(flatten)]
        nodes: Nodes,
        /// Prints the document of GET /api/v1/edge/nodes/status
        #[arg(long)]
        json: bool,
    },
    /// Shows rates, percentiles, busy cores and drops, live
    Top {
        #[command(flatten)]
        nodes: Nodes,
        /// Prints one interval and ends
        #[arg(long)]
        once: bool,
        /// Prints one JSON line a node and interval
        #[arg(long)]
        json: bool,
        /// Length of an interval in milliseconds
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(50..=60_000))]
        interval_ms: u64,
    },
    /// Says where a packet would go, and why, without touching anything the node counts
    Explain {
        /// A frame in hexadecimal, CAPTURE.pcap[:NUMBER], or a description:
        /// "udp 198.18.0.2:4000 > 198.18.0.1:11211 'get k'"
        packet: String,
        /// Run directory of the node that is asked
        #[arg(long, value_name = "RUN_DIR", required_unless_present = "config")]
        node: Option<PathBuf>,
        /// Asks no node: loads the program, filled from this node file (needs root)
        #[arg(long, value_name = "FILE", conflicts_with = "node")]
        config: Option<PathBuf>,
        /// The interface it arrives on; the node's first unless said
        #[arg(long, default_value = "")]
        interface: String,
        /// The receive queue it arrives on
        #[arg(long, default_value_t = 0)]
        queue: u32,
        /// Gives it the interface's own MAC as its destination, as a description has it anyway
        #[arg(long)]
        to_us: bool,
        /// Prints one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Makes, removes and lists caches of a running node
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Makes all prices of feeds suspect and silences every publisher, until it is released
    #[command(subcommand)]
    KillSwitch(KillSwitchCommand),
    /// Replays captures: onto an interface, or into the records a node published
    #[command(disable_help_flag = true)]
    Replay(Companion),
    /// Verifies and exports audit trails
    #[command(disable_help_flag = true)]
    Audit(Companion),
    /// Makes certificates; enrols with a control, and renews
    #[command(disable_help_flag = true)]
    Ca(Companion),
    /// Looks at this host, and changes it so that it can be undone
    #[command(subcommand)]
    Host(HostCommand),
}

#[derive(Subcommand)]
enum CacheCommand {
    /// Makes a cache on a running node; the same one again is fine
    Create(CacheToCreate),
    /// Removes a cache that was made so, with all that is in it
    Remove(CacheToRemove),
    /// Shows the caches of every node
    List {
        #[command(flatten)]
        nodes: Nodes,
        /// Prints one JSON document, by node
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
struct Nodes {
    /// Run directory of a node; may be repeated
    #[arg(long = "node", value_name = "RUN_DIR", conflicts_with = "config")]
    run_dirs: Vec<PathBuf>,
    /// File with the list of nodes
    #[arg(long, env = "NAUTILUS_CONTROL_CONFIG")]
    config: Option<PathBuf>,
}

impl Nodes {
    fn links(&self) -> Result<Vec<Link>, ConfigError> {
        let config = if self.run_dirs.is_empty() {
            Config::load(self.config.as_deref().unwrap_or(Path::new(DEFAULT_PATH)))?
        } else {
            Config::of_run_dirs(&self.run_dirs)?
        };
        Ok(config.nodes.into_iter().map(Link::new).collect())
    }
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Status { nodes, json } => nodes.links().map(|links| status(links, json)),
        Command::Top { nodes, once, json, interval_ms } => {
            let interval = Duration::from_millis(interval_ms);
            nodes.links().map(|links| top(links, once, json, interval))
        }
        Command::Explain { packet, node, config, interface, queue, to_us, json } => {
            let packet = match Packet::parse(&packet) {
                Ok(packet) => packet,
                Err(error) => {
                    eprintln!("nautilus: {error}");
                    return ExitCode::from(USAGE);
                }
            };
            let to_us = to_us || packet.to_us;
            let frame = packet.frame.into();
            let request = ExplainRequest { interface, queue, to_us, frame };
            Ok(explain(node.as_deref(), config.as_deref(), &request, json))
        }
        Command::Cache(CacheCommand::List { nodes, json }) => {
            nodes.links().map(|links| cache_list(links, json))
        }
        Command::Cache(CacheCommand::Create(wanted)) => Ok(wanted.create()),
        Command::Cache(CacheCommand::Remove(gone)) => Ok(gone.remove()),
        Command::KillSwitch(command) => Ok(command.run()),
        Command::Replay(other) => Ok(become_it(other, "nautilus-replay")),
        Command::Audit(other) => Ok(become_it(other, "nautilus-audit")),
        Command::Ca(other) => Ok(become_it(other, "nautilus-ca")),
        Command::Host(command) => Ok(command.run()),
    };
    result.unwrap_or_else(|error| {
        eprintln!("nautilus: {error}");
        ExitCode::from(USAGE)
    })
}

/// Returns only when there is no such program.
fn become_it(other: Companion, name: &str) -> ExitCode {
    eprintln!("nautilus: {}", other.run(name));
    ExitCode::from(UNREACHABLE)
}

/// Writes to stdout; false when nobody reads it any more.
fn print(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}

fn look(links: &mut [Link]) -> Vec<NodeView> {
    links.iter_mut().for_each(Link::look);
    watcher::views(links)
}

fn verdict(views: &[NodeView]) -> ExitCode {
    if views.iter().all(|view| view.attachment == Attachment::Unreachable) {
        return ExitCode::from(UNREACHABLE);
    }
    let healthy = |view| HealthDocument::of(view).health == Health::Healthy;
    if views.iter().all(healthy) { ExitCode::SUCCESS } else { ExitCode::from(UNHEALTHY) }
}

fn status(mut links: Vec<Link>, json: bool) -> ExitCode {
    let views = look(&mut links);
    let document = StatusDocument::of(&views);
    if json {
        // Strings, numbers and lists of ours: always a document.
        print(&(serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"));
    } else {
        print(&status_table(&document.nodes, &views));
    }
    verdict(&views)
}

fn cache_list(mut links: Vec<Link>, json: bool) -> ExitCode {
    let views = look(&mut links);
    let nodes = StatusDocument::of(&views).nodes;
    if json {
        let caches: Vec<_> = nodes.iter().map(|node| (&node.node_id, &node.caches)).collect();
        let caches: std::collections::BTreeMap<_, _> = caches.into_iter().collect();
        print(&(serde_json::to_string_pretty(&caches).unwrap_or_default() + "\n"));
    } else {
        print(&cache_table(&nodes));
    }
    match views.iter().find(|view| view.attachment == Attachment::Unreachable) {
        Some(view) => {
            eprintln!("nautilus: {}: {}", view.id, view.reason);
            ExitCode::from(UNREACHABLE)
        }
        None => ExitCode::SUCCESS,
    }
}

fn status_table(nodes: &[NodeStatus], views: &[NodeView]) -> String {
    let mut rows = vec![cells([
        "NODE", "STATE", "CONTROL", "WORKER", "CORE", "POLL", "BUSY", "STANDBY", "IF", "P50 us",
        "P99 us", "P99.9 us", "GAP ms",
    ])];
    for node in nodes {
        let active = node.workers.iter().find(|worker| worker.state == "active");
        let standby = node.workers.iter().find(|worker| worker.state == "standby");
        let interface = |i: &nautilus_control::status::InterfaceStatus| {
            format!("{}:{}{}", i.name, i.xdp_mode, if i.up { "" } else { "(down)" })
        };
        let interfaces: Vec<String> = node.interfaces.iter().map(interface).collect();
        let gap = node.supervisor.as_ref().map(|s| s.last_gap_s).filter(|gap| *gap > 0.0);
        rows.push([
            node.node_id.clone(),
            name(&node.state),
            name(&node.attachment),
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
fn cache_table(nodes: &[NodeStatus]) -> String {
    let mut rows = vec![cells([
        "NODE", "CACHE", "STATE", "PORT", "MiB", "USED", "ITEMS", "HITS", "MISSES", "EVICTED",
        "HOT",
    ])];
    for node in nodes {
        for cache in &node.caches {
            let used = cache.used_bytes as f64 / cache.limit_bytes.max(1) as f64;
            rows.push([
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

fn top(mut links: Vec<Link>, once: bool, json: bool, interval: Duration) -> ExitCode {
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
    let mut rows = vec![cells([
        "NODE", "STATE", "RX/s", "TX/s", "ECHO/s", "GET/s", "HIT", "FEED/s", "P50 us", "P99 us",
        "P99.9 us", "BOOK P99", "GAP ms",
    ])];
    for node in nodes {
        rows.push([
            node.node_id.clone(),
            if node.attachment == Attachment::Attached {
                name(&node.state)
            } else {
                name(&node.attachment)
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

fn explain(
    node: Option<&Path>,
    config: Option<&Path>,
    request: &ExplainRequest,
    json: bool,
) -> ExitCode {
    let told = match (node, config) {
        (Some(run_dir), _) => Explanation::of_node(run_dir, request),
        (None, config) => {
            let ours = std::env::current_exe().unwrap_or_default();
            let program = ours.with_file_name("nautilus-supervisor");
            Explanation::of_config(&program, config.unwrap_or(Path::new("")), request)
        }
    };
    match told {
        Ok(told) if json => {
            print(&(serde_json::to_string_pretty(&told).unwrap_or_default() + "\n"));
            ExitCode::SUCCESS
        }
        Ok(told) => {
            print(&told.to_text());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("nautilus: {error}");
            let unreachable =
                matches!(error, ExplainError::Reach(_) | ExplainError::Program { .. });
            ExitCode::from(if unreachable { UNREACHABLE } else { USAGE })
        }
    }
}

/// The name a document has for it.
fn name(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

/// Seconds as microseconds.
fn us(seconds: Option<f64>) -> String {
    or_dash(seconds.map(|seconds| format!("{:.1}", seconds * 1e6)))
}

fn cells<const N: usize>(texts: [&str; N]) -> [String; N] {
    texts.map(str::to_owned)
}

fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let line: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += line.join("  ").trim_end();
        text.push('\n');
    }
    text
}
