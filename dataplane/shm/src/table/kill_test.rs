//! A writer that is stopped after every single store.
//!
//! Each step of a random history is run once to its end and then once for every store it makes,
//! stopped there, each time on a copy of the table. What is left must be whole, hold every value that
//! had been acknowledged, and the value of the interrupted step must be the old or the new one, for a
//! reader before the repair and for everybody after it. The repair is stopped after each of its own
//! stores as well.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::evict::ghost_of;
use super::intent::RECORD_ENTRIES_MAX;
use super::layout::{S_FREE_RUNS, Shape};
use super::model_test::CloneWords;
use super::probe::overflow;
use super::words::load;
use super::*;
use crate::sync::{AtomicU64, Outcome, kill_after};

type Shared = Arc<[AtomicU64]>;
pub(super) type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// One step of a history.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Get(Vec<u8>),
}

impl Step {
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put(key, _) | Self::Delete(key) | Self::Get(key) => key,
        }
    }

    pub fn run<W: Words>(&self, table: &mut TableWriter<W>) {
        let hash = table.hash(self.key());
        match self {
            Self::Put(key, value) => {
                let put = Mutation { flags: 1, text_sum: 7, ..Mutation::new(key, Op::Set(value)) };
                table.apply(hash, &put, 1).unwrap();
            }
            Self::Delete(key) => {
                let _ = table.apply(hash, &Mutation::new(key, Op::Delete), 1);
            }
            Self::Get(key) => {
                table.get(hash, key, 1);
            }
        }
    }
}

/// A small generator (xorshift64*), so that a seed is a history.
pub(super) struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    pub fn step(&mut self, keys: &[Vec<u8>], bytes_max: u64) -> Step {
        let key = keys[self.below(keys.len() as u64) as usize].clone();
        match self.below(8) {
            0..4 => {
                let bytes = if self.below(3) == 0 { self.below(bytes_max) } else { self.below(80) };
                let front = self.below(256);
                Step::Put(key, (0..bytes).map(|byte| (byte + front) as u8).collect())
            }
            4 => Step::Delete(key),
            _ => Step::Get(key),
        }
    }
}

/// What a reader sees of these keys.
pub(super) fn contents(words: &impl Words, keys: &[Vec<u8>]) -> Contents {
    let reader = TableReader::attach(words).unwrap();
    let mut out = vec![0; 8192];
    let mut contents = Contents::new();
    for key in keys {
        match reader.get(key, 1, &mut out) {
            Ok(hit) => {
                contents.insert(key.clone(), out[..hit.value_bytes].to_vec());
            }
            Err(error) => assert_eq!(error, ReadError::Miss, "{key:?}"),
        }
    }
    contents
}

/// `now` must lie between the contents before a step on `key` and those after it.
pub(super) fn assert_between(
    key: &[u8],
    (before, now, after): (&Contents, &Contents, &Contents),
    evicts: bool,
) {
    let keys: BTreeSet<_> = before.keys().chain(now.keys()).chain(after.keys()).collect();
    for each in keys {
        let (was, is, will) = (before.get(each), now.get(each), after.get(each));
        // A full table may evict the key itself before it stores the new value.
        let own_eviction = each == key && is.is_none() && evicts;
        assert!(is == was || is == will || own_eviction, "{each:?}: {was:?} -> {is:?} -> {will:?}");
    }
}

fn shared(words: &[AtomicU64]) -> Shared {
    words.iter().map(|word| AtomicU64::new(word.load(crate::sync::Ordering::Relaxed))).collect()
}

/// What a history has passed through; a test that never evicts proves nothing about eviction.
#[derive(Debug, Default)]
struct Seen {
    kills: u64,
    repairs: u64,
    evictions: u64,
    slot_evictions: u64,
    overflows: u64,
    ghosts: u64,
    /// Values that took runs, and short ones that made a group into cells.
    runs: u64,
    splits: u64,
}

