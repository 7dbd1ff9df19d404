//! A node as documents show it: who it is, how it is held, and what was read.

use crate::config::Tier;
use crate::id;
use crate::link::{Attachment, Link};
use crate::snapshot::Snapshot;

/// One node, read once.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// The configured id, else the one the node gives itself, else the run directory's name.
    pub id: String,
    /// Configured region.
    pub region: Option<String>,
    /// Configured tier.
    pub tier: Tier,
    /// How the node is held.
    pub attachment: Attachment,
    /// Why it is not attached; empty when it is.
    pub reason: String,
    /// What its region held, as far as it has been mapped.
    pub snapshot: Option<Snapshot>,
}

impl NodeView {
    /// Reads a node.
    pub fn of(link: &Link) -> Self {
        let snapshot = link.attached.as_ref().map(|attached| Snapshot::take(&attached.region));
        let said = snapshot.as_ref().map(|snapshot| snapshot.supervisor.node_id.clone());
        let attachment = link.attachment();
        let reason = match attachment {
            Attachment::Attached => String::new(),
            _ if link.reason.is_empty() => "the supervisor has stopped beating".into(),
            _ => link.reason.clone(),
        };
        Self {
            id: id_of(link, said),
            region: link.spec.region.clone(),
            tier: link.spec.tier,
            attachment,
            reason,
            snapshot,
        }
    }
}

/// The id of a node that says `said` of itself.
fn id_of(link: &Link, said: Option<String>) -> String {
    let folder = || link.spec.run_dir.file_name().map(|n| n.to_string_lossy().into_owned());
    let id = link.spec.id.clone().or(said.filter(|id| id::is_valid(id))).or_else(folder);
    id.unwrap_or_else(|| "unknown".into())
}

/// The ids of all nodes, without reading more of them. Nodes that claim the same id are told apart by a number
/// at its end: two series of one name would spoil the whole scrape.
pub fn ids(links: &[Link]) -> Vec<String> {
    let said = |link: &Link| {
        let attached = link.attached.as_ref()?;
        Some(attached.region.supervisor().identity().unwrap_or_default().node_id)
    };
    distinct(links.iter().map(|link| id_of(link, said(link))))
}

/// The same ids, each of them once.
pub fn distinct(ids: impl Iterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for stem in ids {
        let (mut id, mut number) = (stem.clone(), 2);
        while all.contains(&id) {
            id = format!("{stem}.{number}");
            number += 1;
        }
        all.push(id);
    }
    all
}
