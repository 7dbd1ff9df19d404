//! Readers in other threads while the writer reuses a handful of cells as fast as it can.

use std::sync::Arc;
use std::thread;

use super::*;
use crate::sync::{AtomicU64, Ordering};

/// A value whose every byte says which write it is from.
fn value_of(number: u64, bytes: usize) -> Vec<u8> {
    number.to_le_bytes().iter().copied().cycle().take(bytes.next_multiple_of(8)).collect()
}

#[test]
fn a_reader_sees_whole_values_no_older_than_the_acknowledged_one() {
    // Sixteen cells: every replacement reuses what the one before has freed.
    race(16, 40, if cfg!(miri) { 60 } else { 300_000 });
}

#[test]
fn a_reader_sees_whole_runs_no_older_than_the_acknowledged_one() {
    // Ten groups: room for two values of up to two runs, and a third while it is written, even when all
    // have become cells.
    race(10 * 16 + 8, 600, if cfg!(miri) { 20 } else { 60_000 });
}

/// Replaces values of up to `words_max` words in a table of `cells` cells under two readers.
fn race(cells: usize, words_max: u64, writes: u64) {
    let words: Arc<[AtomicU64]> =
        super::model_test::small_table(cells, 1).memory().iter().map(copy_word).collect();
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut table = TableWriter::attach(words.clone()).unwrap();
    let put = |table: &mut TableWriter<Arc<[AtomicU64]>>, key: &[u8], number: u64| {
        let value = value_of(number, 8 + (number * 37 % words_max) as usize * 8);
        super::model_test::put(table, key, &value).unwrap();
    };
    put(&mut table, b"key", 0);
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (words, acknowledged) = (words.clone(), acknowledged.clone());
            thread::spawn(move || {
                let reader = TableReader::attach(words).unwrap();
                let mut out = vec![0; 8 * (words_max as usize + 1)];
                let (mut reads, mut last) = (0_u64, 0);
                loop {
                    let least = acknowledged.load(Ordering::Acquire);
                    if least == u64::MAX {
                        return reads;
                    }
                    match reader.get(b"key", 1, &mut out) {
                        Ok(hit) => {
                            let number = u64::from_le_bytes(*out.first_chunk().unwrap());
                            assert_eq!(out[..hit.value_bytes], value_of(number, hit.value_bytes));
                            assert!(number >= least.max(last), "{number} after {least} and {last}");
                            last = number;
                            reads += 1;
                        }
                        Err(error) => assert_eq!(error, ReadError::WriterBusy, "after {least}"),
                    }
                    // What is never there is never found either.
                    let absent = reader.get(b"absent", 1, &mut out);
                    assert!(matches!(absent, Err(ReadError::Miss | ReadError::WriterBusy)));
                }
            })
        })
        .collect();
    for number in 1..=writes {
        put(&mut table, b"key", number);
        acknowledged.store(number, Ordering::Release);
        put(&mut table, b"other", number);
        if number % 3 == 0 {
            table.apply(table.hash(b"other"), &Mutation::new(b"other", Op::Delete), 1).unwrap();
        }
    }
    acknowledged.store(u64::MAX, Ordering::Release);
    let reads: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
    assert!(cfg!(miri) || reads > 0, "{reads} reads");
    check(&words).unwrap();
}

fn copy_word(word: &AtomicU64) -> AtomicU64 {
    AtomicU64::new(word.load(Ordering::Relaxed))
}

#[test]
fn a_reader_survives_any_content() {
    // Every word of a table set to noise, one seed after the other: errors, never a panic or a hang.
    let rounds = if cfg!(miri) { 3 } else { 400 };
    let mut random = super::kill_test::Random(99);
    let mut out = [0; 256];
    for _ in 0..rounds {
        let table = super::model_test::small_table(12, 1);
        let words = table.memory();
        for index in 1024 + 128..words.len() {
            let noise = random.below(1 << 31) << 33 ^ random.below(1 << 31) << 8;
            let small = random.below(4) == 0;
            words[index].store(if small { noise >> 56 } else { noise }, Ordering::Relaxed);
        }
        let reader = TableReader::attach(words).unwrap();
        for key in 0..200_u32 {
            let _ = reader.get(&key.to_le_bytes(), 1, &mut out);
        }
    }
    let mut random = super::kill_test::Random(5);
    for _ in 0..rounds {
        let words = heap_words(8 * 8192);
        for index in 0..1200 {
            words[index].store(random.below(70), Ordering::Relaxed);
        }
        if let Ok(reader) = TableReader::attach(words) {
            let _ = reader.get(b"key", 1, &mut out);
        }
    }
}
