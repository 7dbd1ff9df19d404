//! The programs that run in the network driver, and what the rest of the product needs to load,
//! fill and read them.
//!
//! * [`Steering`] decides which frames reach the data plane; the supervisor owns it.
//! * [`HotSlots`], [`HotWords`] and [`HotHits`] are a worker's side of the hot set, whose keys the
//!   steering program answers itself.
//! * [`FeedSlot`] is where a worker says what it has applied of a feed, copies of which the program drops.
//! * [`Explainer`] says where a frame would go, and why.
//! * [`PassProgram`] passes everything; peers of a veth pair and bridge ports carry it.
//! * [`fault`] is the adversary: it harms the packets of lines between two interfaces.
//! * [`VERDICTS`] is the one list of reasons; metrics and documents take their names from it.
//! * [`intf`] mirrors `intf.h`, the contract with the C side.
//!
//! Source: `Documentation/networking/af_xdp.rst` and `Documentation/bpf/` of Linux 6.6 and later.

mod explain;
pub mod fault;
mod feed;
mod hot;
pub mod intf;
mod link;
mod mapping;
mod pass;
mod prefix;
mod prober;
mod rate;
mod rights;
mod steering;
mod sys;
mod tables;
mod test_run;
mod verdict;

pub use explain::{Explainer, Explanation, FRAME_BYTES_MAX, Names, Step};
pub use feed::{FeedLineAt, FeedRecord, FeedSlot};
pub use hot::{
    HotArea, HotError, HotHeld, HotHits, HotMeta, HotSlots, HotValue, HotWords, slot_of,
};
pub use link::XdpLink;
pub use pass::PassProgram;
pub use prefix::{PrefixError, SourcePrefix};
pub use prober::Prober;
pub use rate::{Rate, RateLimit, Spent};
pub use rights::{Rights, SourceLists};
pub use steering::{
    FEEDS_FD_NAME, HOT_FD_NAMES, Options, STEERING_FD_COUNT, STEERING_FD_NAMES, Steering,
    SteeringError,
};
pub use sys::ProgramStatistics;
pub use tables::VerdictTallies;
pub use test_run::{TestContext, TestOutcome};
pub use verdict::{Action, VERDICT_COUNT, VERDICTS, Verdict, VerdictInfo};
