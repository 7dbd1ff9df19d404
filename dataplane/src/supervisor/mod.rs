//! The process that owns every resource of a node.
pub mod handover;
pub mod host;
pub mod inspect;
pub mod mirror;
pub mod netlink;
pub mod run_dir;
pub mod sys;
