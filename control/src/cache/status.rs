//! What is known of each cache: as it is wanted, and as its node counts it.

use nautilus_shm::cells::WorkerState;
use nautilus_shm::metrics::labels::HitPath;
use nautilus_shm::metrics::{MetricSnapshot, table as metrics};
use serde::Serialize;
use utoipa::ToSchema;

use super::configuration::CacheConfiguration;
use super::manager::{CacheError, EdgeCacheManager, Wanted};
use crate::link::Attachment;
use crate::snapshot::{Cache, Snapshot};
use crate::status::cache_lookups;
use crate::store::Revision;
use crate::view::NodeView;

/// Every cache of every node, and those that are wanted and nowhere.
#[derive(Debug, Serialize, ToSchema)]
pub struct CachesDocument {
    /// By id, then node.
    pub caches: Vec<CacheState>,
}

/// One cache.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CacheState {
    /// Its id.
    pub cache_id: String,
    /// Its node.
    pub node_id: String,
    /// The node's region, as configured.
    pub region: Option<String>,
    /// `serving`, `creating`, `removing`; `waiting`: wanted, and its node has not got it; `detached`: its node
    /// has not been heard for 1 s, and what follows is what was last counted.
    pub state: &'static str,
    /// Why it is not served.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Whether control keeps it: made over REST, not by the node file or the node's command line.
    pub is_managed: bool,
    /// UDP and TCP port.
    pub port: u16,
    /// Memory reserved for it, MiB.
    pub max_memory_mb: u32,
    /// Longest value that clients may store.
    pub max_value_bytes: u32,
    /// Whether its hot keys are answered in XDP.
    pub hot_set: bool,
    /// Items in it.
    pub items: u64,
    /// Memory that they occupy.
    pub used_bytes: u64,
    /// Memory that they may occupy.
    pub limit_bytes: u64,
    /// Items removed to make room, since it was made.
    pub evictions: u64,
    /// Items whose time was over, since it was made.
    pub expirations: u64,
    /// Keys found in XDP, by workers and by the front, since it was made; readers of the host are not in it.
    pub hits: u64,
    /// Keys not found.
    pub misses: u64,
    /// Share of the keys that were found, 0 to 1; none where nobody asked.
    pub hit_rate: Option<f64>,
    /// Of the hits, those in XDP.
    pub hot_hits: u64,
    /// Hits that readers of the host told of: all of few, a share of many.
    pub told_reader_hits: u64,
    /// Keys found but suspect, answered as a miss.
    pub suspects: u64,
}

/// One cache with its configuration.
#[derive(Debug, Serialize, ToSchema)]
pub struct CacheDocument {
    /// As it is wanted; none for a cache that was not made over REST.
    pub configuration: Option<CacheConfiguration>,
    /// As it is.
    #[serde(flatten)]
    pub state: CacheState,
}

impl EdgeCacheManager {
    /// Every cache, read now from these nodes.
    pub fn states(&self, views: &[NodeView]) -> Result<Vec<CacheState>, CacheError> {
        let wanted = self.wanted()?;
        let mut states: Vec<CacheState> = views.iter().flat_map(CacheState::of_node).collect();
        for (Wanted { configuration, is_removing }, _) in &wanted {
            let id = &configuration.cache_id;
            let mut own = states.iter_mut().filter(|state| state.cache_id == *id);
            let trouble = self.trouble(id);
            match own.find(|state| state.node_id == configuration.node_id) {
                Some(state) => {
                    state.is_managed = true;
                    if *is_removing {
                        state.state = "removing";
                    }
                    if state.reason.is_empty() {
                        state.reason = trouble;
                    }
                }
                None => states.push(CacheState::waiting(configuration, *is_removing, trouble)),
            }
        }
        states.sort_by(|a, b| (&a.cache_id, &a.node_id).cmp(&(&b.cache_id, &b.node_id)));
        Ok(states)
    }

