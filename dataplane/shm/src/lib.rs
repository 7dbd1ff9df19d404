//! The shared-memory contract between the processes of a node: the only thing control, workers,
//! supervisor and same-host readers have in common.

pub mod attach;
pub mod cache_cell;
#[cfg(not(loom))]
pub mod capture_region;
pub mod capture_ring;
pub mod cells;
pub mod clock;
pub mod control_region;
pub mod event_log;
pub mod front_region;
pub mod histogram;
pub mod kill_switch;
pub mod ledger;
pub mod life;
#[cfg(all(test, loom))]
mod loom_tests;
pub mod message_ring;
pub mod metrics;
pub mod misorder;
pub mod next_hops;
mod prefetch;
pub mod region;
pub mod sampled_hits;
pub mod seqlock;
pub mod shared;
pub mod sleep;
pub mod spsc;
pub mod sync;
pub mod table;
#[cfg(not(loom))]
pub mod worker_rings;

pub use prefetch::prefetch;
