//! Both ends of every `SYNC POINT` of this crate under every interleaving and every stale value the
//! memory model allows (within the preemption bound), with the writer stopped after each store.

use loom::sync::Arc;
use loom::thread;

use crate::capture_ring::{CaptureRing, CaptureRingHead, Captured};
use crate::event_log::{EventKind, EventRing};
use crate::sampled_hits::HitRing;
use crate::seqlock::{SeqLock, Version};
use crate::sleep::Sleep;
use crate::spsc::{Ring, RingError};
use crate::sync::{AtomicU64, Ordering, Outcome, kill_after};

fn explore(body: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(body);
}

/// Two readers, two writes, a writer that stops after any store, and a successor that repairs.
#[test]
fn sequence_lock_readers_see_one_write_or_none() {
    // Stores of one write: odd, two words, even.
    for stores in 0..=8 {
        explore(move || {
            let lock = Arc::new(SeqLock::<2>::default());
            let read = |lock: &SeqLock<2>| {
                if let Some([a, b]) = lock.try_read() {
                    assert_eq!(a, b, "a mixture of two writes");
                    assert!(a <= 2);
                }
            };
            let writing = lock.clone();
            let writer = thread::spawn(move || {
                kill_after(stores, || {
                    writing.write(&[1; 2]);
                    writing.write(&[2; 2]);
                }) == Outcome::Killed
            });
            let reading = lock.clone();
            let reader = thread::spawn(move || read(&reading));
            read(&lock);
            reader.join().unwrap();
            // Joining stands for the death that a takeover waits for.
            assert_eq!(writer.join().unwrap(), stores < 8);
            match lock.try_read() {
                Some(words) => assert_eq!(words, [stores / 4; 2]),
                None => assert!(!stores.is_multiple_of(4)),
            }
            lock.write(&[3; 2]);
            assert_eq!(lock.try_read(), Some([3; 2]));
        });
    }
}

/// A successor that finds the sequence odd writes under it, with a reader in flight.
#[test]
fn sequence_lock_left_odd_is_taken_over_under_a_reader() {
    for stores in 1..4 {
        explore(move || {
            let lock = Arc::new(SeqLock::<2>::default());
            kill_after(stores, || lock.write(&[1; 2]));
            let writing = lock.clone();
            let writer = thread::spawn(move || writing.write(&[2; 2]));
            if let Some(words) = lock.try_read() {
                assert_eq!(words, [2; 2]);
            }
            writer.join().unwrap();
            assert_eq!(lock.try_read(), Some([2; 2]));
        });
    }
}

struct TwoCopies {
    version: Version,
    copies: [[AtomicU64; 2]; 2],
}

impl TwoCopies {
    fn write(&self, value: u64) {
        let copy = &self.copies[self.version.begin_write()];
        copy.iter().for_each(|word| word.store(value, Ordering::Relaxed));
        self.version.publish();
    }

    /// `None`: the copy was given up during the read.
    fn read(&self) -> Option<[u64; 2]> {
        let version = self.version.current();
        let copy = &self.copies[(version & 1) as usize];
        let words = [copy[0].load(Ordering::Relaxed), copy[1].load(Ordering::Relaxed)];
        self.version.validate(version).then(|| {
            assert_eq!(words, [version; 2], "another version's words");
            words
        })
    }
}

/// The first write fills the copy nobody reads, the second the one a reader may be in, the third
/// the first again.
#[test]
fn two_copies_are_never_mixed_and_never_busy_after_a_kill() {
    for stores in 0..=9 {
        explore(move || {
            let pair =
                Arc::new(TwoCopies { version: Version::default(), copies: Default::default() });
            let writing = pair.clone();
            let writer = thread::spawn(move || {
                kill_after(stores, || (1..=3).for_each(|value| writing.write(value)));
            });
            let reading = pair.clone();
            let reader = thread::spawn(move || reading.read());
            pair.read();
            reader.join().unwrap();
            writer.join().unwrap();
            assert_eq!(pair.read(), Some([stores / 3; 2]));
        });
    }
}

