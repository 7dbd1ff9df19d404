//! The sections and keys of the node file, with their defaults.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Auto;
use super::access::{Access, CacheSource};
use super::capture::Capture;
use super::feed::Feed;
use super::host::HostSettings;
use super::one_or_many::one_or_many;

/// One node file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeConfig {
    /// Who this node is.
    pub node: Node,
    /// The process that serves packets.
    pub worker: Worker,
    /// The process that owns every resource.
    pub supervisor: Supervisor,
    /// How packets reach the worker.
    pub port: Port,
    /// The interfaces served; at least one.
    pub interface: Vec<Interface>,
    /// Who may talk to this node.
    pub access: Access,
    /// The echo application, absent when not served.
    pub echo: Option<Echo>,
    /// The caches, at most [`nautilus_shm::attach::CACHES_MAX`]; their place in the list is their place
    /// on the node.
    #[serde(deserialize_with = "one_or_many")]
    pub cache: Vec<Cache>,
    /// The front of the caches; without a cache there is none.
    pub front: Front,
    /// Market data feeds applied by this node.
    pub feed: Vec<Feed>,
    /// What workers see of them and of other ports, in files; absent when nothing is captured.
    pub capture: Option<Capture>,
    /// The control process that may attach.
    pub control: Control,
    /// What it may have changed on the host.
    pub host: HostSettings,
}

/// `[node]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// `[a-z0-9][a-z0-9_.-]{0,62}`; not `create`, `status`, `deploy` or `summary`.
    pub id: String,
    /// Region name, same alphabet as `id`.
    pub region: String,
    /// The latency budget this node is judged by.
    pub tier: Tier,
    /// Directory of the node's sockets and lock; `auto` is `/run/nautilus/<id>`.
    pub run_dir: Auto<PathBuf>,
}

impl Default for Node {
    fn default() -> Self {
        Self { id: "node-1".into(), region: "lab".into(), tier: Tier::Lab, run_dir: Auto::Auto }
    }
}

/// Latency budget classes of the product.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// p99 below 100 us.
    UltraEdge,
    /// p99 below 500 us.
    HighPerformance,
    /// p99 below 2 ms.
    StandardEdge,
    /// Test fleets: no budget.
    #[default]
    Lab,
}

impl Tier {
    /// The name written in the node file.
    pub fn name(self) -> &'static str {
        match self {
            Self::UltraEdge => "ultra_edge",
            Self::HighPerformance => "high_performance",
            Self::StandardEdge => "standard_edge",
            Self::Lab => "lab",
        }
    }
}

/// `[worker]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Worker {
    /// Worker processes, 1..=8; each serves its share of every interface's queues and of every cache.
    pub count: u32,
    /// CPU each worker is pinned to; `auto` is the last ones the supervisor may use.
    pub core: Auto<Cores>,
    /// What the loop does when nothing arrives.
    pub poll: PollPolicy,
    /// Unprivileged user name or uid the worker runs as (`xdp` port only).
    pub user: String,
    /// Path of `nautilus-worker`; `auto` is the supervisor's own directory.
    pub program: Auto<PathBuf>,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            count: 1,
            core: Auto::Auto,
            poll: PollPolicy::Adaptive,
            user: "65534".into(),
            program: Auto::Auto,
        }
    }
}

/// A CPU, or one for each worker.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Cores {
    /// Of the only worker.
    One(u32),
    /// In the order of the workers.
    Each(Vec<u32>),
}

impl Cores {
    /// In the order of the workers.
    pub fn all(&self) -> &[u32] {
        match self {
            Self::One(core) => std::slice::from_ref(core),
            Self::Each(cores) => cores,
        }
    }
}

/// What the run loop does when nothing arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PollPolicy {
    /// Never sleeps: the whole core belongs to the worker.
    Busy,
    /// Spins for a while after the last packet, then sleeps.
    #[default]
    Adaptive,
    /// Sleeps as soon as the rings are empty.
    Interrupt,
}

/// How a node begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Begin {
    /// It serves as soon as its supervisor runs.
    #[default]
    Serving,
    /// Its supervisor waits for the verb `start`.
    Parked,
}

/// `[supervisor]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Supervisor {
    /// `SCHED_FIFO` priority 1..=99, 0 for the normal scheduler.
    pub realtime_priority: u8,
    /// Milliseconds an active worker's heartbeat may stand still before it is killed; 0 for ever.
    pub hang_limit_ms: u64,
    /// Whether it serves at once.
    pub start: Begin,
    /// Folder below which releases are found by name; none: the node runs what it was started with.
    pub releases: Option<PathBuf>,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self { realtime_priority: 10, hang_limit_ms: 1000, start: Begin::Serving, releases: None }
    }
}

