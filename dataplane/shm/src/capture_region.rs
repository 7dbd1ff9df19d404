//! The capture region: what workers saw, on its way to the process that writes it to files.
//!
//! ```text
//!   header | workers, words | ring head of worker 0 .. n | words of ring 0 .. n
//!
//!   worker n -- ring n: frames, and what else its feeds were moved by --> nautilus-capture -> files
//! ```
//!
//! One memfd, made by the supervisor where the node file has a `[capture]`, writable by workers and writer.
//! Writers: worker n its ring ([`crate::capture_ring`]), the capture process the other ends of all.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::capture_ring::{CaptureRing, CaptureRingHead};
use crate::region::{Access, REGION_HEADER_BYTES, Region, RegionError, RegionSpec, layout_hash};
use crate::shared::{Padded, Shared};
use crate::sync::{AtomicU64, Ordering};
use crate::worker_rings::NODE_WORKERS_MAX;

/// "NAUTCAPT" in the bytes of memory on a little-endian machine.
pub const CAPTURE_MAGIC: u64 = u64::from_le_bytes(*b"NAUTCAPT");

/// MiB of one ring, at most.
pub const CAPTURE_RING_MB_MAX: u32 = 1024;

#[repr(C, align(128))]
#[derive(Debug)]
struct Head {
    workers: Padded<AtomicU64>,
    /// Words of one ring.
    words: Padded<AtomicU64>,
    /// Tells this region from those of other runs of the node.
    run: Padded<AtomicU64>,
}

// SAFETY: repr(C) of shared words only; padding is never read.
unsafe impl Shared for Head {}

const HEADS_OFFSET_BYTES: usize = REGION_HEADER_BYTES + size_of::<Head>();

const LAYOUT_HASH: u64 =
    layout_hash(&[size_of::<Head>() as u64, size_of::<CaptureRingHead>() as u64]);

fn spec(bytes: usize) -> RegionSpec {
    RegionSpec {
        magic: CAPTURE_MAGIC,
        layout_version: 1,
        layout_hash: LAYOUT_HASH,
        bytes,
        huge_pages: false,
    }
}

const fn words_offset_bytes(workers: usize) -> usize {
    HEADS_OFFSET_BYTES + workers * size_of::<CaptureRingHead>()
}

fn bytes_of(workers: usize, words: usize) -> usize {
    words_offset_bytes(workers) + workers * words * 8
}

/// The rings of one node, mapped for writing.
#[derive(Debug)]
pub struct CaptureRegion {
    region: Region,
    workers: usize,
    words: usize,
}

impl CaptureRegion {
    /// Makes the rings of a new node of 1 to [`NODE_WORKERS_MAX`] workers, each of 1 to
    /// [`CAPTURE_RING_MB_MAX`] MiB, rounded up to a power of two.
    pub fn create(name: &CStr, workers: usize, ring_mb: u32) -> Result<Self, RegionError> {
        assert!((1..=NODE_WORKERS_MAX).contains(&workers), "checked with the node file");
        assert!((1..=CAPTURE_RING_MB_MAX).contains(&ring_mb), "checked with the node file");
        let words = (ring_mb.next_power_of_two() as usize) << 17;
        let region = Region::create(name, &spec(bytes_of(workers, words)))?;
        let head: &Head = region.view(REGION_HEADER_BYTES)?;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        head.run.0.store(since_1970.as_nanos() as u64, Ordering::Relaxed);
        head.words.0.store(words as u64, Ordering::Relaxed);
        head.workers.0.store(workers as u64, Ordering::Release);
        Ok(Self { region, workers, words })
    }

