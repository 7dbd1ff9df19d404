//! What one node is told to be: the TOML node file, checked before anything is opened.
//!
//! ```text
//!   node.toml --load--> NodeConfig (types, bounds) --resolve(HostFacts)--> Resolved (no `auto` left)
//!                 \-> ConfigError: file, line, key path, what to write instead
//! ```
//!
//! `node.default.toml` beside this crate documents every key; [`DEFAULT_TOML`] embeds it and a test
//! holds it equal to [`NodeConfig::default`]. Unknown keys are refused.

mod access;
mod auto;
mod capture;
mod check;
mod distribution;
mod elsewhere;
mod feed;
mod host;
mod in_place;
mod load;
mod one_or_many;
mod republish;
mod resolve;
mod types;

pub use access::{Access, Allow, CacheSource, SourceLimit, list_of};
pub use auto::Auto;
pub use capture::Capture;
pub use check::{FEED_LINES_MAX, FEEDS_MAX, READERS_MAX, VALUE_BYTES_MAX, check_one_more};
pub use distribution::{Entitled, FeedDistribution, Slow};
pub use elsewhere::wants_of_its_host;
pub use feed::{Feed, FeedLine, FeedRecovery, FeedSnapshot, FeedStart};
pub use host::HostSettings;
pub use in_place::change_in_place;
pub use load::{ConfigError, load, parse, place_of};
pub(crate) use load::{misread, refused};
pub use republish::{FeedRepublish, RepublishSnapshot};
pub use resolve::{Choice, HostFacts, ResolveError, Resolved};
pub use types::{
    Begin, Cache, Control, Cores, Echo, Front, Interface, Node, NodeConfig, PollPolicy, Port,
    PortKind, Queues, RxChecksum, Supervisor, Tier, Worker,
};

/// The default node file, documented line by line.
pub const DEFAULT_TOML: &str = include_str!("../../node.default.toml");
