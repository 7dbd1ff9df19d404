//! Reads, executed by the front itself on the cache's shared memory.

use nautilus_ebpf::intf::Permissions;
use nautilus_shm::sampled_hits::{FRONT_HIT_RING, Sampler};
use nautilus_shm::table::{Ahead, ReadError, TableReader, TableRegion, VALUE_BYTES_MAX};

use super::connection::{Backend, KEYS_TOGETHER};
use super::link::Target;
use super::links::Links;
use super::protocol;
use crate::app::cache::rights;
use crate::memcached::parse::words;

/// The front's read-only view of a cache.
pub struct Reads {
    table: TableReader<TableRegion>,
    sampler: Sampler,
    value: Box<[u8]>,
    /// `CLOCK_MONOTONIC`, read after the request has arrived.
    pub now_ns: u64,
    /// Keys found.
    pub hits: u64,
    /// Keys not found, suspect ones included.
    pub misses: u64,
    /// Requests refused, the source not being allowed to read.
    pub forbidden: u64,
}

impl Reads {
    /// Reads of this table.
    pub fn new(table: TableReader<TableRegion>) -> Self {
        let value = vec![0; VALUE_BYTES_MAX].into();
        let sampler = Sampler::new(0);
        Self { table, sampler, value, now_ns: 0, hits: 0, misses: 0, forbidden: 0 }
    }

    /// [`TableReader::prefetch`].
    #[inline]
    pub fn ask_bucket(&self, key: &[u8]) -> Ahead {
        self.table.prefetch(key)
    }

    /// [`TableReader::prefetch_cell`].
    #[inline]
    pub fn ask_cell(&self, ahead: Ahead) {
        self.table.prefetch_cell(ahead);
    }

    fn ahead(&self, keys: &[u8]) {
        let mut asked = [None; KEYS_TOGETHER];
        for (key, asked) in words(keys).zip(&mut asked) {
            *asked = Some(self.ask_bucket(key));
        }
        asked.into_iter().flatten().for_each(|ahead| self.ask_cell(ahead));
    }

    #[inline]
    fn read(&mut self, key: &[u8], with_version: bool, out: &mut Vec<u8>) -> bool {
        match self.table.get(key, self.now_ns, &mut self.value) {
            Ok(hit) => {
                self.hits += 1;
                if self.sampler.wants(self.now_ns) {
                    self.table.tell(FRONT_HIT_RING, key);
                }
                let value = &self.value[..hit.value_bytes];
                protocol::write_item(key, &hit, with_version, value, out);
                true
            }
            Err(ReadError::Miss | ReadError::Suspect | ReadError::LeaseExpired) => {
                self.misses += 1;
                true
            }
            // A writer that died in the middle of a change, or a supervisor that is away: the worker
            // knows, and its successor repairs first.
            Err(ReadError::WriterBusy | ReadError::Detached | ReadError::BufferTooSmall { .. }) => {
                false
            }
        }
    }
}

/// Reads and the way to the worker, for one connection.
pub struct At<'a, 'l> {
    /// Executes reads.
    pub reads: &'a mut Reads,
    /// Take everything else.
    pub links: &'a mut Links<'l>,
    /// The connection's cache.
    pub target: Target,
    /// The connection's number.
    pub number: u64,
    /// What its source may do with the cache.
    pub permissions: Permissions,
}

impl Backend for At<'_, '_> {
    #[inline]
    fn refusal(&mut self) -> Option<&'static [u8]> {
        let refusal = rights::refusal(self.permissions, Permissions::READ);
        self.reads.forbidden += u64::from(refusal.is_some());
        refusal
    }

    fn ahead(&mut self, keys: &[u8]) {
        self.reads.ahead(keys);
    }

    #[inline]
    fn read(&mut self, key: &[u8], with_version: bool, out: &mut Vec<u8>) -> bool {
        self.reads.read(key, with_version, out)
    }

    fn worker_of(&self, command: &[u8]) -> usize {
        self.links.worker_of(command, |key| self.reads.table.shard_index(key))
    }

    fn forward(&mut self, worker: usize, command: &[u8]) -> bool {
        self.links.forward(worker, self.target, self.number, self.permissions, command)
    }
}
