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
    let is_same = |other: &&Feed| {
        let other_line = other.republish.as_ref().map(|other| (other.group, other.port));
        other.channel != feed.channel && other_line == Some((line.group, line.port))
    };
    if let Some(other) = config.feed.iter().find(is_same) {
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
