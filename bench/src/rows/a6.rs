//! A6: the engine alone. Frames in memory go through the worker's own parser, checksums, cache
//! application and frame building; the driver is the dataplane's (`app/cache/engine.rs`).

use nautilus_dataplane::app::cache::engine;
use nautilus_shm::table::{TableRegion, TableWriter};

use crate::clock::{GENERATOR_CORE, SERVER_CORE, pin};
use crate::probe::Beside;
use crate::run::{Bench, Half};

const KEYS: u64 = 1_000_000;
const VALUE_BYTES: usize = 64;
/// Memory of the table: a million cells of this size with room for the index.
const TABLE_MB: u32 = 512;

/// The row.
pub struct A6 {
    bursts: usize,
    seed: u64,
}

impl A6 {
    /// Nothing to set up.
    pub fn new(quick: bool) -> Self {
        Self { bursts: if quick { 8_192 } else { 32_768 }, seed: 0x6e61_7574 }
    }
}

impl Bench for A6 {
    fn sides(&self) -> Vec<String> {
        vec!["nautilus".into()]
    }

    fn peer_of(&self, _measure: usize) -> Option<usize> {
        None
    }

    fn half(&mut self, _side: usize) -> anyhow::Result<Half> {
        self.seed = self.seed.wrapping_add(0x9e37_79b9);
        let (bursts, seed) = (self.bursts, self.seed);
        let beside = Beside::start(GENERATOR_CORE);
        let report = std::thread::spawn(move || -> anyhow::Result<_> {
            pin(SERVER_CORE)?;
            let table = TableWriter::create(TableRegion::create(TABLE_MB, false)?, 1, seed)?;
            Ok(engine::run(table, KEYS, VALUE_BYTES, bursts, seed))
        });
        let report = report.join().map_err(|_| anyhow::anyhow!("the engine panicked"))??;
        let held_share = beside.stop();
        anyhow::ensure!(
            report.hits_count == report.requests_count && report.discarded_count == 0,
            "the engine answered {} of {} requests and discarded {} frames",
            report.hits_count,
            report.requests_count,
            report.discarded_count
        );
        let ns_per_op = report.elapsed.as_nanos() as f64 / report.requests_count as f64;
        Ok(Half { values: vec![Some(ns_per_op)], held_share, ..Half::default() })
    }
}
