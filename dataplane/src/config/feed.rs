//! `[[feed]]`: where market data comes from, and what can be wrong with such a section.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::check::{Problem, port, refuse, within};
use super::distribution::FeedDistribution;
use super::{FeedRepublish, NodeConfig};
use crate::feed::Protocol;
use crate::feed::book::BookLimits;
use crate::feed::recovery::SERVERS_MAX;
use crate::feed::soupbintcp::packet::USER_BYTES;

/// Open orders per price level on average; a day of NASDAQ has more.
const ORDERS_PER_LEVEL: u32 = 4;

/// One `[[feed]]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feed {
    /// Venue name in keys (`md:{venue}:...`), lower case.
    pub venue: String,
    /// What its lines speak.
    #[serde(default)]
    pub protocol: Protocol,
    /// Multicast group, joined on every interface of the node.
    pub group: IpAddr,
    /// UDP port of the group.
    pub port: u16,
    /// Further lines that carry the same messages, at most [`super::FEED_LINES_MAX`] less one; the
    /// section's own group and port are line A.
    #[serde(default)]
    pub lines: Vec<FeedLine>,
    /// Channel id its keys carry, 1..=255, unique on the node.
    pub channel: u8,
    /// Id of the cache it publishes into; the first one without it.
    #[serde(default)]
    pub cache: Option<String>,
    /// What to do when a session is first seen in its middle.
    #[serde(default)]
    pub start: FeedStart,
    /// Open orders its books may hold, 1,024..=16,777,216; 60 bytes each, taken at start. Not of use where the
    /// protocol has no orders.
    #[serde(default = "default_max_orders")]
    pub max_orders: u32,
    /// Microseconds that a hole in the sequence may be filled in, by any line, 0..=50,000.
    #[serde(default = "default_hold_limit_us")]
    pub hold_limit_us: u32,
    /// Levels a side published under `md:{venue}:{symbol}:depthN`, 0..=10; 0 for no such key, and the only one
    /// where the protocol has no levels.
    #[serde(default)]
    pub depth: u8,
    /// How it gets back what no line brought; without it a hole that lasts is a gap.
    #[serde(default)]
    pub recovery: Option<FeedRecovery>,
    /// How its records go to subscribers, if they do.
    #[serde(default)]
    pub distribution: Option<FeedDistribution>,
    /// How it is given out again; without it, it is not.
    #[serde(default)]
    pub republish: Option<FeedRepublish>,
}

/// `[feed.recovery]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedRecovery {
    /// Request servers (MoldUDP64), asked in turns, at most
    /// [`SERVERS_MAX`](crate::feed::recovery::SERVERS_MAX).
    #[serde(default)]
    pub servers: Vec<SocketAddr>,
    /// Address and port of this node that requests are sent from. Replies come to it, so the servers must be
    /// among `access.sources`. Needed with `servers`.
    #[serde(default)]
    pub from: Option<SocketAddr>,
    /// Name of the interface that requests leave by; the first one without it.
    #[serde(default)]
    pub interface: Option<String>,
    /// Microseconds after which what is missing is asked for, 0..=1,000,000.
    #[serde(default = "default_request_after_us")]
    pub request_after_us: u32,
    /// Microseconds that a reply may take before it is asked for again, 100..=1,000,000; twice as long each
    /// time.
    #[serde(default = "default_request_timeout_us")]
    pub request_timeout_us: u32,
    /// Missing messages from which a snapshot is taken instead, 1 and more.
    #[serde(default = "default_request_messages_max")]
    pub request_messages_max: u64,
    /// MiB of live packets held meanwhile, 1..=1,024, taken at start.
    #[serde(default = "default_queue_mb")]
    pub queue_mb: u32,
    /// Where snapshots are to be had.
    #[serde(default)]
    pub snapshot: Option<FeedSnapshot>,
}

/// `[feed.recovery.snapshot]`: a GLIMPSE server over SoupBinTCP, which the front connects to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedSnapshot {
    /// The server.
    pub server: SocketAddr,
    /// Who we are, at most 6 characters.
    pub user: String,
    /// File that holds the password, at most 10 characters, and perhaps a line end; read by the worker's user at
    /// each login.
    pub password_file: PathBuf,
}

fn default_request_after_us() -> u32 {
    1_000
}

fn default_request_timeout_us() -> u32 {
    5_000
}

fn default_request_messages_max() -> u64 {
    1_000_000
}

fn default_queue_mb() -> u32 {
    16
}

/// Where one line of a feed is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedLine {
    /// Multicast group, joined on every interface of the node.
    pub group: IpAddr,
    /// UDP port of the group.
    pub port: u16,
}

