//! A reader of a table in another process, or another thread.

use super::evict::expired;
use super::hash::KeyHash;
use super::layout::{
    C_EXPIRY_NS, C_LENGTH, C_META, C_VERSION, C_WRITTEN, KEY_BYTES_MAX, LayoutError, Shard,
    VALUE_BYTES_MAX, upper, value_bytes,
};
use super::meta::{Meta, access_of, access_second};
use super::mutation::Marks;
use super::payload::Cursor;
use super::probe::{
    SLOT_BUSY, buckets, is_item, link_at, same_generation, slot_cell, slot_tag, slots,
};
use super::validity::{self, Invalid};
use super::words::{Words, load};
use super::writer::attach_layout;
use crate::sync::{AtomicU64, Ordering, fence, spin_loop};

/// Probes a reader makes before it gives up. Too low: spurious failures next to a busy writer. Too
/// high: a reader hangs on a table that changes faster than it can copy. (Under loom each attempt
/// multiplies the interleavings; two show a retry.)
pub const READER_RETRIES_MAX: usize = if cfg!(loom) { 2 } else { 64 };

/// Age of the region's heartbeat from which a reader no longer trusts that it is the live region.
pub const DETACHED_AGE_NS: u64 = 1_000_000_000;

/// A value that was copied out and may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadHit {
    /// Length of the value, now at the front of the caller's buffer.
    pub value_bytes: usize,
    /// The client's flags.
    pub flags: u32,
    /// Version of the value.
    pub version: u64,
    /// Deadline, `CLOCK_MONOTONIC` nanoseconds; 0 = never.
    pub expiry_ns: u64,
    /// 0 = client-owned.
    pub channel: u8,
    /// When it was stored, `CLOCK_MONOTONIC` microseconds.
    pub written_us: u64,
    /// Second of `CLOCK_MONOTONIC` in which it was last asked for, as the writer knows it, exact to
    /// 34 s. [`TableReader::look`] only; else 0.
    pub last_access_s: u32,
    /// What is noted of it.
    pub marks: Marks,
    /// Whether its feed is suspect. [`TableReader::look`] only.
    pub is_suspect: bool,
}

/// Why a read gave no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The key was not there, or has expired, or was flushed.
    #[error("no such key")]
    Miss,
    /// The key's feed channel has a gap or is silent: the value exists and must not be used.
    #[error("the feed of this key has a gap or is silent")]
    Suspect,
    /// The cache's leader has lost its lease.
    #[error("the lease of this cache has run out")]
    LeaseExpired,
    /// The table changed under [`READER_RETRIES_MAX`] probes.
    #[error("the writer was faster than this reader, try again")]
    WriterBusy,
    /// The buffer is smaller than the value.
    #[error("the value has {value_bytes} bytes, the buffer is smaller")]
    BufferTooSmall {
        /// Length of the value.
        value_bytes: usize,
    },
    /// The owner of the region has not been heard for [`DETACHED_AGE_NS`]: attach again.
    #[error("the region is detached from its owner, attach again")]
    Detached,
}

/// A read-only view of a table. Stores nothing, so a read-only mapping will do.
#[derive(Debug)]
pub struct TableReader<W> {
    pub(super) memory: W,
    pub(super) shards: Box<[Shard]>,
    pub(super) seed: u64,
}

/// One probe lost a race.
struct Raced;

impl<W: Words> TableReader<W> {
    /// A reader of the table in this memory.
    pub fn attach(memory: W) -> Result<Self, LayoutError> {
        let (layout, seed) = attach_layout(memory.words())?;
        Ok(Self { memory, shards: layout.all_shards(), seed })
    }

    /// The number of a key's shard, and of the worker that writes it.
    pub fn shard_index(&self, key: &[u8]) -> u32 {
        KeyHash::new(self.seed, key).shard(self.shards.len() as u32)
    }

    /// Copies the value of `key` to the front of `out`. `now_ns` is `CLOCK_MONOTONIC`, read after the
    /// request arrived. Bounded: at most [`READER_RETRIES_MAX`] probes.
    #[inline]
    pub fn get(&self, key: &[u8], now_ns: u64, out: &mut [u8]) -> Result<ReadHit, ReadError> {
        self.read::<false>(key, now_ns, out)
    }

    /// [`Self::get`] that also gives values whose feed is suspect, and says so, and when a value was
    /// last asked for.
    pub fn look(&self, key: &[u8], now_ns: u64, out: &mut [u8]) -> Result<ReadHit, ReadError> {
        self.read::<true>(key, now_ns, out)
    }

