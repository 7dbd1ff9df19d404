//! What a packet is made of: addresses, and (below the `xdp` port only) link and IP headers.

pub mod build;
pub mod checksum;
mod endpoint;
pub mod ethernet;
pub mod parse;
mod prefix;

pub use build::LinkAddress;
pub use endpoint::Endpoint;
pub use parse::{Discard, Parsed, RxChecksum};
pub use prefix::{Prefix, PrefixError};
