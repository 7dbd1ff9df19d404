//! The process that owns every resource of a node.
pub mod netlink;
pub mod sys;