/// `[port]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Port {
    /// `xdp` or `socket`.
    pub kind: PortKind,
    /// Frames of one queue's UMEM; a power of two, 256..=65,536.
    pub frames: u32,
    /// Bytes of one frame: 2,048 or 4,096; `auto` is the smallest that fits the MTU.
    pub chunk_bytes: Auto<u32>,
    /// UMEM on huge pages; `auto` takes them when enough are free.
    pub huge_pages: Auto<bool>,
    /// Zero-copy sockets, for drivers that have them; veth has not.
    pub zero_copy: bool,
    /// Checksums of received packets.
    pub rx_checksum: RxChecksum,
    /// `SO_PREFER_BUSY_POLL` on the sockets (needs driver NAPI settings to pay off).
    pub prefer_busy_poll: bool,
    /// Packets one busy poll may take, 1..=256.
    pub busy_poll_budget: u16,
}

impl Default for Port {
    fn default() -> Self {
        Self {
            kind: PortKind::Xdp,
            frames: 2048,
            chunk_bytes: Auto::Auto,
            huge_pages: Auto::Auto,
            zero_copy: false,
            rx_checksum: RxChecksum::Verify,
            prefer_busy_poll: false,
            busy_poll_budget: 64,
        }
    }
}

/// How packets reach the worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortKind {
    /// AF_XDP; the supervisor needs root.
    #[default]
    Xdp,
    /// Kernel UDP sockets; nothing needs root.
    Socket,
}

impl PortKind {
    /// The name written in the node file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Socket => "socket",
        }
    }
}

/// Checksums of received packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RxChecksum {
    /// IPv4 header and UDP checksums are computed; a wrong one is a counted drop.
    #[default]
    Verify,
    /// Checksums are taken on trust.
    Trust,
}

/// One `[[interface]]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// Kernel name, at most 15 bytes.
    pub name: String,
    /// Receive queues served; `auto` is every queue.
    #[serde(default)]
    pub queues: Queues,
    /// Our addresses on it; `auto` is every global address the interface carries, followed live.
    #[serde(default)]
    pub addresses: Auto<Vec<IpAddr>>,
}

/// Receive queues of an interface.
pub type Queues = Auto<Vec<u32>>;

/// `[echo]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Echo {
    /// UDP port.
    pub port: u16,
}

/// One `[[cache]]`, or the only `[cache]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// Cache id, same alphabet as the node's; unique on the node.
    pub id: String,
    /// UDP and TCP port of the memcached protocol; unique on the node.
    #[serde(default = "default_cache_port")]
    pub port: u16,
    /// Memory of the table, 8..=65,536 MiB, reserved at start.
    #[serde(default = "default_cache_memory_mb")]
    pub max_memory_mb: u32,
    /// Longest value that clients may store, 1..=[`super::VALUE_BYTES_MAX`].
    #[serde(default = "default_cache_value_bytes")]
    pub max_value_bytes: u32,
    /// Memory on huge pages that the host has reserved; a refusal to start without enough of them.
    #[serde(default)]
    pub huge_pages: bool,
    /// Keys that are asked for often are answered in XDP, where the port has it.
    #[serde(default)]
    pub hot_set: Auto<bool>,
    /// User names or uids on this host that may map it read-only, at most [`super::READERS_MAX`];
    /// root and the supervisor's own user always may.
    #[serde(default)]
    pub readers: Vec<String>,
    /// Who may do what with this cache, in place of `access.sources`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<Vec<CacheSource>>,
}

fn default_cache_port() -> u16 {
    11211
}

fn default_cache_memory_mb() -> u32 {
    64
}

fn default_cache_value_bytes() -> u32 {
    super::VALUE_BYTES_MAX
}

/// `[front]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Front {
    /// Whether the caches are served over TCP, and over the kernel's UDP.
    pub enabled: bool,
    /// CPU the front is pinned to; `auto` leaves it to the scheduler.
    pub core: Auto<u32>,
    /// What its loop does when nothing happens.
    pub poll: PollPolicy,
    /// Connections at once, 1..=1,000,000.
    pub max_connections: u32,
    /// Seconds of silence after which a connection is closed, at most a year; 0 for never.
    pub idle_timeout_s: u32,
    /// MiB that unfinished commands and untaken answers of all connections may hold, 4..=65,536.
    pub max_buffer_mb: u32,
    /// Path of `nautilus-front`; `auto` is the supervisor's own directory.
    pub program: Auto<PathBuf>,
}

impl Default for Front {
    fn default() -> Self {
        Self {
            enabled: true,
            core: Auto::Auto,
            poll: PollPolicy::Interrupt,
            max_connections: 16_384,
            idle_timeout_s: 0,
            max_buffer_mb: 256,
            program: Auto::Auto,
        }
    }
}

impl NodeConfig {
    /// Whether a front runs: it was not switched off, and there is something to serve.
    pub fn has_front(&self) -> bool {
        self.front.enabled && !self.cache.is_empty()
    }

    /// The place of the cache that a feed publishes into. `None` only before the file was checked.
    pub fn cache_of(&self, feed: &Feed) -> Option<usize> {
        match &feed.cache {
            None => (!self.cache.is_empty()).then_some(0),
            Some(id) => self.cache.iter().position(|cache| cache.id == *id),
        }
    }
}

/// `[control]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Control {
    /// Where the control process of this node listens (read by it, not by the supervisor).
    pub listen: SocketAddr,
    /// User name or uid that may attach read-only; root and the supervisor's own user always may.
    pub user: String,
}

impl Default for Control {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9477)), user: "root".into() }
    }
}
