use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

type Small = Ring<4, 2>;

#[test]
fn a_full_ring_refuses_and_an_empty_one_says_so() {
    let ring = Small::default();
    let mut producer = ring.producer(1).unwrap();
    let mut consumer = ring.consumer();
    assert_eq!(consumer.pop(), Ok(None));
    for value in 0..4 {
        assert_eq!(producer.push(&[value; 2]), Ok(value));
    }
    assert_eq!(producer.push(&[9; 2]), Err(RingError::Full));
    assert_eq!(ring.backlog(), 4);
    assert_eq!(consumer.pop(), Ok(Some(Entry { generation: 1, sequence: 0, words: [0; 2] })));
    assert_eq!(producer.push(&[4; 2]), Ok(4));
}

#[test]
fn impossible_indices_are_refused_by_both_sides() {
    let ring = Small::default();
    let mut producer = ring.producer(1).unwrap();
    let mut consumer = ring.consumer();
    let impossible = |head, tail| RingError::IndexOutOfBounds { head, tail, slots: 4 };
    for head in [5, u64::MAX] {
        ring.head.0.store(head, Ordering::Relaxed);
        assert_eq!(consumer.pop(), Err(impossible(head, 0)));
        assert_eq!(ring.producer(2).unwrap_err(), impossible(head, 0));
    }
    ring.head.0.store(0, Ordering::Relaxed);
    for value in 0..4 {
        producer.push(&[value; 2]).unwrap();
    }
    ring.tail.0.store(5, Ordering::Relaxed);
    assert_eq!(producer.push(&[9; 2]), Err(impossible(4, 5)));
    ring.head.0.store(77, Ordering::Relaxed);
    assert_eq!(consumer.resync(), 77);
    assert_eq!(consumer.pop(), Ok(None));
    assert_eq!(ring.producer(2).unwrap().push(&[1; 2]), Ok(77));
    assert_eq!(consumer.pop().unwrap().unwrap().generation, 2);
}

#[test]
fn an_entry_with_a_foreign_sequence_is_skipped_and_said() {
    let ring = Small::default();
    let mut producer = ring.producer(1).unwrap();
    let mut consumer = ring.consumer();
    producer.push(&[1; 2]).unwrap();
    producer.push(&[2; 2]).unwrap();
    ring.slots[0].sequence.store(40, Ordering::Relaxed);
    assert_eq!(consumer.pop(), Err(RingError::Torn { sequence: 0, found: 40 }));
    assert_eq!(consumer.pop().unwrap().unwrap().words, [2; 2]);
}

#[test]
fn threads_pass_every_entry_once() {
    let ring = Small::default();
    let entries = if cfg!(miri) { 100 } else { 100_000 };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut producer = ring.producer(7).unwrap();
            for value in 0..entries {
                while producer.push(&[value, !value]) == Err(RingError::Full) {
                    std::thread::yield_now();
                }
            }
        });
        let mut consumer = ring.consumer();
        let mut expected = 0;
        while expected < entries {
            match consumer.pop().unwrap() {
                None => std::thread::yield_now(),
                Some(entry) => {
                    assert_eq!((entry.generation, entry.sequence), (7, expected));
                    assert_eq!(entry.words, [expected, !expected]);
                    expected += 1;
                }
            }
        }
    });
}

#[derive(Clone, Debug)]
enum Step {
    Push(u64),
    Pop,
    NewProducer,
    NewConsumer,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<u64>().prop_map(Step::Push),
        4 => Just(Step::Pop),
        1 => Just(Step::NewProducer),
        1 => Just(Step::NewConsumer),
    ]
}

proptest! {
    #[test]
    #[cfg_attr(miri, ignore = "minutes in an interpreter, and safe code throughout")]
    fn it_is_a_bounded_queue_over_any_succession(steps in proptest::collection::vec(step(), 0..200)) {
        let ring = Small::default();
        let mut generation = 1;
        let mut producer = ring.producer(generation).unwrap();
        let mut consumer = ring.consumer();
        let mut model = VecDeque::new();
        let mut sequence = 0;
        for step in steps {
            match step {
                Step::Push(value) => match producer.push(&[value, !value]) {
                    Ok(given) => {
                        prop_assert_eq!(given, sequence);
                        let words = [value, !value];
                        model.push_back(Entry { generation, sequence, words });
                        sequence += 1;
                    }
                    Err(error) => {
                        prop_assert_eq!(error, RingError::Full);
                        prop_assert_eq!(model.len(), 4);
                    }
                },
                Step::Pop => prop_assert_eq!(consumer.pop().unwrap(), model.pop_front()),
                Step::NewProducer => {
                    generation += 1;
                    producer = ring.producer(generation).unwrap();
                }
                Step::NewConsumer => consumer = ring.consumer(),
            }
            prop_assert_eq!(ring.backlog(), model.len() as u64);
        }
    }
}
