//! Market data: MoldUDP64 in, ITCH 5.0 decoded, books by order, best bid/offer and last trade out.
//!
//! ```text
//!   datagram -> moldudp64 (framing) -> lines (what each line brings)
//!                                        |
//!                                     arbitration (one stream of several lines; session: sequence, gaps)
//!                                        |
//!                                     itch (fields) -> book (orders, levels) -> record -> Keyspace
//! ```
//!
//! Everything here is plain data and arithmetic: no socket, no clock, and nothing is allocated after
//! a channel has been made; [`applied`] alone writes memory that the steering program reads. The application that drives it is [`crate::app::feed`].

pub mod applied;
pub mod arbitration;
pub mod book;
pub mod channel;
pub mod counters;
pub mod glimpse;
pub mod held;
pub mod history;
pub mod itch;
pub mod lines;
pub mod metrics;
pub mod moldudp64;
pub mod pack;
pub mod publisher;
pub mod record;
pub mod recovery;
pub mod republish;
pub mod request_server;
pub mod session;
pub mod soupbintcp;
pub mod statistics;
pub mod status;
pub mod symbol;
pub mod trades;

pub use symbol::{Symbol, Venue};
