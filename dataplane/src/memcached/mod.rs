//! The memcached protocol over UDP, classic text form (memcached 1.6.18, `doc/protocol.txt`).
//!
//! ```text
//!   datagram = frame header (8 bytes) + commands -> frame.rs, command.rs -> app/cache.rs
//!   reply    = frames of at most 1,400 bytes     <- reply.rs, number.rs  <-
//! ```
//!
//! Nothing here keeps state between datagrams. `README.md` beside this file lists where answers
//! differ from memcached's.

pub mod command;
pub mod expiry;
pub mod frame;
pub(crate) mod number;
pub mod reply;

pub use command::{Command, Next, Refusal};
pub use frame::FrameHeader;
