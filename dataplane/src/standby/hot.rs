//! The worker's share of the hot set: what it maps of it.

use std::os::fd::AsFd;

use super::StandbyError;
use crate::config::{Auto, NodeConfig, PortKind};
use crate::hot::XdpHotSet;
use crate::supervisor::handover::Fds;
use crate::supervisor::resources::{HOT_CACHE, HOT_CACHE_GENERATION};

/// Maps the hot set of the node's cache, where the node has one.
pub(super) fn prepare(
    config: &NodeConfig,
    fds: &mut Fds,
) -> Result<Option<XdpHotSet>, StandbyError> {
    let wanted = config.cache.as_ref().is_some_and(|cache| cache.hot_set != Auto::Is(false));
    if !wanted || config.port.kind != PortKind::Xdp {
        return Ok(None);
    }
    let (slots, words, hits) = (fds.take("hot")?, fds.take("hot_words")?, fds.take("hot_hits")?);
    let maps = [slots.as_fd(), words.as_fd(), hits.as_fd()];
    Ok(Some(XdpHotSet::map(maps, (HOT_CACHE, HOT_CACHE_GENERATION))?))
}
