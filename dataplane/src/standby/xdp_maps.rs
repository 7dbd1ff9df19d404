//! The worker's share of the steering program's maps: what it maps of the hot set and of the feeds.

use std::os::fd::{AsFd, OwnedFd};

use nautilus_ebpf::intf::{FEEDS_MAX, HOT_AREAS_MAX, HOT_PATH};
use nautilus_ebpf::{FEEDS_FD_NAME, FeedSlot, HotArea};
use nautilus_shm::worker_rings::NODE_WORKERS_MAX;

use super::StandbyError;
use crate::config::{Auto, FEEDS_MAX as CONFIG_FEEDS_MAX, NodeConfig, PortKind};
use crate::hot::XdpHotSet;
use crate::supervisor::caches::CacheOpened;
use crate::supervisor::handover::Fds;

const _: () = assert!(NODE_WORKERS_MAX <= HOT_AREAS_MAX as usize, "every worker has an area");
const _: () = assert!(CONFIG_FEEDS_MAX <= FEEDS_MAX as usize, "every feed has a slot");

/// Descriptors of the maps, and the worker's area in the hot set. What is mapped of them is written by the
/// run loop alone.
struct Maps {
    hot: [OwnedFd; 3],
    area: HotArea,
    feeds: OwnedFd,
}

/// The maps, where the port has them: every cache has a view of the hot set, and every feed that this worker
/// applies the slot of its own.
pub(super) struct XdpMaps(Option<Maps>);

impl XdpMaps {
    /// Takes the maps for worker `number` of the node, where the port has them.
    pub fn take(config: &NodeConfig, number: u32, fds: &mut Fds) -> Result<Self, StandbyError> {
        if config.port.kind != PortKind::Xdp {
            return Ok(Self(None));
        }
        let area = HotArea::new(number, config.worker.count)
            .ok_or(StandbyError::Unexpected("no worker has this number"))?;
        let hot = [fds.take("hot")?, fds.take("hot_words")?, fds.take("hot_hits")?];
        Ok(Self(Some(Maps { hot, area, feeds: fds.take(FEEDS_FD_NAME)? })))
    }

    /// Maps the view of one cache, if it has a hot set.
    pub fn hot_set_of(&self, opened: &CacheOpened) -> Result<Option<XdpHotSet>, StandbyError> {
        match &self.0 {
            Some(Maps { hot, area, .. }) if opened.section.hot_set != Auto::Is(false) => {
                let maps = hot.each_ref().map(AsFd::as_fd);
                Ok(Some(XdpHotSet::map(maps, *area, (opened.place, opened.generation))?))
            }
            _ => Ok(None),
        }
    }

    /// Maps the slot of the feed at a place in the node file, where the program looks at it.
    pub fn slot_of_feed(&self, place: usize) -> Result<Option<FeedSlot>, StandbyError> {
        match &self.0 {
            Some(Maps { feeds, .. }) if HOT_PATH => {
                Ok(Some(FeedSlot::map(feeds.as_fd(), place as u32)?))
            }
            _ => Ok(None),
        }
    }
}
