use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::shared::zeroed_box;
use crate::sync::{Outcome, kill_after};

const WORDS: usize = 64;

struct Memory {
    head: Box<CaptureRingHead>,
    words: Box<[AtomicU64; WORDS]>,
}

impl Memory {
    fn new() -> Self {
        Self { head: zeroed_box(), words: zeroed_box() }
    }

    fn ring(&self) -> CaptureRing<'_> {
        CaptureRing::new(&self.head, &self.words[..])
    }
}

#[test]
fn what_finds_no_room_is_counted_and_told_with_what_comes_next() {
    let memory = Memory::new();
    let (mut producer, mut consumer) = (memory.ring().producer(), memory.ring().consumer());
    let (a, b) = (producer.place(7).unwrap(), producer.place(9).unwrap());
    assert_eq!(producer.place(7), Some(a), "it has one already");
    let mut out = Vec::new();
    // 4 words in front and 2 of bytes: ten of them fit.
    let pushed: Vec<bool> = (0..13).map(|n| producer.push(a, n, &[&[n as u8; 13]])).collect();
    assert_eq!(pushed, [[true; 10].as_slice(), &[false; 3]].concat());
    assert!(!producer.push(b, 13, &[&[0; 30]]));
    for sequence in 0..10 {
        let read = consumer.next(&mut out).unwrap().unwrap();
        assert_eq!(read, Captured { identity: 7, sequence, stamp_ns: sequence, dropped: 0 });
        assert_eq!(out, [sequence as u8; 13]);
    }
    assert_eq!(consumer.next(&mut out), Ok(None));
    assert!(!producer.push(a, 14, &[b"x"]), "nothing of it is in a file yet");
    consumer.commit();
    assert!(producer.push(a, 15, &[b"ab", b"cdefgh", b"ijklm"]));
    assert!(producer.push(b, 16, &[]));
    let read = consumer.next(&mut out).unwrap().unwrap();
    assert_eq!(read, Captured { identity: 7, sequence: 15, stamp_ns: 15, dropped: 4 });
    assert_eq!(out, b"abcdefghijklm");
    let read = consumer.next(&mut out).unwrap().unwrap();
    assert_eq!((read.identity, read.sequence, read.dropped), (9, 16, 1));
    let counts = memory.ring().counts().collect::<Vec<_>>();
    let of = |identity, captured, dropped| SourceCounts { identity, captured, dropped };
    assert_eq!(counts, [of(7, 11, 4), of(9, 1, 1)]);
}

#[test]
fn a_consumer_that_dies_leaves_what_it_had_not_written() {
    let memory = Memory::new();
    let mut producer = memory.ring().producer();
    let place = producer.place(1).unwrap();
    let mut out = Vec::new();
    for n in 0..5u64 {
        producer.push(place, n, &[&n.to_le_bytes()]);
    }
    let mut first = memory.ring().consumer();
    first.next(&mut out).unwrap();
    first.commit();
    first.next(&mut out).unwrap();
    first.next(&mut out).unwrap();
    let mut second = memory.ring().consumer();
    second.next(&mut out).unwrap();
    second.rewind();
    let left: Vec<u64> =
        std::iter::from_fn(|| second.next(&mut out).unwrap().map(|read| read.sequence)).collect();
    assert_eq!(left, [1, 2, 3, 4]);
    second.commit();
    assert_eq!(memory.ring().consumer().next(&mut out), Ok(None));
}

