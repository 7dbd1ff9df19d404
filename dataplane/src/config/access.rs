//! Who may do what, and how much of it: `[access]`, and the list that a cache may have of its own.

use nautilus_ebpf::intf::{LIMITS_MAX, Permissions};
use nautilus_ebpf::{PrefixError, Rate, RateLimit, SourceLists, SourcePrefix};
use serde::{Deserialize, Serialize};

use super::check::{Problem, refuse, within};
use super::{Cache, NodeConfig};
use crate::access::AccessList;
use crate::limits::CHUNK_BYTES_LARGE;
use crate::net::Prefix;

/// Prefixes of one source list; the steering maps are made for all lists together.
const SOURCES_MAX: usize = 1024;

/// Packets at once without `packet_burst`, where a tenth of a second has fewer.
const PACKET_BURST_MIN: u64 = 32;

/// Bytes at once without `byte_burst`, where a tenth of a second has fewer.
const BYTE_BURST_MIN: u64 = 65_536;

/// `[access]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Access {
    /// Prefixes whose packets to our ports are served. Empty: nobody.
    pub sources: Vec<Prefix>,
    /// What one source may send in a time, at most 63.
    pub limit: Vec<SourceLimit>,
}

/// One `[[access.limit]]`: what every single address of a prefix may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceLimit {
    /// Whose; the longest counts.
    pub prefix: Prefix,
    /// Packets a second, 1..=100,000,000.
    pub packets_per_s: Option<u64>,
    /// Packets at once after a silence; by default a tenth of a second's, at least 32.
    pub packet_burst: Option<u64>,
    /// Bytes of frames a second, 1,000..=100,000,000,000.
    pub bytes_per_s: Option<u64>,
    /// Bytes at once after a silence; by default a tenth of a second's, at least 65,536.
    pub byte_burst: Option<u64>,
}

impl SourceLimit {
    /// As the steering program is told.
    pub fn rates(&self) -> RateLimit {
        let rate = |per_s: Option<u64>, burst: Option<u64>, burst_min: u64| {
            per_s.map(|per_s| Rate { per_s, burst: burst.unwrap_or((per_s / 10).max(burst_min)) })
        };
        RateLimit {
            packets: rate(self.packets_per_s, self.packet_burst, PACKET_BURST_MIN),
            bytes: rate(self.bytes_per_s, self.byte_burst, BYTE_BURST_MIN),
        }
    }
}

/// What a source may do with a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Allow {
    /// Ask.
    Read,
    /// Change values.
    Write,
    /// Change the cache: `flush_all`, `verbosity`, `stats reset`.
    Admin,
}

/// One entry of a cache's own list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheSource {
    /// Who; the longest prefix counts.
    pub prefix: Prefix,
    /// What. Empty: nothing, although a shorter prefix may allow it.
    pub allow: Vec<Allow>,
}

impl CacheSource {
    /// What its hosts may do.
    pub fn permissions(&self) -> Permissions {
        self.allow.iter().fold(Permissions::NONE, |all, allow| {
            all.with(match allow {
                Allow::Read => Permissions::READ,
                Allow::Write => Permissions::WRITE,
                Allow::Admin => Permissions::ADMIN,
            })
        })
    }
}

/// Number of the list that counts for the cache of a place: 0 is the node's own.
pub fn list_of(place: u16, cache: &Cache) -> u16 {
    if cache.sources.is_some() { place + 1 } else { 0 }
}

impl NodeConfig {
    /// Who may do what with the cache.
    pub fn access_to(&self, cache: &Cache) -> AccessList {
        match &cache.sources {
            Some(sources) => AccessList::new(
                sources.iter().map(|source| (source.prefix, source.permissions())).collect(),
            ),
            None => AccessList::new(
                self.access.sources.iter().map(|prefix| (*prefix, Permissions::ALL)).collect(),
            ),
        }
    }

    /// Every list and limit, as the steering program has them, with those of these caches by number.
    pub fn source_lists<'a>(
        &self,
        caches: impl Iterator<Item = (u16, &'a Cache)>,
    ) -> Result<SourceLists, PrefixError> {
        let of = |prefix: &Prefix| SourcePrefix::new(prefix.address(), prefix.bits());
        let mut lists = SourceLists::default();
        for prefix in &self.access.sources {
            lists.list(0, of(prefix)?, Permissions::ALL);
        }
        for (index, limit) in self.access.limit.iter().enumerate() {
            lists.limit(of(&limit.prefix)?, index as u32 + 1);
        }
        for (list, cache) in caches {
            for source in cache.sources.iter().flatten() {
                lists.list(list, of(&source.prefix)?, source.permissions());
            }
        }
        Ok(lists)
    }
}

