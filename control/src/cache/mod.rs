//! The cache manager: items over REST, and what caches there are. `README.md` of the crate has the paths.
//!
//! Reads are those of a shared-memory reader, writes those of a client of the front; nothing of a cache is
//! kept here, so control's death changes nothing and costs only REST.

pub mod command;
pub mod etag;
mod item;
mod items;
mod key;
mod readers;
mod whereabouts;
mod writers;

pub use item::Item;
pub use items::{ItemError, Items};
pub use key::Key;
pub use readers::ReadFailure;
pub use whereabouts::{NoPlace, Place, find};
pub use writers::WriteFailure;
