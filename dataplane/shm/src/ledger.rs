//! Who owns each frame of a UMEM, in memory that survives the worker.
//!
//! ```text
//!            hold            transmit
//!   FREE ----------> HELD ------------> TX
//!    | ^  <---------- ^                 |
//!    | |    release   | receive         | complete
//!    | +--------------|-----------------+
//!    |      fill      |
//!    +-------------> RX
//! ```
//!
//! One byte a frame and one intent word a ring lie in the UMEM memfd behind the frames. Their only
//! writer is the worker that owns the socket; its successor reads them once the supervisor knows it
//! dead (its pidfd has fired: no thread of it is left). A frame can be inside the kernel and in none of the four rings (after an RX overflow,
//! in zero copy, in flight), so ownership is never inferred from ring contents: after a death only
//! FREE and HELD frames go back to the pool.
//!
//! Every ring operation stores in this order, each store a release so that program order is kept:
//!
//! 1. (fill, tx) the descriptors,
//! 2. the intent: the ring index about to be published,
//! 3. the state bytes,
//! 4. the ring index.
//!
//! A worker that dies between 2 and 4 leaves `index != intent`. On fill and tx the descriptors in
//! between were never given: their frames become HELD. On rx and completion they are still in the
//! ring: their frames go back to RX and TX. Nothing else of a ring is read.

use std::fmt;

use crate::sync::{AtomicU8, AtomicU32, Ordering};

mod frame;
#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(test)]
mod model;
#[cfg(all(test, not(loom)))]
mod tests;

pub use frame::{Frame, FrameCounts, FrameState, Ring};

/// Layout version of states and intents; recorded in the UMEM header.
pub const LEDGER_LAYOUT_VERSION: u32 = 1;

/// Where the state bytes and intents live. Implemented over the UMEM mapping, and over the heap in
/// tests and in the simulated port.
pub trait LedgerMemory {
    /// One byte a frame; the length is the number of frames.
    fn states(&self) -> &[AtomicU8];
    /// The intent word of one ring.
    fn intent(&self, ring: Ring) -> &AtomicU32;
}

/// Told after every store the ledger makes, so that a test can stop the worker there. The
/// production form is `()`, which compiles to nothing.
pub trait StorePoint {
    /// One store is visible.
    fn stored(&self);
}

impl StorePoint for () {
    #[inline(always)]
    fn stored(&self) {}
}

/// The ring indices only the worker writes, as its predecessor left them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingIndices {
    /// Producer of fill, consumer of rx, producer of tx, consumer of completion.
    pub index: [u32; 4],
    /// Entries of each ring, the bound of any gap.
    pub entries: [u32; 4],
}

/// What [`Ledger::recover`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The ring whose operation was cut short, and how many descriptors it had named.
    pub interrupted: Option<(Ring, u32)>,
    /// Frames the predecessor held, now free; the packets in them are lost.
    pub held: u32,
    /// Descriptors in the gap that named no frame this operation could have moved.
    pub refused: u32,
}

/// Why a ledger cannot be taken over. Each means that its memory was not written by a worker; the
/// socket must be bound anew.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// The distance from index to intent exceeds the ring.
    #[error("intent of the {ring:?} ring is {intent}, its index {index}, its entries {entries}")]
    Intent {
        /// Which ring.
        ring: Ring,
        /// Index as published.
        index: u32,
        /// Intent as stored.
        intent: u32,
        /// Size of the ring.
        entries: u32,
    },
    /// A state byte holds no state.
    #[error("state byte of frame {frame} is {value}")]
    State {
        /// Which frame.
        frame: u32,
        /// What its byte holds.
        value: u8,
    },
    /// More frames than an index can name, or none.
    #[error("{frames} frames are outside 1..=2^31")]
    Frames {
        /// Length of the state array.
        frames: usize,
    },
}

/// The single writer of a frame ledger, with the pool of free frames.
pub struct Ledger<M, P = ()> {
    memory: M,
    point: P,
    identifier: u32,
    /// Free frames, last freed first taken (its bytes are likeliest in cache). Capacity is the
    /// frame count, so it never grows.
    free: Vec<u32>,
    counts: FrameCounts,
}