/// Stops `step` after every store, on copies of `base`, and returns the table after the whole step.
fn sweep(base: &Shared, step: &Step, keys: &[Vec<u8>], seen: &mut Seen) -> Shared {
    let before = contents(base, keys);
    let whole = shared(base);
    let mut table = TableWriter::attach(whole.clone()).unwrap();
    step.run(&mut table);
    let evictions = table.counts().evictions_count;
    seen.evictions += evictions;
    seen.slot_evictions += table.counts().slot_evictions_count;
    let after = contents(&whole, keys);
    check(&whole).unwrap();
    let assert_whole = |words: &Shared| {
        assert_between(step.key(), (&before, &contents(words, keys), &after), evictions > 0);
    };
    for stores in 0.. {
        let words = shared(base);
        let mut table = TableWriter::attach(words.clone()).unwrap();
        if let Outcome::Finished(()) = kill_after(stores, || step.run(&mut table)) {
            assert_eq!(contents(&words, keys), after, "an acknowledged step");
            break;
        }
        seen.kills += 1;
        assert_whole(&words);
        // The repair is killed too, after each store, before one comes through.
        for repair_stores in 0.. {
            let repair = kill_after(repair_stores, || TableWriter::attach(words.clone()).is_ok());
            assert_whole(&words);
            if let Outcome::Finished(repaired) = repair {
                assert!(repaired);
                break;
            }
            seen.repairs += 1;
            assert!(repair_stores <= RECORD_ENTRIES_MAX as u64);
        }
        if let Err(error) = check(&words) {
            panic!("{step:?} stopped after {stores} stores: {error}");
        }
        assert_whole(&words);
        // And it goes on from there.
        let mut table = TableWriter::attach(words.clone()).unwrap();
        step.run(&mut table);
        check(&words).unwrap();
    }
    whole
}

fn run(base: Shared, keys: &[Vec<u8>], steps: u64, seed: u64, bytes_max: u64) -> Seen {
    let mut random = Random(seed);
    let mut words = base;
    let mut seen = Seen::default();
    let steps = if cfg!(miri) { 6 } else { steps };
    for _ in 0..steps {
        let step = random.step(keys, bytes_max);
        let table = TableWriter::attach(words.clone()).unwrap();
        let shard = table.layout().shard(0);
        let hash = table.hash(step.key());
        let put = matches!(step, Step::Put(..));
        seen.ghosts += u64::from(put && ghost_of(&words, &shard, hash).is_some());
        let first = shard.bucket(hash.first_bucket(&shard));
        seen.overflows += u64::from(put && overflow(load(&words, first)) > 0);
        let whole_groups = |words: &Shared| load(words, shard.base + S_FREE_RUNS);
        let before = whole_groups(&words);
        words = sweep(&words, &step, keys, &mut seen);
        if let Step::Put(_, value) = &step
            && whole_groups(&words) < before
        {
            let is_long = Shape::runs_max(step.key().len(), value.len()) > 0;
            *(if is_long { &mut seen.runs } else { &mut seen.splits }) += 1;
        }
    }
    seen
}

fn table_of(cells: usize) -> Shared {
    shared(super::model_test::small_table(cells, 1).memory())
}

#[test]
fn a_writer_killed_after_any_store_loses_nothing() {
    let keys: Vec<_> = (0..10).map(|key| format!("key{key}").into_bytes()).collect();
    // Room for all: nothing may be evicted, so every acknowledged value must be there.
    let seen = run(table_of(128), &keys, 120, 42, 700);
    assert_eq!(seen.evictions, 0);
    assert!(cfg!(miri) || (seen.kills > 2_000 && seen.repairs > 10_000), "{seen:?}");
}

#[test]
fn a_writer_killed_after_any_store_of_an_eviction_leaves_a_whole_table() {
    let mut keys: Vec<_> = (0..30).map(|key| format!("key{key}").into_bytes()).collect();
    keys.push(vec![b'x'; 250]);
    let seen = run(table_of(14), &keys, 250, 7, 900);
    assert!(cfg!(miri) || (seen.evictions > 50 && seen.ghosts > 3), "{seen:?}");
}

