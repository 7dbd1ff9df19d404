//! A `get` of several keys, or of keys of another worker's, whose answer is put together of pieces.

use nautilus_shm::table::{Guess, HotSet, ReadError, TableWriter, Words};

use super::reads;
use super::sink::Sink;
use super::table::{Look, ReadTable, Wants};
use super::{CacheApp, END};
use crate::memcached::parse::words;

/// Keys of one request that are looked up together. Too low: waits for memory are not overlapped. Too
/// high: the first lines are gone from the cache when they are used.
const LOOKUPS_TOGETHER: usize = 32;

impl<W: Words, H: HotSet> CacheApp<W, H> {
    /// Answers a `get` of any keys into the pieces. A worker is returned that has to answer instead,
    /// because its part of the table cannot be read at this moment.
    pub(super) fn get_several(
        &mut self,
        now_ns: u64,
        keys: &[u8],
        with_version: bool,
    ) -> Option<usize> {
        let mut words = words(keys);
        let nothing = (self.core.hash(b""), Guess::default());
        let mut together = [(&b""[..], nothing); LOOKUPS_TOGETHER];
        loop {
            let mut count = 0;
            for (place, key) in together.iter_mut().zip(words.by_ref()) {
                *place = (key, (self.core.hash(key), Guess::default()));
                self.core.table.prefetch_bucket(place.1.0);
                count += 1;
            }
            if count == 0 {
                break;
            }
            for (_, (hash, guess)) in &mut together[..count] {
                *guess = self.core.table.prefetch_cell(*hash);
            }
            for (_, (hash, guess)) in &together[..count] {
                self.core.table.prefetch_rest(*hash, *guess);
            }
            for &(key, place) in &together[..count] {
                if self.sharing.is_some() && !self.core.table.owns(place.0) {
                    let Ok(()) = self.get_anothers(now_ns, key, with_version) else {
                        return Some(self.core.table.shard_index(place.0) as usize);
                    };
                } else if let Some(hit) = self.look_up(now_ns, place, key, with_version) {
                    let (table, pieces) = (&self.core.table, &mut self.pieces);
                    reads::write_value(table, key, &(&hit).into(), &hit, with_version, pieces);
                }
            }
        }
        Sink::<TableWriter<W, H>>::text(&mut self.pieces, END);
        None
    }

    /// Reads a key of another worker's into the pieces.
    fn get_anothers(
        &mut self,
        now_ns: u64,
        key: &[u8],
        with_version: bool,
    ) -> Result<(), ReadError> {
        let Some(sharing) = &mut self.sharing else { return Ok(()) };
        let table = &mut sharing.table;
        let look = table.look(key, now_ns, Wants::default());
        match look {
            Look::Hit(item, value) => {
                reads::write_value(table, key, &item, &value, with_version, &mut self.pieces);
                sharing.found(now_ns, key);
            }
            Look::Miss | Look::Suspect(..) => {}
            Look::Unavailable(error) => return Err(error),
        }
        self.core.count_look_up(matches!(look, Look::Hit(..)), with_version);
        Ok(())
    }
}
