//! `[feed.republish]`: how a feed is given out again, and what can be wrong with such a section.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;

use super::check::{Problem, port, refuse, within};
use super::feed::{check_endpoint, check_user};
use super::{Feed, FeedLine, FeedStart, NodeConfig};
use crate::feed::request_server::RequestLimits;

/// `[feed.republish]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedRepublish {
    /// Multicast group that it is sent to; with `port` no line of a feed of this node.
    pub group: IpAddr,
    /// UDP port of the group.
    pub port: u16,
    /// Address of this node, and port, that it is sent from.
    pub from: SocketAddr,
    /// Name of the interface that it leaves by; the first one without it.
    #[serde(default)]
    pub interface: Option<String>,
    /// Microseconds a message may wait for others, 0..=100,000; 0: until the end of its burst.
    #[serde(default)]
    pub flush_us: u32,
    /// MiB of messages that can be asked for again, 4..=16,384, taken at start.
    #[serde(default = "default_history_mb")]
    pub history_mb: u32,
    /// Address of this node, and port, that requests (MoldUDP64) come to; without it there is nobody to ask.
    #[serde(default)]
    pub requests: Option<SocketAddr>,
    /// Requests of one source that are answered in a second, 1 and more.
    #[serde(default = "default_source_requests_per_s")]
    pub source_requests_per_s: u32,
    /// The same of all sources together.
    #[serde(default = "default_total_requests_per_s")]
    pub total_requests_per_s: u32,
    /// Requests at once above the rate, 1 and more.
    #[serde(default = "default_request_burst")]
    pub request_burst: u32,
    /// Where snapshots of its books are to be had.
    #[serde(default)]
    pub snapshot: Option<RepublishSnapshot>,
}

/// `[feed.republish.snapshot]`: a GLIMPSE server over SoupBinTCP, in the front.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepublishSnapshot {
    /// Address and port that the front listens on.
    pub listen: SocketAddr,
    /// Who may log in, at most 6 characters.
    pub user: String,
    /// File that holds the password, at most 10 characters, and perhaps a line end; read by the worker's user at
    /// each login.
    pub password_file: PathBuf,
}

fn default_history_mb() -> u32 {
    64
}

fn default_source_requests_per_s() -> u32 {
    RequestLimits::default().source_per_s
}

fn default_total_requests_per_s() -> u32 {
    RequestLimits::default().total_per_s
}

fn default_request_burst() -> u32 {
    RequestLimits::default().burst
}

impl FeedRepublish {
    /// Place of its interface in the node file, which was checked.
    pub fn interface_index(&self, config: &NodeConfig) -> usize {
        let mut interfaces = config.interface.iter();
        interfaces
            .position(|interface| Some(&interface.name) == self.interface.as_ref())
            .unwrap_or(0)
    }

    /// How often requests are answered.
    pub fn limits(&self) -> RequestLimits {
        RequestLimits {
            source_per_s: self.source_requests_per_s,
            total_per_s: self.total_requests_per_s,
            burst: self.request_burst,
        }
    }

    /// Ports that something comes to: requests, connections.
    pub fn service_ports(&self) -> impl Iterator<Item = u16> {
        let listen = self.snapshot.as_ref().map(|snapshot| snapshot.listen.port());
        self.requests.map(|requests| requests.port()).into_iter().chain(listen)
    }

    /// Every port of this node that is its own.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.service_ports().chain([self.from.port()])
    }
}

