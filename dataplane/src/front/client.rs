//! One TCP connection as the server keeps it: its state machine, its socket, and what is on its way.

use std::os::fd::OwnedFd;

use nautilus_ebpf::intf::Permissions;
use nautilus_shm::metrics::labels::ConnectionEnd;

use super::connection::{Connection, Waits};
use super::link::Target;

/// A connection of the server.
pub struct Client {
    /// What was said and is to be answered.
    pub connection: Connection,
    /// What its source may do with the cache.
    pub permissions: Permissions,
    /// The socket.
    pub socket: OwnedFd,
    /// The cache that it came to.
    pub cache: Target,
    /// What the state machine waits for.
    pub waits: Waits,
    /// A receive is armed.
    pub receiving: bool,
    /// It was asked to end.
    pub stopping: bool,
    /// The client sends nothing more.
    pub input_ended: bool,
    /// A send is on its way.
    pub sending: bool,
    /// Bytes of that buffer that went.
    pub sent_bytes: usize,
    /// Memory of that buffer.
    pub sending_bytes: usize,
    /// It stands in the list of those that wait for room.
    pub blocked: bool,
    /// It was told that there is no memory.
    pub failed: bool,
    /// It is being closed, and why.
    pub end: Option<ConnectionEnd>,
    /// Its socket is shut down.
    pub shut: bool,
    /// When bytes came last, `CLOCK_MONOTONIC`.
    pub heard_ns: u64,
    /// When bytes of an answer went last, or the answer was begun.
    pub sent_ns: u64,
    /// Its memory as far as it is counted.
    pub held_bytes: usize,
}

impl Client {
    /// A connection that was just accepted.
    pub fn new(socket: OwnedFd, cache: Target, permissions: Permissions, now_ns: u64) -> Self {
        Self {
            connection: Connection::default(),
            permissions,
            socket,
            cache,
            waits: Waits::Input,
            receiving: false,
            stopping: false,
            input_ended: false,
            sending: false,
            sent_bytes: 0,
            sending_bytes: 0,
            blocked: false,
            failed: false,
            end: None,
            shut: false,
            heard_ns: now_ns,
            sent_ns: 0,
            held_bytes: 0,
        }
    }
}
