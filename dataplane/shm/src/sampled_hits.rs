//! Hits that a key's worker is told of: which keys are read by those who cannot write them, so that the
//! eviction does not take them for unused, and what clients ask other workers for can turn hot.
//!
//! ```text
//!   front          -> ring 0  \
//!   other workers  -> ring 1   >  one memfd a cache, apart from its table  -> worker: a bounded look between bursts
//!   a reader       -> ring 2  /       entry: the key's hash
//! ```
//!
//! Writers: the front, the workers that read a shard of another's, and the cache's readers, each a ring of
//! its own as far as there are enough; two in one ring, as the workers are, lose some of each other's
//! entries. Readers: the active workers, each of which looks for its own keys, and writes nothing of what
//! it looks at, so that nobody waits for anybody. A ring that is not looked at in time is written over.
//!
//! Nothing in here is believed: any entry is a hash that a key has or has not, any index is taken modulo the
//! ring. At worst a reader makes keys look used or asked for, which it could as well do by asking for them,
//! and keeps others from telling. So one memory serves all of a cache, and they are not kept apart.

mod sampler;

pub use sampler::Sampler;

use std::mem::offset_of;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::region::{Access, REGION_HEADER_BYTES, Region, RegionError, RegionSpec, layout_hash};
use crate::shared::{Padded, Shared};
use crate::sync::{AtomicU64, Ordering};

/// "NE-HITS" and a blank in the bytes of memory on a little-endian machine.
pub const HITS_MAGIC: u64 = u64::from_le_bytes(*b"NE-HITS ");

/// Rings of one cache. Too low: readers share rings, and lose entries. Too high: the worker looks at more
/// heads ten thousand times a second.
pub const HIT_RINGS: usize = 16;

/// The front's ring.
pub const FRONT_HIT_RING: usize = 0;

/// The ring of all workers that read a shard of another's.
pub const WORKER_HIT_RING: usize = 1;

/// The first of the readers' rings, which are all the others.
pub const READER_HIT_RING: usize = 2;

/// Entries of a ring, a power of two. Too low: what comes while the worker sleeps is written over. Too high:
/// what it then finds is old. (Under loom each multiplies the interleavings.)
const ENTRIES: usize = if cfg!(loom) { 2 } else { 256 };

const _: () = assert!(ENTRIES.is_power_of_two(), "an index wraps where the ring does");

/// One ring. Its writer never looks at its reader.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct HitRing {
    /// Entries ever written.
    head: Padded<AtomicU64>,
    hashes: [AtomicU64; ENTRIES],
}

// SAFETY: repr(C) of shared words only; padding is never read.
unsafe impl Shared for HitRing {}

impl Default for HitRing {
    fn default() -> Self {
        let hashes = std::array::from_fn(|_| AtomicU64::new(0));
        Self { head: Padded::default(), hashes }
    }
}

impl HitRing {
    #[inline]
    pub(crate) fn push(&self, hash: u64) {
        let head = self.head.0.load(Ordering::Relaxed);
        self.hashes[head as usize % ENTRIES].store(hash, Ordering::Relaxed);
        // SYNC POINT: pairs with the acquire load in `take`.
        self.head.0.store(head.wrapping_add(1), Ordering::Release);
    }

    /// Loads only, relaxed or by `load_acquire`: the mapping may be read-only.
    #[inline]
    pub(crate) fn take(&self, tail: &mut u64, out: &mut [u64]) -> (usize, bool) {
        // SYNC POINT: pairs with the release store in `push`.
        let head = self.head.0.load_acquire();
        let waiting = head.wrapping_sub(*tail);
        // Also where the head was moved back, which no writer of ours does.
        let overrun = waiting > ENTRIES as u64;
        if overrun {
            *tail = head.wrapping_sub(ENTRIES as u64);
        }
        let count = (head.wrapping_sub(*tail) as usize).min(out.len());
        for hash in &mut out[..count] {
            *hash = self.hashes[*tail as usize % ENTRIES].load(Ordering::Relaxed);
            *tail = tail.wrapping_add(1);
        }
        (count, overrun)
    }
}

const LAYOUT_HASH: u64 = layout_hash(&[
    size_of::<HitRing>() as u64,
    offset_of!(HitRing, hashes) as u64,
    ENTRIES as u64,
    HIT_RINGS as u64,
]);

/// What all sides agree on.
const fn spec() -> RegionSpec {
    RegionSpec {
        magic: HITS_MAGIC,
        layout_version: 1,
        layout_hash: LAYOUT_HASH,
        bytes: REGION_HEADER_BYTES + size_of::<[HitRing; HIT_RINGS]>(),
        huge_pages: false,
    }
}