impl Feed {
    /// Every line, A first.
    pub fn every_line(&self) -> impl Iterator<Item = FeedLine> {
        let first = FeedLine { group: self.group, port: self.port };
        std::iter::once(first).chain(self.lines.iter().copied())
    }

    /// Whether one of its lines, or what is said to an endpoint of its own, is received on a port, or it has it
    /// for what it gives out again.
    pub fn is_on_port(&self, port: u16) -> bool {
        self.every_line().any(|line| line.port == port)
            || self.republish.iter().flat_map(FeedRepublish::ports).any(|own| own == port)
            || self.own_endpoints().any(|own| own.port() == port)
    }

    /// Addresses and ports of this node that others speak to: with replies to its requests, and as subscribers.
    pub fn own_endpoints(&self) -> impl Iterator<Item = SocketAddr> {
        let distribution = self.distribution.as_ref().map(|distribution| distribution.endpoint);
        self.requests_from().into_iter().chain(distribution)
    }

    /// Whether the front gives out snapshots of its books.
    pub fn shows_books(&self) -> bool {
        self.republish.as_ref().is_some_and(|republish| republish.snapshot.is_some())
    }

    /// What its books may hold.
    pub fn book_limits(&self, hash_seed: u64) -> BookLimits {
        let levels_max = self.max_orders / ORDERS_PER_LEVEL;
        BookLimits { orders_max: self.max_orders, levels_max, hash_seed }
    }

    /// Where requests are sent from, if they are.
    pub fn requests_from(&self) -> Option<SocketAddr> {
        let recovery = self.recovery.as_ref()?;
        recovery.from.filter(|_| !recovery.servers.is_empty())
    }
}

fn default_hold_limit_us() -> u32 {
    5_000
}

fn default_max_orders() -> u32 {
    1 << 20
}

/// What to do when a feed's session is first seen in its middle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedStart {
    /// Its keys stay suspect until a session begins at number 1.
    #[default]
    Session,
    /// Books hold what was added since. For replays of captures.
    Any,
}

/// What can be said of a line, with those before it on the node and the ports that are taken; `key` makes
/// the path of a key of its own.
pub(super) fn check_line(
    line: FeedLine,
    earlier: &[FeedLine],
    taken: &[(u16, String)],
    key: impl Fn(&str) -> String,
) -> Result<(), Problem> {
    port(&key("port"), line.port)?;
    if !line.group.is_multicast() {
        return refuse(key("group"), format!("{} is not a multicast group", line.group));
    }
    if let Some((_, other)) = taken.iter().find(|(taken, _)| *taken == line.port) {
        return refuse(key("port"), format!("{} is also {other}", line.port));
    }
    if earlier.contains(&line) {
        return refuse(key("group"), format!("{}:{} stands twice", line.group, line.port));
    }
    Ok(())
}

/// What can be said of what a feed speaks; `key` makes the path of a key of the section.
pub(super) fn check_protocol(feed: &Feed, key: impl Fn(&str) -> String) -> Result<(), Problem> {
    if feed.protocol.is_moldudp64() {
        return Ok(());
    }
    let name = feed.protocol.name();
    if feed.depth != 0 {
        let text = format!("{name} says the best bid and offer only; take the key out, or write 0");
        return refuse(key("depth"), text);
    }
    if feed.recovery.is_some() {
        let text = format!(
            "servers of MoldUDP64 and GLIMPSE have nothing of {name}; take the section out: a hole \
             that no other line fills is a gap"
        );
        return refuse(key("recovery"), text);
    }
    if feed.republish.is_some() {
        let text = format!("messages of {name} are not given out again; take the section out");
        return refuse(key("republish"), text);
    }
    Ok(())
}