#[test]
fn a_worker_killed_after_any_store_leaves_a_whole_ring() {
    for stores in 0..=30 {
        let memory = Memory::new();
        let setup = memory.ring().producer().place(1).unwrap();
        let killed = kill_after(stores, || {
            let mut producer = memory.ring().producer();
            for n in 0..3u8 {
                producer.push(setup, n.into(), &[&[n; 9]]);
            }
        });
        let mut successor = memory.ring().producer();
        assert!(successor.push(setup, 99, &[b"after"]));
        let (mut consumer, mut out, mut seen) = (memory.ring().consumer(), Vec::new(), Vec::new());
        while let Some(read) = consumer.next(&mut out).unwrap() {
            seen.push((read.sequence, read.stamp_ns, out.clone()));
        }
        let (last, before) = seen.split_last().unwrap();
        assert_eq!((last.1, last.2.as_slice()), (99, &b"after"[..]));
        for (place, (sequence, stamp, bytes)) in before.iter().enumerate() {
            assert_eq!((*sequence, *stamp), (place as u64, place as u64));
            assert_eq!(*bytes, [place as u8; 9]);
        }
        assert!(last.0 >= before.len() as u64 && last.0 <= before.len() as u64 + 1);
        assert_eq!(killed == Outcome::Killed, before.len() < 3 || stores < 27, "{stores}");
    }
}

#[test]
fn nonsense_is_dropped_and_the_ring_goes_on() {
    let memory = Memory::new();
    let mut producer = memory.ring().producer();
    let place = producer.place(1).unwrap();
    let mut out = Vec::new();
    for word in [u64::MAX, 1000 << 32, 8 << 32 | 500, u64::from(u32::MAX)] {
        let mut consumer = memory.ring().consumer();
        producer.push(place, 1, &[b"one"]);
        let at = memory.head.tail.0.load(Ordering::Relaxed);
        memory.words[at as usize % WORDS].store(word, Ordering::Relaxed);
        assert_eq!(consumer.next(&mut out), Err(Damaged(at)), "{word:#x}");
        assert!(consumer.is_empty() && consumer.next(&mut out) == Ok(None));
        consumer.commit();
        assert!(producer.push(place, 2, &[b"two"]));
        assert!(consumer.next(&mut out).unwrap().is_some() && out == b"two");
        consumer.commit();
    }
    // Indices that cannot be: the worker drops and goes on, it does not write where it may not.
    memory.head.tail.0.store(u64::MAX, Ordering::Relaxed);
    let mut producer = memory.ring().producer();
    assert!(!producer.push(place, 3, &[b"three"]));
}

#[test]
fn sources_beyond_the_last_place_have_none() {
    let memory = Memory::new();
    let producer = memory.ring().producer();
    assert!((0..SOURCES_MAX as u32).all(|identity| producer.place(identity).is_some()));
    assert_eq!(producer.place(u32::MAX), None);
    assert!(producer.place(5).is_some());
}

proptest! {
    #[test]
    fn captured_and_dropped_are_all_there_was(
        steps in prop::collection::vec((0u8..4, 0usize..90), 1..400)
    ) {
        let memory = Memory::new();
        let (mut producer, mut consumer) = (memory.ring().producer(), memory.ring().consumer());
        let place = producer.place(3).unwrap();
        let (mut waiting, mut out) = (VecDeque::new(), Vec::new());
        let (mut seen, mut dropped, mut told) = (0u64, 0, 0);
        for (step, bytes) in steps {
            match step {
                0 | 1 => {
                    let record = vec![seen as u8; bytes];
                    match producer.push(place, seen, &[&record]) {
                        true => waiting.push_back((seen, record)),
                        false => dropped += 1,
                    }
                    seen += 1;
                }
                2 => match (consumer.next(&mut out).unwrap(), waiting.pop_front()) {
                    (Some(read), Some((sequence, record))) => {
                        prop_assert_eq!(read.sequence, sequence);
                        prop_assert_eq!(&out, &record);
                        told += read.dropped;
                        prop_assert!(told <= dropped);
                    }
                    (None, None) => {}
                    other => prop_assert!(false, "{:?}", other),
                },
                _ => consumer.commit(),
            }
        }
        let counts = memory.ring().counts().next().unwrap();
        prop_assert_eq!(counts.captured + counts.dropped, seen);
        prop_assert_eq!(counts.dropped, dropped);
    }
}
