//! The hot set from user space: the slots whose keys the steering program answers itself.
//!
//! ```text
//!   worker: publish(slot, key, reply)            program, on any CPU: get KEY
//!     fill copies[(version + 1) & 1]               v = version, copy copies[v & 1]
//!     version + 1 (release)  ────────────────────► version still v? words (`hot_words`) hold?
//!                                                    ► answer, hit counted (`hot_hits`)
//! ```
//!
//! A slot is never locked: a writer that is killed leaves the old reply in force, and its successor
//! reads the version from memory and goes on. Whoever changes a value publishes or empties its slot
//! before the table shows the change, else one reader sees the new value by one path and the next the
//! old one by another.
//!
//! One writer a slot, the worker in whose [`HotArea`] it is: the owner of the keys' shard. It maps [`HotSlots`] and [`HotWords`] from
//! descriptors alone, without a capability; what it publishes costs no system call.

mod area;
mod hits;
mod shown;
mod words;

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering, fence};

pub use area::{HotArea, slot_of};
pub use hits::HotHits;
pub(crate) use shown::Shown;
pub use words::HotWords;

use crate::intf::{
    HOT_CACHES, HOT_FLAGS_WORDS, HOT_KEY_BYTES_MAX, HOT_REPLY_BYTES_MAX, HOT_SLOTS,
    HOT_VERSION_WORDS, HotCopy, HotSlot,
};
use crate::mapping::Mapping;
use crate::steering::{SteeringError, check_hot_map};

const SLOT_WORDS: usize = size_of::<HotSlot>() / 8;
const COPY_WORDS: usize = size_of::<HotCopy>() / 8;
const KEY_WORDS: usize = HOT_KEY_BYTES_MAX / 8;
/// Words of a copy before its reply.
const HEAD_WORDS: usize = COPY_WORDS - HOT_REPLY_BYTES_MAX / 8;

/// The word of a copy with the key's length.
const KEY_BYTES_WORD: usize = std::mem::offset_of!(HotCopy, key_bytes) / 8;

/// What follows a value in its reply.
const TAIL: &[u8] = b"\r\nEND\r\n";

/// Why a value cannot be hot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HotError {
    /// Empty or too long, or with a space or control byte that no request's key has.
    #[error("a hot key has 1 to {HOT_KEY_BYTES_MAX} bytes, none of them space or control")]
    Key,
    /// Empty or too long.
    #[error("a hot reply has 1 to {HOT_REPLY_BYTES_MAX} bytes, not {bytes}")]
    Reply {
        /// Of the text.
        bytes: usize,
    },
    /// The cache has no index in the hot set.
    #[error("the hot set knows caches 0 to {}, not {cache}", HOT_CACHES - 1)]
    Cache {
        /// Its index.
        cache: u16,
    },
}

/// What a slot is to answer.
#[derive(Clone, Copy, Debug)]
pub struct HotValue<'a> {
    /// Index of the cache, below [`HOT_CACHES`].
    pub cache: u16,
    /// Of the cache, as its service on its port has it.
    pub generation: u32,
    /// Flush epoch and channel epoch of the cache when the value was written, added.
    pub epoch: u32,
    /// The feed channel that owns the key; 0 for the clients.
    pub channel: u8,
    /// `CLOCK_MONOTONIC` nanoseconds from which on the value is gone; 0 is never.
    pub expiry_ns: u64,
    /// 1 to [`HOT_KEY_BYTES_MAX`] bytes.
    pub key: &'a [u8],
    /// The whole reply after the UDP frame header, 1 to [`HOT_REPLY_BYTES_MAX`] bytes.
    pub reply_text: &'a [u8],
    /// Ones'-complement sum of `reply_text` from an even offset on (RFC 1071), folded to 16 bits and
    /// not inverted, in the byte order in which the text's words were loaded.
    pub reply_sum: u16,
    /// What meta requests are told, where they may be answered from it.
    pub meta: Option<HotMeta>,
}

/// What a meta request may ask of a value beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotMeta {
    /// Where in the reply the value begins, whose line end and `END` line end the reply.
    pub line_bytes: usize,
    /// The client's flags.
    pub flags: u32,
    /// The value's version.
    pub version: u64,
}

/// What a slot answers, without the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotHeld {
    /// Index of the cache.
    pub cache: u16,
    /// Of the cache.
    pub generation: u32,
    /// When the value was written.
    pub epoch: u32,
    /// The feed channel that owns the key; 0 for the clients.
    pub channel: u8,
    /// `CLOCK_MONOTONIC` nanoseconds; 0 is never.
    pub expiry_ns: u64,
    key: [u8; HOT_KEY_BYTES_MAX],
    key_bytes: u8,
}