    /// One cache's document, and the revision of its configuration if it has one.
    pub fn document(
        &self,
        views: &[NodeView],
        id: &str,
        node: Option<&str>,
    ) -> Result<Option<(CacheDocument, Option<Revision>)>, CacheError> {
        let states = self
            .states(views)?
            .into_iter()
            .filter(|state| state.cache_id == id && node.is_none_or(|node| state.node_id == node));
        let states: Vec<CacheState> = states.collect();
        let state = match states.as_slice() {
            [] => return Ok(None),
            [one] => one.clone(),
            several => match several.iter().find(|state| state.is_managed) {
                Some(own) => own.clone(),
                None => {
                    let nodes = several.iter().map(|state| state.node_id.clone()).collect();
                    return Err(super::NoPlace::Several(nodes).into());
                }
            },
        };
        let wanted = self.wanted_one(id)?;
        let wanted = wanted.filter(|(wanted, _)| wanted.configuration.node_id == state.node_id);
        let (configuration, revision) = match wanted {
            Some((wanted, revision)) => (Some(wanted.configuration), Some(revision)),
            None => (None, None),
        };
        Ok(Some((CacheDocument { configuration, state }, revision)))
    }
}

impl CacheState {
    fn of_node(view: &NodeView) -> Vec<Self> {
        let Some(snapshot) = &view.snapshot else { return Vec::new() };
        snapshot.caches.iter().map(|cache| Self::of(view, snapshot, cache)).collect()
    }

    fn of(view: &NodeView, snapshot: &Snapshot, cache: &Cache) -> Self {
        let identity = &cache.identity;
        let (counted, (hits, misses)) = (cache.worker_metrics(), cache_lookups(cache));
        let is_active = |slot: usize| {
            let mut workers = snapshot.workers.iter();
            workers.any(|one| one.slot == slot && one.identity.state == WorkerState::Active)
        };
        // Each worker has a shard; what a dead one last said counts no more.
        let gauge = |read: &dyn Fn(&MetricSnapshot) -> u64| -> u64 {
            let active = cache.workers.iter().filter(|(slot, _)| is_active(*slot));
            active.map(|(_, metrics)| read(metrics)).fold(0, u64::saturating_add)
        };
        let is_attached = view.attachment == Attachment::Attached;
        let asked = hits.saturating_add(misses);
        Self {
            cache_id: identity.id.clone(),
            node_id: view.id.clone(),
            region: view.region.clone(),
            state: if is_attached { identity.state.name() } else { "detached" },
            reason: view.reason.clone(),
            is_managed: false,
            port: identity.port,
            max_memory_mb: identity.max_memory_mb,
            max_value_bytes: identity.max_value_bytes,
            hot_set: identity.has_hot_set,
            items: gauge(&|metrics| metrics.gauge(metrics::CACHE_ITEMS)),
            used_bytes: gauge(&|metrics| metrics.gauge(metrics::CACHE_USED_BYTES)),
            limit_bytes: gauge(&|metrics| metrics.gauge(metrics::CACHE_LIMIT_BYTES)),
            evictions: counted.counter(metrics::CACHE_EVICTIONS),
            expirations: counted.counter(metrics::CACHE_EXPIRATIONS),
            hits,
            misses,
            hit_rate: (asked > 0).then(|| hits as f64 / asked as f64),
            hot_hits: cache.beside.counter(metrics::CACHE_HOT_HITS),
            told_reader_hits: counted.counter(metrics::CACHE_SAMPLED_HITS.of(HitPath::Reader)),
            suspects: counted.counter(metrics::CACHE_SUSPECTS),
        }
    }

    /// One that is wanted and that its node has not got.
    fn waiting(wanted: &CacheConfiguration, is_removing: bool, reason: String) -> Self {
        Self {
            cache_id: wanted.cache_id.clone(),
            node_id: wanted.node_id.clone(),
            region: wanted.region.clone(),
            state: if is_removing { "removing" } else { "waiting" },
            reason,
            is_managed: true,
            port: wanted.port,
            max_memory_mb: wanted.max_memory_mb,
            max_value_bytes: wanted.max_value_bytes,
            hot_set: wanted.hot_set.unwrap_or(false),
            items: 0,
            used_bytes: 0,
            limit_bytes: 0,
            evictions: 0,
            expirations: 0,
            hits: 0,
            misses: 0,
            hit_rate: None,
            hot_hits: 0,
            told_reader_hits: 0,
            suspects: 0,
        }
    }
}
