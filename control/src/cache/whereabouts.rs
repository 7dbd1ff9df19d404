//! Which node has a cache: looked up in the nodes' own regions at each request, so that a cache that came or
//! went by another hand is known at once.

use std::path::PathBuf;

use nautilus_shm::attach::CACHES_MAX;
use nautilus_shm::cache_cell::{CacheIdentity, CacheState};

use crate::link::Link;
use crate::view::ids;

/// A cache on its node.
#[derive(Clone, Debug)]
pub struct Place {
    /// Id of the node.
    pub node_id: String,
    /// Run directory of the node.
    pub run_dir: PathBuf,
    /// What the node says of it.
    pub identity: CacheIdentity,
}

/// Why no cache is meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// No node has it, as far as nodes could be asked.
    #[error("no node has a cache {id}{}", unasked(.unreachable))]
    Absent {
        /// Its id.
        id: String,
        /// Nodes that have never been reached.
        unreachable: Vec<String>,
    },
    /// There is no such node.
    #[error("no configured node is called {0}")]
    NoNode(String),
    /// Several have one of this id.
    #[error("nodes {} have a cache of this id: say which by node=", .0.join(", "))]
    Several(Vec<String>),
}

fn unasked(nodes: &[String]) -> String {
    if nodes.is_empty() {
        return String::new();
    }
    format!("; not reached so far: {}", nodes.join(", "))
}

/// Finds the cache `id`, of the node `node` if that is said.
pub fn find(links: &[Link], id: &str, node: Option<&str>) -> Result<Place, NoPlace> {
    let (mut found, mut unreachable) = (Vec::new(), Vec::new());
    let all: Vec<(String, &Link)> = ids(links).into_iter().zip(links).collect();
    if let Some(node) = node
        && !all.iter().any(|(node_id, _)| node_id == node)
    {
        return Err(NoPlace::NoNode(node.into()));
    }
    for (node_id, link) in all.into_iter().filter(|(id, _)| node.is_none_or(|node| id == node)) {
        let Some(attached) = &link.attached else {
            unreachable.push(node_id);
            continue;
        };
        let cells = (0..CACHES_MAX).filter_map(|place| attached.region.cache(place).ok());
        let served =
            cells.into_iter().find(|cell| cell.id == id && cell.state == CacheState::Serving);
        if let Some(identity) = served {
            found.push(Place { node_id, run_dir: link.spec.run_dir.clone(), identity });
        }
    }
    match found.len() {
        0 => Err(NoPlace::Absent { id: id.into(), unreachable }),
        1 => Ok(found.swap_remove(0)),
        _ => Err(NoPlace::Several(found.into_iter().map(|place| place.node_id).collect())),
    }
}
