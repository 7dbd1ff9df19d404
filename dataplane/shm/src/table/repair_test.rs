//! What a successor takes to repair the table of a killed writer, in a small table and in a large one:
//! pages of a mapping of its own that it touches, and time.
//!
//! `NAUTILUS_REPAIR_KEYS=10000000` (2 GB) and `NAUTILUS_REPAIR_KILLS=1000`, in a release build, measure
//! what a node of that size would take.

use std::time::Instant;

use super::intent::RECORD_ENTRIES_MAX;
use super::kill_test::{Random, Step};
use super::layout::{S_INTENT, cells_for};
use super::region::spec;
use super::words::load;
use super::*;
use crate::region::{Access, Region};
use crate::sync::{Outcome, kill_after};

/// Keys of the small table.
const FEW_KEYS: u64 = 10_000;

/// Stores after which a step is killed: from the last ones of the record to the last of the step, about.
const STORES: std::ops::Range<u64> = 25..75;

/// Bytes that are read between a kill and the repair, so that the successor finds nothing in the
/// caches, as after a change of processes.
const OTHER_BYTES: usize = 16 << 20;

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

/// How often the kernel has mapped a page on this thread's demand.
fn faults() -> u64 {
    // SAFETY: plain numbers, for which zero is a value, filled by the call; the pointer is to them.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &mut usage);
        usage
    };
    usage.ru_minflt as u64
}

/// Takes every page of the table out of this mapping; the memfd keeps them.
fn unmap_pages(table: &TableRegion) {
    let words = table.words();
    // SAFETY: whole pages of a shared mapping, of which nothing is lost; they come back when touched.
    let result = unsafe {
        let start = words.as_ptr().cast_mut().cast();
        libc::madvise(start, size_of_val(words), libc::MADV_DONTNEED)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn key(number: u64) -> Vec<u8> {
    format!("key:{number:012}").into_bytes()
}

/// A table of `keys` keys, about as full as it can be without eviction, mapped for a writer and two
/// successors.
fn filled(keys: u64) -> [TableRegion; 3] {
    let cells = keys * u64::from(cells_for(16, 48)) * 110 / 100;
    let mib = (cells * 176).div_ceil(1 << 20) + 1;
    // Not in huge pages, of which a sweep of the table would touch few.
    let region = Region::create(c"nautilus-cache", &spec((mib as usize) << 20, false)).unwrap();
    let map = || {
        let fd = region.fd().try_clone_to_owned().unwrap();
        TableRegion::attach(fd, Access::ReadWrite).unwrap()
    };
    let mut table = TableWriter::create(map(), 1, 0x5eed).unwrap();
    for number in 0..keys {
        Step::Put(key(number), vec![number as u8; 48]).run(&mut table);
    }
    assert!(table.usage().items_count > keys * 99 / 100);
    std::array::from_fn(|_| map())
}

/// What repairs took.
#[derive(Debug, Default)]
struct Repairs {
    /// Of those that found a record, nanoseconds, ascending.
    times_ns: Vec<u64>,
    faults: Vec<u64>,
    without_record: u64,
}

impl Repairs {
    fn at(&self, permille: usize) -> u64 {
        self.times_ns[self.times_ns.len() * permille / 1000]
    }
}

fn repairs(keys: u64, kills: u64) -> Repairs {
    let [victim, timed, counted] = filled(keys);
    let other = vec![1_u8; OTHER_BYTES];
    let mut random = Random(keys | 1);
    let mut repairs = Repairs::default();
    while (repairs.faults.len() as u64) < kills {
        let mut table = TableWriter::attach(&victim).unwrap();
        let key = key(random.below(keys + keys / 50));
        let step = match random.below(4) {
            0 => Step::Delete(key),
            _ => Step::Put(key, vec![7; random.below(49) as usize]),
        };
        if kill_after(STORES.start + random.below(STORES.end - STORES.start), || {
            step.run(&mut table)
        }) != Outcome::Killed
        {
            continue;
        }
        let record = table.layout().shard(0).base + S_INTENT;
        let has_record = load(table.memory().words(), record) != 0;
        std::hint::black_box(
            other.iter().step_by(64).fold(0_u8, |sum, byte| sum.wrapping_add(*byte)),
        );
        // One repair shows how long it takes, the next what it touches.
        let counts_pages = repairs.faults.len() < repairs.times_ns.len();
        let successor = if counts_pages { &counted } else { &timed };
        if counts_pages {
            unmap_pages(successor);
        }
        let (before, begin) = (faults(), Instant::now());
        let table = TableWriter::attach(successor).unwrap();
        let (took_ns, touched) = (begin.elapsed().as_nanos() as u64, faults() - before);
        assert_eq!(load(table.memory().words(), record), 0);
        match (has_record, counts_pages) {
            (true, true) => repairs.faults.push(touched),
            (true, false) => repairs.times_ns.push(took_ns),
            (false, _) => repairs.without_record += 1,
        }
    }
    // Of a large table the check takes longer than all the rest.
    if keys == FEW_KEYS {
        check(victim.words()).unwrap();
    }
    repairs.times_ns.sort_unstable();
    repairs.faults.sort_unstable();
    repairs
}

#[test]
fn a_repair_touches_as_much_of_a_large_table_as_of_a_small_one() {
    let many_keys = number("NAUTILUS_REPAIR_KEYS", 100_000);
    let kills = number("NAUTILUS_REPAIR_KILLS", 100);
    let [few, many] = [FEW_KEYS, many_keys].map(|keys| {
        let repairs = repairs(keys, kills);
        println!(
            "{keys} keys: {kills} repairs of a record p50 {} ns, p99 {} ns, max {} ns; {} to {} page \
             faults in an empty mapping; {} kills left nothing to repair",
            repairs.at(500),
            repairs.at(990),
            repairs.at(999),
            repairs.faults[0],
            repairs.faults[repairs.faults.len() - 1],
            repairs.without_record
        );
        repairs
    });
    let ratio = |permille| many.at(permille) as f64 / few.at(permille) as f64;
    println!("large to small: p50 {:.2}, p99 {:.2}", ratio(500), ratio(990));
    // A page for each word of a record, and those of the headers of table and shard.
    let bound = RECORD_ENTRIES_MAX as u64 + 4;
    let touched = |repairs: &Repairs| repairs.faults[repairs.faults.len() - 1];
    assert!(touched(&few) > 2 && touched(&few) <= bound, "{few:?}");
    assert!(touched(&many) <= bound, "{many:?}");
}
