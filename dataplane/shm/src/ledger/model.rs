//! A kernel and four rings to run the ledger against, with the question every test ends with: is
//! each frame in exactly one place?

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::StorePoint;
use super::{FrameState, Ledger, LedgerMemory, RecoverError, Recovered, Ring, RingIndices};
use crate::sync::{AtomicU8, AtomicU32, Ordering};

/// States, intents and rings on the heap: what survives the worker.
pub struct Shared {
    states: Vec<AtomicU8>,
    intents: [AtomicU32; 4],
    pub rings: [ModelRing; 4],
}

pub struct ModelRing {
    pub producer: AtomicU32,
    pub consumer: AtomicU32,
    slots: Vec<AtomicU32>,
}

impl ModelRing {
    fn new(entries: u32) -> Self {
        Self {
            producer: AtomicU32::new(0),
            consumer: AtomicU32::new(0),
            slots: (0..entries).map(|_| AtomicU32::new(u32::MAX)).collect(),
        }
    }

    pub fn write(&self, index: u32, frame: u32) {
        self.slots[index as usize % self.slots.len()].store(frame, Ordering::Relaxed);
    }

    pub fn read(&self, index: u32) -> u32 {
        self.slots[index as usize % self.slots.len()].load(Ordering::Relaxed)
    }

    pub fn pending(&self) -> u32 {
        let producer = self.producer.load(Ordering::Acquire);
        producer.wrapping_sub(self.consumer.load(Ordering::Acquire))
    }

    pub fn room(&self) -> u32 {
        self.slots.len() as u32 - self.pending()
    }

    /// The producing side of the kernel.
    fn push(&self, frame: u32) {
        let producer = self.producer.load(Ordering::Relaxed);
        self.write(producer, frame);
        self.producer.store(producer.wrapping_add(1), Ordering::Release);
    }

    /// The consuming side of the kernel.
    fn pop(&self) -> Option<u32> {
        if self.pending() == 0 {
            return None;
        }
        let consumer = self.consumer.load(Ordering::Relaxed);
        let frame = self.read(consumer);
        self.consumer.store(consumer.wrapping_add(1), Ordering::Release);
        Some(frame)
    }
}

impl LedgerMemory for Arc<Shared> {
    fn states(&self) -> &[AtomicU8] {
        &self.states
    }

    fn intent(&self, ring: Ring) -> &AtomicU32 {
        &self.intents[ring as usize]
    }
}

impl Shared {
    /// Rings of `entries`, whose indices start at `first` so that tests also cross the wrap.
    pub fn new(frames: u32, entries: u32, first: u32) -> Arc<Self> {
        let shared = Self {
            states: (0..frames).map(|_| AtomicU8::new(0)).collect(),
            intents: std::array::from_fn(|_| AtomicU32::new(first)),
            rings: std::array::from_fn(|_| ModelRing::new(entries)),
        };
        for ring in &shared.rings {
            ring.producer.store(first, Ordering::Relaxed);
            ring.consumer.store(first, Ordering::Relaxed);
        }
        Arc::new(shared)
    }

    pub fn ring(&self, ring: Ring) -> &ModelRing {
        &self.rings[ring as usize]
    }

    pub fn recover<P: StorePoint>(
        self: &Arc<Self>,
        point: P,
    ) -> Result<(Ledger<Arc<Self>, P>, Recovered), RecoverError> {
        let indices = RingIndices {
            index: [
                self.ring(Ring::Fill).producer.load(Ordering::Acquire),
                self.ring(Ring::Rx).consumer.load(Ordering::Acquire),
                self.ring(Ring::Tx).producer.load(Ordering::Acquire),
                self.ring(Ring::Completion).consumer.load(Ordering::Acquire),
            ],
            entries: [self.rings[0].slots.len() as u32; 4],
        };
        Ledger::recover(self.clone(), point, &indices, |ring, index| {
            Some(self.ring(ring).read(index))
        })
    }

    /// The four worker operations, as the xsk module makes them.
    pub fn fill<P: StorePoint>(&self, ledger: &mut Ledger<Arc<Self>, P>, count: u32) -> u32 {
        let ring = self.ring(Ring::Fill);
        let producer = ring.producer.load(Ordering::Relaxed);
        ledger.fill(
            producer,
            count.min(ring.room()),
            |index, frame| ring.write(index, frame),
            |end| ring.producer.store(end, Ordering::Release),
        )
    }

    pub fn receive<P: StorePoint>(
        &self,
        ledger: &mut Ledger<Arc<Self>, P>,
        count: u32,
    ) -> (Vec<super::Frame>, u32) {
        let ring = self.ring(Ring::Rx);
        let consumer = ring.consumer.load(Ordering::Relaxed);
        let mut frames = Vec::new();
        let refused = ledger.receive(
            consumer,
            count.min(ring.pending()),
            |index| Some(ring.read(index)),
            |_, frame| frames.push(frame),
            |end| ring.consumer.store(end, Ordering::Release),
        );
        (frames, refused)
    }

