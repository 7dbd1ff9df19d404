//! A hot set in memory: two copies a slot and a version, as the kernel's map has them. Its memory
//! outlives the worker.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use nautilus_shm::sync::{AtomicU64, Ordering};
use nautilus_shm::table::{HOT_KEY_BYTES_MAX, Hit, HotKey, HotSet, HotValue};

/// Slots; keys share them and push each other out.
const SLOTS: usize = 2;

/// Longest value shown.
const VALUE_BYTES_MAX: usize = 150;

/// Look-ups by the worker after which a key is shown.
const ASKED: u32 = 2;

#[derive(Clone)]
struct Shown {
    key: Vec<u8>,
    value: Vec<u8>,
    epoch: u32,
    expiry_ns: u64,
}

#[derive(Default)]
struct Slot {
    version: AtomicU64,
    copies: [RefCell<Option<Shown>>; 2],
}

#[derive(Default)]
struct Memory {
    slots: [Slot; SLOTS],
    flush_epoch: AtomicU64,
    channel_epoch: AtomicU64,
    valid_until_ns: AtomicU64,
    asked: Cell<u32>,
    looked: Cell<u32>,
}

/// A handle on it. Writer: the worker that lives.
#[derive(Clone, Default)]
pub struct SimHot(Rc<Memory>);

impl SimHot {
    fn slot(&self, key: &[u8]) -> &Slot {
        &self.0.slots[usize::from(key.last().copied().unwrap_or(0)) % SLOTS]
    }

    fn current(slot: &Slot) -> Option<Shown> {
        let version = slot.version.load(Ordering::Acquire);
        slot.copies[version as usize & 1].borrow().clone()
    }

    fn put(slot: &Slot, shown: Option<Shown>) {
        let next = slot.version.load(Ordering::Relaxed) + 1;
        slot.copies[next as usize & 1].replace(shown);
        slot.version.store(next, Ordering::Release);
    }

    /// What the driver answers to `get`: the value, or `None` for the worker to answer.
    pub fn get(&self, key: &[u8], now_ns: u64) -> Option<Vec<u8>> {
        let shown = Self::current(self.slot(key)).filter(|shown| shown.key == key)?;
        let load = |word: &AtomicU64| word.load(Ordering::Acquire);
        let epoch = load(&self.0.flush_epoch).wrapping_add(load(&self.0.channel_epoch)) as u32;
        let in_time = now_ns < load(&self.0.valid_until_ns)
            && (shown.expiry_ns == 0 || now_ns < shown.expiry_ns);
        (in_time && shown.epoch == epoch).then_some(shown.value)
    }
}

impl HotSet for SimHot {
    const IS_THERE: bool = true;

    fn holds(&self, key: &[u8]) -> bool {
        Self::current(self.slot(key)).is_some_and(|shown| shown.key == key)
    }

    fn asked(&mut self, _: u64, key: &[u8], hit: &Hit) -> bool {
        let fits = key.len() <= HOT_KEY_BYTES_MAX && hit.value_bytes as usize <= VALUE_BYTES_MAX;
        if !fits || self.holds(key) {
            return false;
        }
        self.0.asked.set(self.0.asked.get() + 1);
        self.0.asked.get().is_multiple_of(ASKED)
    }

    fn housekeeping(&mut self, _: u64) {}

    fn next_used(&mut self) -> Option<HotKey> {
        let looked = self.0.looked.get();
        self.0.looked.set(looked.wrapping_add(1));
        HotKey::new(&Self::current(&self.0.slots[looked as usize % SLOTS])?.key)
    }

    fn publish(&mut self, key: &[u8], value: &HotValue<'_>) {
        if value.value.len() > VALUE_BYTES_MAX {
            return self.empty(key);
        }
        let &HotValue { value, epoch, expiry_ns, .. } = value;
        let shown = Shown { key: key.to_vec(), value: value.to_vec(), epoch, expiry_ns };
        Self::put(self.slot(key), Some(shown));
    }

    fn empty(&mut self, key: &[u8]) {
        if self.holds(key) {
            Self::put(self.slot(key), None);
        }
    }

    fn set_channel(&mut self, _: u8, _: u64) {}

    fn set_channel_epoch(&mut self, channel: u8, epoch: u64) {
        if channel == 0 {
            self.0.channel_epoch.store(epoch, Ordering::Release);
        }
    }

    fn set_flush_epoch(&mut self, epoch: u64) {
        self.0.flush_epoch.store(epoch, Ordering::Release);
    }

    fn set_valid_until(&mut self, valid_until_ns: u64) {
        self.0.valid_until_ns.store(valid_until_ns, Ordering::Release);
    }
}
