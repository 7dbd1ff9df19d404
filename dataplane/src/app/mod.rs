//! What a node serves. An application takes bursts and a clock, never a socket.

pub mod cache;
pub mod echo;
pub mod feed;
pub mod feed_memory;
pub mod feed_specs;
pub mod keyspace;

use crate::port::{Burst, Transmit};

pub use cache::{CacheApp, CacheCounts};
pub use keyspace::{ChannelState, Keyspace, PutError};

/// One application of the run loop.
pub trait App {
    /// Handles one burst that was addressed to this application. `now_ns` is `CLOCK_MONOTONIC`, read
    /// once after the burst was received. Must not allocate, lock, log or enter the kernel.
    fn handle(&mut self, now_ns: u64, burst: &impl Burst, tx: &mut impl Transmit);

    /// Bounded work between bursts (timers, feed silence); same rules as [`Self::handle`].
    fn housekeeping(&mut self, now_ns: u64, tx: &mut impl Transmit);
}
