//! A worker's own memory of the next hops it uses.

use super::{NextHop, NextHopTable, Query, Unresolved};

/// Answers kept. Too low: a worker with more peers than this looks up in the table (microseconds)
/// for each of their packets. Too high: the answers crowd the cache that packets need.
const ENTRIES: usize = 1024;

#[derive(Clone, Copy)]
struct Answer {
    version: u64,
    query: Query,
    hop: NextHop,
}

/// Direct-mapped, private to one worker. An answer is good while the table's version is that of the
/// answer; a new version empties the cache by itself.
pub struct NextHopCache<'a> {
    table: &'a NextHopTable,
    answers: Box<[Option<Answer>; ENTRIES]>,
}

impl<'a> NextHopCache<'a> {
    /// An empty cache in front of `table`. Allocates, once.
    pub fn new(table: &'a NextHopTable) -> Self {
        let answers = vec![None; ENTRIES].into_boxed_slice().try_into();
        Self { table, answers: answers.unwrap_or_else(|_| unreachable!("the length is ENTRIES")) }
    }

    /// As [`NextHopTable::lookup`]. Only found hops are kept: what is missing is looked up again.
    #[inline]
    pub fn lookup(&mut self, query: &Query) -> Result<NextHop, Unresolved> {
        let index = index_of(query);
        if let Some(answer) = &self.answers[index]
            && answer.query == *query
            && answer.version == self.table.version()
        {
            return Ok(answer.hop);
        }
        let (found, version) = self.table.lookup_versioned(query)?;
        let hop = found?;
        self.answers[index] = Some(Answer { version, query: *query, hop });
        Ok(hop)
    }
}

fn index_of(query: &Query) -> usize {
    let (high, low) = (super::high(&query.destination), super::low(&query.destination));
    let [outer, inner] = query.vlans.unwrap_or([u16::MAX; 2]);
    let link = u64::from(query.ifindex) | u64::from(outer) << 32 | u64::from(inner) << 48;
    // Fibonacci hashing: the top bits of a product with 2^64 / golden ratio.
    let mixed =
        (high ^ low.rotate_left(29) ^ link.rotate_left(43)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (64 - ENTRIES.trailing_zeros())) as usize
}
