//! The cache manager: items over REST, and what caches there are. `README.md` of the crate has the paths.
//!
//! Reads are those of a shared-memory reader, writes those of a client of the front; nothing that is in a cache
//! is kept here, so control's death changes nothing and costs only REST. What the store keeps is which caches
//! there should be.

pub mod command;
pub mod configuration;
pub mod etag;
mod item;
mod items;
mod key;
mod manager;
mod readers;
mod status;
mod whereabouts;
mod writers;

pub use configuration::{CacheConfiguration, CacheStrategy, ConsistencyLevel};
pub use item::Item;
pub use items::{ItemError, Items};
pub use key::Key;
pub use manager::{CacheError, Created, EdgeCacheManager, Wanted};
pub use readers::ReadFailure;
pub use status::{CacheDocument, CacheState, CachesDocument};
pub use whereabouts::{NoPlace, Place, find};
pub use writers::WriteFailure;
