//! Caches that come and go while the node runs.
//!
//! ```text
//!   supervisor -- add, forget --> helper thread                     run loop, in its housekeeping
//!                                   maps, builds -- slot: Change -->  puts it into its place
//!                                   drops        <-- slot: what was in the place --
//!              <-- changed -------
//! ```
//!
//! Both slots hold one, and both ends only try: nobody sleeps in one, so nobody has to be woken, and the loop
//! neither waits, allocates nor frees. There is one change at a time. A standby has no loop yet and does it
//! by itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use nautilus_shm::control_region::ControlRegion;

use super::apps::realtime_offset_ns;
use super::caches::{Place, PreparedCache, ServedCache};
use super::xdp_maps::XdpMaps;
use super::{Standby, StandbyError};
use crate::config::NodeConfig;
use crate::kill_point::kill_point;
use crate::supervisor::caches::CacheOpened;
use crate::supervisor::handover::{Assignment, Fds, FromWorker, ToWorker};

/// Between two looks at whether the loop has taken a change. Too low: the helper takes time from others. Too
/// high: whoever creates a cache waits.
const LOOK: Duration = Duration::from_millis(1);

/// What the loop is to do.
pub(super) enum Change {
    /// Serve this cache.
    Add(Box<ServedCache>),
    /// Serve the cache of this place and generation no more.
    Forget(u16, u32),
}

/// What the loop had in that place.
pub(super) type Outcome = Option<Box<ServedCache>>;

/// The loop's ends.
pub(super) struct Inbox {
    changes: Receiver<Change>,
    outcomes: SyncSender<Outcome>,
}

impl Inbox {
    /// Looks for a change and has it made. No system call, no lock, no allocation.
    #[inline]
    pub fn look(&self, make: impl FnOnce(Change) -> Outcome) {
        if let Ok(change) = self.changes.try_recv() {
            // There is room: the helper waits for it before it brings the next change.
            let _ = self.outcomes.try_send(make(change));
        }
    }
}

/// Both slots: the helper's ends and the loop's.
pub(super) fn slots() -> (SyncSender<Change>, Receiver<Outcome>, Inbox) {
    let (to_loop, changes) = sync_channel(1);
    let (outcomes, from_loop) = sync_channel(1);
    (to_loop, from_loop, Inbox { changes, outcomes })
}

/// What the helper makes changes with.
pub(super) struct Changes {
    pub region: &'static ControlRegion,
    pub config: NodeConfig,
    pub maps: XdpMaps,
    pub to_loop: SyncSender<Change>,
    pub from_loop: Receiver<Outcome>,
}

impl Changes {
    /// Makes a change and returns the answer; `None` when the loop has ended.
    pub fn make(
        &self,
        message: ToWorker,
        fds: Fds,
        (assignment, held): (&mut Assignment, &mut Fds),
        stop: &AtomicBool,
    ) -> Option<FromWorker> {
        match message {
            ToWorker::Add { number, opened, .. } => {
                let served = self.serve(assignment, &opened, &fds);
                kill_point("worker.built_cache");
                let refused = match served {
                    Ok(served) => {
                        // Before it is served: a new supervisor must find what is written into.
                        note(assignment, held, opened, fds);
                        self.hand(Change::Add(served), stop)?;
                        String::new()
                    }
                    Err(error) => error.to_string(),
                };
                Some(FromWorker::Changed { number, refused })
            }
            ToWorker::Forget { number, place, generation } => {
                self.hand(Change::Forget(place, generation), stop)?;
                forget(assignment, held, (place, generation));
                Some(FromWorker::Changed { number, refused: String::new() })
            }
            _ => None,
        }
    }

    fn serve(
        &self,
        assignment: &Assignment,
        opened: &CacheOpened,
        fds: &Fds,
    ) -> Result<Box<ServedCache>, StandbyError> {
        let prepared = prepared(assignment, &self.config, &self.maps, opened, fds)?;
        let index = assignment.worker_index as usize;
        Ok(Box::new(prepared.take_over(self.region, index, realtime_offset_ns())?))
    }

    /// Hands a change to the loop and drops what it gives back.
    fn hand(&self, change: Change, stop: &AtomicBool) -> Option<()> {
        self.to_loop.try_send(change).ok()?;
        // Raised by this thread alone, or by a worker that ends.
        while !stop.load(Ordering::Relaxed) {
            if let Ok(outcome) = self.from_loop.try_recv() {
                drop(outcome);
                return Some(());
            }
            std::thread::sleep(LOOK);
        }
        None
    }
}

fn prepared(
    assignment: &Assignment,
    config: &NodeConfig,
    maps: &XdpMaps,
    opened: &CacheOpened,
    fds: &Fds,
) -> Result<PreparedCache, StandbyError> {
    let mut own = fds.try_clone().map_err(super::system("duplicate descriptors"))?;
    let (number, is_alone) = (assignment.worker, config.worker.count == 1);
    PreparedCache::new(&Place { opened, number, is_alone }, config, maps, &mut own)
}

/// What a worker holds, a later supervisor finds.
fn note(assignment: &mut Assignment, held: &mut Fds, opened: CacheOpened, fds: Fds) {
    held.append(fds);
    assignment.caches.push(opened);
}

fn forget(assignment: &mut Assignment, held: &mut Fds, gone: (u16, u32)) {
    let is_gone = |cache: &CacheOpened| (cache.place, cache.generation) == gone;
    if assignment.caches.iter().any(is_gone) {
        assignment.caches.retain(|cache| !is_gone(cache));
        held.retain(|name| !CacheOpened::names(gone.0, name));
    }
}

impl Standby {
    /// Makes a change and returns the answer.
    pub(super) fn change(&mut self, message: ToWorker, fds: Fds) -> FromWorker {
        let (number, refused) = match message {
            ToWorker::Add { number, opened, .. } => {
                match prepared(&self.assignment, &self.config, &self.maps, &opened, &fds) {
                    Ok(cache) => {
                        self.apps.add(cache);
                        note(&mut self.assignment, &mut self.held, opened, fds);
                        (number, String::new())
                    }
                    Err(error) => (number, error.to_string()),
                }
            }
            ToWorker::Forget { number, place, generation } => {
                self.apps.forget((place, generation));
                forget(&mut self.assignment, &mut self.held, (place, generation));
                (number, String::new())
            }
            _ => (0, "no change".into()),
        };
        FromWorker::Changed { number, refused }
    }
}
