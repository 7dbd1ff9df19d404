//! The last things that happened on a node, for `status`, `top` and dashboards.
//!
//! ```text
//!   supervisor --> | entry n-1023 | ... | entry n | --> any number of readers
//!                    sequence lock, sequence, time, kind, worker, a, b, text
//! ```
//!
//! An overwriting ring of 128-byte entries, each under its own sequence lock. Single writer: the
//! supervisor, whose successor goes on with the next sequence. Readers keep a cursor; one that was
//! overtaken learns how many entries it lost. A supervisor killed inside an entry costs that entry
//! only.

use crate::seqlock::SeqLock;
use crate::shared::{Padded, Shared};
use crate::sync::{AtomicU64, Ordering};

/// Entries kept.
pub const EVENTS_MAX: usize = 1024;

/// Bytes of text one entry holds; longer text is cut at a character. (Under loom one word of text is
/// enough to tear.)
pub const EVENT_TEXT_BYTES_MAX: usize = if cfg!(loom) { 8 } else { 80 };

const WORDS: usize = TEXT_WORD + EVENT_TEXT_BYTES_MAX / 8;
const TEXT_WORD: usize = 5;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
#[allow(missing_docs)]
pub enum EventKind {
    SupervisorStarted = 1,
    SupervisorTookOver = 2,
    WorkerStarted = 3,
    /// `a`: wait status.
    WorkerDied = 4,
    /// `a`: new generation, `b`: nanoseconds from death to service.
    WorkerPromoted = 5,
    /// `a`: ifindex.
    InterfaceUp = 6,
    /// `a`: ifindex.
    InterfaceDown = 7,
    InterfaceGone = 8,
    /// `a`: ifindex, `b`: nanoseconds without a socket.
    SocketRebound = 9,
    /// `a`: ifindex.
    Refused = 10,
    /// Anything a message says better than a kind.
    Notice = 11,
    SupervisorStopping = 12,
    /// The kill switch was turned on. `a`: uid.
    Halted = 13,
    /// It was turned off. `a`: uid, `b`: nanoseconds that it was on.
    Released = 14,
}

impl EventKind {
    const ALL: [Self; 14] = [
        Self::SupervisorStarted,
        Self::SupervisorTookOver,
        Self::WorkerStarted,
        Self::WorkerDied,
        Self::WorkerPromoted,
        Self::InterfaceUp,
        Self::InterfaceDown,
        Self::InterfaceGone,
        Self::SocketRebound,
        Self::Refused,
        Self::Notice,
        Self::SupervisorStopping,
        Self::Halted,
        Self::Released,
    ];

    /// Name in documents, snake case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SupervisorStarted => "supervisor_started",
            Self::SupervisorTookOver => "supervisor_took_over",
            Self::WorkerStarted => "worker_started",
            Self::WorkerDied => "worker_died",
            Self::WorkerPromoted => "worker_promoted",
            Self::InterfaceUp => "interface_up",
            Self::InterfaceDown => "interface_down",
            Self::InterfaceGone => "interface_gone",
            Self::SocketRebound => "socket_rebound",
            Self::Refused => "refused",
            Self::Notice => "notice",
            Self::SupervisorStopping => "supervisor_stopping",
            Self::Halted => "halted",
            Self::Released => "released",
        }
    }

    fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u16 == code)
    }
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Counts all events of the region, from 1.
    pub sequence: u64,
    /// `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// What happened; `None` for a kind this program does not know.
    pub kind: Option<EventKind>,
    /// Index of the worker concerned.
    pub worker: Option<u16>,
    /// First number, by kind.
    pub a: u64,
    /// Second number, by kind.
    pub b: u64,
    /// For an operator.
    pub text: String,
}

/// The log of a node.
pub type EventLog = EventRing<EVENTS_MAX>;

/// An event log of `ENTRIES` entries, a power of two.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct EventRing<const ENTRIES: usize> {
    /// Events ever appended.
    appended: Padded<AtomicU64>,
    entries: [SeqLock<WORDS>; ENTRIES],
}

// SAFETY: repr(C) of shared structures; padding is never read.
unsafe impl<const ENTRIES: usize> Shared for EventRing<ENTRIES> {}

#[cfg(not(loom))]
const _: () = assert!(size_of::<SeqLock<WORDS>>() == 128, "an entry is 128 bytes");

impl<const ENTRIES: usize> Default for EventRing<ENTRIES> {
    fn default() -> Self {
        Self { appended: Padded::default(), entries: std::array::from_fn(|_| SeqLock::default()) }
    }
}

/// What a reader got, and where it goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventBatch {
    /// In order of sequence.
    pub events: Vec<Event>,
    /// Entries that were overwritten before they could be read, or lost to a killed writer.
    pub lost: u64,
    /// The cursor for the next call.
    pub next: u64,
}

impl<const ENTRIES: usize> EventRing<ENTRIES> {
    const CHECKED: () = assert!(ENTRIES.is_power_of_two(), "a ring's size is a power of two");