    pub fn transmit<P: StorePoint>(
        &self,
        ledger: &mut Ledger<Arc<Self>, P>,
        frames: Vec<super::Frame>,
    ) {
        let ring = self.ring(Ring::Tx);
        assert!(frames.len() as u32 <= ring.room());
        let producer = ring.producer.load(Ordering::Relaxed);
        for (offset, frame) in frames.iter().enumerate() {
            ring.write(producer.wrapping_add(offset as u32), frame.index());
        }
        ledger.transmit(producer, frames.into_iter(), |end| {
            ring.producer.store(end, Ordering::Release);
        });
    }

    pub fn complete<P: StorePoint>(&self, ledger: &mut Ledger<Arc<Self>, P>, count: u32) -> u32 {
        let ring = self.ring(Ring::Completion);
        let consumer = ring.consumer.load(Ordering::Relaxed);
        ledger.complete(
            consumer,
            count.min(ring.pending()),
            |index| Some(ring.read(index)),
            |end| ring.consumer.store(end, Ordering::Release),
        )
    }
}

/// The other side. Keeps frames that are in no ring, as the real one does.
#[derive(Default)]
pub struct Kernel {
    /// Taken from fill, not yet in rx.
    receiving: RefCell<Vec<u32>>,
    /// Taken from tx, not yet in completion.
    sending: RefCell<Vec<u32>>,
}

impl Kernel {
    pub fn take_fill(&self, shared: &Arc<Shared>) {
        if let Some(frame) = shared.ring(Ring::Fill).pop() {
            assert_eq!(
                state(shared, frame),
                FrameState::Rx as u8,
                "given before its state said so"
            );
            self.receiving.borrow_mut().push(frame);
        }
    }

    pub fn deliver(&self, shared: &Arc<Shared>) {
        if shared.ring(Ring::Rx).room() > 0
            && let Some(frame) = self.receiving.borrow_mut().pop()
        {
            shared.ring(Ring::Rx).push(frame);
        }
    }

    pub fn take_tx(&self, shared: &Arc<Shared>) {
        if let Some(frame) = shared.ring(Ring::Tx).pop() {
            assert_eq!(state(shared, frame), FrameState::Tx as u8, "sent before its state said so");
            self.sending.borrow_mut().push(frame);
        }
    }

    pub fn finish(&self, shared: &Arc<Shared>) {
        if shared.ring(Ring::Completion).room() > 0
            && let Some(frame) = self.sending.borrow_mut().pop()
        {
            shared.ring(Ring::Completion).push(frame);
        }
    }

    /// Every frame is in exactly one place, and its state byte names it. Call only right after a
    /// recovery or between whole operations; `held` are the tokens the caller still has.
    pub fn check<P: StorePoint>(
        &self,
        shared: &Arc<Shared>,
        ledger: &Ledger<Arc<Shared>, P>,
        held: &[super::Frame],
    ) {
        let mut places: BTreeMap<u32, Vec<(&str, FrameState)>> = BTreeMap::new();
        let mut put = |frame, place, state| places.entry(frame).or_default().push((place, state));
        for (ring, state) in Ring::ALL.into_iter().zip([
            FrameState::Rx,
            FrameState::Rx,
            FrameState::Tx,
            FrameState::Tx,
        ]) {
            let first = shared.ring(ring).consumer.load(Ordering::Acquire);
            for offset in 0..shared.ring(ring).pending() {
                put(shared.ring(ring).read(first.wrapping_add(offset)), "ring", state);
            }
        }
        for &frame in self.receiving.borrow().iter() {
            put(frame, "kernel, receiving", FrameState::Rx);
        }
        for &frame in self.sending.borrow().iter() {
            put(frame, "kernel, sending", FrameState::Tx);
        }
        for frame in &ledger.free {
            put(*frame, "pool", FrameState::Free);
        }
        for frame in held {
            put(frame.index(), "token", FrameState::Held);
        }
        for frame in 0..ledger.frames() {
            let found = places.remove(&frame).unwrap_or_default();
            assert_eq!(found.len(), 1, "frame {frame} is in {found:?}");
            assert_eq!(Some(found[0].1), ledger.state(frame), "frame {frame} is in {found:?}");
        }
        assert!(places.is_empty(), "frames that do not exist: {places:?}");
        assert_eq!(ledger.counts(), ledger.recount());
        assert_eq!(ledger.counts().total(), ledger.frames());
    }
}

fn state(shared: &Arc<Shared>, frame: u32) -> u8 {
    shared.states()[frame as usize].load(Ordering::Relaxed)
}

/// Stops the worker, by unwinding, after a given number of stores.
pub struct StopAfter(pub std::cell::Cell<u32>);

impl StopAfter {
    pub fn stores(count: u32) -> Self {
        Self(std::cell::Cell::new(count))
    }

    pub fn never() -> Self {
        Self::stores(u32::MAX)
    }
}

/// The payload of that unwinding.
pub struct Stopped;

impl StorePoint for StopAfter {
    fn stored(&self) {
        let left = self.0.get();
        if left == 0 {
            std::panic::resume_unwind(Box::new(Stopped));
        }
        self.0.set(left - 1);
    }
}

/// Runs `worker` until it ends or is stopped; true when it ended.
pub fn run_until_stopped(worker: impl FnOnce()) -> bool {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(worker)) {
        Ok(()) => true,
        Err(payload) if payload.is::<Stopped>() => false,
        Err(payload) => std::panic::resume_unwind(payload),
    }
}
