//! The data plane: ports, the run loop, the applications it serves, and the supervisor that keeps
//! their resources. `README.md` beside this crate is the map; start at `worker/` for the hot path.
#![deny(unsafe_code)]

pub mod access;
pub mod app;
pub mod capture;
pub mod config;
pub mod fault;
pub mod feed;
pub mod front;
pub mod hot;
pub mod kill_point;
pub mod limits;
pub mod memcached;
pub mod net;
pub mod port;
pub mod replay;
pub mod standby;
pub mod supervisor;
pub mod venue;
pub mod worker;
pub mod xsk;