/// What a consumer may see: entries in order, whole, each once.
fn drain(ring: &Ring<2, 2>, next: &mut u64, attempts: usize) {
    let mut consumer = ring.consumer();
    for _ in 0..attempts {
        match consumer.pop() {
            Ok(Some(entry)) => {
                assert_eq!(entry.sequence, *next);
                assert_ne!(entry.generation, 0, "words that nobody wrote");
                assert_eq!(entry.words, [entry.generation * 100 + entry.sequence; 2]);
                *next += 1;
            }
            Ok(None) => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn produce(ring: &Ring<2, 2>, generation: u64, entries: u64, attempts: usize) {
    let mut producer = ring.producer(generation).unwrap();
    let mut left = entries;
    for _ in 0..attempts {
        if left == 0 {
            return;
        }
        // The sequence that the entry will get is the ring's; it is read back from a failed push.
        let sequence = producer.next_sequence();
        match producer.push(&[generation * 100 + sequence; 2]) {
            Ok(given) => {
                assert_eq!(given, sequence);
                left -= 1;
            }
            Err(RingError::Full) => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// The ring wraps: the third entry overwrites the first.
#[test]
fn ring_entries_are_whole_when_the_producer_stops_after_any_store() {
    // Stores of one push: generation, sequence, two words, head.
    for stores in 0..=15 {
        explore(move || {
            let ring = Arc::new(Ring::<2, 2>::default());
            let consuming = ring.clone();
            let consumer = thread::spawn(move || {
                let mut next = 0;
                drain(&consuming, &mut next, 3);
                next
            });
            kill_after(stores, || produce(&ring, 1, 3, 4));
            let mut next = consumer.join().unwrap();
            drain(&ring, &mut next, 2);
            produce(&ring, 2, 1, 1);
            let published = next;
            drain(&ring, &mut next, 2);
            assert_eq!(next, published + 1, "the successor's entry follows");
        });
    }
}

/// A successor of the consumer gets nothing twice, at most one entry is gone, and the producer never
/// overwrites what is being read.
#[test]
fn ring_entries_are_handed_out_at_most_once_when_the_consumer_stops() {
    for stores in 0..=2 {
        explore(move || {
            let ring = Arc::new(Ring::<2, 2>::default());
            let consuming = ring.clone();
            let consumer = thread::spawn(move || {
                let mut next = 0;
                kill_after(stores, || drain(&consuming, &mut next, 2));
                next
            });
            produce(&ring, 1, 3, 4);
            let handed_out = consumer.join().unwrap();
            assert!(handed_out <= stores);
            let mut next = handed_out;
            produce(&ring, 1, 1, 1);
            drain(&ring, &mut next, 4);
        });
    }
}

#[test]
fn event_readers_see_whole_events_in_order() {
    for stores in [1, 3, 8, 9, 10, 17, 18] {
        explore(move || {
            let log = Arc::new(EventRing::<1>::default());
            let append =
                |log: &EventRing<1>, a: u64| log.append(a, EventKind::Notice, None, (a, a), "");
            append(&log, 1);
            let writing = log.clone();
            let writer = thread::spawn(move || {
                kill_after(stores, || {
                    append(&writing, 2);
                    append(&writing, 3);
                });
            });
            let batch = log.read_from(0);
            for event in &batch.events {
                assert_eq!([event.a, event.b, event.time_ns], [event.sequence; 3]);
            }
            assert!(batch.events.len() as u64 + batch.lost >= 1);
            writer.join().unwrap();
            let sequence = append(&log, stores / 9 + 2);
            assert_eq!(sequence, stores / 9 + 2);
            assert_eq!(
                log.read_from(batch.next.max(sequence)).events.len() as u64,
                u64::from(batch.next <= sequence)
            );
        });
    }
}

/// Two messages through a ring that has room for one, the producer stopped after any store.
#[test]
fn a_message_is_seen_whole_or_not_at_all() {
    for stores in 0..=14 {
        explore(move || {
            let ring = Arc::new(crate::message_ring::MessageRing::<8>::default());
            let writing = ring.clone();
            let writer = thread::spawn(move || {
                kill_after(stores, || {
                    let mut producer = writing.producer(1);
                    producer.push(1, &[&[1; 16]]).unwrap();
                    // Full unless the first has been taken: its words are then reused.
                    let _ = producer.push(2, &[&[2; 24]]);
                }) == Outcome::Killed
            });
            let mut consumer = ring.consumer();
            let mut out = [0; 64];
            for expected in 1..=2_u8 {
                let Some(message) = consumer.pop(&mut out).unwrap() else { break };
                assert_eq!(
                    (message.tag, message.sequence),
                    (expected.into(), u64::from(expected) - 1)
                );
                assert_eq!(out[..message.bytes], vec![expected; 8 + 8 * usize::from(expected)]);
            }
            writer.join().unwrap();
        });
    }
}

/// Two wakers with a message each, one sleeper: a sleeper that saw no message is woken, by one of them.
#[test]
fn a_sleeper_that_saw_nothing_is_woken() {
    explore(|| {
        let state = Arc::new((Sleep::default(), [AtomicU64::new(0), AtomicU64::new(0)]));
        let rings = Arc::new(AtomicU64::new(0));
        let wakers: Vec<_> = (0..2)
            .map(|number| {
                let (state, rings) = (state.clone(), rings.clone());
                thread::spawn(move || {
                    let (sleep, messages) = &*state;
                    messages[number].store(1, Ordering::Release);
                    if sleep.must_wake() {
                        rings.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let (sleep, messages) = &*state;
        sleep.announce(7);
        let blocks = messages.iter().all(|message| message.load(Ordering::Relaxed) == 0);
        for waker in wakers {
            waker.join().unwrap();
        }
        let rung = rings.load(Ordering::Relaxed);
        assert!(rung <= 1, "one waker is enough");
        assert!(!blocks || rung == 1, "it blocks, and nobody wakes it");
        sleep.woke();
        assert!(!sleep.must_wake());
    });
}

/// A reader tells of hits and stops after any store; the worker sees whole entries in order, each at most
/// once, and what is there when its writer is gone.
#[test]
fn told_hits_are_seen_in_order_or_not_at_all() {
    // Two stores an entry.
    for stores in 0..=4 {
        explore(move || {
            let ring = Arc::new(HitRing::default());
            let telling = ring.clone();
            let reader = thread::spawn(move || {
                kill_after(stores, || {
                    telling.push(7);
                    telling.push(8);
                });
            });
            let (mut tail, mut out, mut seen) = (0, [0; 2], Vec::new());
            let (count, overrun) = ring.take(&mut tail, &mut out);
            assert!(!overrun);
            seen.extend_from_slice(&out[..count]);
            reader.join().unwrap();
            let (count, _) = ring.take(&mut tail, &mut out);
            seen.extend_from_slice(&out[..count]);
            assert_eq!(seen, [7, 8][..stores as usize / 2]);
        });
    }
}

/// A worker captures two frames and stops after any store; who writes them sees whole ones in order, and gives
/// room back while it goes on.
#[test]
fn captured_frames_are_seen_whole_or_not_at_all() {
    for stores in [0, 5, 8, 9, 10, 18, 20, 99] {
        explore(move || {
            let words: Vec<AtomicU64> = (0..64).map(|_| AtomicU64::new(0)).collect();
            let memory = Arc::new((CaptureRingHead::default(), words));
            let writing = memory.clone();
            let worker = thread::spawn(move || {
                kill_after(stores, || {
                    let mut producer = CaptureRing::new(&writing.0, &writing.1).producer();
                    let Some(place) = producer.place(6) else { return };
                    for frame in [1u8, 2] {
                        producer.push(place, frame.into(), &[&[frame; 8]]);
                    }
                });
            });
            let mut consumer = CaptureRing::new(&memory.0, &memory.1).consumer();
            let (mut out, mut expected) = (Vec::new(), 1);
            let mut take = |consumer: &mut crate::capture_ring::CaptureConsumer<'_>| {
                if let Some(read) = consumer.next(&mut out).unwrap() {
                    let (sequence, stamp_ns) = (expected - 1, expected);
                    let whole = Captured { identity: 6, sequence, stamp_ns, dropped: 0 };
                    assert_eq!((read, &out[..]), (whole, &[expected as u8; 8][..]));
                    expected += 1;
                    consumer.commit();
                }
            };
            take(&mut consumer);
            worker.join().unwrap();
            take(&mut consumer);
            take(&mut consumer);
        });
    }
}
