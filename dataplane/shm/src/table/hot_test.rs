//! The order in which a hot key changes: nobody reads the table's old value after somebody has seen the
//! hot set's new one, whatever store the writer is stopped at.

use super::*;
use crate::sync::{AtomicU64, Ordering};

#[cfg(loom)]
use loom::sync::Arc;
#[cfg(not(loom))]
use std::sync::Arc;

/// A hot set of one key, `hot`: the version it shows, 0 for none.
#[derive(Clone)]
struct OneHot(Arc<AtomicU64>);

impl OneHot {
    fn shown(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn show(&self, version: u64) {
        self.0.store(version, Ordering::Release);
    }
}

const KEY: &[u8] = b"hot";

impl HotSet for OneHot {
    const IS_THERE: bool = true;
    fn holds(&self, key: &[u8]) -> bool {
        // Loom forgets a reader's load of a word that the writer has loaded since.
        key == KEY && (cfg!(loom) || self.shown() != 0)
    }
    fn asked(&mut self, _: u64, _: &[u8], _: &Hit) -> bool {
        false
    }
    fn housekeeping(&mut self, _: u64) {}
    fn next_used(&mut self) -> Option<HotKey> {
        None
    }
    fn publish(&mut self, key: &[u8], value: &HotValue<'_>) {
        assert_eq!(key, KEY);
        self.show(value.version);
    }
    fn empty(&mut self, key: &[u8]) {
        assert_eq!(key, KEY);
        self.show(0);
    }
    fn set_channel(&mut self, _: u8, _: u64) {}
    fn set_channel_epoch(&mut self, _: u8, _: u64) {}
    fn set_flush_epoch(&mut self, _: u64) {}
    fn set_valid_until(&mut self, _: u64) {}
}

fn set(table: &mut TableWriter<impl Words, OneHot>, key: &[u8], value: &[u8]) -> u64 {
    table.apply(table.hash(key), &Mutation::new(key, Op::Set(value)), 1).unwrap()
}

#[cfg(not(loom))]
mod stopped {
    use super::super::kill_test::Random;
    use super::*;
    use crate::sync::{Outcome, kill_after};

    type Memory = Arc<[AtomicU64]>;

    fn copy(words: &[AtomicU64]) -> Memory {
        words.iter().map(|word| AtomicU64::new(word.load(Ordering::Relaxed))).collect()
    }

    /// What a reader of the table gets: a version, nothing, or that it must ask again.
    fn read(words: &Memory) -> Result<u64, ReadError> {
        let reader = TableReader::attach(words.clone()).unwrap();
        reader.get(KEY, 1, &mut [0; 2048]).map(|hit| hit.version)
    }

    fn step(number: u64, random: &mut Random) -> impl Fn(&mut TableWriter<Memory, OneHot>) + use<> {
        let (choice, bytes) = (random.below(9), random.below(1500) as usize);
        move |table| {
            let hash = table.hash(KEY);
            let op = match choice {
                0 => Op::Delete,
                1 => Op::Touch,
                2 => Op::Invalidate,
                3..6 => {
                    set(table, KEY, &[number as u8; 40]);
                    return;
                }
                // Others, until they push it out.
                _ => {
                    set(table, format!("other{}", number % 7).as_bytes(), &vec![0; bytes]);
                    return;
                }
            };
            let _ = table.apply(hash, &Mutation::new(KEY, op), 1);
        }
    }

    #[test]
    fn no_path_is_behind_another_wherever_the_writer_stops() {
        let mut random = Random(11);
        let bytes = Layout::words_for(40, 1) * 8;
        let mut base = copy(&heap_words(bytes));
        drop(TableWriter::create(base.clone(), 1, 5).unwrap());
        let (mut between, mut emptied, mut evicted) = (0, 0, 0);
        let steps = if cfg!(miri) { 8 } else { 400 };
        for number in 1..=steps {
            // Admission: the hot set shows what the table shows.
            let shown = read(&base).unwrap_or(0);
            let step = step(number, &mut random);
            for stores in 0.. {
                let (words, hot) = (copy(&base), OneHot(Arc::new(AtomicU64::new(shown))));
                let mut table = TableWriter::attach_with(words.clone(), hot.clone()).unwrap();
                let finished = kill_after(stores, || step(&mut table)) != Outcome::Killed;
                match read(&words) {
                    Ok(version) => assert!([0, version].contains(&hot.shown()), "{number}"),
                    Err(ReadError::Miss) => assert_eq!(hot.shown(), 0, "{number}"),
                    Err(error) => {
                        assert_eq!(error, ReadError::WriterBusy);
                        assert!(!finished, "{number}: busy after the acknowledgement");
                        between += u64::from(hot.shown() != shown);
                    }
                }
                if finished {
                    evicted += u64::from(table.counts().evictions_count > 0 && hot.shown() == 0);
                    base = words;
                    break;
                }
                let before = hot.shown();
                drop(TableWriter::attach_with(words.clone(), hot.clone()).unwrap());
                emptied += u64::from(before != 0 && hot.shown() == 0);
                check(&words).unwrap();
                let now = read(&words);
                assert!([0, now.unwrap_or(0)].contains(&hot.shown()), "{number}: {now:?}");
                assert!(matches!(now, Ok(_) | Err(ReadError::Miss)), "{number}: {now:?}");
            }
        }
        assert!(cfg!(miri) || (between > 200 && emptied > 100 && evicted > 3));
    }
}

/// One reader of both: first the hot set, then the table, in every interleaving.
#[cfg(loom)]
#[test]
fn loom_a_reader_that_has_seen_the_hot_value_never_sees_an_older_one_in_the_table() {
    #[derive(Clone)]
    struct Watched(Arc<Vec<AtomicU64>>);
    impl Words for Watched {
        fn words(&self) -> &[AtomicU64] {
            &self.0
        }
    }
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 100_000;
    builder.check(|| {
        let count = Layout::words_for(4, 1);
        let words = Watched(Arc::new((0..count).map(|_| AtomicU64::new(0)).collect()));
        let hot = OneHot(Arc::new(AtomicU64::new(0)));
        let mut table = TableWriter::create_with(words.clone(), 1, 1, hot.clone()).unwrap();
        let version = set(&mut table, KEY, &[1; 16]);
        hot.show(version);
        let writer = loom::thread::spawn(move || {
            set(&mut table, KEY, &[2; 16]);
        });
        let shown = hot.shown();
        match TableReader::attach(words).unwrap().get(KEY, 1, &mut [0; 16]) {
            Ok(hit) => assert!(hit.version >= shown, "{} after {shown}", hit.version),
            Err(error) => assert_eq!(error, ReadError::WriterBusy),
        }
        writer.join().unwrap();
    });
}
