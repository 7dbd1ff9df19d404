//! What the publisher and the servers of a venue share: the day and its messages, under one lock.

use super::day::Day;
use super::engine::Tape;
use crate::feed::history::History;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The day and what was said of it, always of the same moment: the books are as of the last message of
/// the history.
pub struct State {
    day: Day,
    history: History,
}

impl State {
    /// The day.
    pub fn day(&self) -> &Day {
        &self.day
    }

    /// The messages.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// One step of the day, whose messages are then in `tape` and in the history.
    pub fn step(&mut self, tape: &mut Tape) -> bool {
        let goes_on = self.day.step(tape);
        for message in tape.messages() {
            self.history.append(message);
        }
        goes_on
    }
}

/// Written by the publisher's thread step by step, read by the servers' between two steps.
pub struct Shared {
    state: Mutex<State>,
    /// Servers that wait for the lock. The publisher, which takes it again and again, lets them go
    /// first; nothing is ordered by it.
    waiting: AtomicU64,
    stop: AtomicBool,
    hurry: AtomicBool,
    started: Instant,
}

impl Shared {
    /// A day before its first step, and an empty history.
    pub fn new(day: Day, history: History) -> Self {
        Self {
            state: Mutex::new(State { day, history }),
            waiting: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            hurry: AtomicBool::new(false),
            started: Instant::now(),
        }
    }

    /// Asks the publisher to end the day, and the time after it, now.
    pub fn hurry(&self) {
        self.hurry.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked to.
    pub fn is_hurried(&self) -> bool {
        self.hurry.load(Ordering::Relaxed)
    }

    /// Nanoseconds since the start.
    pub fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// The state, for a server.
    pub fn read(&self) -> MutexGuard<'_, State> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let state = self.lock();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        state
    }

    /// The state, for the publisher.
    pub fn write(&self) -> MutexGuard<'_, State> {
        // Bounded: a server that is not scheduled may not stop the venue.
        for _ in 0..1_000 {
            if self.waiting.load(Ordering::Relaxed) == 0 {
                break;
            }
            std::thread::yield_now();
        }
        self.lock()
    }

    /// Tells the servers to end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether the servers are to end.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A thread that panicked with the lock has ended the program's purpose; what it left is still whole
    /// enough to be counted.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
