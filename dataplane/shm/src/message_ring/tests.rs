use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::shared::zeroed_box;
use crate::sync::{Outcome, kill_after};

type Small = MessageRing<16>;

#[test]
fn messages_come_out_whole_and_in_order_around_the_end() {
    let ring = zeroed_box::<Small>();
    let (mut producer, mut consumer) = (ring.producer(3), ring.consumer());
    let mut out = [0; 128];
    for number in 0..100_u32 {
        let payload: Vec<u8> = (0..number % 70).map(|byte| (byte + number) as u8).collect();
        let (front, back) = payload.split_at(payload.len() / 3);
        assert_eq!(producer.push(number, &[front, &[], back]), Ok(number.into()));
        let message = consumer.pop(&mut out).unwrap().unwrap();
        let expected =
            Message { tag: number, generation: 3, sequence: number.into(), bytes: payload.len() };
        assert_eq!(message, expected);
        assert_eq!(out[..payload.len()], payload);
        assert!(consumer.is_empty());
    }
}

#[test]
fn a_full_ring_changes_nothing_and_too_long_a_message_never_fits() {
    let ring = zeroed_box::<Small>();
    let (mut producer, mut consumer) = (ring.producer(1), ring.consumer());
    let longest = [7; Small::MESSAGE_BYTES_MAX];
    assert_eq!(producer.push(0, &[&longest, b"x"]), Err(MessageError::TooLong { bytes: 105 }));
    assert_eq!(producer.push(0, &[&longest]), Ok(0));
    assert_eq!(producer.push(0, &[b""]), Err(MessageError::Full));
    let mut out = [0; 104];
    assert_eq!(consumer.pop(&mut out).unwrap().unwrap().bytes, 104);
    assert_eq!(out, longest);
    assert_eq!(producer.push(9, &[b""]), Ok(1));
    assert_eq!(consumer.pop(&mut []).unwrap().unwrap().tag, 9);
    assert_eq!(consumer.pop(&mut out), Ok(None));
}

#[test]
fn positions_tell_which_messages_were_taken_and_room_tells_what_fits() {
    let ring = zeroed_box::<Small>();
    let (mut producer, mut consumer) = (ring.producer(1), ring.consumer());
    assert!(producer.has_room(Small::MESSAGE_BYTES_MAX));
    assert!(!producer.has_room(Small::MESSAGE_BYTES_MAX + 1));
    producer.push(0, &[&[1; 20]]).unwrap();
    let first = producer.position();
    assert!(producer.has_room(56) && !producer.has_room(57));
    producer.push(1, &[&[2; 56]]).unwrap();
    let second = producer.position();
    let mut out = [0; 64];
    assert!(consumer.position() < first);
    consumer.pop(&mut out).unwrap();
    assert!((first..second).contains(&consumer.position()));
    // A successor of either goes on from the same place.
    assert_eq!((ring.producer(2).position(), ring.consumer().position()), (second, first));
    consumer.pop(&mut out).unwrap();
    assert_eq!(consumer.position(), second);
}

#[test]
fn what_a_producer_cannot_have_meant_is_dropped_and_said() {
    let ring = zeroed_box::<Small>();
    let (mut producer, mut consumer) = (ring.producer(1), ring.consumer());
    let mut out = [0; 16];
    producer.push(1, &[&[1; 32]]).unwrap();
    producer.push(2, &[b"ok"]).unwrap();
    assert_eq!(consumer.pop(&mut out), Err(MessageError::BufferTooSmall { bytes: 32 }));
    assert_eq!(consumer.pop(&mut out).unwrap().unwrap().tag, 2);
    for (words, length) in [(1 << 40, 0), (17, 0), (3, 8), (5, 1 << 20), (2, 0)] {
        let at = consumer.tail;
        ring.word(at).store(length << 32, Ordering::Relaxed);
        ring.head.0.store(at + words, Ordering::Relaxed);
        let popped = consumer.pop(&mut out);
        assert!(matches!(popped, Err(MessageError::Damaged { .. })), "{popped:?}");
        ring.head.0.store(at, Ordering::Relaxed);
        consumer = ring.consumer();
        consumer.publish(at);
    }
    ring.tail.0.store(ring.head.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    let pushed = ring.producer(2).push(0, &[b"x"]);
    assert!(matches!(pushed, Err(MessageError::Damaged { .. })), "{pushed:?}");
}

#[test]
fn a_side_killed_after_any_store_leaves_a_ring_that_goes_on() {
    for stores in 0.. {
        let ring = zeroed_box::<Small>();
        ring.producer(1).push(0, &[b"before"]).unwrap();
        let outcome = kill_after(stores, || {
            let mut producer = ring.producer(2);
            producer.push(1, &[&[5; 20]]).unwrap();
        });
        let mut heir = ring.producer(3);
        heir.push(2, &[b"after"]).unwrap();
        let mut consumer = ring.consumer();
        let mut out = [0; 64];
        let mut seen = Vec::new();
        let mut last = None;
        while let Some(message) = consumer.pop(&mut out).unwrap() {
            assert!(last < Some(message.sequence), "a sequence twice");
            last = Some(message.sequence);
            seen.push((message.tag, out[..message.bytes].to_vec()));
        }
        let (before, after) = ((0, b"before".to_vec()), (2, b"after".to_vec()));
        let between = (1, vec![5; 20]);
        let whole = [before.clone(), between, after.clone()];
        if outcome == Outcome::Finished(()) {
            assert_eq!(seen, whole);
            break;
        }
        assert!(seen == whole || seen == [before, after], "{stores}: {seen:?}");
    }
    for stores in 0..3 {
        let ring = zeroed_box::<Small>();
        ring.producer(1).push(1, &[b"one"]).unwrap();
        ring.producer(1).push(2, &[b"two"]).unwrap();
        let mut taken = Vec::new();
        let mut out = [0; 64];
        let _ = kill_after(stores, || {
            let mut consumer = ring.consumer();
            while let Some(message) = consumer.pop(&mut out).unwrap() {
                taken.push(message.tag);
            }
        });
        let mut heir = ring.consumer();
        while let Some(message) = heir.pop(&mut out).unwrap() {
            taken.push(message.tag);
        }
        assert_eq!(taken, [1, 2], "each once");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn behaves_as_a_queue(steps in prop::collection::vec(prop::option::of(0..60_usize), 1..200)) {
        let ring = zeroed_box::<MessageRing<32>>();
        let (mut producer, mut consumer) = (ring.producer(1), ring.consumer());
        let mut model = VecDeque::new();
        let mut out = [0; 256];
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Some(bytes) => {
                    let payload = vec![number as u8; bytes];
                    let used: usize =
                        model.iter().map(|payload: &Vec<u8>| 3 + payload.len().div_ceil(8)).sum();
                    let fits = used + 3 + bytes.div_ceil(8) <= 32;
                    prop_assert_eq!(producer.push(0, &[&payload]).is_ok(), fits);
                    if fits {
                        model.push_back(payload);
                    }
                }
                None => {
                    let popped = consumer.pop(&mut out).unwrap();
                    let payload = popped.map(|message| out[..message.bytes].to_vec());
                    prop_assert_eq!(payload, model.pop_front());
                }
            }
        }
    }
}
