//! Files and generators of market data, and the packing and sending of what they hold. Used by the
//! `nautilus-replay` program and by tests; nothing here runs in a worker.

pub mod binary_file;
pub mod generate;
pub mod offline;
pub mod offline_report;
pub mod pace;
pub mod pack;
pub mod pcap;
pub mod pcapng;
pub mod random;
pub mod recording;
pub mod run;
pub mod sink;