/// What can be said of how a feed is given out; `key` makes the path of a key of the section.
pub(super) fn check_republish(
    config: &NodeConfig,
    feed: &Feed,
    republish: &FeedRepublish,
    taken: &[(u16, String)],
    key: impl Fn(&str) -> String,
) -> Result<(), Problem> {
    let FeedRepublish { group, from, .. } = republish;
    port(&key(".port"), republish.port)?;
    if !group.is_multicast() {
        return refuse(key(".group"), format!("{group} is not a multicast group"));
    }
    let line = FeedLine { group: *group, port: republish.port };
    if config.feed.iter().flat_map(Feed::every_line).any(|other| other == line) {
        let text = format!("{group}:{} is a line that this node receives", line.port);
        return refuse(key(".group"), text);
    }
    let mut earlier = config.feed.iter().take_while(|other| other.channel != feed.channel);
    let is_same = |other: &&Feed| {
        let other_line = other.republish.as_ref().map(|other| (other.group, other.port));
        other_line == Some((line.group, line.port))
    };
    if let Some(other) = earlier.find(is_same) {
        let text = format!("{group}:{} is also that of {:?}", line.port, other.venue);
        return refuse(key(".group"), text);
    }
    if from.is_ipv4() != group.is_ipv4() {
        return refuse(key(".from"), format!("{} is not of the family of {group}", from.ip()));
    }
    check_endpoint(config, feed, *from, taken, &key(".from"))?;
    within(&key(".flush_us"), republish.flush_us.into(), 0, 100_000)?;
    within(&key(".history_mb"), republish.history_mb.into(), 4, 16_384)?;
    for (name, value) in [
        (".source_requests_per_s", republish.source_requests_per_s),
        (".total_requests_per_s", republish.total_requests_per_s),
        (".request_burst", republish.request_burst),
    ] {
        within(&key(name), value.into(), 1, 1_000_000_000)?;
    }
    if let Some(name) = &republish.interface
        && config.interface.iter().all(|interface| interface.name != *name)
    {
        return refuse(key(".interface"), format!("{name:?} is no [[interface]] of this node"));
    }
    let recovery_port = feed.requests_from().map(|from| from.port());
    let mut own: Vec<u16> = recovery_port.into_iter().collect();
    if own.contains(&from.port()) {
        return refuse(key(".from"), format!("port {} is also recovery.from", from.port()));
    }
    if let Some(requests) = republish.requests {
        check_endpoint(config, feed, requests, taken, &key(".requests"))?;
        if own.contains(&requests.port()) {
            let text = format!("port {} is also recovery.from", requests.port());
            return refuse(key(".requests"), text);
        }
        if requests != *from && requests.port() == from.port() {
            let text = format!("port {} is also from, at another address", requests.port());
            return refuse(key(".requests"), text);
        }
        own.push(requests.port());
    }
    own.push(from.port());
    let Some(snapshot) = &republish.snapshot else { return Ok(()) };
    if !config.has_front() {
        return refuse(key(".snapshot"), "is served by the front, which is not enabled");
    }
    if feed.start == FeedStart::Any {
        let text =
            "start = \"any\" accepts books that lack something, of which no snapshot is given";
        return refuse(key(".snapshot"), text);
    }
    let listen = snapshot.listen;
    if !listen.ip().is_unspecified() {
        check_endpoint(config, feed, listen, taken, &key(".snapshot.listen"))?;
    }
    port(&key(".snapshot.listen"), listen.port())?;
    if let Some((_, other)) = taken.iter().find(|(taken, _)| *taken == listen.port()) {
        return refuse(key(".snapshot.listen"), format!("port {} is also {other}", listen.port()));
    }
    let of_others = config.feed.iter().any(|other| {
        other.every_line().any(|line| line.port == listen.port())
            || other.channel != feed.channel && other.is_on_port(listen.port())
    });
    if of_others || own.contains(&listen.port()) {
        let text = format!("port {} is taken by a feed", listen.port());
        return refuse(key(".snapshot.listen"), text);
    }
    check_user(&snapshot.user, &snapshot.password_file, |name| key(&format!(".snapshot{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    /// What is said of a node with such keys in what its feed gives out, and such a front.
    fn node(republish: &str, more: &str) -> Result<NodeConfig, String> {
        let text = format!(
            "{more}[echo]\nport = 7\n[cache]\nid = \"q\"\n\
             [[interface]]\nname = \"a\"\naddresses = [\"198.18.0.1\"]\n\
             [[feed]]\nvenue = \"psx\"\ngroup = \"233.54.12.9\"\nport = 8\nchannel = 2\n\
             [feed.republish]\ngroup = \"239.1.1.9\"\nport = 70\nfrom = \"198.18.0.1:71\"\n\
             [[feed]]\nvenue = \"nasdaq\"\ngroup = \"233.54.12.111\"\nport = 26477\nchannel = 1\n\
             [feed.recovery]\nservers = [\"198.18.0.5:1\"]\nfrom = \"198.18.0.1:60\"\n\
             [feed.republish]\n{republish}\n"
        );
        parse(&text, "n.toml").map_err(|error| error.to_string())
    }

    const LINE: &str = "group = \"239.1.1.1\"\nport = 80\nfrom = \"198.18.0.1:81\"\n";
    const SNAPSHOT: &str = "[feed.republish.snapshot]\nlisten = \"198.18.0.1:83\"\nuser = \"NODE01\"\n\
        password_file = \"/p\"\n";

    #[test]
    fn a_line_needs_little_and_may_have_servers() {
        let plain = node(LINE, "").unwrap();
        let republish = plain.feed[1].republish.as_ref().unwrap();
        assert_eq!((republish.flush_us, republish.history_mb), (0, 64));
        assert_eq!(republish.limits(), RequestLimits::default());
        assert_eq!(republish.ports().collect::<Vec<_>>(), [81]);
        assert!(!plain.feed[1].shows_books() && plain.feed[1].is_on_port(81));
        for (requests, ports) in [(81, [81, 83]), (82, [82, 83])] {
            let more = format!("requests = \"198.18.0.1:{requests}\"\nhistory_mb = 4\n");
            let whole = node(&[LINE, &more, SNAPSHOT].concat(), "").unwrap();
            let republish = whole.feed[1].republish.as_ref().unwrap();
            assert_eq!(republish.service_ports().collect::<Vec<_>>(), ports);
            assert!(whole.feed[1].shows_books() && whole.feed[1].is_on_port(83));
        }
        let anywhere = SNAPSHOT.replace("198.18.0.1:83", "0.0.0.0:83");
        assert!(node(&[LINE, &anywhere].concat(), "").is_ok());
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_key() {
        let line = |from: &str, to: &str| LINE.replace(from, to);
        let requests = |at: &str| [LINE, &format!("requests = \"{at}\"")].concat();
        let more = |key: &str| [LINE, key].concat();
        let snapshot = |from: &str, to: &str| [LINE, &SNAPSHOT.replace(from, to)].concat();
        let no_front = "[front]\nenabled = false\n";
        for (republish, rest, expected) in [
            (line("239.1.1.1", "10.0.0.1"), "", "republish.group: 10.0.0.1 is not a multicast"),
            (line("port = 80", "port = 0"), "", "republish.port: 0 is not a port"),
            (
                line("239.1.1.1\"\nport = 80", "233.54.12.9\"\nport = 8"),
                "",
                "republish.group: 233.54.12.9:8 is a line",
            ),
            (
                line("239.1.1.1\"\nport = 80", "239.1.1.9\"\nport = 70"),
                "",
                "republish.group: 239.1.1.9:70 is also that of \"psx\"",
            ),
            (
                line("198.18.0.1:81", "[fd00::1]:81"),
                "",
                "republish.from: fd00::1 is not of the family",
            ),
            (line("198.18.0.1:81", "198.18.2.1:81"), "", "republish.from: 198.18.2.1 is not among"),
            (line("198.18.0.1:81", "198.18.0.1:7"), "", "republish.from: port 7 is also echo.port"),
            (
                line("198.18.0.1:81", "198.18.0.1:60"),
                "",
                "republish.from: port 60 is also recovery.from",
            ),
            (
                line("198.18.0.1:81", "198.18.0.1:71"),
                "",
                "republish.from: port 71 is also of the feed",
            ),
            (requests("198.18.0.1:60"), "", "republish.requests: port 60 is also recovery.from"),
            (requests("198.18.0.1:8"), "", "republish.requests: port 8 is also of the feed"),
            (
                requests("198.18.0.1:26477"),
                "",
                "republish.requests: port 26477 is also that of a line",
            ),
            (requests("198.18.0.9:82"), "", "republish.requests: 198.18.0.9 is not among"),
            (more("interface = \"b\""), "", "republish.interface: \"b\" is no [[interface]]"),
            (more("flush_us = 100001"), "", "republish.flush_us: 100001 is not 0..=100000"),
            (more("history_mb = 3"), "", "republish.history_mb: 3 is not 4..=16384"),
            (more("request_burst = 0"), "", "republish.request_burst: 0 is not"),
            (more("flush = 1"), "", "republish.flush: unknown field"),
            (snapshot("/p", "p"), "", "republish.snapshot.password_file: p is not absolute"),
            (snapshot("NODE01", "NODE001"), "", "republish.snapshot.user: \"NODE001\" is not"),
            (snapshot(":83", ":81"), "", "republish.snapshot.listen: port 81 is taken by a feed"),
            (
                snapshot("198.18.0.1:83", "0.0.0.0:11211"),
                "",
                "republish.snapshot.listen: port 11211 is also cache",
            ),
            (
                snapshot("198.18.0.1:83", "0.0.0.0:71"),
                "",
                "republish.from: port 71 is also of the feed of",
            ),
            (snapshot("", ""), no_front, "republish.snapshot: is served by the front"),
        ] {
            let said = node(&republish, rest).expect_err(&republish);
            assert!(said.contains(expected), "{republish}\n  gave {said}\n  not  {expected}");
        }
    }
}