pub(super) fn check(config: &NodeConfig) -> Result<(), Problem> {
    let access = &config.access;
    if access.sources.len() > SOURCES_MAX {
        return refuse("access.sources", format!("more than {SOURCES_MAX} prefixes"));
    }
    if access.limit.len() >= LIMITS_MAX as usize {
        return refuse("access.limit", format!("more than {} limits", LIMITS_MAX - 1));
    }
    for (index, limit) in access.limit.iter().enumerate() {
        let key = |name: &str| format!("access.limit[{index}].{name}");
        if access.limit[..index].iter().any(|other| other.prefix == limit.prefix) {
            return refuse(key("prefix"), format!("{} stands twice", limit.prefix));
        }
        let halves = [
            ("packets_per_s", "packet_burst", limit.packets_per_s, limit.packet_burst),
            ("bytes_per_s", "byte_burst", limit.bytes_per_s, limit.byte_burst),
        ];
        for ((per_s_key, burst_key, per_s, burst), (low, high, least)) in halves.into_iter().zip([
            (1, 100_000_000, 1),
            // A frame that is longer than the burst would never pass.
            (1_000, Rate::PER_S_MAX, u64::from(CHUNK_BYTES_LARGE)),
        ]) {
            match (per_s, burst) {
                (Some(per_s), burst) => {
                    within(&key(per_s_key), per_s, low, high)?;
                    let most = per_s * Rate::BURST_S_MAX;
                    within(&key(burst_key), burst.unwrap_or(least), least, most)?;
                }
                (None, Some(_)) => {
                    return refuse(key(burst_key), format!("has no meaning without {per_s_key}"));
                }
                (None, None) => {}
            }
        }
    }
    Ok(())
}

/// A cache's own list; `key` is its path.
pub(super) fn check_sources(key: &str, sources: Option<&[CacheSource]>) -> Result<(), Problem> {
    let sources = sources.unwrap_or_default();
    if sources.len() > SOURCES_MAX {
        return refuse(key, format!("more than {SOURCES_MAX} prefixes"));
    }
    for (index, source) in sources.iter().enumerate() {
        if sources[..index].iter().any(|other| other.prefix == source.prefix) {
            let key = format!("{key}[{index}].prefix");
            return refuse(key, format!("{} stands twice", source.prefix));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn a_cache_without_a_list_has_the_nodes() {
        let text = "[access]\nsources = [\"198.18.0.0/15\"]\n[cache]\nid = \"q\"\n";
        let config = parse(text, "n.toml").unwrap();
        let cache = &config.cache[0];
        assert_eq!(list_of(0, cache), 0);
        let access = config.access_to(cache);
        assert_eq!(access.permissions_of([198, 18, 0, 1].into()), Permissions::ALL);
        assert_eq!(access.permissions_of([198, 20, 0, 1].into()), Permissions::NONE);
    }

    #[test]
    fn a_list_of_its_own_takes_the_place_of_the_nodes() {
        let text = "[access]\nsources = [\"198.18.0.0/15\"]\n[[access.limit]]\n\
                    prefix = \"198.18.0.0/16\"\npackets_per_s = 1000\nbytes_per_s = 1000000\n\
                    [[access.limit]]\nprefix = \"198.18.0.9/32\"\n\
                    [cache]\nid = \"q\"\nsources = [\n\
                    { prefix = \"198.18.0.0/24\", allow = [\"read\"] },\n\
                    { prefix = \"198.18.0.7/32\", allow = [\"read\", \"write\", \"admin\"] },\n\
                    { prefix = \"198.18.0.8/32\", allow = [] } ]\n";
        let config = parse(text, "n.toml").unwrap();
        let cache = &config.cache[0];
        let access = config.access_to(cache);
        for (last, expected) in
            [(1, Permissions::READ), (7, Permissions::ALL), (8, Permissions::NONE)]
        {
            assert_eq!(access.permissions_of([198, 18, 0, last].into()), expected);
        }
        assert_eq!(access.permissions_of([198, 18, 1, 1].into()), Permissions::NONE);
        let merged = config.source_lists([(list_of(0, cache), cache)].into_iter()).unwrap().merge();
        let of = |text: &str| {
            let prefix: SourcePrefix = text.parse().unwrap();
            let rights = merged.iter().find(|(known, _)| *known == prefix).unwrap().1;
            (rights.on(0).0, rights.on(1).0, rights.limit)
        };
        assert_eq!(of("198.18.0.0/15"), (7, 0, 0));
        assert_eq!(of("198.18.0.0/16"), (7, 0, 1));
        assert_eq!(of("198.18.0.0/24"), (7, 1, 1));
        assert_eq!(of("198.18.0.8"), (7, 0, 1));
        assert_eq!(of("198.18.0.9"), (7, 1, 2));
        let rates = config.access.limit[0].rates();
        assert_eq!(rates.packets, Some(Rate { per_s: 1000, burst: 100 }));
        assert_eq!(rates.bytes, Some(Rate { per_s: 1_000_000, burst: 100_000 }));
        assert_eq!(config.access.limit[1].rates(), RateLimit::default());
    }
}
