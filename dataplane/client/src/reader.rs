//! One cache, as one thread reads it.

use std::path::Path;
use std::sync::Arc;

use nautilus_shm::clock::monotonic_ns;

use crate::attach::{Attachment, Found, Place};
use crate::error::{AttachError, ReadError};
use crate::telling::Telling;

/// The version of a key that is not there; no value has it.
pub const VERSION_MISS: u64 = 0;

/// The version of a key that is suspect; no value has it.
pub const VERSION_SUSPECT: u64 = u64::MAX;

/// Least time between two tries of a reader that attaches again by itself. Too low: the reads of a
/// dead node are spent on connecting; too high: a restarted node is read that much later.
const AGAIN_NS: u64 = 20_000_000;

/// What is known of a value that was copied out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    /// Length of the value, now at the front of the caller's buffer; at most 1 MiB.
    pub value_bytes: usize,
    /// The writer's flags; 0 for a feed's records.
    pub flags: u32,
    /// Rises with every change of the key, unique in its shard: memcached's CAS unique.
    pub version: u64,
    /// When the value ends, `CLOCK_MONOTONIC` nanoseconds; 0 = never.
    pub expiry_ns: u64,
    /// Channel of the feed that owns the key; 0 = clients own it.
    pub channel: u8,
}

/// What [`CacheReader::reattach`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reattached {
    /// The memory this reader has: its supervisor was away, the values are the same.
    SameMemory,
    /// Another memory: the node has started anew, and its cache began empty.
    NewMemory,
}

/// A cache of a node on this host, mapped read-only.
///
/// A read is wait-free unless its key is being written, and then takes at most 64 tries; it allocates
/// nothing, and makes no system call. A reader is used by one thread at a time; [`Self::clone`] gives
/// another thread its own, over the same mapping.
#[derive(Clone, Debug)]
pub struct CacheReader {
    pub(crate) memory: Arc<Attachment>,
    place: Arc<Place>,
    automatic: bool,
    next_try_ns: u64,
    pub(crate) telling: Telling,
}

impl CacheReader {
    /// Attaches to the cache `id` of the node whose run directory, or `supervisor.sock`, is at `path`.
    /// The calling user must be on the cache's list (`readers` in the node file), or be root or the
    /// supervisor's own. Takes at most about a second and maps the whole cache.
    pub fn attach(path: impl AsRef<Path>, id: &str) -> Result<Self, AttachError> {
        let place = Place::new(path.as_ref(), id)?;
        let Found::Other(memory) = place.attach(None)? else {
            unreachable!("no memory is known yet");
        };
        let (memory, place) = (Arc::new(memory), Arc::new(place));
        let telling = Telling::new();
        Ok(Self { memory, place, automatic: false, next_try_ns: 0, telling })
    }

    /// Whether a read that would say [`ReadError::Detached`] first attaches again, at most every 20 ms.
    /// Such a read takes system calls and, next to a supervisor that is stopped but not dead, half a
    /// second. Off at first.
    pub fn set_automatic(&mut self, automatic: bool) {
        self.automatic = automatic;
    }

    /// Copies the value of `key` to the front of `out`. A key longer than 250 bytes is a miss.
    #[inline]
    pub fn get(&mut self, key: &[u8], out: &mut [u8]) -> Result<Value, ReadError> {
        // Read after the call has begun: what has expired by now is not returned.
        let now_ns = monotonic_ns();
        match self.memory.get(key, now_ns, out) {
            Ok(value) => {
                self.telling.found(&self.memory.table, key, now_ns);
                Ok(value)
            }
            Err(ReadError::Detached) if self.automatic => self.get_again(key, out),
            result => result,
        }
    }

    /// How long ago the memory's owner was last heard, in nanoseconds; reads say
    /// [`ReadError::Detached`] above 1 s.
    pub fn heartbeat_age_ns(&self) -> u64 {
        self.memory.table.heartbeat_age_ns(monotonic_ns())
    }

    /// Asks the supervisor again, after [`ReadError::Detached`]. Other threads' readers keep what they
    /// have until they do the same. After an error this reader is as it was.
    pub fn reattach(&mut self) -> Result<Reattached, AttachError> {
        match self.place.attach(Some(&self.memory))? {
            Found::Same => Ok(Reattached::SameMemory),
            Found::Other(memory) => {
                self.memory = Arc::new(memory);
                Ok(Reattached::NewMemory)
            }
        }
    }

    #[cold]
    fn get_again(&mut self, key: &[u8], out: &mut [u8]) -> Result<Value, ReadError> {
        if !self.reattach_in_turn() {
            return Err(ReadError::Detached);
        }
        self.memory.get(key, monotonic_ns(), out)
    }

    /// Attaches again if this reader does so by itself and has not tried just now.
    pub(crate) fn reattach_in_turn(&mut self) -> bool {
        let now_ns = monotonic_ns();
        if !self.automatic || now_ns < self.next_try_ns {
            return false;
        }
        let attached = self.reattach().is_ok();
        self.next_try_ns = monotonic_ns() + AGAIN_NS;
        attached
    }

    /// Whether this reader attaches again by itself.
    pub(crate) fn is_automatic(&self) -> bool {
        self.automatic
    }
}

impl Attachment {
    #[inline]
    pub fn get(&self, key: &[u8], now_ns: u64, out: &mut [u8]) -> Result<Value, ReadError> {
        let hit = self.table.get(key, now_ns, out)?;
        Ok(Value {
            value_bytes: hit.value_bytes,
            flags: hit.flags,
            version: hit.version,
            expiry_ns: hit.expiry_ns,
            channel: hit.channel,
        })
    }
}
