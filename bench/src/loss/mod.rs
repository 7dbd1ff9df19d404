//! C2: a generated day over two lines that lose and reorder its packets, what a channel makes of it, and a
//! plain book that is told everything.
//!
//! ```text
//!   generator -> packets -> line A, line B (loss, delay) -> Channel -> published best bids and offers
//!                   |                                        ^  | requests
//!                   +-- history ------ replies --------------+<-+        compared at every check
//!                   +-- itch5 -> plain book -------------------------------------------^
//! ```
//!
//! Time is the simulation's own, so nothing of this depends on the machine.

mod day;
mod shown;
mod world;

pub use world::{Found, World};

/// Stocks of the day.
pub const STOCKS: u16 = 256;

/// Of a million packets, how many each line loses.
pub const LOST_PPM: u32 = 10_000;

/// Of a million packets, how many each line delays.
pub const DELAYED_PPM: u32 = 50_000;

/// Longest delay: ten packets and more come before one that is delayed by it.
pub const DELAY_NS_MAX: u32 = 500_000;

/// Between two packets: 200,000 messages a second.
pub const PACE_NS: u64 = 50_000;

/// Messages of a packet: 1 to this many, 10 on average.
pub const PACKET_MESSAGES_MAX: u32 = 19;
