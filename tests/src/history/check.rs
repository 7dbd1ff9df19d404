//! A whole history, key by key.
//!
//! What holds for each key holds for all (linearizability is local: Herlihy and Wing, 1990). A flush
//! is the exception: it is put into every key's history with its own times, so what is checked is that
//! each key can be ordered with it, not that all keys saw it at one instant.

use std::collections::BTreeMap;

use super::operation::{Input, Operation};
use super::register;
use super::search::{CONFIGURATIONS_MAX, Timed, Verdict, Window, search};
use super::store::Store;

/// A key whose operations no order explains.
#[derive(Clone, Debug)]
pub struct Found {
    /// Which key.
    pub key: u64,
    /// Its operations, flushes included.
    pub operations: Vec<Operation>,
    /// Where the order ends.
    pub window: Window,
}

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// Operations of the history.
    pub operations_count: usize,
    /// Of these without an answer.
    pub unanswered_count: usize,
    /// Keys.
    pub keys_count: usize,
    /// Keys decided the short way.
    pub registers_count: usize,
    /// Keys without an order.
    pub violations: Vec<Found>,
    /// Keys whose search reached its limit.
    pub undecided: Vec<u64>,
}

impl Checked {
    /// Every key was decided, and has an order.
    pub fn is_linearizable(&self) -> bool {
        self.violations.is_empty() && self.undecided.is_empty()
    }
}

/// Checks a history, in any order of its operations.
pub fn check(history: &[Operation]) -> Checked {
    check_within(history, CONFIGURATIONS_MAX)
}

/// [`check`] with another limit on the configurations of one key's search.
pub fn check_within(history: &[Operation], configurations_max: usize) -> Checked {
    let mut keys: BTreeMap<u64, Vec<Operation>> = BTreeMap::new();
    let mut flushes = Vec::new();
    for operation in history {
        match operation.input {
            Input::Flush => flushes.push(*operation),
            _ => keys.entry(operation.key).or_default().push(*operation),
        }
    }
    let mut checked = Checked {
        operations_count: history.len(),
        unanswered_count: history.iter().filter(|one| one.returned.is_none()).count(),
        keys_count: keys.len(),
        ..Checked::default()
    };
    for (key, mut operations) in keys {
        operations.extend(&flushes);
        // A read without an answer says nothing.
        operations.retain(|one| one.returned.is_some() || one.input != Input::Get);
        let timed: Vec<Timed<Operation>> = operations.iter().map(timed).collect();
        let short = register::decide(&timed);
        checked.registers_count += usize::from(short.is_some());
        let verdict = match short {
            Some(true) => Verdict::Linearizable,
            _ => search(&Store, &timed, configurations_max),
        };
        match verdict {
            Verdict::Linearizable => {}
            Verdict::Violation(window) => {
                checked.violations.push(Found { key, operations, window })
            }
            Verdict::Undecided if short == Some(false) => {
                checked.violations.push(Found { key, operations, window: Window::default() });
            }
            Verdict::Undecided => checked.undecided.push(key),
        }
    }
    checked
}

fn timed(operation: &Operation) -> Timed<Operation> {
    let return_ns = operation.returned.map(|returned| returned.at_ns);
    Timed { operation: *operation, invoke_ns: operation.invoke_ns, return_ns }
}
