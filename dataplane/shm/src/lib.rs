//! The shared-memory contract between the processes of a node: the only thing control, workers,
//! supervisor and same-host readers have in common.

pub mod attach;
pub mod ledger;
pub mod sync;
