//! The memcached protocol, classic and meta text form (memcached 1.6.18, `doc/protocol.txt`).
//!
//! ```text
//!   datagram = frame header (8 bytes) + commands -> frame.rs, parse/ -> app/cache/
//!   stream   =                          commands ->           parse/ ->
//!   reply    = text, or frames of at most 1,400 bytes  <- reply.rs   <-
//! ```
//!
//! Nothing here keeps state between requests. `README.md` beside this file lists where answers differ
//! from memcached's.

pub mod base64;
pub mod expiry;
pub mod frame;
pub mod number;
pub mod parse;
pub mod reply;
mod scan;

pub use frame::FrameHeader;
pub use parse::{Next, Refusal, Request};
