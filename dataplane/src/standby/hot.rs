//! The worker's share of the hot set: what it maps of it.

use std::os::fd::{AsFd, OwnedFd};

use super::StandbyError;
use crate::config::{Auto, NodeConfig, PortKind};
use crate::hot::XdpHotSet;
use crate::supervisor::caches::CacheOpened;
use crate::supervisor::handover::Fds;

/// The maps of the hot set, of which every cache has a view of its own. All views are written by the run
/// loop alone.
pub(super) struct HotSets(Option<[OwnedFd; 3]>);

impl HotSets {
    /// Takes the maps, where the port has them.
    pub fn take(config: &NodeConfig, fds: &mut Fds) -> Result<Self, StandbyError> {
        if config.port.kind != PortKind::Xdp {
            return Ok(Self(None));
        }
        Ok(Self(Some([fds.take("hot")?, fds.take("hot_words")?, fds.take("hot_hits")?])))
    }

    /// Maps the view of one cache, if it has a hot set.
    pub fn of(&self, opened: &CacheOpened) -> Result<Option<XdpHotSet>, StandbyError> {
        match &self.0 {
            Some(maps) if opened.section.hot_set != Auto::Is(false) => {
                let maps = maps.each_ref().map(AsFd::as_fd);
                Ok(Some(XdpHotSet::map(maps, (opened.place, opened.generation))?))
            }
            _ => Ok(None),
        }
    }
}
