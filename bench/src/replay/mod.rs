//! A5's load: who asks for what, replayed against any cache.
//!
//! ```text
//!   trace.rs   a recorded trace, cut --+                   +--> table.rs       the product's table
//!   market.rs  a made-up market day ---+--> run: batches --+--> memcached.rs   the peer
//!                                                          '--> reference.rs   LRU, FIFO
//! ```
//!
//! A read that misses is filled from the origin, which knows everything. Requests go out in batches in
//! which no key comes twice; a batch's misses are filled after its last request, in order. Every cache
//! gets the same batches, so that a peer behind a socket need not answer one request at a time.

pub mod market;
pub mod memcached;
pub mod reference;
pub mod table;
pub mod trace;

#[cfg(test)]
mod oracle_test;

use std::collections::HashSet;

/// Requests of one batch, at most. Too low: round trips to the peer. Too high: a fill comes later than
/// it would.
const BATCH_MAX: usize = 32;

/// A key of at most 24 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    bytes: [u8; 24],
    length: u8,
}

impl Key {
    /// From at most 24 bytes; more are cut off.
    pub fn new(text: &str) -> Self {
        let mut bytes = [0; 24];
        let length = text.len().min(bytes.len());
        bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
        Self { bytes, length: length as u8 }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Which key.
    pub key: Key,
    /// Bytes of the value that is written, or filled in after a miss.
    pub value_bytes: u32,
    /// A write; else a read.
    pub write: bool,
}

/// What is replayed against.
pub trait Cache {
    /// Does a batch in which no key comes twice, then fills what its reads missed. Returns the number
    /// of reads that hit.
    fn batch(&mut self, batch: &[Access]) -> anyhow::Result<u64>;
}

/// Reads and how many of them hit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Reads.
    pub reads_count: u64,
    /// Of these, hits.
    pub hits_count: u64,
}

impl Outcome {
    /// Hits of reads, 0 to 1.
    pub fn hit_ratio(&self) -> f64 {
        self.hits_count as f64 / self.reads_count.max(1) as f64
    }
}

/// Replays the accesses.
pub fn run(accesses: &[Access], cache: &mut dyn Cache) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut keys = HashSet::new();
    let mut start = 0;
    while start < accesses.len() {
        keys.clear();
        let rest = &accesses[start..];
        let length = rest.iter().take(BATCH_MAX).take_while(|one| keys.insert(one.key)).count();
        let batch = &rest[..length];
        outcome.reads_count += batch.iter().filter(|access| !access.write).count() as u64;
        outcome.hits_count += cache.batch(batch)?;
        start += length;
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remembers everything, and the batches.
    #[derive(Default)]
    struct Endless {
        keys: HashSet<Key>,
        batches: Vec<usize>,
    }

    impl Cache for Endless {
        fn batch(&mut self, batch: &[Access]) -> anyhow::Result<u64> {
            self.batches.push(batch.len());
            let hits = batch.iter().filter(|one| !self.keys.insert(one.key) && !one.write).count();
            Ok(hits as u64)
        }
    }

    #[test]
    fn batches_end_before_a_key_comes_again() {
        let access = |number: u32, write| Access {
            key: Key::new(&number.to_string()),
            value_bytes: 1,
            write,
        };
        let mut accesses = vec![access(1, true), access(2, false), access(1, false)];
        accesses.extend((10..50).map(|number| access(number, false)));
        let mut cache = Endless::default();
        let outcome = run(&accesses, &mut cache).unwrap();
        assert_eq!(cache.batches, [2, 32, 9]);
        assert_eq!(outcome, Outcome { reads_count: 42, hits_count: 1 });
    }
}
