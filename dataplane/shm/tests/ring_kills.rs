//! SIGKILL against either end of a ring between two processes, at random moments.
//!
//! `NAUTILUS_RING_KILLS` sets how many kills each test makes (200 unless set).

// loom's atomics have another layout and no region to live in; miri has no processes.
#![cfg(not(any(loom, miri)))]

use std::io;
use std::time::{Duration, Instant};

use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::region::{Access, REGION_HEADER_BYTES, Region, RegionSpec};
use nautilus_shm::spsc::{Entry, Ring, RingError};
use nautilus_shm::sync::{AtomicU64, Ordering};

const WORDS: usize = 6;
type Tested = Ring<64, WORDS>;

/// Longest the surviving side may see nothing while its peer runs.
const PATIENCE: Duration = Duration::from_secs(20);

fn kills() -> u64 {
    match std::env::var("NAUTILUS_RING_KILLS") {
        Ok(text) => text.parse().expect("NAUTILUS_RING_KILLS is a number"),
        Err(_) => 200,
    }
}

struct Shared {
    region: Region,
    report: usize,
}

impl Shared {
    fn new() -> Self {
        let report = REGION_HEADER_BYTES + size_of::<Tested>();
        let spec = RegionSpec {
            magic: 7,
            layout_version: 1,
            layout_hash: 1,
            bytes: report + 64,
            huge_pages: false,
        };
        let region = Region::create(c"nautilus-test-ring", &spec).unwrap();
        let copy = region.fd().try_clone_to_owned().unwrap();
        let region = Region::attach(copy, &spec, Access::ReadWrite).unwrap();
        Self { region, report }
    }

    fn ring(&self) -> &Tested {
        self.region.view(REGION_HEADER_BYTES).unwrap()
    }

    /// Words by which a child says what it saw.
    fn report(&self) -> &[AtomicU64; 3] {
        self.region.view(self.report).unwrap()
    }
}

/// Every word is made of the whole entry's identity.
fn pattern(generation: u64, sequence: u64) -> [u64; WORDS] {
    std::array::from_fn(|word| {
        (generation << 40 ^ sequence).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(word as u32)
    })
}

fn assert_whole(entry: &Entry<WORDS>) {
    assert_eq!(entry.words, pattern(entry.generation, entry.sequence), "torn: {entry:?}");
}

/// A forked child; killed and reaped when dropped.
struct Child(libc::pid_t);

impl Child {
    /// `body` returns only if something is wrong, and neither allocates nor locks.
    fn fork(body: impl FnOnce()) -> Self {
        // SAFETY: the child runs only `body`, under the rule above, and leaves by _exit.
        match unsafe { libc::fork() } {
            -1 => panic!("fork: {}", io::Error::last_os_error()),
            0 => {
                body();
                // SAFETY: ends the child without running the parent's exit handlers.
                unsafe { libc::_exit(0) }
            }
            child => Self(child),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let mut status = 0;
        // SAFETY: the child is ours and not yet reaped; `status` is valid for the call.
        let reaped = unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, &mut status, 0)
        };
        assert_eq!(reaped, self.0);
        assert!(libc::WIFSIGNALED(status), "the child ended by itself: {status:#x}");
    }
}

/// Microseconds until the next kill, 0 to 999; the seed is printed with a failure.
struct Moments(u64);

impl Moments {
    fn new() -> Self {
        let seed = monotonic_ns() | 1;
        println!("seed {seed}");
        Self(seed)
    }

    fn next(&mut self) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Duration::from_micros(self.0 % 1000)
    }
}

#[test]
fn a_consumer_outlives_its_producers() {
    let shared = Shared::new();
    let mut consumer = shared.ring().consumer();
    let mut moments = Moments::new();
    let mut expected = 0;
    let mut last_generation = 0;
    let mut take = |generation: u64| {
        let entry = consumer.pop().expect("indices and entries stay right")?;
        assert_whole(&entry);
        assert_eq!(entry.sequence, expected);
        assert!((last_generation..=generation).contains(&entry.generation), "{entry:?}");
        (expected, last_generation) = (expected + 1, entry.generation);
        Some(entry)
    };
    for generation in 1..=kills() {
        let child = Child::fork(|| {
            let Ok(mut producer) = shared.ring().producer(generation) else { return };
            loop {
                match producer.push(&pattern(generation, producer.next_sequence())) {
                    Ok(_) | Err(RingError::Full) => {}
                    Err(_) => return,
                }
            }
        });
        let started = Instant::now();
        while take(generation).is_none_or(|entry| entry.generation != generation) {
            assert!(started.elapsed() < PATIENCE, "producer {generation} is not heard");
        }
        let until = Instant::now() + moments.next();
        while Instant::now() < until {
            take(generation);
        }
        drop(child);
        let mut left = 0;
        while take(generation).is_some() {
            left += 1;
            assert!(left <= 64, "more than the ring holds");
        }
    }
    println!("{} kills, {expected} entries", kills());
}

#[test]
fn a_producer_outlives_its_consumers() {
    let shared = Shared::new();
    let mut producer = shared.ring().producer(1).unwrap();
    let mut moments = Moments::new();
    let mut push = || match producer.push(&pattern(1, producer.next_sequence())) {
        Ok(_) => true,
        Err(RingError::Full) => false,
        Err(error) => panic!("{error}"),
    };
    // What the consumers saw: entries, the next sequence acceptable, repeated or torn ones.
    let [taken, next, wrong] = shared.report();
    for consumer in 1..=kills() {
        let before = taken.load(Ordering::Acquire);
        let child = Child::fork(|| {
            let mut consumer = shared.ring().consumer();
            loop {
                match consumer.pop() {
                    Ok(None) => {}
                    Ok(Some(entry)) => {
                        let due = next.load(Ordering::Relaxed);
                        let whole = entry.words == pattern(1, entry.sequence);
                        if !whole || entry.sequence < due {
                            wrong.store(wrong.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                        }
                        next.store(entry.sequence + 1, Ordering::Relaxed);
                        taken.store(taken.load(Ordering::Relaxed) + 1, Ordering::Release);
                    }
                    Err(_) => return,
                }
            }
        });
        let started = Instant::now();
        while taken.load(Ordering::Acquire) == before {
            push();
            assert!(started.elapsed() < PATIENCE, "consumer {consumer} takes nothing");
        }
        let until = Instant::now() + moments.next();
        while Instant::now() < until {
            push();
        }
        drop(child);
        assert_eq!(wrong.load(Ordering::Relaxed), 0, "torn or handed out twice");
        // A kill may come between taking an entry and saying so, once each.
        let missing = next.load(Ordering::Relaxed) - taken.load(Ordering::Relaxed);
        assert!(missing <= consumer, "{missing} entries gone after {consumer} kills");
    }
    assert!(taken.load(Ordering::Relaxed) >= kills());
    println!("{} kills, {} entries", kills(), taken.load(Ordering::Relaxed));
}
