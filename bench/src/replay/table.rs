//! The product's table as a cache to replay against, in this process: the policy is the table's, the
//! way to it does not matter to a hit ratio.

use nautilus_shm::table::{
    ApplyError, Layout, Mutation, Op, TableWriter, Words, cells_for, heap_words,
};

use super::trace::{BLOCK_BYTES, Request};
use super::{Access, Cache};

/// A time at which nothing has expired; hit ratios know no clock.
const NOW_NS: u64 = 1;

/// Largest value of any replay.
const VALUE_BYTES_MAX: usize = 1 << 17;

/// A table and the bytes it is filled with.
pub struct Table<W> {
    writer: TableWriter<W>,
    value: Vec<u8>,
}

/// The first page of a cache's memory is not the table's.
const REGION_HEADER_BYTES: usize = 4096;

/// A table of the memory a cache of `max_memory_mb` has: index and everything else inside it. On the
/// heap, for making a gigabyte of a cache's huge pages takes longer than a replay.
pub fn of_memory(max_memory_mb: u32, seed: u64) -> anyhow::Result<Table<impl Words>> {
    let bytes = ((max_memory_mb as usize) << 20) - REGION_HEADER_BYTES;
    let writer = TableWriter::create(heap_words(bytes), 1, seed)?;
    Ok(Table { writer, value: vec![b'v'; VALUE_BYTES_MAX] })
}

impl<W: Words> Table<W> {
    fn hits(&mut self, key: &[u8]) -> bool {
        self.writer.get(self.writer.hash(key), key, NOW_NS).is_some()
    }

    fn put(&mut self, key: &[u8], value_bytes: usize) -> Result<(), ApplyError> {
        let set = Mutation::new(key, Op::Set(&self.value[..value_bytes]));
        self.writer.apply(self.writer.hash(key), &set, NOW_NS).map(drop)
    }
}

impl<W: Words> Cache for Table<W> {
    fn batch(&mut self, batch: &[Access]) -> anyhow::Result<u64> {
        let mut missed = [false; super::BATCH_MAX];
        let mut hits_count = 0;
        for (access, missed) in batch.iter().zip(&mut missed) {
            let key = access.key.as_bytes();
            if access.write {
                self.put(key, access.value_bytes as usize)?;
            } else if self.hits(key) {
                hits_count += 1;
            } else {
                *missed = true;
            }
        }
        for (access, _) in batch.iter().zip(missed).filter(|(_, missed)| *missed) {
            self.put(access.key.as_bytes(), access.value_bytes as usize)?;
        }
        Ok(hits_count)
    }
}

/// How a capacity is counted when the policy alone is compared with a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// In bytes: an object takes one cell for each block of the trace.
    Block,
    /// In objects: each takes one cell, whatever its size. Then there are as many items as cells, and
    /// what bounds index and ghosts is felt most.
    Object,
}

impl Unit {
    /// Cells of an object.
    fn cells(self, request: &Request) -> u32 {
        match self {
            Self::Block => request.bytes / BLOCK_BYTES,
            Self::Object => 1,
        }
    }

    /// Cells of a cache of so many bytes; objects are taken to have the trace's mean size.
    pub fn capacity(self, capacity_bytes: u64, trace: &[Request]) -> u32 {
        match self {
            Self::Block => (capacity_bytes / u64::from(BLOCK_BYTES)) as u32,
            Self::Object => {
                let mut sizes: Vec<(u64, u32)> =
                    trace.iter().map(|request| (request.object, request.bytes)).collect();
                sizes.sort_unstable();
                sizes.dedup();
                let bytes: u64 = sizes.iter().map(|&(_, bytes)| u64::from(bytes)).sum();
                (capacity_bytes * sizes.len() as u64 / bytes) as u32
            }
        }
    }
}

/// Replays a trace, one request after the other, against a table of exactly `cells` cells. Returns the
/// misses.
pub fn misses(trace: &[Request], unit: Unit, cells: u32, seed: u64) -> anyhow::Result<u64> {
    let words = Layout::words_for(cells, 1);
    let writer = TableWriter::create(heap_words(words * 8), 1, seed)?;
    let has = writer.layout().cells_per_shard;
    anyhow::ensure!(has == cells, "a table of {cells} cells was wanted, it has {has}");
    let mut table = Table { writer, value: vec![b'v'; VALUE_BYTES_MAX] };
    let mut misses_count = 0;
    for request in trace {
        let key = request.object.to_le_bytes();
        if !table.hits(&key) {
            misses_count += 1;
            table.put(&key, value_of_cells(unit.cells(request)))?;
        }
    }
    Ok(misses_count)
}

/// Bytes of the largest value that, with a key of 8 bytes, takes so many cells: of 16 cells each as many
/// runs as it fills, and cells.
fn value_of_cells(cells: u32) -> usize {
    let (runs, further) = ((cells as usize - 1) / 16, (cells as usize - 1) % 16);
    let value_bytes = 72 + 120 * further + 2_168 * runs;
    debug_assert_eq!(cells_for(8, value_bytes), cells);
    value_bytes
}

#[cfg(test)]
mod tests {
    use nautilus_shm::table::TableRegion;

    use super::super::Key;
    use super::*;

    #[test]
    fn a_value_takes_exactly_its_cells() {
        for cells in [1, 2, 3, 16, 17, 136] {
            let value_bytes = value_of_cells(cells);
            assert_eq!(cells_for(8, value_bytes), cells);
            assert_eq!(cells_for(8, value_bytes + 1), cells + 1);
        }
    }

    #[test]
    fn a_table_here_has_the_cells_of_a_cache() {
        let region = TableRegion::create(2, false).unwrap();
        let cache = TableWriter::create(region, 1, 1).unwrap();
        assert_eq!(of_memory(2, 1).unwrap().writer.layout(), cache.layout());
    }

    #[test]
    fn what_fits_misses_once() {
        let trace: Vec<Request> =
            (0..3).flat_map(|_| (0..50).map(|object| Request { object, bytes: 1_024 })).collect();
        assert_eq!(misses(&trace, Unit::Block, 120, 5).unwrap(), 50);
        assert_eq!(misses(&trace, Unit::Object, 60, 5).unwrap(), 50);
        assert!(misses(&trace, Unit::Block, 60, 5).unwrap() > 50);
        assert_eq!(Unit::Block.capacity(1 << 20, &trace), 2_048);
        assert_eq!(Unit::Object.capacity(1 << 20, &trace), 1_024);
    }

    #[test]
    fn a_batch_fills_what_its_reads_missed_and_stores_its_writes() {
        let access = |key: &str, write| Access { key: Key::new(key), value_bytes: 300, write };
        let batch = [access("read", false), access("written", true)];
        let mut table = of_memory(1, 1).unwrap();
        assert_eq!(table.batch(&batch).unwrap(), 0);
        assert_eq!(table.batch(&batch.map(|one| Access { write: false, ..one })).unwrap(), 2);
    }
}
