//! The adversary: a wire between two interfaces that harms the packets of some lines, by a seeded file.
//!
//! ```text
//!   faults.toml ──► FaultFile ──► Wire::open ──► XDP on both interfaces (nautilus_ebpf::fault)
//!                                    │              │ lost, doubled, corrupted: there and then
//!                                    │              ▼ delayed, reordered
//!   nautilus-fault ──run──►      Wire::run ◄── AF_XDP socket of the queue it arrived on
//!                                    │ Hold: until it is due
//!                                    └──► AF_XDP socket of the other interface
//! ```
//!
//! `file.rs` says what is wanted, `hold.rs` who leaves when, `side.rs` owns an interface and its sockets,
//! `wire.rs` the loop, `counts.rs` what came of it.

pub mod counts;
pub mod file;
pub mod hold;
mod side;
pub mod wire;

pub use counts::{LineReport, Report};
pub use file::{DEFAULT_TOML, FaultFile, FaultFileError, FaultLine};
pub use wire::{Wire, WireError};
