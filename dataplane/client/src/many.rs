//! Several keys in one call: the memory is asked for all of them before the first is looked at.

use nautilus_shm::clock::monotonic_ns;

use crate::error::ReadError;
use crate::reader::{CacheReader, Value};

/// Keys whose buckets are asked for together. Too low: each look-up waits for memory alone; too high:
/// the first lines are evicted from the nearest cache before their turn, and the processor has no more
/// than a dozen requests under way anyway.
pub(crate) const TOGETHER: usize = 16;

/// One key of a [`CacheReader::get_many`], and what became of it.
#[derive(Debug)]
pub struct Read<'a> {
    /// The key asked for.
    pub key: &'a [u8],
    /// Where its value goes.
    pub out: &'a mut [u8],
    /// The answer; before the call anything.
    pub result: Result<Value, ReadError>,
}

impl<'a> Read<'a> {
    /// A key to be read into `out`.
    pub fn new(key: &'a [u8], out: &'a mut [u8]) -> Self {
        Self { key, out, result: Err(ReadError::Miss) }
    }
}

impl CacheReader {
    /// Reads every key. Each is read at one instant of its own within the call; the answers together
    /// are no snapshot. Without [`Self::set_automatic`] it makes no system call.
    pub fn get_many(&mut self, reads: &mut [Read<'_>]) {
        self.pass(reads);
        // The owner's silence only grows longer: the last answer has seen most of it.
        let detached = reads.last().is_some_and(|read| read.result == Err(ReadError::Detached));
        if detached && self.reattach_in_turn() {
            self.pass(reads);
        }
    }

    fn pass(&mut self, reads: &mut [Read<'_>]) {
        for group in reads.chunks_mut(TOGETHER) {
            let now_ns = monotonic_ns();
            let table = &self.memory.table;
            let mut ahead = [None; TOGETHER];
            for (read, ahead) in group.iter().zip(&mut ahead) {
                *ahead = Some(table.prefetch(read.key));
            }
            for ahead in ahead.into_iter().flatten() {
                table.prefetch_cell(ahead);
            }
            for read in group {
                read.result = self.memory.get(read.key, now_ns, read.out);
                if read.result.is_ok() {
                    self.telling.found(table, read.key, now_ns);
                }
            }
        }
    }
}
