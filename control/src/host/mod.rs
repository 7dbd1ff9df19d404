//! The host doctor's command: what a host can keep of the promises, what is lost where it cannot, and the
//! changes that would mend it. What knobs are, and how they are read, changed and undone, is `nautilus-host`,
//! which the supervisor uses too. `README.md` beside this file is the map.

mod by_node;
pub mod command;
pub mod recording;
pub mod report;

pub use nautilus_host::{
    address, apply, facts, judge, knob, machine, netlink, order, plan, promises, reading, state,
    survey, table, tier, value,
};
