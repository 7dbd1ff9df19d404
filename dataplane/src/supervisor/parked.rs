//! What a parked node holds: its control region, so that readers see that it is parked, and nothing else.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nautilus_shm::control_region::{ControlRegion, PROCESSES_MAX};
use nautilus_shm::region::RegionError;

use super::caches::{CacheOpenError, OpenCache, open_all};
use super::near::near;
use super::resources::Resources;
use super::team_resources::TeamResources;
use crate::config::Resolved;

/// Between the end of a cache and the return of its memory, as in [`super::cache_changes`].
const PAUSE: Duration = Duration::from_millis(1500);

impl Resources {
    /// Nothing but a control region.
    pub fn none(control: ControlRegion) -> Self {
        Self {
            control,
            caches: Vec::new(),
            front: None,
            capture: None,
            team: TeamResources { rings: None, wakes: Vec::new() },
            steering: None,
            hot_hits: None,
            interfaces: Vec::new(),
            fresh: None,
            memberships: Vec::new(),
            serial: 1,
            changes: 0,
        }
    }

    /// The same control region, mapped once more.
    pub fn control_again(&self) -> Result<ControlRegion, RegionError> {
        let fd = self.control.fd().try_clone_to_owned().map_err(RegionError::Examine)?;
        ControlRegion::attach_writer(fd)
    }

    /// The generation after which those of new caches begin; nobody counts in their places any more.
    pub fn clear_places(&self) -> u32 {
        let control = &self.control;
        let places = 0..nautilus_shm::attach::CACHES_MAX;
        for (process, place) in
            (0..PROCESSES_MAX).flat_map(|process| places.clone().map(move |place| (process, place)))
        {
            control.cache_metrics(process, place).clear();
        }
        places.map(|place| control.cache(place).own_identity().generation).max().unwrap_or(0)
    }
}

/// Has the caches of a node made on a thread under the normal scheduler: large ones take seconds.
pub fn make_caches(
    resolved: &Resolved,
    last_generation: u32,
) -> std::io::Result<Receiver<Result<Vec<OpenCache>, CacheOpenError>>> {
    let (done, made) = channel();
    let (config, cores) = (resolved.config.clone(), resolved.cores.clone());
    let make = move || {
        let _near = near(&cores);
        let _ = done.send(open_all(&config, last_generation));
    };
    std::thread::Builder::new().name("cache-maker".into()).spawn(make)?;
    Ok(made)
}

/// Gives the memory of caches back once their readers have detached, on a thread; the end of the channel says
/// that it is done.
pub fn bury(caches: Vec<OpenCache>) -> Receiver<()> {
    let (done, buried) = channel();
    for cache in &caches {
        let _ = cache.memory.beat(0);
    }
    let bury = move || {
        if !caches.is_empty() {
            std::thread::sleep(PAUSE);
        }
        for cache in &caches {
            // What cannot be given back goes with the last reader's mapping.
            let _ = cache.memory.region().give_back();
        }
        drop(caches);
        drop(done);
    };
    // Without a thread it goes with the last reader's mapping.
    let _ = std::thread::Builder::new().name("cache-burial".into()).spawn(bury);
    buried
}