/// Distinguishes tokens of different ledgers of this process; no order is needed.
// A heap word of this process, not shared memory: loom has no static atomics.
#[allow(clippy::disallowed_types)]
static NEXT_IDENTIFIER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);

impl<M: LedgerMemory, P: StorePoint> Ledger<M, P> {
    /// Takes over what the last writer left; on zeroed memory with zero indices, a new ledger with
    /// every frame free. `gap(ring, index)` gives the frame the descriptor at that ring index
    /// names, `None` if it is out of bounds; it is asked only for indices between the published
    /// index and the intent. May itself be cut short anywhere and run again.
    pub fn recover(
        memory: M,
        point: P,
        indices: &RingIndices,
        mut gap: impl FnMut(Ring, u32) -> Option<u32>,
    ) -> Result<(Self, Recovered), RecoverError> {
        let frames = memory.states().len();
        if frames == 0 || frames > 1 << 31 {
            return Err(RecoverError::Frames { frames });
        }
        let identifier = NEXT_IDENTIFIER.fetch_add(1, std::sync::atomic::Ordering::Relaxed).max(1);
        let mut ledger = Self {
            memory,
            point,
            identifier,
            free: Vec::with_capacity(frames),
            counts: FrameCounts::default(),
        };
        let mut recovered = Recovered::default();
        ledger.check(indices)?;
        for ring in Ring::ALL {
            ledger.close_gap(ring, indices, &mut gap, &mut recovered);
        }
        ledger.rebuild_pool(&mut recovered);
        Ok((ledger, recovered))
    }

    /// Refuses memory no worker can have written, before anything is changed.
    fn check(&self, indices: &RingIndices) -> Result<(), RecoverError> {
        for ring in Ring::ALL {
            let index = indices.index[ring as usize];
            let entries = indices.entries[ring as usize];
            // Pairs with the release stores of the dead writer, by way of its pidfd.
            let intent = self.memory.intent(ring).load(Ordering::Acquire);
            if intent.wrapping_sub(index) > entries {
                return Err(RecoverError::Intent { ring, index, intent, entries });
            }
        }
        for (frame, state) in self.memory.states().iter().enumerate() {
            let value = state.load(Ordering::Acquire);
            if FrameState::from_byte(value).is_none() {
                return Err(RecoverError::State { frame: frame as u32, value });
            }
        }
        Ok(())
    }

    /// Undoes the operation of `ring` that stopped before its index was published. The intent is
    /// put back last, so that a death in here repeats the whole of it.
    fn close_gap(
        &self,
        ring: Ring,
        indices: &RingIndices,
        gap: &mut impl FnMut(Ring, u32) -> Option<u32>,
        recovered: &mut Recovered,
    ) {
        let index = indices.index[ring as usize];
        let named = self.memory.intent(ring).load(Ordering::Relaxed).wrapping_sub(index);
        if named == 0 {
            return;
        }
        recovered.interrupted = Some((ring, named));
        // From where the operation would have moved the frame, to where, and where it is in truth.
        let (before, after, truth) = match ring {
            Ring::Fill => (FrameState::Free, FrameState::Rx, FrameState::Held),
            Ring::Rx => (FrameState::Rx, FrameState::Held, FrameState::Rx),
            Ring::Tx => (FrameState::Held, FrameState::Tx, FrameState::Held),
            Ring::Completion => (FrameState::Tx, FrameState::Free, FrameState::Tx),
        };
        for offset in 0..named {
            let frame = gap(ring, index.wrapping_add(offset));
            match frame.map(|frame| (frame, self.state(frame))) {
                Some((frame, Some(state))) if [before, after, truth].contains(&state) => {
                    self.set(frame, truth);
                }
                _ => recovered.refused += 1,
            }
        }
        self.store_intent(ring, index);
    }

