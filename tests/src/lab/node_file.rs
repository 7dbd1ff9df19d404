//! The node file of a lab's node.

use std::net::IpAddr;
use std::path::PathBuf;

use super::SUBNETS;

/// UDP port of the echo application in a lab.
pub const ECHO_PORT: u16 = 7007;
/// UDP port of the cache in a lab.
pub const CACHE_PORT: u16 = 11211;
/// Id of the cache in a lab.
pub const CACHE_ID: &str = "quotes";
/// Multicast group and port of the feed in a lab, those of the captures beside the repository.
pub const FEED_GROUP: (std::net::Ipv4Addr, u16) =
    (std::net::Ipv4Addr::new(233, 54, 12, 111), 26477);
/// Venue of the feed in a lab.
pub const FEED_VENUE: &str = "nasdaq";

/// What a test may choose of a node; the rest is the same everywhere.
#[derive(Clone, Debug)]
pub struct NodeFile {
    /// Node id.
    pub id: String,
    /// Folder of the node's sockets.
    pub run_dir: PathBuf,
    /// `xdp` or `socket`.
    pub port_kind: &'static str,
    /// `busy`, `adaptive` or `interrupt`. Adaptive unless the node is the thing under test: two cores
    /// are few.
    pub poll: &'static str,
    /// Interfaces served.
    pub interfaces: Vec<String>,
    /// Addresses served; empty means those the interfaces carry.
    pub addresses: Vec<IpAddr>,
    /// Prefixes served.
    pub sources: Vec<String>,
    /// Queues of each interface; in a lab the link is made with as many.
    pub queues: u32,
    /// Workers that divide queues and keys among them; at most as many as there are queues.
    pub workers: u32,
    /// Core of the worker; None leaves it to the node.
    pub core: Option<u32>,
    /// UDP port of the echo application.
    pub echo_port: u16,
    /// UDP port of the cache.
    pub cache_port: u16,
    /// Memory of the cache table.
    pub cache_memory_mb: u32,
    /// Hot keys are answered in XDP; every link of a lab has a program on its other end.
    pub hot_set: bool,
    /// Users that may map the cache.
    pub cache_readers: Vec<String>,
    /// Frames of one queue.
    pub frames: u32,
    /// Waits for the verb `start` instead of serving at once.
    pub parked: bool,
    /// Folder of the releases that it may be given.
    pub releases: Option<PathBuf>,
    /// More lines of the feed's section, and sections of its own.
    pub feed_more: String,
}

impl NodeFile {
    /// A node that serves every application of the lab to every member of it.
    pub fn new(id: impl Into<String>, run_dir: impl Into<PathBuf>) -> Self {
        Self {
            id: id.into(),
            run_dir: run_dir.into(),
            port_kind: "xdp",
            poll: "adaptive",
            interfaces: vec!["eth0".into()],
            addresses: Vec::new(),
            sources: SUBNETS.map(str::to_owned).to_vec(),
            queues: 1,
            workers: 1,
            core: None,
            echo_port: ECHO_PORT,
            cache_port: CACHE_PORT,
            cache_memory_mb: 64,
            hot_set: true,
            cache_readers: Vec::new(),
            frames: 2048,
            parked: false,
            releases: None,
            feed_more: String::new(),
        }
    }

    /// The file's text.
    pub fn to_toml(&self) -> String {
        let quoted = |texts: &[String]| {
            texts.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(", ")
        };
        let addresses: Vec<String> = self.addresses.iter().map(IpAddr::to_string).collect();
        let addresses = match addresses.as_slice() {
            [] => "\"auto\"".to_owned(),
            some => format!("[{}]", quoted(some)),
        };
        let core = self.core.map_or("\"auto\"".to_owned(), |core| core.to_string());
        let interfaces: String = self
            .interfaces
            .iter()
            .map(|name| {
                let queues: Vec<u32> = (0..self.queues).collect();
                format!(
                    "[[interface]]\nname = {name:?}\nqueues = {queues:?}\naddresses = {addresses}\n\n"
                )
            })
            .collect();
        let start = if self.parked { "parked" } else { "serving" };
        let releases = self.releases.as_ref();
        let releases = releases.map_or(String::new(), |folder| format!("releases = {folder:?}\n"));
        let (group, feed_port) = FEED_GROUP;
        format!(
            "[node]\nid = {id:?}\nregion = \"lab\"\ntier = \"lab\"\nrun_dir = {run_dir:?}\n\n\
             [worker]\ncount = {workers}\ncore = {core}\npoll = {poll:?}\n\n\
             [supervisor]\nstart = {start:?}\n{releases}\n\
             [port]\nkind = {kind:?}\nframes = {frames}\n\n\
             {interfaces}\
             [access]\nsources = [{sources}]\n\n\
             [echo]\nport = {echo_port}\n\n\
             [cache]\nid = {CACHE_ID:?}\nport = {cache_port}\nmax_memory_mb = {memory}\nhot_set = {hot_set}\n\
             readers = [{readers}]\n\n\
             [[feed]]\nvenue = {FEED_VENUE:?}\ngroup = \"{group}\"\nport = {feed_port}\nchannel = 1\n{feed_more}",
            id = self.id,
            run_dir = self.run_dir,
            workers = self.workers,
            poll = self.poll,
            kind = self.port_kind,
            frames = self.frames,
            sources = quoted(&self.sources),
            memory = self.cache_memory_mb,
            hot_set = self.hot_set,
            readers = quoted(&self.cache_readers),
            echo_port = self.echo_port,
            cache_port = self.cache_port,
            feed_more = self.feed_more,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_toml() {
        let mut file = NodeFile::new("node1", "/run/x");
        file.addresses = vec!["127.0.0.1".parse().unwrap()];
        let parsed: toml::Table = file.to_toml().parse().unwrap();
        assert_eq!(parsed["node"]["id"].as_str(), Some("node1"));
        assert_eq!(parsed["interface"][0]["addresses"][0].as_str(), Some("127.0.0.1"));
        assert_eq!(parsed["access"]["sources"].as_array().unwrap().len(), SUBNETS.len());
    }
}
