//! Whether a node can have one more cache while it runs, and what is against it.

use nautilus_shm::attach::CACHES_MAX;

use super::resources::Resources;
use crate::config::{self, Cache, PortKind, Resolved};

/// Memory that is left to the rest of the host, in MiB.
const SPARE_MB: u64 = 64;

/// Looks at everything that can be known before it is tried.
pub fn admit(section: &Cache, resolved: &Resolved, resources: &Resources) -> Result<(), String> {
    let config = &resolved.config;
    let others = || resources.caches.iter().map(|known| &known.opened.section);
    if others().count() >= CACHES_MAX {
        return Err(format!("a node has at most {CACHES_MAX} caches"));
    }
    if let Some(other) = others().find(|other| other.port == section.port) {
        return Err(format!("port {} is that of cache {}", section.port, other.id));
    }
    if let Some(feed) = config.feed.iter().find(|feed| feed.is_on_port(section.port)) {
        return Err(format!("port {} is that of the feed of {}", section.port, feed.venue));
    }
    config::check_one_more(config, others(), section)?;
    if !config.has_front() && (config.front.enabled || config.port.kind == PortKind::Socket) {
        return Err(
            "this node has no front, which starts with the first [[cache]] of the node file \
                    (and front.enabled)"
                .into(),
        );
    }
    resolved.readers(section, "readers").map_err(|error| error.to_string())?;
    Ok(())
}

/// Ordinary memory that is not there is not refused by the kernel: it ends processes.
pub fn room_for(section: &Cache) -> Result<(), String> {
    if section.huge_pages {
        return Ok(());
    }
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let available = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    let Some(available_mb) = available.map(|kib| kib >> 10) else { return Ok(()) };
    let wanted_mb = u64::from(section.max_memory_mb);
    if wanted_mb + SPARE_MB <= available_mb {
        return Ok(());
    }
    Err(format!(
        "max_memory_mb: {wanted_mb} MiB are wanted, {available_mb} MiB are available, of which \
         {SPARE_MB} are left to the host"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_memory_than_there_is_is_refused_in_numbers() {
        let section = |mb: u32| -> Cache {
            toml::from_str(&format!("id = \"q\"\nmax_memory_mb = {mb}")).unwrap()
        };
        assert_eq!(room_for(&section(8)), Ok(()));
        let problem = room_for(&section(u32::MAX)).unwrap_err();
        assert!(problem.starts_with("max_memory_mb: 4294967295 MiB are wanted, "), "{problem}");
    }
}
