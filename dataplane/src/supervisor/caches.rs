//! The caches of a node: memory, place, generation, and the front's sockets of each.
//!
//! ```text
//!   node file, `nautilus cache create` -> Cache -> open() -> OpenCache { place, generation, memory, sockets }
//!                                      | cache.<place>, hits.<place>, tcp.<place>.<n>, udp.<place>.<n>, local.<place>.0
//!                                      v
//!                        workers (writable), front (read-only memory), readers by name (read-only)
//! ```
//!
//! A place is the cache's number in everything shared: metric banks, hot words, commands of the front. A
//! generation is never used twice, so nothing that remembers an earlier cache of a place is believed.

use std::fs::File;
use std::io::{self, Read};

use nautilus_ebpf::intf::{HOT_CACHES, Service};
use nautilus_shm::attach::CACHES_MAX;
use nautilus_shm::cache_cell::{CacheIdentity, CacheState};
use nautilus_shm::region::Access;
use nautilus_shm::sampled_hits::HitRegion;
use nautilus_shm::table::{TableRegion, TableWriter, Words};
use serde::{Deserialize, Serialize};

use super::front_resources::{CacheSockets, FrontOpenError};
use super::handover::Fds;
use crate::config::{Cache, NodeConfig, list_of};

const _: () = assert!(CACHES_MAX <= HOT_CACHES as usize, "every cache has hot words");

/// One cache as it was opened; what processes of the node tell each other about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheOpened {
    /// Its number on this node, below [`CACHES_MAX`].
    pub place: u16,
    /// Counts the caches of this node; its generation in the hot set as well.
    pub generation: u32,
    /// Its section of the node file.
    pub section: Cache,
}

impl CacheOpened {
    /// What the control region says of it.
    pub fn identity(&self, state: CacheState, has_hot_set: bool) -> CacheIdentity {
        CacheIdentity {
            id: self.section.id.clone(),
            generation: self.generation,
            state,
            port: self.section.port,
            max_memory_mb: self.section.max_memory_mb,
            max_value_bytes: self.section.max_value_bytes,
            has_hot_set,
        }
    }

    /// Its service in the steering program, whose number is `id`.
    pub fn service(&self, id: u32, has_hot_set: bool) -> Service {
        match has_hot_set {
            true => Service::hot_cache(id, self.place, self.generation),
            false => Service::replying(id),
        }
    }

    /// Number of the list of sources that counts for it: 0 is the node's own.
    pub fn list(&self) -> u16 {
        list_of(self.place, &self.section)
    }

    /// Whether a descriptor of this name belongs to the cache of a place.
    pub fn names(place: u16, name: &str) -> bool {
        let mut parts = name.split('.');
        let kind = parts.next().unwrap_or_default();
        ["cache", "hits", "tcp", "udp", "local"].contains(&kind)
            && parts.next().and_then(|part| part.parse().ok()) == Some(place)
    }

    /// Name of its memory among descriptors.
    pub fn memory_name(&self) -> String {
        format!("cache.{}", self.place)
    }

    /// Name of the memory in which its readers tell of their hits.
    pub fn hits_name(&self) -> String {
        format!("hits.{}", self.place)
    }
}

