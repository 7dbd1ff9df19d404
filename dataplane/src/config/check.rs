//! Bounds and relations of values that types alone do not catch.

use nautilus_shm::attach::CACHES_MAX;
use nautilus_shm::worker_rings::NODE_WORKERS_MAX;

use super::distribution::check_distribution;
use super::feed::{check_line, check_protocol, check_recovery};
use super::republish::check_republish;
use super::{Auto, Cache, FeedLine, NodeConfig};
use crate::feed::arbitration::HOLD_LIMIT_NS_MAX;
use crate::feed::record::depth::DEPTH_MAX;
use crate::limits::{CHUNK_BYTES_LARGE, CHUNK_BYTES_SMALL, QUEUES_MAX};

/// One refused value: where, and what is wrong with it.
pub(super) struct Problem {
    pub key: String,
    pub text: String,
}

pub(super) fn refuse<T>(key: impl Into<String>, text: impl Into<String>) -> Result<T, Problem> {
    Err(Problem { key: key.into(), text: text.into() })
}

/// Ids a REST path could not tell from a verb.
const RESERVED: [&str; 4] = ["create", "status", "deploy", "summary"];

/// Highest CPU number a `cpu_set_t` holds.
const CORE_MAX: u32 = 1023;

/// Groups joined per interface; the kernel's own default bound is 20 (`igmp_max_memberships`).
pub const FEEDS_MAX: usize = 16;

/// Lines of one feed, its own group and port among them.
pub const FEED_LINES_MAX: usize = crate::feed::lines::LINES_MAX;

/// Bounds of `supervisor.hang_limit_ms`. Lower, and every moment without a core is a hang.
const HANG_LIMIT_MS_MIN: u64 = 100;
const HANG_LIMIT_MS_MAX: u64 = 60_000;

/// Users on a cache's list of readers.
pub const READERS_MAX: usize = 64;

/// Longest value of any cache: the table's own bound.
pub const VALUE_BYTES_MAX: u32 = nautilus_shm::table::VALUE_BYTES_MAX as u32;

/// Descriptors that all caches together may take: memory, and a listener and a socket an address. One
/// message carries 253, of which 64 queues take 128.
const CACHE_DESCRIPTORS_MAX: usize = 112;

fn id(key: &str, id: &str) -> Result<(), Problem> {
    let fine = |byte: u8, first: bool| {
        byte.is_ascii_lowercase()
            || byte.is_ascii_digit()
            || (!first && matches!(byte, b'_' | b'.' | b'-'))
    };
    let valid = (1..=63).contains(&id.len())
        && id.bytes().enumerate().all(|(index, byte)| fine(byte, index == 0));
    if !valid {
        return refuse(
            key,
            format!("{id:?} is not an id: [a-z0-9] first, then [a-z0-9_.-], at most 63 in all"),
        );
    }
    if RESERVED.contains(&id) {
        return refuse(key, format!("{id:?} is a reserved word; choose another id"));
    }
    Ok(())
}

pub(super) fn port(key: &str, port: u16) -> Result<(), Problem> {
    if port == 0 { refuse(key, "0 is not a port; write 1..=65535") } else { Ok(()) }
}

pub(super) fn within(key: &str, value: u64, low: u64, high: u64) -> Result<(), Problem> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    refuse(key, format!("{value} is not {low}..={high}"))
}

/// Checks a cache that a node is to have beside `others`, those of the node file among them. The error names
/// the key of its section.
pub fn check_one_more<'a>(
    config: &NodeConfig,
    others: impl Iterator<Item = &'a Cache>,
    cache: &'a Cache,
) -> Result<(), String> {
    let mut config = config.clone();
    config.cache = others.chain([cache]).cloned().collect();
    let section = format!("cache[{}].", config.cache.len() - 1);
    check(&config).map_err(|Problem { key, text }| {
        format!("{}: {text}", key.strip_prefix(&section).unwrap_or(&key))
    })
}

