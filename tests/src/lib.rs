//! What the end-to-end tests stand on: the lab (network namespaces, links, supervised processes),
//! the repository's own sources and READMEs, and the real inputs beside it. `README.md` is the map.
#![deny(unsafe_code)]

pub mod captures;
pub mod clients;
pub mod coherence;
pub mod command;
pub mod demo;
pub mod feed_source;
pub mod forge;
pub mod frames;
pub mod history;
pub mod lab;
pub mod load;
pub mod memcached;
pub mod phases;
pub mod repository;
pub mod rest;
pub mod rest_site;
pub mod scrape;
pub mod steady;
pub mod values;
pub mod venue;
pub mod wait;
pub mod wire;