/// What can be said of a feed's recovery; `key` makes the path of a key of the section.
pub(super) fn check_recovery(
    config: &NodeConfig,
    feed: &Feed,
    recovery: &FeedRecovery,
    taken: &[(u16, String)],
    key: impl Fn(&str) -> String,
) -> Result<(), Problem> {
    if feed.start == FeedStart::Any {
        let text = "start = \"any\" accepts what is missing, so there is nothing to recover";
        return refuse(key(""), text);
    }
    if recovery.servers.is_empty() && recovery.snapshot.is_none() {
        return refuse(key(""), "names neither servers nor a snapshot; name one or both");
    }
    if recovery.servers.len() > SERVERS_MAX {
        return refuse(key(".servers"), format!("more than {SERVERS_MAX} servers"));
    }
    within(&key(".request_after_us"), recovery.request_after_us.into(), 0, 1_000_000)?;
    within(&key(".request_timeout_us"), recovery.request_timeout_us.into(), 100, 1_000_000)?;
    within(&key(".request_messages_max"), recovery.request_messages_max, 1, u64::MAX)?;
    within(&key(".queue_mb"), recovery.queue_mb.into(), 1, 1_024)?;
    if !recovery.servers.is_empty() {
        let Some(from) = recovery.from else {
            let text = "is needed with servers: the address and port of this node that asks them";
            return refuse(key(".from"), text);
        };
        check_endpoint(config, feed, from, taken, &key(".from"))?;
        if let Some(other) = recovery.servers.iter().find(|to| to.is_ipv4() != from.is_ipv4()) {
            let text = format!("{other} is not of the family of from, {}", from.ip());
            return refuse(key(".servers"), text);
        }
    }
    if let Some(name) = &recovery.interface
        && config.interface.iter().all(|interface| interface.name != *name)
    {
        return refuse(key(".interface"), format!("{name:?} is no [[interface]] of this node"));
    }
    let Some(snapshot) = &recovery.snapshot else { return Ok(()) };
    if !config.has_front() {
        return refuse(key(".snapshot"), "is fetched by the front, which is not enabled");
    }
    check_user(&snapshot.user, &snapshot.password_file, |name| key(&format!(".snapshot{name}")))
}

/// What can be said of who logs in.
pub(super) fn check_user(
    user: &str,
    password_file: &Path,
    key: impl Fn(&str) -> String,
) -> Result<(), Problem> {
    if user.len() > USER_BYTES || !user.is_ascii() {
        return refuse(
            key(".user"),
            format!("{user:?} is not ASCII of at most {USER_BYTES} bytes"),
        );
    }
    if !password_file.is_absolute() {
        return refuse(
            key(".password_file"),
            format!("{} is not absolute", password_file.display()),
        );
    }
    Ok(())
}