impl HotHeld {
    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.key[HOT_KEY_BYTES_MAX - usize::from(self.key_bytes)..]
    }
}

/// The key so that it ends with the last word.
fn key_words(key: &[u8]) -> Option<[u64; KEY_WORDS]> {
    if key.is_empty() || key.len() > HOT_KEY_BYTES_MAX {
        return None;
    }
    let mut bytes = [0; HOT_KEY_BYTES_MAX];
    bytes[HOT_KEY_BYTES_MAX - key.len()..].copy_from_slice(key);
    let (words, _) = bytes.as_chunks::<8>();
    Some(std::array::from_fn(|word| u64::from_ne_bytes(words[word])))
}

/// The words of a copy before its reply.
fn head_words(copy: HotCopy) -> [u64; HEAD_WORDS] {
    // SAFETY: `HotCopy` is plain words without padding (its `Plain` assertions), and as long.
    let words = unsafe { std::mem::transmute::<HotCopy, [u64; COPY_WORDS]>(copy) };
    std::array::from_fn(|word| words[word])
}

/// What a copy says for meta requests; all 0: nothing.
#[derive(Clone, Copy, Default)]
struct MetaWords {
    value_sum: u16,
    line_bytes: u8,
    value_bytes: u8,
    flags: ([u64; HOT_FLAGS_WORDS], u8),
    version: ([u64; HOT_VERSION_WORDS], u8),
}

impl MetaWords {
    /// Nothing where the reply is not that of a value.
    fn of(meta: &HotMeta, reply: &[u8]) -> Self {
        let value = reply.strip_suffix(TAIL).and_then(|front| front.get(meta.line_bytes..));
        let Some(value) = value.filter(|_| (1..=255).contains(&meta.line_bytes)) else {
            return Self::default();
        };
        let (pairs, last) = reply[meta.line_bytes..][..value.len() + 2].as_chunks::<2>();
        let pairs = pairs.iter().map(|pair| u32::from(u16::from_ne_bytes(*pair)));
        let last = last.first().map_or(0, |byte| u16::from_ne_bytes([*byte, 0]).into());
        let sum = pairs.sum::<u32>() + last;
        let sum = (sum & 0xffff) + (sum >> 16);
        Self {
            value_sum: ((sum & 0xffff) + (sum >> 16)) as u16,
            line_bytes: meta.line_bytes as u8,
            value_bytes: value.len() as u8,
            flags: digits(meta.flags.into()),
            version: digits(meta.version),
        }
    }
}