/// The rings of one cache.
#[derive(Debug)]
pub struct HitRegion(Region);

impl HitRegion {
    /// Makes the region of a new cache.
    pub fn create() -> Result<Self, RegionError> {
        Self::checked(Region::create(c"nautilus-hits", &spec())?)
    }

    /// Maps a received descriptor: for writing by those who tell.
    pub fn attach(fd: OwnedFd, access: Access) -> Result<Self, RegionError> {
        Self::checked(Region::attach(fd, &spec(), access)?)
    }

    fn checked(region: Region) -> Result<Self, RegionError> {
        // SAFETY: the reference is dropped at once; this is the check that the rings fit.
        unsafe { region.view_unwritten::<[HitRing; HIT_RINGS]>(REGION_HEADER_BYTES)? };
        Ok(Self(region))
    }

    /// The descriptor, to be passed on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd()
    }

    /// Adds a hash to ring `ring` modulo [`HIT_RINGS`]; the oldest entry goes for it. Nothing on a read-only
    /// mapping.
    #[inline]
    pub fn push(&self, ring: usize, hash: u64) {
        let Ok(rings) = self.0.view::<[HitRing; HIT_RINGS]>(REGION_HEADER_BYTES) else { return };
        rings[ring % HIT_RINGS].push(hash);
    }

    fn ring(&self, ring: usize) -> &HitRing {
        // SAFETY: the callers below load only, relaxed or by `load_acquire`, and hand out no reference.
        let rings = unsafe { self.0.view_unwritten::<[HitRing; HIT_RINGS]>(REGION_HEADER_BYTES) };
        &rings.expect("checked when it was attached")[ring % HIT_RINGS]
    }

    /// Where the next entry of a ring will stand: where a new worker begins.
    pub fn head(&self, ring: usize) -> u64 {
        self.ring(ring).head.0.load_acquire()
    }

    /// Takes entries from `tail` on, as many as `out` has room for. Returns how many, and whether some were
    /// written over before.
    #[inline]
    pub fn take(&self, ring: usize, tail: &mut u64, out: &mut [u64]) -> (usize, bool) {
        self.ring(ring).take(tail, out)
    }
}

#[cfg(all(test, not(loom), not(miri)))]
mod tests {
    use super::*;

    fn both() -> (HitRegion, HitRegion) {
        let writer = HitRegion::create().unwrap();
        let fd = writer.fd().try_clone_to_owned().unwrap();
        (writer, HitRegion::attach(fd, Access::ReadOnly).unwrap())
    }

    #[test]
    fn entries_are_taken_in_order_once_and_only_from_their_ring() {
        let (writer, worker) = both();
        let mut tail = worker.head(3);
        (1..=5).for_each(|hash| writer.push(3, hash));
        writer.push(4, 99);
        let mut out = [0; 3];
        assert_eq!((worker.take(3, &mut tail, &mut out), out), ((3, false), [1, 2, 3]));
        assert_eq!(worker.take(3, &mut tail, &mut out), (2, false));
        assert_eq!(out[..2], [4, 5]);
        assert_eq!(worker.take(3, &mut tail, &mut out), (0, false));
        worker.push(3, 7);
        assert_eq!(worker.take(3, &mut tail, &mut out), (0, false), "the worker's is read-only");
    }

    #[test]
    fn what_is_written_over_is_noticed_and_nothing_of_it_is_taken() {
        let (writer, worker) = both();
        let (mut tail, mut out) = (0, [0; ENTRIES + 9]);
        let most = ENTRIES as u64;
        (0..most + 40).for_each(|hash| writer.push(1, hash));
        assert_eq!(worker.take(1, &mut tail, &mut out), (ENTRIES, true));
        assert!(out[..ENTRIES].iter().copied().eq(40..most + 40));
    }

    #[test]
    fn any_head_gives_at_most_a_ring() {
        let (writer, worker) = both();
        let mut out = [0; 2 * ENTRIES];
        for (head, mut tail) in
            [(0, 1), (u64::MAX, 5), (5, u64::MAX - 3), (1 << 63, 0), (0, 1 << 63)]
        {
            writer.ring(2).head.0.store(head, Ordering::Relaxed);
            assert!(worker.take(2, &mut tail, &mut out).0 <= ENTRIES);
            assert_eq!(tail, head);
            assert_eq!(worker.take(2, &mut tail, &mut out), (0, false));
        }
        writer.push(usize::MAX, 1);
    }
}