/// What can be said of an endpoint of a feed's own.
pub(super) fn check_endpoint(
    config: &NodeConfig,
    feed: &Feed,
    from: SocketAddr,
    taken: &[(u16, String)],
    key: &str,
) -> Result<(), Problem> {
    port(key, from.port())?;
    let address = from.ip();
    if address.is_multicast() || address.is_unspecified() || address.is_loopback() {
        return refuse(key, format!("{address} is not an address of this node"));
    }
    let listed = config.interface.iter().map(|interface| interface.addresses.value());
    let is_known = |list: Option<&Vec<IpAddr>>| list.is_none_or(|list| list.contains(&address));
    if !listed.into_iter().any(is_known) {
        let text = format!("{address} is not among the addresses of any [[interface]]");
        return refuse(key, text);
    }
    if let Some((_, other)) = taken.iter().find(|(taken, _)| *taken == from.port()) {
        return refuse(key, format!("port {} is also {other}", from.port()));
    }
    let others = config.feed.iter().filter(|other| other.channel != feed.channel);
    let mut others = others.filter(|other| other.is_on_port(from.port()));
    if let Some(other) = others.next() {
        let text = format!("port {} is also of the feed of {:?}", from.port(), other.venue);
        return refuse(key, text);
    }
    if feed.every_line().any(|line| line.port == from.port()) {
        return refuse(key, format!("port {} is also that of a line", from.port()));
    }
    if feed.own_endpoints().filter(|own| own.port() == from.port()).count() > 1 {
        return refuse(key, format!("port {} stands twice in this feed", from.port()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    /// What is said of a node with such keys in its feed's recovery.
    fn node(recovery: &str, feed: &str) -> Result<NodeConfig, String> {
        let text = format!(
            "[echo]\nport = 7\n[cache]\nid = \"q\"\n[[interface]]\nname = \"a\"\n\
             addresses = [\"198.18.0.1\"]\n[[interface]]\nname = \"b\"\n\
             addresses = [\"198.18.1.1\"]\n[[feed]]\nvenue = \"nasdaq\"\n\
             group = \"233.54.12.111\"\nport = 26477\nchannel = 1\n{feed}\n\
             [feed.recovery]\n{recovery}\n"
        );
        parse(&text, "n.toml").map_err(|error| error.to_string())
    }

    const SERVERS: &str = "servers = [\"198.18.0.5:1\", \"198.18.0.6:1\"]\n";
    const FROM: &str = "from = \"198.18.1.1:26400\"\n";
    const SNAPSHOT: &str = "[feed.recovery.snapshot]\nserver = \"198.18.0.5:2\"\nuser = \"NODE01\"\n\
                            password_file = \"/p\"\n";

    #[test]
    fn a_feed_speaks_what_its_section_says() {
        let node = |feed: &str| {
            let text = format!(
                "[cache]\nid = \"q\"\n[[interface]]\nname = \"a\"\n[[feed]]\nvenue = \"iex\"\n\
                 group = \"233.215.21.3\"\nport = 10377\nchannel = 1\n{feed}\n"
            );
            parse(&text, "n.toml").map_err(|error| error.to_string())
        };
        let tops = "protocol = \"iex-tops-1.6\"\n";
        assert_eq!(node("").unwrap().feed[0].protocol, Protocol::NasdaqItch50);
        assert_eq!(node(tops).unwrap().feed[0].protocol, Protocol::IexTops16);
        let recovery = "[feed.recovery]\nservers = [\"198.18.0.5:1\"]\nfrom = \"198.18.0.1:2\"";
        for (feed, expected) in [
            ("protocol = \"iex-deep-1.0\"\n".into(), "unknown variant `iex-deep-1.0`"),
            (format!("{tops}depth = 1\n"), "feed[0].depth: iex-tops-1.6 says the best bid"),
            (format!("{tops}{recovery}"), "feed[0].recovery: servers of MoldUDP64 and GLIMPSE"),
        ] {
            let message = node(&feed).unwrap_err();
            assert!(message.contains(expected), "{message}\nexpected {expected}");
        }
    }

    #[test]
    fn a_feed_recovers_by_requests_by_snapshots_or_by_both() {
        for (recovery, servers, has_snapshot) in [
            ([SERVERS, FROM].concat(), 2, false),
            (SNAPSHOT.to_owned(), 0, true),
            ([SERVERS, FROM, "interface = \"b\"\n", SNAPSHOT].concat(), 2, true),
        ] {
            let config = node(&recovery, "").unwrap();
            let feed = &config.feed[0];
            let read = feed.recovery.as_ref().unwrap();
            assert_eq!((read.servers.len(), read.snapshot.is_some()), (servers, has_snapshot));
            assert_eq!((read.request_after_us, read.queue_mb), (1_000, 16));
            assert_eq!(feed.requests_from().is_some(), servers > 0);
            assert_eq!(feed.is_on_port(26_400), servers > 0);
        }
    }

    #[test]
    fn what_cannot_recover_is_refused_by_name() {
        let five = format!("servers = [{}]\n{FROM}", ["\"198.18.0.5:1\""; 5].join(", "));
        let from = |from: &str| format!("{SERVERS}from = \"{from}\"\n");
        for (recovery, feed, expected) in [
            (String::new(), "", "feed[0].recovery: names neither"),
            ([SERVERS, FROM].concat(), "start = \"any\"", "feed[0].recovery: start = \"any\""),
            (five, "", "feed[0].recovery.servers: more than 4"),
            (SERVERS.to_owned(), "", "feed[0].recovery.from: is needed"),
            (from("198.18.2.1:5"), "", "feed[0].recovery.from: 198.18.2.1 is not among"),
            (from("233.54.12.1:5"), "", "feed[0].recovery.from: 233.54.12.1 is not an address"),
            (from("198.18.0.1:0"), "", "feed[0].recovery.from: 0 is not a port"),
            (from("198.18.0.1:7"), "", "feed[0].recovery.from: port 7 is also echo.port"),
            (from("198.18.0.1:11211"), "", "feed[0].recovery.from: port 11211 is also cache[0]"),
            (from("198.18.0.1:26477"), "", "feed[0].recovery.from: port 26477 is also that of a"),
            (
                format!("servers = [\"[fd00:6e61::5]:1\"]\n{FROM}"),
                "",
                "feed[0].recovery.servers: [fd00:6e61::5]:1 is not of the family",
            ),
            (
                [SERVERS, FROM, "interface = \"c\"\n"].concat(),
                "",
                "feed[0].recovery.interface: \"c\" is no [[interface]]",
            ),
            ([SERVERS, FROM, "queue_mb = 0\n"].concat(), "", "feed[0].recovery.queue_mb: 0 is not"),
            (SNAPSHOT.replace("NODE01", "NODE001"), "", "snapshot.user: \"NODE001\" is not"),
            (SNAPSHOT.replace("/p", "p"), "", "snapshot.password_file: p is not absolute"),
            ([SNAPSHOT, "pass = 1\n"].concat(), "", "unknown field `pass`"),
        ] {
            let message = node(&recovery, feed).unwrap_err();
            assert!(message.contains(expected), "{message}\nexpected {expected}");
        }
    }
}
