//! What a packet is made of: addresses, and (below the `xdp` port only) link and IP headers.

mod endpoint;

pub use endpoint::Endpoint;
