//! A read that says more: how old the value is, and what a suspect feed left there.

use nautilus_shm::clock::monotonic_ns;

use crate::error::ReadError;
use crate::reader::{CacheReader, Value};

/// A value with what is known about it beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// As [`CacheReader::get`] has it.
    pub value: Value,
    /// When it was stored, `CLOCK_MONOTONIC` microseconds.
    pub written_us: u64,
    /// When it was read, `CLOCK_MONOTONIC` nanoseconds, after the call had begun.
    pub now_ns: u64,
    /// Its feed has a gap, is silent, or its worker is dead: the value must not be traded on.
    pub is_suspect: bool,
}

impl CacheReader {
    /// [`Self::get`] that also gives values whose feed is suspect, marked as such, where `get` says
    /// [`ReadError::Suspect`]. Does not attach again by itself.
    pub fn look(&mut self, key: &[u8], out: &mut [u8]) -> Result<Look, ReadError> {
        let now_ns = monotonic_ns();
        let hit = self.memory.table.look(key, now_ns, out)?;
        self.telling.found(&self.memory.table, key, now_ns);
        let value = Value {
            value_bytes: hit.value_bytes,
            flags: hit.flags,
            version: hit.version,
            expiry_ns: hit.expiry_ns,
            channel: hit.channel,
        };
        Ok(Look { value, written_us: hit.written_us, now_ns, is_suspect: hit.is_suspect })
    }
}