/// Why a cache could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum CacheOpenError {
    /// Its memory.
    #[error("cache {id}: {key}: {problem}")]
    Memory {
        /// Which cache.
        id: String,
        /// Key of its section.
        key: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The front's sockets for it.
    #[error(transparent)]
    Front(#[from] FrontOpenError),
    /// Duplicating descriptors, or randomness.
    #[error("cache {id}: {source}")]
    System {
        /// Which cache.
        id: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// One cache as the supervisor holds it.
#[derive(Debug)]
pub struct OpenCache {
    /// What everybody is told of it.
    pub opened: CacheOpened,
    /// Where it is in its life.
    pub state: CacheState,
    /// Its memory.
    pub memory: TableRegion,
    /// The front's sockets for it; none where there is no front.
    pub sockets: CacheSockets,
}

impl OpenCache {
    /// Makes sockets first, which may be refused, then memory with an empty table in it.
    pub fn open(opened: CacheOpened, config: &NodeConfig) -> Result<Self, CacheOpenError> {
        let sockets = match config.has_front() {
            true => CacheSockets::open(config, &opened.section, config.port.kind)?,
            false => CacheSockets::default(),
        };
        let memory = make_memory(&opened.section, config.worker.count)?;
        Ok(Self { opened, state: CacheState::Serving, memory, sockets })
    }

    /// Whether new processes of the node are given it.
    pub fn is_handed(&self) -> bool {
        self.state != CacheState::Removing
    }

    /// Whether it is served.
    pub fn is_served(&self) -> bool {
        self.state == CacheState::Serving
    }

    /// Adds duplicates of everything, for a worker.
    pub fn append_to(&self, fds: &mut Fds) -> io::Result<()> {
        fds.push(self.opened.memory_name(), self.memory.fd().try_clone_to_owned()?);
        self.append_hits(fds)?;
        self.sockets.append_to(self.opened.place, fds)
    }

    /// The same for the front, which may only read the memory.
    pub fn append_for_front(&self, fds: &mut Fds) -> io::Result<()> {
        fds.push(self.opened.memory_name(), self.memory.reopen_read_only()?);
        self.append_hits(fds)?;
        self.sockets.append_to(self.opened.place, fds)
    }

    fn append_hits(&self, fds: &mut Fds) -> io::Result<()> {
        if let Some(hits) = self.memory.sampled_hits() {
            fds.push(self.opened.hits_name(), hits.fd().try_clone_to_owned()?);
        }
        Ok(())
    }

    /// Takes everything back from a worker, after a look at each.
    pub fn take_back(opened: &CacheOpened, has_front: bool, fds: &mut Fds) -> Result<Self, String> {
        let id = &opened.section.id;
        if usize::from(opened.place) >= CACHES_MAX {
            return Err(format!("cache {id} has place {}", opened.place));
        }
        let memory = fds.take(&opened.memory_name()).map_err(|error| error.to_string())?;
        let hits = fds.take(&opened.hits_name()).map_err(|error| error.to_string())?;
        let failed = |error| format!("cache {id}: {error}");
        let hits = HitRegion::attach(hits, Access::ReadWrite).map_err(failed)?;
        let memory = TableRegion::attach(memory, Access::ReadWrite).map_err(failed)?;
        let memory = memory.with_hits(hits);
        let sockets = match has_front {
            true => CacheSockets::take_back(fds, opened.place, opened.section.port)
                .map_err(|problem| format!("cache {id}: {problem}"))?,
            false => CacheSockets::default(),
        };
        let state = CacheState::Serving;
        Ok(Self { opened: opened.clone(), state, memory, sockets })
    }
}

/// Opens every cache of the node file; their places are those in the file, their generations follow the last
/// one that the node has had.
pub fn open_all(
    config: &NodeConfig,
    last_generation: u32,
) -> Result<Vec<OpenCache>, CacheOpenError> {
    let open = |(place, section): (usize, &Cache)| {
        let (place, section) = (place as u16, section.clone());
        let generation = last_generation + u32::from(place) + 1;
        OpenCache::open(CacheOpened { place, generation, section }, config)
    };
    config.cache.iter().enumerate().map(open).collect()
}

/// A cache's memory with an empty table in it, a shard for each worker. Takes seconds for a large one.
pub fn make_memory(cache: &Cache, workers: u32) -> Result<TableRegion, CacheOpenError> {
    let key = if cache.huge_pages { "huge_pages" } else { "max_memory_mb" };
    let id = || cache.id.clone();
    let said = |error: &dyn std::error::Error| CacheOpenError::Memory {
        id: id(),
        key,
        problem: error.to_string(),
    };
    let system = |source| CacheOpenError::System { id: id(), source };
    let region =
        TableRegion::create(cache.max_memory_mb, cache.huge_pages).map_err(|error| said(&error))?;
    let copy = region.fd().try_clone_to_owned().map_err(system)?;
    let memory = TableRegion::attach(copy, Access::ReadWrite).map_err(|error| said(&error))?;
    let mut seed = [0; 8];
    let random = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut seed));
    random.map_err(system)?;
    let mut table = TableWriter::create(memory, workers, u64::from_le_bytes(seed))
        .map_err(|error| said(&error))?;
    // Microseconds: no shard makes more than one version in each, all its life on average.
    let since_1970 = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    table.begin_versions(since_1970.as_micros() as u64);
    Ok(region.with_hits(HitRegion::create().map_err(|error| said(&error))?))
}