/// A number in decimal digits, first digit first, and how many.
fn digits<const WORDS: usize>(mut number: u64) -> ([u64; WORDS], u8) {
    let mut text = [0; 20];
    let mut at = text.len();
    loop {
        at -= 1;
        text[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    let digits = &text[at..];
    let word = |index: usize| {
        let mut word = [0; 8];
        let part = digits.chunks(8).nth(index).unwrap_or_default();
        word[..part.len()].copy_from_slice(part);
        u64::from_ne_bytes(word)
    };
    (std::array::from_fn(word), digits.len() as u8)
}

/// The `hot` map, mapped to be written. Dropping it unmaps it; the slots stay as they are.
#[derive(Debug)]
pub struct HotSlots {
    mapping: Mapping,
}

impl HotSlots {
    /// From the descriptor of `hot`, which is no longer needed afterwards.
    pub fn map(slots: BorrowedFd<'_>) -> Result<Self, SteeringError> {
        check_hot_map(slots, 0)?;
        let words = HOT_SLOTS as usize * SLOT_WORDS;
        Ok(Self { mapping: Mapping::new(slots, words).map_err(SteeringError::Descriptor)? })
    }

    /// The version and both copies of a slot below [`HOT_SLOTS`].
    fn slot(&self, slot: u32) -> (&AtomicU64, [&[AtomicU64]; 2]) {
        let words = &self.mapping.words()[slot as usize * SLOT_WORDS..][..SLOT_WORDS];
        let (version, copies) = words.split_at(1);
        let (first, rest) = copies.split_at(COPY_WORDS);
        (&version[0], [first, &rest[..COPY_WORDS]])
    }

    /// The program answers with this value from the moment this returns, and with what was there until
    /// it does. An error leaves the slot as it was.
    pub fn publish(&mut self, slot: u32, value: &HotValue<'_>) -> Result<(), HotError> {
        let bytes = value.reply_text.len();
        let key = key_words(value.key).ok_or(HotError::Key)?;
        if value.key.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
            return Err(HotError::Key);
        }
        if bytes == 0 || bytes > HOT_REPLY_BYTES_MAX {
            return Err(HotError::Reply { bytes });
        }
        if value.cache >= HOT_CACHES {
            return Err(HotError::Cache { cache: value.cache });
        }
        let meta =
            value.meta.map(|meta| MetaWords::of(&meta, value.reply_text)).unwrap_or_default();
        let head = head_words(HotCopy {
            expiry_ns: value.expiry_ns,
            key,
            cache_generation: value.generation,
            epoch: value.epoch,
            cache: value.cache,
            reply_bytes: bytes as u16,
            reply_sum: value.reply_sum,
            channel: value.channel,
            key_bytes: value.key.len() as u8,
            value_sum: meta.value_sum,
            line_bytes: meta.line_bytes,
            value_bytes: meta.value_bytes,
            flags_bytes: meta.flags.1,
            version_bytes: meta.version.1,
            reserved: 0,
            flags: meta.flags.0,
            version: meta.version.0,
            reply: [0; HOT_REPLY_BYTES_MAX / 8],
        });
        self.replace(slot, |copy| {
            let (head_at, reply_at) = copy.split_at(HEAD_WORDS);
            for (at, word) in head_at.iter().zip(head) {
                at.store(word, Ordering::Relaxed);
            }
            let (words, rest) = value.reply_text.as_chunks::<8>();
            for (at, word) in reply_at.iter().zip(words) {
                at.store(u64::from_ne_bytes(*word), Ordering::Relaxed);
            }
            if !rest.is_empty() {
                let mut last = [0; 8];
                last[..rest.len()].copy_from_slice(rest);
                reply_at[words.len()].store(u64::from_ne_bytes(last), Ordering::Relaxed);
            }
        });
        Ok(())
    }

    /// The program no longer answers from this slot once this returns.
    pub fn empty(&mut self, slot: u32) {
        let (version, copies) = self.slot(slot);
        let current = copies[(version.load(Ordering::Relaxed) & 1) as usize];
        if current[KEY_BYTES_WORD].load(Ordering::Relaxed) == 0 {
            return;
        }
        self.replace(slot, |copy| copy[KEY_BYTES_WORD].store(0, Ordering::Relaxed));
    }

    fn replace(&mut self, slot: u32, fill: impl FnOnce(&[AtomicU64])) {
        let (version, copies) = self.slot(slot);
        let next = version.load(Ordering::Relaxed).wrapping_add(1);
        // No store into the copy may be seen before the version that took it out of use.
        fence(Ordering::Release);
        fill(copies[(next & 1) as usize]);
        // SYNC POINT: pairs with the loads of the version in hot.h, which x86-64 keeps in order.
        version.store(next, Ordering::Release);
    }

    /// What a slot answers, None for an empty one. For the slot's writer: to others it may be torn.
    pub fn holds(&self, slot: u32) -> Option<HotHeld> {
        let (version, copies) = self.slot(slot);
        let copy = copies[(version.load(Ordering::Acquire) & 1) as usize];
        let words = std::array::from_fn(|word| match copy.get(word) {
            Some(at) if word < HEAD_WORDS => at.load(Ordering::Relaxed),
            _ => 0,
        });
        // SAFETY: any words are a valid `HotCopy`, which is as long and has no padding.
        let copy = unsafe { std::mem::transmute::<[u64; COPY_WORDS], HotCopy>(words) };
        if copy.key_bytes == 0 || usize::from(copy.key_bytes) > HOT_KEY_BYTES_MAX {
            return None;
        }
        let mut key = [0; HOT_KEY_BYTES_MAX];
        for (to, word) in key.chunks_exact_mut(8).zip(copy.key) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        Some(HotHeld {
            cache: copy.cache,
            generation: copy.cache_generation,
            epoch: copy.epoch,
            channel: copy.channel,
            expiry_ns: copy.expiry_ns,
            key,
            key_bytes: copy.key_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_the_number() {
        for number in [0, 9, 10, 12_345_678, 123_456_789, u64::from(u32::MAX), u64::MAX] {
            let (words, count) = digits::<HOT_VERSION_WORDS>(number);
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            assert_eq!(bytes[..usize::from(count)], *number.to_string().as_bytes());
            assert!(bytes[usize::from(count)..].iter().all(|byte| *byte == 0));
        }
    }
}