    /// Attaches to a received descriptor.
    pub fn attach(fd: OwnedFd) -> Result<Self, RegionError> {
        // Not by name: a process that changed its user cannot look into its own /proc/self/fd.
        let file = File::from(fd);
        let actual_bytes = file.metadata().map_err(RegionError::Examine)?.len() as usize;
        let least_bytes = bytes_of(1, 1 << 17);
        let too_small = |expected_bytes| RegionError::TooSmall { expected_bytes, actual_bytes };
        if actual_bytes < least_bytes {
            return Err(too_small(least_bytes));
        }
        let region = Region::attach(OwnedFd::from(file), &spec(actual_bytes), Access::ReadWrite)?;
        let head: &Head = region.view(REGION_HEADER_BYTES)?;
        let workers = head.workers.0.load(Ordering::Relaxed) as usize;
        let words = head.words.0.load(Ordering::Relaxed) as usize;
        let words_max = (CAPTURE_RING_MB_MAX as usize) << 17;
        let is_possible = (1..=NODE_WORKERS_MAX).contains(&workers)
            && words.is_power_of_two()
            && (1 << 17..=words_max).contains(&words)
            && bytes_of(workers, words) <= actual_bytes;
        if !is_possible {
            return Err(too_small(usize::MAX));
        }
        Ok(Self { region, workers, words })
    }

    /// Workers of the node.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Tells this region from those of other runs of the node: when it was made, nanoseconds since 1970.
    pub fn run(&self) -> u64 {
        let head: &Head = self.region.view(REGION_HEADER_BYTES).expect("checked when attached");
        head.run.0.load(Ordering::Relaxed)
    }

    /// The descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.region.fd()
    }

    /// A second descriptor of the same region.
    pub fn try_clone(&self) -> io::Result<OwnedFd> {
        self.region.fd().try_clone_to_owned()
    }

    /// The ring of a worker, below [`Self::workers`]. Producer that worker, consumer the capture process.
    pub fn ring(&self, worker: usize) -> CaptureRing<'_> {
        assert!(worker < self.workers);
        let head = HEADS_OFFSET_BYTES + worker * size_of::<CaptureRingHead>();
        let head = self.region.view(head).expect("checked when it was attached");
        // SAFETY: the mapping is writable: this type has no other.
        let words = unsafe { self.region.words_unwritten(words_offset_bytes(self.workers)) };
        CaptureRing::new(head, &words[worker * self.words..(worker + 1) * self.words])
    }
}

#[cfg(all(test, not(loom), not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn every_worker_has_a_ring_of_its_own() {
        for workers in [1, 3] {
            let made = CaptureRegion::create(c"nautilus-capture", workers, 1).unwrap();
            let seen = CaptureRegion::attach(made.try_clone().unwrap()).unwrap();
            assert_eq!(seen.workers(), workers);
            for worker in 0..workers {
                let mut producer = made.ring(worker).producer();
                let place = producer.place(worker as u32).unwrap();
                let frame = vec![worker as u8; 1500];
                while producer.push(place, 1, &[&frame]) {}
            }
            let mut out = Vec::new();
            for worker in 0..workers {
                let mut consumer = seen.ring(worker).consumer();
                let mut count = 0;
                while let Some(read) = consumer.next(&mut out).unwrap() {
                    assert_eq!((read.identity, out[1499]), (worker as u32, worker as u8));
                    count += 1;
                }
                assert_eq!(count, (1 << 17) / (4 + 188));
            }
        }
    }

    #[test]
    fn a_region_that_does_not_hold_what_it_says_is_refused() {
        let made = CaptureRegion::create(c"nautilus-capture", 1, 1).unwrap();
        let head: &Head = made.region.view(REGION_HEADER_BYTES).unwrap();
        for (workers, words) in [(0, 1 << 17), (2, 1 << 17), (1, 1 << 18), (1, 3), (9, 1), (1, 0)] {
            head.workers.0.store(workers, Ordering::Relaxed);
            head.words.0.store(words, Ordering::Relaxed);
            let refused = CaptureRegion::attach(made.try_clone().unwrap());
            assert!(matches!(refused, Err(RegionError::TooSmall { .. })), "{workers} {words}");
        }
    }
}
