//! The worker's share of the hot set: what it maps of it.

use std::os::fd::{AsFd, OwnedFd};

use nautilus_ebpf::HotArea;
use nautilus_ebpf::intf::HOT_AREAS_MAX;
use nautilus_shm::worker_rings::NODE_WORKERS_MAX;

use super::StandbyError;
use crate::config::{Auto, NodeConfig, PortKind};
use crate::hot::XdpHotSet;
use crate::supervisor::caches::CacheOpened;
use crate::supervisor::handover::Fds;

const _: () = assert!(NODE_WORKERS_MAX <= HOT_AREAS_MAX as usize, "every worker has an area");

/// The maps of the hot set, of which every cache has a view of its own, and the worker's area in them. All
/// views are written by the run loop alone.
pub(super) struct HotSets(Option<([OwnedFd; 3], HotArea)>);

impl HotSets {
    /// Takes the maps for worker `number` of the node, where the port has them.
    pub fn take(config: &NodeConfig, number: u32, fds: &mut Fds) -> Result<Self, StandbyError> {
        if config.port.kind != PortKind::Xdp {
            return Ok(Self(None));
        }
        let area = HotArea::new(number, config.worker.count)
            .ok_or(StandbyError::Unexpected("no worker has this number"))?;
        let maps = [fds.take("hot")?, fds.take("hot_words")?, fds.take("hot_hits")?];
        Ok(Self(Some((maps, area))))
    }

    /// Maps the view of one cache, if it has a hot set.
    pub fn of(&self, opened: &CacheOpened) -> Result<Option<XdpHotSet>, StandbyError> {
        match &self.0 {
            Some((maps, area)) if opened.section.hot_set != Auto::Is(false) => {
                let maps = maps.each_ref().map(AsFd::as_fd);
                Ok(Some(XdpHotSet::map(maps, *area, (opened.place, opened.generation))?))
            }
            _ => Ok(None),
        }
    }
}
