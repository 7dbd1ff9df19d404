//! What an operator is told: one line on standard error and one entry in the event log.

use std::io::Write;

use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::control_region::ControlRegion;
use nautilus_shm::event_log::EventKind;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// Which worker slot.
    pub worker: Option<u16>,
    /// The kind's numbers.
    pub numbers: (u64, u64),
    /// For people.
    pub text: String,
}

impl Event {
    /// An event of the node.
    pub fn new(kind: EventKind, numbers: (u64, u64), text: impl Into<String>) -> Self {
        Self { kind, worker: None, numbers, text: text.into() }
    }

    /// The same, about a worker slot.
    pub fn of_worker(mut self, index: u32) -> Self {
        self.worker = u16::try_from(index).ok();
        self
    }
}

/// Prints an event and appends it to the log. Its only caller is the supervisor's thread.
pub fn publish(node: &str, control: &ControlRegion, event: &Event) {
    let now_ns = monotonic_ns();
    say(node, &event.text);
    control.events().append(now_ns, event.kind, event.worker, event.numbers, &event.text);
}

/// Prints a line. A log that cannot be written (a full disk, a reader that is gone) is no reason to end.
pub fn say(node: &str, text: &str) {
    let _ = writeln!(std::io::stderr(), "nautilus-supervisor {node}: {text}");
}

/// Nanoseconds as an operator reads them.
pub fn milliseconds(ns: u64) -> String {
    format!("{}.{:03} ms", ns / 1_000_000, ns / 1000 % 1000)
}
