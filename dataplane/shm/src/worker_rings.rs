//! The rings between the workers of a node, and who of them sleeps.
//!
//! ```text
//!   header | workers | sleep of worker 0 .. 7 | ring 0->0 | ring 0->1 | ... one for each ordered pair
//!
//!   worker a -- ring a->b: datagrams for b to handle, answers of a to what b sent on --> worker b
//!   worker a -- wake (eventfd of b), only when b announced that it sleeps -----------> worker b
//! ```
//!
//! One memfd, made by the supervisor, writable by all workers. Writers: worker n its sleep, the heads of
//! its rings `n->*` and the tails of `*->n`; who wakes it ([`crate::sleep`]). Each reads the others' and
//! believes nothing of it. A worker that is replaced leaves its ring ends to its successor
//! ([`crate::message_ring`]).

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::message_ring::MessageRing;
use crate::region::{Access, REGION_HEADER_BYTES, Region, RegionError, RegionSpec, layout_hash};
use crate::shared::{Padded, Shared};
use crate::sleep::Sleep;
use crate::sync::{AtomicU64, Ordering};

/// Workers of one node, at most. Each has a running standby, and a place in the control region.
pub const NODE_WORKERS_MAX: usize = 8;

/// Words of one ring. Too low: bursts of writes that arrive at the wrong worker are dropped. Too high:
/// memory, of which there is one ring for each pair.
pub const WORKER_RING_WORDS: usize = 1 << 15;

/// A ring from one worker to another.
pub type WorkerRing = MessageRing<WORKER_RING_WORDS>;

/// "NAUTWRKS" in the bytes of memory on a little-endian machine.
pub const WORKER_RINGS_MAGIC: u64 = u64::from_le_bytes(*b"NAUTWRKS");

/// What stands in front of the rings.
#[repr(C, align(128))]
#[derive(Debug)]
struct Head {
    workers: Padded<AtomicU64>,
    sleeps: [Sleep; NODE_WORKERS_MAX],
}

// SAFETY: as above.
unsafe impl Shared for Head {}

const RINGS_OFFSET_BYTES: usize = REGION_HEADER_BYTES + size_of::<Head>();

const LAYOUT_HASH: u64 = layout_hash(&[
    size_of::<Head>() as u64,
    size_of::<Sleep>() as u64,
    size_of::<WorkerRing>() as u64,
]);

fn spec(workers: usize) -> RegionSpec {
    RegionSpec {
        magic: WORKER_RINGS_MAGIC,
        layout_version: 1,
        layout_hash: LAYOUT_HASH,
        bytes: RINGS_OFFSET_BYTES + workers * workers * size_of::<WorkerRing>(),
        huge_pages: false,
    }
}

/// The rings between the workers of one node, mapped for writing.
#[derive(Debug)]
pub struct WorkerRings {
    region: Region,
    workers: usize,
}

impl WorkerRings {
    /// Makes the rings of a new node of 1 to [`NODE_WORKERS_MAX`] workers.
    pub fn create(name: &CStr, workers: usize) -> Result<Self, RegionError> {
        assert!((1..=NODE_WORKERS_MAX).contains(&workers), "checked with the node file");
        let region = Region::create(name, &spec(workers))?;
        let head: &Head = region.view(REGION_HEADER_BYTES)?;
        head.workers.0.store(workers as u64, Ordering::Release);
        Ok(Self { region, workers })
    }

