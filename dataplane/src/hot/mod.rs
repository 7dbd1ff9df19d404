//! The hot set of a cache, the worker's side: which keys are answered before their packets reach the
//! worker, and what is shown of them (`ebpf/README.md` has the other side).
//!
//! ```text
//!   get, answered by the worker -> Admission: asked often? -> TableWriter::show -> XdpHotSet -> slots
//!   change of a hot key --------------------> TableWriter::apply ------------------^
//!   answers in XDP -> a row of counts a CPU -> XdpHotSet -> Admission, eviction
//! ```
//!
//! Slots are divided into areas, one a worker, which is the only writer of its own. Each word has one writer
//! too: the owner of the cache, or of the channel's feed.

mod admission;
mod set;
mod sketch;

pub use admission::Admission;
pub use set::XdpHotSet;