    /// Runs after every gap is closed: from here on FREE and HELD are ours without doubt.
    fn rebuild_pool(&mut self, recovered: &mut Recovered) {
        for frame in (0..self.memory.states().len() as u32).rev() {
            match self.state(frame) {
                Some(FrameState::Held) => {
                    self.set(frame, FrameState::Free);
                    recovered.held += 1;
                    self.counts.free += 1;
                    self.free.push(frame);
                }
                Some(FrameState::Free) => {
                    self.counts.free += 1;
                    self.free.push(frame);
                }
                Some(FrameState::Tx) => self.counts.tx += 1,
                Some(FrameState::Rx) | None => self.counts.rx += 1,
            }
        }
    }

    /// What the tokens of this ledger carry; never 0 and unique in this process.
    pub fn identifier(&self) -> u32 {
        self.identifier
    }

    /// Number of frames.
    pub fn frames(&self) -> u32 {
        self.memory.states().len() as u32
    }

    /// Frames by state, by this worker's own counting.
    pub fn counts(&self) -> FrameCounts {
        self.counts
    }

    /// Frames by state, read back from the state bytes. Equal to [`Self::counts`] at any instant
    /// between two calls; `O(frames)`, for tests and for an operator's check.
    pub fn recount(&self) -> FrameCounts {
        let mut counts = FrameCounts::default();
        for frame in 0..self.frames() {
            match self.state(frame) {
                Some(FrameState::Free) => counts.free += 1,
                Some(FrameState::Held) => counts.held += 1,
                Some(FrameState::Tx) => counts.tx += 1,
                Some(FrameState::Rx) | None => counts.rx += 1,
            }
        }
        counts
    }

    /// State of one frame, `None` outside the ledger.
    pub fn state(&self, frame: u32) -> Option<FrameState> {
        // Written only by this thread since recovery.
        let state = self.memory.states().get(frame as usize)?;
        FrameState::from_byte(state.load(Ordering::Relaxed))
    }

    /// FREE -> HELD: a frame to write a packet into; `None` when the pool is empty.
    #[inline]
    pub fn hold(&mut self) -> Option<Frame> {
        let index = self.free.pop()?;
        self.set(index, FrameState::Held);
        self.counts.free -= 1;
        self.counts.held += 1;
        Some(Frame { index, ledger: self.identifier })
    }

    /// HELD -> FREE.
    ///
    /// # Panics
    /// When the token belongs to another ledger.
    #[inline]
    pub fn release(&mut self, frame: Frame) {
        self.assert_ours(&frame);
        self.set(frame.index, FrameState::Free);
        self.counts.held -= 1;
        self.counts.free += 1;
        self.free.push(frame.index);
    }

    /// FREE -> RX for up to `count` frames. `write(index, frame)` stores a descriptor at a ring
    /// index, `publish` the new producer index. The caller has checked that the ring has room for
    /// `count`. Returns how many were given.
    #[inline]
    pub fn fill(
        &mut self,
        producer: u32,
        count: u32,
        mut write: impl FnMut(u32, u32),
        publish: impl FnOnce(u32),
    ) -> u32 {
        let count = count.min(self.free.len() as u32);
        if count == 0 {
            return 0;
        }
        let first = self.free.len() - count as usize;
        for (offset, &frame) in self.free[first..].iter().enumerate() {
            write(producer.wrapping_add(offset as u32), frame);
            self.point.stored();
        }
        let end = producer.wrapping_add(count);
        self.store_intent(Ring::Fill, end);
        for &frame in &self.free[first..] {
            self.set(frame, FrameState::Rx);
        }
        publish(end);
        self.point.stored();
        self.free.truncate(first);
        self.counts.free -= count;
        self.counts.rx += count;
        count
    }

