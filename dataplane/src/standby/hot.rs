//! The worker's share of the hot set: what it maps of it, and the thread that reads how often the kernel
//! answered.

use std::io;
use std::os::fd::AsFd;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use nautilus_ebpf::HotHits;
use nautilus_ebpf::intf::HOT_SLOTS;

use super::StandbyError;
use crate::config::{Auto, NodeConfig, PortKind};
use crate::hot::{HitCounts, XdpHotSet};
use crate::supervisor::handover::Fds;
use crate::supervisor::resources::{HOT_CACHE, HOT_CACHE_GENERATION};

/// How often the kernel's counts are read. Too low: system calls for nothing. Too high: a slot's key
/// looks unused when another asks for its place.
const READ_EVERY: Duration = Duration::from_millis(20);

/// What the reading thread works with.
pub(super) struct Hits {
    kernel: HotHits,
    counts: HitCounts,
}

/// Maps the hot set of the node's cache, where the node has one.
pub(super) fn prepare(
    config: &NodeConfig,
    fds: &mut Fds,
) -> Result<(Option<XdpHotSet>, Option<Hits>), StandbyError> {
    let wanted = config.cache.as_ref().is_some_and(|cache| cache.hot_set != Auto::Is(false));
    if !wanted || config.port.kind != PortKind::Xdp {
        return Ok((None, None));
    }
    let (slots, words) = (fds.take("hot")?, fds.take("hot_words")?);
    let mut kernel = HotHits::new(fds.take("hot_hits")?)?;
    let counts = HitCounts::default();
    // Before the first admission: what was answered for predecessors is nobody's merit now.
    counts.read(&mut kernel, &mut [0; HOT_SLOTS as usize]);
    let cache = (HOT_CACHE, HOT_CACHE_GENERATION);
    let hot = XdpHotSet::map(slots.as_fd(), words.as_fd(), cache, counts.clone())?;
    Ok((Some(hot), Some(Hits { kernel, counts })))
}

/// Starts the thread, on the cores of its caller. It waits for the promotion, and ends with the process.
pub(super) fn start(mut hits: Hits, promoted: Receiver<()>) -> io::Result<()> {
    std::thread::Builder::new().name("hot hits".into()).spawn(move || {
        if promoted.recv().is_err() {
            return;
        }
        let mut scratch = [0; HOT_SLOTS as usize];
        loop {
            hits.counts.read(&mut hits.kernel, &mut scratch);
            std::thread::sleep(READ_EVERY);
        }
    })?;
    Ok(())
}