    /// Attaches to a received descriptor.
    pub fn attach(fd: OwnedFd) -> Result<Self, RegionError> {
        // Not by name: a process that changed its user cannot look into its own /proc/self/fd.
        let file = File::from(fd);
        let bytes = file.metadata().map_err(RegionError::Examine)?.len() as usize;
        if bytes < spec(1).bytes {
            let expected_bytes = spec(1).bytes;
            return Err(RegionError::TooSmall { expected_bytes, actual_bytes: bytes });
        }
        let spec_found = RegionSpec { bytes, ..spec(1) };
        let region = Region::attach(OwnedFd::from(file), &spec_found, Access::ReadWrite)?;
        let head: &Head = region.view(REGION_HEADER_BYTES)?;
        let workers = head.workers.0.load(Ordering::Relaxed) as usize;
        let expected_bytes = spec(workers.clamp(1, NODE_WORKERS_MAX)).bytes;
        if !(1..=NODE_WORKERS_MAX).contains(&workers) || region.bytes() < expected_bytes {
            let actual_bytes = region.bytes();
            return Err(RegionError::TooSmall { expected_bytes, actual_bytes });
        }
        let this = Self { region, workers };
        this.region.view::<WorkerRing>(this.ring_offset_bytes(workers - 1, workers - 1))?;
        Ok(this)
    }

    /// Workers of the node.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// A second descriptor of the same region.
    pub fn try_clone(&self) -> io::Result<OwnedFd> {
        self.region.fd().try_clone_to_owned()
    }

    /// The descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.region.fd()
    }

    fn ring_offset_bytes(&self, from: usize, to: usize) -> usize {
        RINGS_OFFSET_BYTES + (from * self.workers + to) * size_of::<WorkerRing>()
    }

    /// The ring from worker `from` to worker `to`, both below [`Self::workers`]. Producer `from`,
    /// consumer `to`.
    pub fn ring(&self, from: usize, to: usize) -> &WorkerRing {
        assert!(from < self.workers && to < self.workers);
        self.region.view(self.ring_offset_bytes(from, to)).expect("checked when it was attached")
    }

    /// The announcements of a worker. Sleeper: that worker.
    pub fn sleep(&self, worker: usize) -> &Sleep {
        let head: &Head = self.region.view(REGION_HEADER_BYTES).expect("checked when attached");
        &head.sleeps[worker]
    }
}

#[cfg(all(test, not(loom), not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn every_pair_has_a_ring_of_its_own() {
        for workers in [1, 2, 3, NODE_WORKERS_MAX] {
            let made = WorkerRings::create(c"nautilus-workers", workers).unwrap();
            let seen = WorkerRings::attach(made.try_clone().unwrap()).unwrap();
            assert_eq!(seen.workers(), workers);
            for from in 0..workers {
                for to in 0..workers {
                    let tag = (from * 16 + to) as u32;
                    made.ring(from, to).producer(1).push(tag, &[b"x"]).unwrap();
                }
            }
            for from in 0..workers {
                for to in 0..workers {
                    let mut consumer = seen.ring(from, to).consumer();
                    let message = consumer.pop(&mut [0; 8]).unwrap().unwrap();
                    assert_eq!(message.tag, (from * 16 + to) as u32);
                    assert!(consumer.is_empty());
                }
            }
        }
    }

    #[test]
    fn a_region_that_is_too_small_for_its_workers_is_refused() {
        let made = WorkerRings::create(c"nautilus-workers", 1).unwrap();
        let head: &Head = made.region.view(REGION_HEADER_BYTES).unwrap();
        for workers in [0, 2, 9, u64::MAX] {
            head.workers.0.store(workers, Ordering::Relaxed);
            let refused = WorkerRings::attach(made.try_clone().unwrap());
            assert!(matches!(refused, Err(RegionError::TooSmall { .. })), "{workers}");
        }
    }

    #[test]
    fn one_sender_wakes_a_sleeper() {
        let rings = WorkerRings::create(c"nautilus-workers", 2).unwrap();
        let sleep = rings.sleep(1);
        assert!(!sleep.must_wake(), "it is awake");
        sleep.announce(5);
        assert!(sleep.must_wake());
        assert!(!sleep.must_wake(), "it was woken");
        sleep.woke();
        assert!(!sleep.must_wake() && !rings.sleep(0).must_wake());
        sleep.announce(6);
        assert!(sleep.must_wake(), "another sleep");
    }
}