    /// RX -> HELD for the `count` descriptors from `consumer` on. `descriptor(index)` reads one
    /// and gives its frame, `None` if it is out of bounds; `taken(index, frame)` receives the
    /// token. No packet may be looked at before this returns: then the index is published and each
    /// packet is handled at most once, whatever happens. Returns how many descriptors were refused
    /// because they named no frame that was in the kernel for reception.
    #[inline]
    pub fn receive(
        &mut self,
        consumer: u32,
        count: u32,
        mut descriptor: impl FnMut(u32) -> Option<u32>,
        mut taken: impl FnMut(u32, Frame),
        publish: impl FnOnce(u32),
    ) -> u32 {
        let ring = (Ring::Rx, FrameState::Rx);
        self.consume(ring, consumer, count, &mut descriptor, publish, |this, ring_index, index| {
            this.set(index, FrameState::Held);
            this.counts.rx -= 1;
            this.counts.held += 1;
            taken(ring_index, Frame { index, ledger: this.identifier });
        })
    }

    /// HELD -> TX for frames whose descriptors the caller has written from `producer` on, in this
    /// order; `publish` stores the new producer index.
    ///
    /// # Panics
    /// When a token belongs to another ledger.
    #[inline]
    pub fn transmit(
        &mut self,
        producer: u32,
        frames: impl ExactSizeIterator<Item = Frame>,
        publish: impl FnOnce(u32),
    ) {
        let count = frames.len() as u32;
        if count == 0 {
            return;
        }
        let end = producer.wrapping_add(count);
        self.store_intent(Ring::Tx, end);
        for frame in frames {
            self.assert_ours(&frame);
            self.set(frame.index, FrameState::Tx);
            self.counts.held -= 1;
            self.counts.tx += 1;
        }
        publish(end);
        self.point.stored();
    }

    /// TX -> FREE for the `count` descriptors from `consumer` on; otherwise as [`Self::receive`].
    #[inline]
    pub fn complete(
        &mut self,
        consumer: u32,
        count: u32,
        mut descriptor: impl FnMut(u32) -> Option<u32>,
        publish: impl FnOnce(u32),
    ) -> u32 {
        let ring = (Ring::Completion, FrameState::Tx);
        self.consume(ring, consumer, count, &mut descriptor, publish, |this, _, index| {
            this.set(index, FrameState::Free);
            this.counts.tx -= 1;
            this.counts.free += 1;
            this.free.push(index);
        })
    }

    /// Takes `count` descriptors from a ring the kernel fills; `each` is given the ring index and the
    /// frame of those that name a frame in the ring's `state`. Returns how many do not.
    #[inline]
    fn consume(
        &mut self,
        (ring, state): (Ring, FrameState),
        consumer: u32,
        count: u32,
        descriptor: &mut impl FnMut(u32) -> Option<u32>,
        publish: impl FnOnce(u32),
        mut each: impl FnMut(&mut Self, u32, u32),
    ) -> u32 {
        if count == 0 {
            return 0;
        }
        let end = consumer.wrapping_add(count);
        let mut refused = 0;
        self.store_intent(ring, end);
        for offset in 0..count {
            let ring_index = consumer.wrapping_add(offset);
            match descriptor(ring_index) {
                Some(index) if self.state(index) == Some(state) => each(self, ring_index, index),
                _ => refused += 1,
            }
        }
        publish(end);
        self.point.stored();
        refused
    }

    #[inline]
    fn assert_ours(&self, frame: &Frame) {
        assert_eq!(frame.ledger, self.identifier, "frame token of another ledger");
    }

    /// Release: the descriptors before it (fill, tx) must not move behind it. Pairs with the load
    /// in [`Self::check`] of the successor.
    #[inline]
    fn store_intent(&self, ring: Ring, value: u32) {
        self.memory.intent(ring).store(value, Ordering::Release);
        self.point.stored();
    }

    /// Release: the intent before it must not move behind it. Pairs with the load in
    /// [`Self::check`] of the successor.
    #[inline]
    fn set(&self, frame: u32, state: FrameState) {
        self.memory.states()[frame as usize].store(state as u8, Ordering::Release);
        self.point.stored();
    }
}

impl<M: LedgerMemory, P> fmt::Debug for Ledger<M, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("counts", &self.counts).finish_non_exhaustive()
    }
}
