//! The process that owns every resource of a node. `README.md` has the figure and the protocol; start
//! reading at [`node`].

pub mod attach;
pub mod backoff;
pub mod cache_admission;
pub mod cache_changes;
pub mod caches;
pub mod capture;
pub mod capture_messages;
pub mod counters;
pub mod explain;
pub mod fill;
pub mod fresh;
pub mod front;
pub mod front_messages;
pub mod front_resources;
pub mod handover;
pub mod hang;
pub mod host;
pub mod inspect;
pub mod interfaces;
pub mod journal;
pub mod kill_switch;
pub mod mirror;
pub mod neighbours;
pub mod netlink;
pub mod node;
pub mod publish;
pub mod reaper;
pub mod resources;
pub mod run_dir;
pub mod seat;
pub mod sys;
pub mod take_back;
pub mod team_resources;
pub mod workers;