    /// Appends one event and returns its sequence. Single writer: the supervisor.
    pub fn append(
        &self,
        time_ns: u64,
        kind: EventKind,
        worker: Option<u16>,
        (a, b): (u64, u64),
        text: &str,
    ) -> u64 {
        let () = Self::CHECKED;
        let sequence = self.appended.0.load(Ordering::Relaxed).wrapping_add(1);
        let text = &text.as_bytes()[..text.floor_char_boundary(EVENT_TEXT_BYTES_MAX)];
        let mut words = [0; WORDS];
        words[0] = sequence;
        words[1] = time_ns;
        words[2] = u64::from(kind as u16)
            | u64::from(worker.map_or(u16::MAX, |index| index)) << 16
            | (text.len() as u64) << 32;
        words[3] = a;
        words[4] = b;
        for (word, chunk) in words[TEXT_WORD..].iter_mut().zip(text.chunks(8)) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            *word = u64::from_le_bytes(bytes);
        }
        self.entry(sequence).write(&words);
        // SYNC POINT: pairs with the acquire load in `read_from`: who sees the count sees the entry.
        self.appended.0.store(sequence, Ordering::Release);
        sequence
    }

    /// Everything from sequence `next` on that is still there; 0 or 1 begins with the oldest.
    pub fn read_from(&self, next: u64) -> EventBatch {
        // SYNC POINT: pairs with the release store in `append`.
        let appended = self.appended.0.load_acquire();
        let oldest = appended.saturating_sub(ENTRIES as u64 - 1).max(1);
        let next = next.max(1);
        let mut batch = EventBatch { next: appended.saturating_add(1), ..EventBatch::default() };
        batch.lost = oldest.saturating_sub(next);
        for sequence in next.max(oldest)..=appended {
            match self.entry(sequence).read() {
                Ok(words) if words[0] == sequence => batch.events.push(event(&words)),
                _ => batch.lost = batch.lost.saturating_add(1),
            }
        }
        batch
    }

    fn entry(&self, sequence: u64) -> &SeqLock<WORDS> {
        &self.entries[sequence as usize & (ENTRIES - 1)]
    }
}

fn event(words: &[u64; WORDS]) -> Event {
    let bytes: Vec<u8> = words[TEXT_WORD..].iter().flat_map(|word| word.to_le_bytes()).collect();
    let length = (words[2] >> 32) as usize;
    let worker = (words[2] >> 16) as u16;
    Event {
        sequence: words[0],
        time_ns: words[1],
        kind: EventKind::from_code(words[2] as u16),
        worker: (worker != u16::MAX).then_some(worker),
        a: words[3],
        b: words[4],
        text: String::from_utf8_lossy(&bytes[..length.min(EVENT_TEXT_BYTES_MAX)]).into_owned(),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::{Outcome, kill_after};

    fn append(log: &EventRing<8>, a: u64) -> u64 {
        log.append(a * 10, EventKind::Notice, Some(3), (a, a * 2), &format!("event {a}"))
    }

    #[test]
    fn events_come_out_in_order_and_the_overtaken_are_counted() {
        let log = EventRing::<8>::default();
        assert_eq!(log.read_from(0), EventBatch { next: 1, ..EventBatch::default() });
        for a in 1..=5 {
            assert_eq!(append(&log, a), a);
        }
        let batch = log.read_from(0);
        assert_eq!((batch.events.len(), batch.lost, batch.next), (5, 0, 6));
        assert_eq!(
            batch.events[4],
            Event {
                sequence: 5,
                time_ns: 50,
                kind: Some(EventKind::Notice),
                worker: Some(3),
                a: 5,
                b: 10,
                text: "event 5".into(),
            }
        );
        assert!(log.read_from(batch.next).events.is_empty());
        for a in 6..=20 {
            append(&log, a);
        }
        let batch = log.read_from(batch.next);
        let sequences: Vec<u64> = batch.events.iter().map(|event| event.sequence).collect();
        assert_eq!(sequences, (13..=20).collect::<Vec<_>>());
        assert_eq!((batch.lost, batch.next), (7, 21));
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        let log = EventRing::<8>::default();
        let text = "é".repeat(60);
        log.append(0, EventKind::Notice, None, (0, 0), &text);
        let event = log.read_from(0).events.remove(0);
        assert_eq!(event.text, "é".repeat(40));
        assert_eq!(event.worker, None);
    }

    #[test]
    fn a_killed_writer_costs_one_entry_and_its_successor_goes_on() {
        for stores in 0..=18 {
            let log = EventRing::<8>::default();
            for a in 1..=10 {
                append(&log, a);
            }
            let outcome = kill_after(stores, || append(&log, 11));
            assert_eq!(outcome == Outcome::Killed, stores < 18, "{stores}");
            let batch = log.read_from(0);
            let last = if stores < 18 { 10 } else { 11 };
            assert_eq!(batch.events.last().unwrap().sequence, last);
            assert!(batch.events.len() >= 7, "{stores}: {batch:?}");
            let sequence = append(&log, 12);
            assert_eq!(sequence, last + 1);
            let batch = log.read_from(0);
            assert_eq!((batch.events.len(), batch.lost), (8, sequence - 8));
            assert_eq!(batch.events[7].text, "event 12");
        }
    }
}
