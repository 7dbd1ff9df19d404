//! The programs that run in the network driver, and what the rest of the product needs to load,
//! fill and read them.
//!
//! * [`Steering`] decides which frames reach the data plane; the supervisor owns it.
//! * [`PassProgram`] passes everything; peers of a veth pair and bridge ports carry it.
//! * [`VERDICTS`] is the one list of reasons; metrics and documents take their names from it.
//! * [`intf`] mirrors `intf.h`, the contract with the C side.
//!
//! Source: `Documentation/networking/af_xdp.rst` and `Documentation/bpf/` of Linux 6.6 and later.

pub mod intf;
mod link;
mod pass;
mod prefix;
mod steering;
mod sys;
mod tables;
mod test_run;
mod verdict;

pub use link::XdpLink;
pub use pass::PassProgram;
pub use prefix::{PrefixError, SourcePrefix};
pub use steering::{Options, STEERING_FD_COUNT, STEERING_FD_NAMES, Steering, SteeringError};
pub use sys::ProgramStatistics;
pub use tables::VerdictTallies;
pub use test_run::{TestContext, TestOutcome};
pub use verdict::{Action, VERDICT_COUNT, VERDICTS, Verdict, VerdictInfo};
