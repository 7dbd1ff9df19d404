//! What a packet is made of: addresses, and (below the `xdp` port only) link and IP headers.

mod endpoint;
mod prefix;

pub use endpoint::Endpoint;
pub use prefix::{Prefix, PrefixError};
