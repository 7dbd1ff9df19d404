//! A venue: a matching engine, its order flow, and everything that Nasdaq offers of its data. The
//! program is `nautilus-venue`; nothing here runs in a worker.

pub mod day;
pub mod engine;
pub mod flow;
pub mod lines;
pub mod publish;
pub mod requests;
pub mod shared;
pub mod snapshots;
