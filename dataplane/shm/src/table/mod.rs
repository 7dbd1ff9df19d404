//! The cache table: fixed memory, one writer, any number of readers, whole after any kill.
//!
//! ```text
//!   worker -- TableWriter --> | buckets -> cells -> chained cells | <-- TableReader -- other processes
//!                             | intent record, queues, free list  |
//! ```
//!
//! `README.md` beside this file says how the parts keep the promises of a kill, and what to read
//! first.

mod ahead;
mod apply;
mod check;
mod evict;
mod fold;
mod free;
mod hash;
mod hot;
mod intent;
mod layout;
mod meta;
mod mutation;
mod payload;
mod probe;
mod queue;
mod reader;
#[cfg(not(loom))]
mod region;
mod sweep;
mod usage;
mod validity;
mod versions;
mod watch;
mod words;
mod writer;

pub use ahead::Ahead;
pub use check::{CheckError, Checked, check};
pub use hash::KeyHash;
pub use hot::{HOT_KEY_BYTES_MAX, HotKey, HotSet, HotValue};
pub use layout::{
    BYTES_PER_CELL, CHANNELS, KEY_BYTES_MAX, LAYOUT_NUMBERS, Layout, LayoutError, SHARDS_MAX,
    VALUE_BYTES_MAX, cells_for,
};
pub use mutation::{ApplyError, Marks, Mutation, Op};
pub use reader::{DETACHED_AGE_NS, READER_RETRIES_MAX, ReadError, ReadHit, TableReader};
#[cfg(not(loom))]
pub use region::{CACHE_MAGIC, TableRegion, table_layout_hash};
pub use usage::Usage;
pub use validity::{ChannelState, NO_LEASE};
pub use watch::Watch;
pub use words::{SharedWords, Words, heap_words};
pub use writer::{Guess, Hit, TableWriter, ValueReader, WriterCounts};

#[cfg(test)]
mod hot_test;
#[cfg(all(test, not(loom)))]
mod kill_test;
#[cfg(all(test, loom))]
mod loom_test;
#[cfg(all(test, not(loom)))]
mod marks_test;
#[cfg(all(test, not(loom)))]
mod model_test;
#[cfg(all(test, not(loom)))]
mod race_test;
#[cfg(all(test, not(loom), not(miri)))]
mod repair_test;