pub(super) fn check(config: &NodeConfig) -> Result<(), Problem> {
    id("node.id", &config.node.id)?;
    id("node.region", &config.node.region)?;
    if let Auto::Is(dir) = &config.node.run_dir {
        if !dir.is_absolute() {
            return refuse("node.run_dir", format!("{} is not absolute", dir.display()));
        }
        // `sun_path` holds 108 bytes; the longest socket here is worker-4194304.sock.
        if dir.as_os_str().len() > 80 {
            return refuse("node.run_dir", "longer than 80 bytes: a socket would not fit in it");
        }
    }
    within("worker.count", config.worker.count.into(), 1, NODE_WORKERS_MAX as u64)?;
    if let Auto::Is(cores) = &config.worker.core {
        for core in cores.all() {
            within("worker.core", (*core).into(), 0, CORE_MAX.into())?;
        }
        if cores.all().len() != config.worker.count as usize {
            let (named, count) = (cores.all().len(), config.worker.count);
            return refuse("worker.core", format!("{named} CPUs for {count} workers"));
        }
    }
    if config.worker.user.is_empty() {
        return refuse("worker.user", "is empty; write a user name or uid");
    }
    within("supervisor.realtime_priority", config.supervisor.realtime_priority.into(), 0, 99)?;
    let hang_limit_ms = config.supervisor.hang_limit_ms;
    if hang_limit_ms != 0 {
        within("supervisor.hang_limit_ms", hang_limit_ms, HANG_LIMIT_MS_MIN, HANG_LIMIT_MS_MAX)?;
    }
    check_port(config)?;
    check_interfaces(config)?;
    super::access::check(config)?;
    check_services(config)?;
    check_front(&config.front)?;
    super::capture::check(config)?;
    super::host::check(config)?;
    if config.control.user.is_empty() {
        return refuse("control.user", "is empty; write a user name or uid");
    }
    Ok(())
}

fn check_front(front: &super::Front) -> Result<(), Problem> {
    if let Auto::Is(core) = front.core {
        within("front.core", core.into(), 0, CORE_MAX.into())?;
    }
    within("front.max_connections", front.max_connections.into(), 1, 1_000_000)?;
    within("front.idle_timeout_s", front.idle_timeout_s.into(), 0, 31_536_000)?;
    within("front.max_buffer_mb", front.max_buffer_mb.into(), 4, 65_536)
}

fn check_port(config: &NodeConfig) -> Result<(), Problem> {
    let frames = config.port.frames;
    if !frames.is_power_of_two() || !(256..=65_536).contains(&frames) {
        return refuse("port.frames", format!("{frames} is not a power of two in 256..=65536"));
    }
    if let Auto::Is(chunk) = config.port.chunk_bytes
        && chunk != CHUNK_BYTES_SMALL
        && chunk != CHUNK_BYTES_LARGE
    {
        return refuse(
            "port.chunk_bytes",
            format!("{chunk} is neither {CHUNK_BYTES_SMALL} nor {CHUNK_BYTES_LARGE}"),
        );
    }
    within("port.busy_poll_budget", config.port.busy_poll_budget.into(), 1, 256)
}

fn check_interfaces(config: &NodeConfig) -> Result<(), Problem> {
    for (index, interface) in config.interface.iter().enumerate() {
        let name = &interface.name;
        let key = format!("interface[{index}].name");
        // The kernel's dev_valid_name().
        let valid = (1..=15).contains(&name.len())
            && name != "."
            && name != ".."
            && !name.bytes().any(|byte| byte == b'/' || byte == b':' || byte.is_ascii_whitespace());
        if !valid {
            return refuse(key, format!("{name:?} cannot be the name of an interface"));
        }
        if config.interface[..index].iter().any(|other| other.name == *name) {
            return refuse(key, format!("{name:?} stands twice"));
        }
        if let Auto::Is(queues) = &interface.queues {
            let key = format!("interface[{index}].queues");
            if queues.is_empty() {
                return refuse(key, "is empty; write \"auto\" or a list of queues");
            }
            if let Some(queue) = queues.iter().find(|queue| **queue as usize >= QUEUES_MAX) {
                return refuse(key, format!("queue {queue} is not 0..={}", QUEUES_MAX - 1));
            }
            let mut sorted = queues.clone();
            sorted.sort_unstable();
            if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
                return refuse(key, "names a queue twice");
            }
        }
        if let Auto::Is(addresses) = &interface.addresses
            && let Some(address) =
                addresses.iter().find(|address| address.is_multicast() || address.is_unspecified())
        {
            return refuse(
                format!("interface[{index}].addresses"),
                format!("{address} is not a unicast address"),
            );
        }
    }
    if config.interface.len() > 16 {
        return refuse("interface", "more than 16 interfaces");
    }
    Ok(())
}

