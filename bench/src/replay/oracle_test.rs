//! The published miss counts, and the shipped policy against the reference at equal capacity.

use std::path::PathBuf;

use nautilus_tests::repository;

use super::reference::{Policy, Reference};
use super::table::{Unit, misses};
use super::trace::{self, Request, SIZES_MIB};

/// libCacheSim's own test values, as the data folder quotes them, for [`SIZES_MIB`].
const LRU: [u64; 8] = [93_374, 89_783, 83_572, 81_722, 72_494, 72_104, 71_972, 71_704];
const FIFO: [u64; 8] = [93_403, 89_386, 84_387, 84_025, 72_498, 72_228, 72_182, 72_140];
const LRU_BYTES: [u64; 8] = [
    4_214_303_232,
    4_061_242_368,
    3_778_040_320,
    3_660_569_600,
    3_100_927_488,
    3_078_128_640,
    3_075_403_776,
    3_061_662_720,
];

fn trace_or_skip(what: &str) -> Option<Vec<Request>> {
    let data: PathBuf = repository::data_or_skip(what)?;
    Some(trace::read(&data).unwrap())
}

#[test]
fn lru_and_fifo_miss_as_often_as_published() {
    let Some(trace) = trace_or_skip("the published miss counts") else { return };
    assert_eq!(trace.len(), 113_872);
    for (index, size_mib) in SIZES_MIB.into_iter().enumerate() {
        let capacity_bytes = u64::from(size_mib) << 20;
        let lru = Reference::new(Policy::Lru, capacity_bytes).run(&trace);
        let fifo = Reference::new(Policy::Fifo, capacity_bytes).run(&trace);
        assert_eq!((lru.count, lru.bytes), (LRU[index], LRU_BYTES[index]), "LRU, {size_mib} MiB");
        assert_eq!(fifo.count, FIFO[index], "FIFO, {size_mib} MiB");
    }
}

#[test]
fn the_shipped_policy_misses_less_than_lru() {
    let Some(trace) = trace_or_skip("the policy against LRU") else { return };
    let objects: Vec<Request> =
        trace.iter().map(|request| Request { bytes: 1, ..*request }).collect();
    for (size_mib, published) in SIZES_MIB.into_iter().zip(LRU) {
        for unit in [Unit::Block, Unit::Object] {
            let cells = unit.capacity(u64::from(size_mib) << 20, &trace);
            let lru = match unit {
                Unit::Block => published,
                Unit::Object => Reference::new(Policy::Lru, cells.into()).run(&objects).count,
            };
            let ours = misses(&trace, unit, cells, 1).unwrap();
            println!("{unit:?}, {size_mib} MiB or {cells} cells: {ours} misses, LRU {lru}");
            assert!(ours < lru, "{unit:?}, {size_mib} MiB: {ours}, LRU {lru}");
        }
    }
}
