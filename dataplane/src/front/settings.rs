//! What the node file says of the front, as its loop uses it.

use crate::config::PollPolicy;

/// What the front is told by the node file.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Connections at once.
    pub connections_max: usize,
    /// Silence after which a connection is closed; 0 for never.
    pub idle_timeout_ns: u64,
    /// Memory of all connections' buffers together.
    pub held_bytes_max: usize,
    /// What the loop does when nothing happens.
    pub poll: PollPolicy,
}