fn check_services(config: &NodeConfig) -> Result<(), Problem> {
    let mut taken: Vec<(u16, String)> = Vec::new();
    if let Some(echo) = &config.echo {
        port("echo.port", echo.port)?;
        taken.push((echo.port, "echo.port".into()));
    }
    if config.cache.len() > CACHES_MAX {
        let key = format!("cache[{CACHES_MAX}]");
        return refuse(key, format!("more than {CACHES_MAX} caches on one node"));
    }
    for (index, cache) in config.cache.iter().enumerate() {
        let key = |name: &str| format!("cache[{index}].{name}");
        check_cache(cache, key)?;
        if let Some(other) = config.cache[..index].iter().position(|other| other.id == cache.id) {
            return refuse(key("id"), format!("{:?} is also cache[{other}].id", cache.id));
        }
        super::access::check_sources(&key("sources"), cache.sources.as_deref())?;
        if let Some((_, other)) = taken.iter().find(|(taken, _)| *taken == cache.port) {
            return refuse(key("port"), format!("{} is also {other}", cache.port));
        }
        taken.push((cache.port, key("port")));
    }
    let addresses = served_addresses(config);
    if config.has_front() && config.cache.len() * (1 + 2 * addresses) > CACHE_DESCRIPTORS_MAX {
        let fit = (CACHE_DESCRIPTORS_MAX / config.cache.len() - 1) / 2;
        let text = format!(
            "{} caches on {addresses} addresses; at most {fit} addresses with so many caches (or \
             front.enabled = false)",
            config.cache.len()
        );
        return refuse("interface[0].addresses", text);
    }
    if config.feed.len() > FEEDS_MAX {
        return refuse("feed", format!("more than {FEEDS_MAX} feeds"));
    }
    for (index, feed) in config.feed.iter().enumerate() {
        let key = |name: &str| format!("feed[{index}].{name}");
        id(&key("venue"), &feed.venue)?;
        if feed.channel == 0 {
            return refuse(key("channel"), "0 means client-owned keys; write 1..=255");
        }
        within(&key("depth"), feed.depth.into(), 0, DEPTH_MAX as u64)?;
        check_protocol(feed, key)?;
        within(&key("max_orders"), feed.max_orders.into(), 1 << 10, 1 << 24)?;
        if crate::feed::Venue::new(&feed.venue).is_none() {
            return refuse(key("venue"), format!("{:?} is too long for a venue", feed.venue));
        }
        if config.feed[..index].iter().any(|other| other.channel == feed.channel) {
            return refuse(key("channel"), format!("{} stands twice", feed.channel));
        }
        let hold_limit_us_max = HOLD_LIMIT_NS_MAX / 1_000;
        within(&key("hold_limit_us"), feed.hold_limit_us.into(), 0, hold_limit_us_max)?;
        if feed.lines.len() >= FEED_LINES_MAX {
            let text = format!("more than {} lines beside the first", FEED_LINES_MAX - 1);
            return refuse(key("lines"), text);
        }
        let earlier = config.feed[..index].iter().flat_map(super::Feed::every_line);
        let mut earlier: Vec<FeedLine> = earlier.collect();
        for (place, line) in feed.every_line().enumerate() {
            let key = |name: &str| match place.checked_sub(1) {
                None => key(name),
                Some(place) => key(&format!("lines[{place}].{name}")),
            };
            check_line(line, &earlier, &taken, key)?;
            earlier.push(line);
        }
    }
    for (index, feed) in config.feed.iter().enumerate() {
        if let Some(recovery) = &feed.recovery {
            check_recovery(config, feed, recovery, &taken, |name| {
                format!("feed[{index}].recovery{name}")
            })?;
        }
        if let Some(distribution) = &feed.distribution {
            check_distribution(config, feed, distribution, &taken, |name| {
                format!("feed[{index}].distribution{name}")
            })?;
        }
        if let Some(republish) = &feed.republish {
            check_republish(config, feed, republish, &taken, |name| {
                format!("feed[{index}].republish{name}")
            })?;
        }
    }
    for (index, feed) in config.feed.iter().enumerate() {
        match &feed.cache {
            _ if config.cache_of(feed).is_some() => {}
            Some(id) => {
                let text = format!("there is no cache {id:?} on this node");
                return refuse(format!("feed[{index}].cache"), text);
            }
            None => {
                let text = "a feed needs a [[cache]] to publish into; add one";
                return refuse(format!("feed[{index}]"), text);
            }
        }
    }
    Ok(())
}

/// Addresses that the front listens on: those listed, or one a family.
fn served_addresses(config: &NodeConfig) -> usize {
    let mut addresses: Vec<&std::net::IpAddr> = Vec::new();
    for interface in &config.interface {
        let Some(listed) = interface.addresses.value() else { return 2 };
        addresses.extend(listed);
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses.len()
}

/// What can be said of one cache by itself; `key` makes the path of a key of its section.
fn check_cache(cache: &Cache, key: impl Fn(&str) -> String) -> Result<(), Problem> {
    id(&key("id"), &cache.id)?;
    port(&key("port"), cache.port)?;
    within(&key("max_memory_mb"), cache.max_memory_mb.into(), 8, 65_536)?;
    let value_bytes = cache.max_value_bytes.into();
    within(&key("max_value_bytes"), value_bytes, 1, VALUE_BYTES_MAX.into())?;
    if cache.readers.len() > READERS_MAX {
        return refuse(key("readers"), format!("more than {READERS_MAX} users"));
    }
    if let Some(index) = cache.readers.iter().position(String::is_empty) {
        let text = "is empty; write a user name or uid";
        return refuse(format!("{}[{index}]", key("readers")), text);
    }
    Ok(())
}
