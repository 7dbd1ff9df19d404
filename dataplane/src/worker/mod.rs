//! The worker: one thread on one core that runs [`run_loop`] over a port and its applications.
//! Start reading there.

pub mod apps;
pub mod forwarded;
mod next_hops;
pub mod peers;
mod report;
pub mod run_loop;

pub use apps::{Apps, Served};
pub use forwarded::{Caches, Forwarded, Snapshots};
pub use next_hops::RegionNextHops;
pub use peers::{Peers, Received};
pub use report::{RegionReport, Report, Totals};
pub use run_loop::{Clock, Monotonic, Worker, run};