#[test]
fn a_writer_killed_after_any_store_of_a_long_value_leaves_a_whole_table() {
    // Seven groups and three cells: values of up to three runs, until the last group has become cells.
    let keys: Vec<_> = (0..9).map(|key| format!("key{key}").into_bytes()).collect();
    let seen = run(table_of(7 * 16 + 3), &keys, 60, 5, 8_000);
    assert!(cfg!(miri) || (seen.evictions > 5 && seen.runs > 5 && seen.splits > 1), "{seen:?}");
}

#[test]
fn a_writer_killed_while_buckets_overflow_leaves_a_whole_table() {
    // Only keys that want buckets 0 and 1, of five: first one overflows, then both are full.
    let words = table_of(20);
    let table = TableWriter::attach(words.clone()).unwrap();
    let shard = table.layout().shard(0);
    let crowded = |key: &Vec<u8>| {
        let hash = table.hash(key);
        let (first, second) = (hash.first_bucket(&shard), hash.second_bucket(&shard));
        first < 2 && second < 2 && first != second
    };
    let keys: Vec<_> =
        (0..400).map(|key| format!("key{key}").into_bytes()).filter(crowded).collect();
    let keys = &keys[..18];
    let seen = run(words, keys, 250, 3, 90);
    assert!(cfg!(miri) || (seen.overflows > 20 && seen.slot_evictions > 5), "{seen:?}");
}

#[test]
fn repair_does_not_depend_on_the_size_of_the_table() {
    let stores_of_repair = |cells: usize| {
        let words = table_of(cells);
        let mut table = TableWriter::attach(words.clone()).unwrap();
        for key in 0..cells / 2 {
            super::model_test::put(&mut table, format!("{key}").as_bytes(), b"value").unwrap();
        }
        // The longest repair over all the places where a replacement can be killed.
        let step = Step::Put(b"1".to_vec(), vec![1; 300]);
        let mut longest = 0;
        for stores in 0.. {
            let words = shared(&words);
            let mut table = TableWriter::attach(words.clone()).unwrap();
            if kill_after(stores, || step.run(&mut table)) != Outcome::Killed {
                return longest;
            }
            let repaired_after = |stores| {
                let words = shared(&words);
                kill_after(stores, || TableWriter::attach(words).is_ok()) != Outcome::Killed
            };
            longest = longest.max((0..).find(|&stores| repaired_after(stores)).unwrap());
        }
        unreachable!("a step makes a finite number of stores")
    };
    let small = stores_of_repair(32);
    assert!((10..=RECORD_ENTRIES_MAX as u64 + 1).contains(&small), "{small} stores");
    if cfg!(miri) {
        return;
    }
    assert_eq!(small, stores_of_repair(4096));
}

#[test]
fn a_damaged_record_is_refused_and_repairs_nothing() {
    use super::layout::S_INTENT;
    for (count, at) in [(25, 1200), (1, 0), (1, u64::MAX), (1, 1 << 40), (u64::MAX, 1200)] {
        let words = table_of(16);
        let record = TableWriter::attach(words.clone()).unwrap().layout().shard(0).base + S_INTENT;
        super::words::store(&words, record, count);
        super::words::store(&words, record + 1, at);
        super::words::store(&words, record + 2, 77);
        let before = words.to_vec_words();
        let attached = TableWriter::attach(words.clone());
        assert_eq!(attached.err(), Some(LayoutError::Intent { shard: 0 }));
        assert_eq!(words.to_vec_words(), before);
    }
}

trait ToVecWords {
    fn to_vec_words(&self) -> Vec<u64>;
}

impl ToVecWords for Shared {
    fn to_vec_words(&self) -> Vec<u64> {
        (0..self.len()).map(|index| load(self, index)).collect()
    }
}

#[test]
fn a_copy_of_a_table_is_a_table() {
    let mut table = super::model_test::small_table(16, 1);
    super::model_test::put(&mut table, b"key", b"value").unwrap();
    let mut copy = TableWriter::attach(table.memory().clone_words()).unwrap();
    assert_eq!(super::model_test::get(&mut copy, b"key").as_deref(), Some(&b"value"[..]));
}