    #[inline]
    fn read<const DETAILS: bool>(
        &self,
        key: &[u8],
        now_ns: u64,
        out: &mut [u8],
    ) -> Result<ReadHit, ReadError> {
        if let Some(heartbeat_ns) = self.memory.heartbeat_ns()
            && now_ns.saturating_sub(heartbeat_ns) > DETACHED_AGE_NS
        {
            return Err(ReadError::Detached);
        }
        let hash = KeyHash::new(self.seed, key);
        let shard = &self.shards[hash.shard(self.shards.len() as u32) as usize];
        for _ in 0..READER_RETRIES_MAX {
            if let Ok(result) = self.probe::<DETAILS>(shard, hash, key, now_ns, out) {
                return result;
            }
            spin_loop();
        }
        Err(ReadError::WriterBusy)
    }

    #[inline]
    fn probe<const DETAILS: bool>(
        &self,
        shard: &Shard,
        hash: KeyHash,
        key: &[u8],
        now_ns: u64,
        out: &mut [u8],
    ) -> Result<Result<ReadHit, ReadError>, Raced> {
        let words = self.memory.words();
        let first_at = shard.bucket(hash.first_bucket(shard));
        // SYNC POINT: pairs with the release stores of `Change::commit`, as do the fences below.
        let first_before = words[first_at].load_acquire();
        let (first, second) = buckets(words, shard, hash);
        let second_before = second.map(|second| words[shard.bucket(second)].load_acquire());
        for bucket in [Some(first), second].into_iter().flatten() {
            for slot in slots(shard, bucket) {
                let word = words[slot].load_acquire();
                if slot_tag(word) != hash.tag() || !is_item(word) {
                    continue;
                }
                if let Some(result) = copy::<DETAILS>(words, shard, (slot, word), key, now_ns, out)?
                {
                    return Ok(result);
                }
            }
        }
        // A miss is validated like a hit: both buckets are as they were.
        fence(Ordering::Acquire);
        let second_after = second.map(|second| load(words, shard.bucket(second)));
        if load(words, first_at) != first_before || second_after != second_before {
            return Err(Raced);
        }
        Ok(Err(ReadError::Miss))
    }
}

/// Copies the item of one slot if it is the key's. `Ok(None)`: it is another key's.
fn copy<const DETAILS: bool>(
    words: &[AtomicU64],
    shard: &Shard,
    (slot, slot_word): (usize, u64),
    key: &[u8],
    now_ns: u64,
    out: &mut [u8],
) -> Result<Option<Result<ReadHit, ReadError>>, Raced> {
    let cell = slot_cell(slot_word);
    // Busy: somebody may have seen the next value in the hot set already.
    if cell >= shard.cells || slot_word & SLOT_BUSY != 0 {
        return Err(Raced);
    }
    let link = words[link_at(shard, cell)].load_acquire();
    if !same_generation(link, slot_word) {
        return Err(Raced);
    }
    let at = shard.cell(cell);
    // Unique, so that generations, which come again, cannot deceive: nothing below is read before it.
    let version = words[at + C_VERSION].load_acquire();
    let meta = Meta::unpack(load(words, at + C_META));
    let expiry_ns = load(words, at + C_EXPIRY_NS);
    let length = load(words, at + C_LENGTH);
    let written = load(words, at + C_WRITTEN);
    let value_bytes = value_bytes(length) as usize;
    if usize::from(meta.key_bytes) > KEY_BYTES_MAX || value_bytes > VALUE_BYTES_MAX {
        return Err(Raced);
    }
    let mut cursor = Cursor::first(shard, cell);
    let same_key = usize::from(meta.key_bytes) == key.len()
        && cursor.matches(words, shard, key).map_err(|_| Raced)?;
    let fits = value_bytes <= out.len();
    if same_key && fits {
        cursor.read(words, shard, &mut out[..value_bytes]).map_err(|_| Raced)?;
    }
    // Whatever was read of the cells' next use, this sees the generation (or the slot) move on.
    fence(Ordering::Acquire);
    let unchanged = same_generation(load(words, link_at(shard, cell)), slot_word)
        && load(words, at + C_VERSION) == version
        && load(words, slot) == slot_word;
    if !unchanged {
        return Err(Raced);
    }
    if !same_key {
        return Ok(None);
    }
    let state = validity::check(words, meta.epoch, meta.channel, now_ns);
    let hit = ReadHit {
        value_bytes,
        flags: upper(length),
        version,
        expiry_ns,
        channel: meta.channel,
        written_us: written >> 16,
        last_access_s: if DETAILS { access_second(access_of(link, &meta), now_ns) } else { 0 },
        marks: Marks { fetched: meta.fetched, stale: meta.stale, won: meta.won },
        is_suspect: state == Err(Invalid::Suspect),
    };
    let result = match state {
        Err(Invalid::LeaseExpired) => Err(ReadError::LeaseExpired),
        Err(Invalid::Flushed) => Err(ReadError::Miss),
        _ if expired(expiry_ns, now_ns) => Err(ReadError::Miss),
        Err(Invalid::Suspect) if !DETAILS => Err(ReadError::Suspect),
        _ if !fits => Err(ReadError::BufferTooSmall { value_bytes }),
        _ => Ok(hit),
    };
    Ok(Some(result))
}
