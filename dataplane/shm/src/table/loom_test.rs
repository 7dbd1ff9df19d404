//! Publication against a reader, with cells reused under it, in every interleaving of two threads with
//! at most two preemptions.

use loom::sync::Arc;
use loom::thread;

use super::*;
use crate::sync::{AtomicU64, Ordering};

/// A table of four cells, in words loom watches.
#[derive(Clone)]
struct Watched(Arc<Vec<AtomicU64>>);

impl Words for Watched {
    fn words(&self) -> &[AtomicU64] {
        &self.0
    }
}

fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 100_000;
    builder.check(model);
}

fn table() -> (Watched, TableWriter<Watched>) {
    let count = Layout::words_for(4, 1);
    let words = Watched(Arc::new((0..count).map(|_| AtomicU64::new(0)).collect()));
    let table = TableWriter::create(words.clone(), 1, 1).unwrap();
    (words, table)
}

fn put(table: &mut TableWriter<Watched>, number: u8) {
    let value = [number; 16];
    let put =
        Mutation { flags: number.into(), text_sum: 7, ..Mutation::new(b"k", Op::Set(&value)) };
    table.apply(table.hash(b"k"), &put, 1).unwrap();
}

#[test]
fn a_reader_sees_one_whole_value_and_never_an_older_one_than_acknowledged() {
    explore(|| {
        let (words, mut table) = table();
        put(&mut table, 1);
        let acknowledged = Arc::new(AtomicU64::new(1));
        let acknowledge = acknowledged.clone();
        let writer = thread::spawn(move || {
            // The third value takes the cell the first one had.
            for number in [2, 3] {
                put(&mut table, number);
                acknowledge.store(number.into(), Ordering::Release);
            }
        });
        let least = acknowledged.load(Ordering::Acquire);
        let mut out = [0; 16];
        match TableReader::attach(words).unwrap().get(b"k", 1, &mut out) {
            Ok(hit) => {
                assert_eq!(out, [out[0]; 16], "torn");
                assert_eq!(u32::from(out[0]), hit.flags, "another value's flags");
                assert!((least..=3).contains(&out[0].into()), "{} after {least}", out[0]);
            }
            Err(error) => assert_eq!(error, ReadError::WriterBusy),
        }
        writer.join().unwrap();
    });
}

#[test]
fn a_deleted_key_is_a_miss_and_its_reused_cell_is_nobody_elses() {
    explore(|| {
        let (words, mut table) = table();
        put(&mut table, 1);
        let writer = thread::spawn(move || {
            table.apply(table.hash(b"k"), &Mutation::new(b"k", Op::Delete), 1).unwrap();
            let other =
                Mutation { flags: 9, text_sum: 7, ..Mutation::new(b"o", Op::Set(&[9; 16])) };
            table.apply(table.hash(b"o"), &other, 1).unwrap();
        });
        let mut out = [0; 16];
        match TableReader::attach(words).unwrap().get(b"k", 1, &mut out) {
            Ok(hit) => assert_eq!((out, hit.flags), ([1; 16], 1)),
            Err(error) => assert!(matches!(error, ReadError::Miss | ReadError::WriterBusy)),
        }
        writer.join().unwrap();
    });
}
