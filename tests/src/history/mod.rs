//! Histories of what clients did to a store, and whether one order explains them.
//!
//! ```text
//!   thread, process            files               nautilus-history, or a test
//!   ClientLog --+
//!   ClientLog --+-- Recorder -> a.history --+
//!   ClientLog ----- Recorder -> b.history --+--> read_all -> check -> per key: register, else search
//! ```
//!
//! An operation is stamped by one clock (`CLOCK_MONOTONIC`) before it is sent and after it was
//! answered. A history is linearizable per key when, for each key, the operations can be put into one
//! order in which none comes before one that had been answered when it was sent, and in which each
//! answer is what a single memcached would have given. Writers: the recording clients. Readers: the
//! checker. 64 bytes an operation on disk.

mod check;
mod operation;
mod record;
mod register;
mod report;
mod search;
mod store;

pub use check::{Checked, Found, check, check_within};
pub use operation::{Input, Operation, Output, Returned, value_id};
pub use record::{ClientLog, Pending, RECORD_BYTES, RecordError, Recorder, read, read_all};
pub use search::{CONFIGURATIONS_MAX, Model, Timed, Verdict, Window, search};
pub use store::{State, Store};

#[cfg(test)]
mod random_test;
