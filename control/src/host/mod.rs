//! The host doctor: what a host can keep of the promises, what is lost where it cannot, and the
//! changes that would mend it, each of which can be undone byte for byte. `README.md` beside this
//! file is the map.
//!
//! ```text
//!   table/ (knobs) --.
//!   Machine ---------+--> Survey --> judge --> Report        nautilus host check
//!   (running, or     |                 '-----> Plan --.
//!    recorded)       '<-- apply <-- State file <------+      nautilus host init, fini
//! ```

pub mod address;
pub mod apply;
pub mod command;
pub mod facts;
pub mod judge;
pub mod knob;
pub mod machine;
pub mod netlink;
pub mod plan;
pub mod promises;
pub mod reading;
pub mod recording;
pub mod report;
pub mod state;
pub mod survey;
pub mod table;
pub mod value;
