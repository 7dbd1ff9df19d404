//! The short way for a key that was only got and set, each time to another value: Gibbons and Korach
//! ("Testing shared memories", 1997), n log n in its operations.
//!
//! A value and who read it form a cluster; in any order they stand together. Cluster A cannot stand
//! before B if an operation of B returned before one of A was asked, so two that have this both ways
//! make an order impossible, and if no two have, there is one.

use std::collections::HashMap;

use super::operation::{Input, Operation, Output};
use super::search::Timed;

/// One value: times of its write and reads.
#[derive(Clone, Copy)]
struct Cluster {
    /// When the write was asked; `None`: nobody wrote this value.
    written_ns: Option<i128>,
    first_return_ns: i128,
    last_invoke_ns: i128,
}

impl Cluster {
    const NONE: Self =
        Self { written_ns: None, first_return_ns: i128::MAX, last_invoke_ns: i128::MIN };

    fn add(&mut self, operation: &Timed<Operation>) {
        let return_ns = operation.return_ns.map_or(i128::MAX, i128::from);
        self.first_return_ns = self.first_return_ns.min(return_ns);
        self.last_invoke_ns = self.last_invoke_ns.max(operation.invoke_ns.into());
    }

    /// Some of it was over before some of it began.
    fn is_forward(&self) -> bool {
        self.first_return_ns < self.last_invoke_ns
    }
}

/// Whether the operations of one key, which was absent at first, can be ordered; `None` if the short
/// way does not lead there.
pub fn decide(operations: &[Timed<Operation>]) -> Option<bool> {
    let mut clusters: HashMap<u64, Cluster> = HashMap::new();
    let mut absent = Cluster { written_ns: Some(-1), first_return_ns: -1, last_invoke_ns: -1 };
    for operation in operations {
        let output = operation.operation.returned.map(|returned| returned.output);
        match (operation.operation.input, output) {
            (Input::Set { value }, None | Some(Output::Stored { version: None })) => {
                let cluster = clusters.entry(value).or_insert(Cluster::NONE);
                if cluster.written_ns.replace(operation.invoke_ns.into()).is_some() {
                    return None;
                }
                cluster.add(operation);
            }
            (Input::Get, Some(Output::Value { value, version: None })) => {
                clusters.entry(value).or_insert(Cluster::NONE).add(operation);
            }
            (Input::Get, Some(Output::Miss)) => absent.add(operation),
            _ => return None,
        }
    }
    // A write that was not answered and not read need not have happened: it stands last.
    let (forward, backward): (Vec<Cluster>, Vec<Cluster>) =
        clusters.into_values().chain([absent]).partition(Cluster::is_forward);
    let own = forward.iter().chain(&backward).all(|cluster| {
        cluster.written_ns.is_some_and(|written_ns| written_ns <= cluster.first_return_ns)
    });
    let mut forward = forward;
    forward.sort_by_key(|cluster| cluster.first_return_ns);
    let apart = forward.windows(2).all(|pair| pair[1].first_return_ns >= pair[0].last_invoke_ns);
    let outside = backward.iter().all(|cluster| {
        let before =
            forward.partition_point(|other| other.first_return_ns < cluster.last_invoke_ns);
        before == 0 || cluster.first_return_ns >= forward[before - 1].last_invoke_ns
    });
    Some(own && apart && outside)
}
