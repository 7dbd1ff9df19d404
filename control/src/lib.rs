//! Control: watches nodes through their control regions, read-only. It may die, restart or be
//! upgraded without one packet noticing. `README.md` beside this crate is the map.
#![deny(unsafe_code)]

pub mod access;
pub mod api;
pub mod attach;
pub mod audit;
pub mod cache;
pub mod caches;
pub mod calendar;
pub mod catalogue;
pub mod client;
pub mod command;
pub mod companion;
pub mod config;
pub mod deploy;
pub mod explain;
pub mod health;
pub mod host;
pub mod id;
pub mod kill_switch;
pub mod link;
pub mod node_verbs;
pub mod notify;
pub mod packet;
pub mod peer;
pub mod problem;
pub mod prometheus;
pub mod rates;
pub mod roles;
pub mod secret;
pub mod security;
pub mod serve;
pub mod snapshot;
mod spelling;
pub mod status;
pub mod store;
pub mod tls;
pub mod verifier;
pub mod view;
pub mod watcher;
