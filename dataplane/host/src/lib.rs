//! The settings of a host that latency depends on: what they are, what a tier makes of them, how they are
//! changed and how each change is undone byte for byte. `README.md` beside this crate is the map.
//!
//! ```text
//!   table/ (knobs) --.
//!   Machine ---------+--> Survey --> judge --> (report, in control)     nautilus host check
//!   (running, or     |                 |-----> Plan --.
//!    recorded)       |<-- apply <-- State file <------+                 nautilus host init, fini;
//!                    |                                                  the supervisor's host-apply, host-restore
//!   an Order --------'---------------> what is lacking                  the supervisor's host-check
//! ```

#![forbid(unsafe_code)]

pub mod address;
pub mod apply;
pub mod facts;
pub mod judge;
pub mod knob;
pub mod machine;
pub mod netlink;
pub mod order;
pub mod plan;
pub mod promises;
pub mod reading;
pub mod state;
pub mod survey;
pub mod table;
pub mod tier;
pub mod value;
