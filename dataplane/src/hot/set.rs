//! The slots and words of one cache, as its table tells them what changes: slots of the worker's own area.

use std::os::fd::BorrowedFd;

use nautilus_ebpf::intf::HOT_REPLY_BYTES_MAX;
use nautilus_ebpf::{
    HotArea, HotHits, HotMeta, HotSlots, HotValue as Shown, HotWords, SteeringError,
};
use nautilus_shm::table::{HOT_KEY_BYTES_MAX, Hit, HotKey, HotSet, HotValue};

use super::Admission;
use crate::memcached::reply::{VALUE_LINE_BYTES_MAX, write_value_line};

/// What follows a value.
const TAIL: &[u8] = b"\r\nEND\r\n";

/// Key and value of the largest reply that can be hot: `VALUE`, three spaces, a digit of flags, one to
/// three of the length and a line end are in front, the tail behind.
const SHOWN_BYTES_MAX: usize = HOT_REPLY_BYTES_MAX - 6 - 2 - 1 - 1 - 2 - TAIL.len();

/// The hot set of one cache.
#[derive(Debug)]
pub struct XdpHotSet {
    slots: HotSlots,
    words: HotWords,
    area: HotArea,
    cache: u16,
    generation: u32,
    admission: Admission,
    hits: HotHits,
    /// Hits of each slot of the area that are in the table's frequencies already.
    folded: Box<[u64]>,
    /// The next slot to be folded, counted from the area's first.
    next: usize,
}

impl XdpHotSet {
    /// Maps slots, words and hits behind these descriptors, to write in one worker's area; `cache` and `generation` are those of the
    /// cache's service in the steering program. What was answered for predecessors is nobody's merit now.
    pub fn map(
        [slots, words, hits]: [BorrowedFd<'_>; 3],
        area: HotArea,
        (cache, generation): (u16, u32),
    ) -> Result<Self, SteeringError> {
        let hits = HotHits::map(hits)?;
        Ok(Self {
            slots: HotSlots::map(slots)?,
            words: HotWords::map(words)?,
            area,
            cache,
            generation,
            admission: Admission::new(area.slots(), |slot| hits.of(slot)),
            folded: area.slots().map(|slot| hits.of(slot)).collect(),
            hits,
            next: 0,
        })
    }

    /// The slot of a key, and whether it is the key's.
    #[inline]
    fn place(&self, key: &[u8]) -> Option<(u32, bool)> {
        let slot = self.area.slot_of(self.cache, key)?;
        let held = self.slots.holds(slot);
        let own = held.is_some_and(|held| {
            held.key() == key && held.cache == self.cache && held.generation == self.generation
        });
        Some((slot, own))
    }
}

impl HotSet for XdpHotSet {
    const IS_THERE: bool = true;

    #[inline]
    fn holds(&self, key: &[u8]) -> bool {
        self.place(key).is_some_and(|(_, own)| own)
    }

    fn publish(&mut self, key: &[u8], value: &HotValue<'_>) {
        let Some(slot) = self.area.slot_of(self.cache, key) else { return };
        let mut text = [0; VALUE_LINE_BYTES_MAX + HOT_REPLY_BYTES_MAX];
        let line = write_value_line(key, value.flags, value.value.len() as u32, None, &mut text);
        let end = line + value.value.len();
        let bytes = end + TAIL.len();
        let shown = bytes <= HOT_REPLY_BYTES_MAX && {
            text[line..end].copy_from_slice(value.value);
            text[end..bytes].copy_from_slice(TAIL);
            let shown = Shown {
                cache: self.cache,
                generation: self.generation,
                epoch: value.epoch,
                channel: value.channel,
                expiry_ns: value.expiry_ns,
                key,
                reply_text: &text[..bytes],
                reply_sum: value.text_sum,
                meta: Some(HotMeta {
                    line_bytes: line,
                    flags: value.flags,
                    version: value.version,
                }),
            };
            self.slots.publish(slot, &shown).is_ok()
        };
        if !shown && self.holds(key) {
            self.slots.empty(slot);
        }
    }

    fn empty(&mut self, key: &[u8]) {
        if let Some((slot, true)) = self.place(key) {
            self.slots.empty(slot);
        }
    }

    #[inline]
    fn asked(&mut self, hash: u64, key: &[u8], hit: &Hit) -> bool {
        if key.len() + hit.value_bytes as usize > SHOWN_BYTES_MAX || key.len() > HOT_KEY_BYTES_MAX {
            return false;
        }
        let Some((slot, own)) = self.place(key) else { return false };
        // Its own slot: the request came while the copy changed, or its feed was suspect.
        if own {
            return false;
        }
        let taken = self.slots.holds(slot).map(|_| || self.hits.of(slot));
        self.admission.asked(hash, slot, taken)
    }

    fn housekeeping(&mut self, now_ns: u64) {
        self.admission.housekeeping(now_ns, |slot| self.hits.of(slot));
    }

    fn next_used(&mut self) -> Option<HotKey> {
        let place = self.next;
        self.next = (place + 1) % self.folded.len();
        let slot = self.area.slots().start + place as u32;
        let hits = self.hits.of(slot);
        if std::mem::replace(&mut self.folded[place], hits) == hits {
            return None;
        }
        let held = self.slots.holds(slot)?;
        let own = held.cache == self.cache && held.generation == self.generation;
        own.then(|| HotKey::new(held.key()))?
    }

    fn set_channel(&mut self, channel: u8, valid_until_ns: u64) {
        self.words.set_channel(self.cache, channel, valid_until_ns);
    }

    fn set_channel_epoch(&mut self, channel: u8, epoch: u64) {
        self.words.set_channel_epoch(self.cache, channel, epoch);
    }

    fn set_flush_epoch(&mut self, epoch: u64) {
        self.words.set_flush_epoch(self.cache, epoch);
    }

    fn set_valid_until(&mut self, valid_until_ns: u64) {
        self.words.set_valid_until(self.cache, valid_until_ns);
    }
}
