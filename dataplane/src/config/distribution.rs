//! `[feed.distribution]`: who gets the records of a feed, and what can be wrong with such a section.

use std::net::SocketAddr;

use serde::Deserialize;

use super::check::{Problem, refuse, within};
use super::feed::check_endpoint;
use super::{Feed, FeedRepublish, NodeConfig};
use crate::feed::Symbol;
use crate::feed::distribution::wire::Records;
use crate::feed::distribution::{
    DistributionSpec, Entitlement, Entitlements, SUBSCRIBERS_MAX, SlowPolicy,
};
use crate::feed::record::depth::DEPTH_MAX;
use crate::net::{Endpoint, Prefix};

/// Prefixes of one feed that may have something.
const ENTITLED_MAX: usize = 64;

/// Symbols that one prefix may be limited to.
const SYMBOLS_MAX: usize = 65_536;

/// `[feed.distribution]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedDistribution {
    /// Address and port of this node that subscribers speak to; they must be among `access.sources` too.
    pub endpoint: SocketAddr,
    /// Subscribers at once, 1..=64.
    #[serde(default = "default_max_subscribers")]
    pub max_subscribers: u32,
    /// KiB for the messages of each, 64..=65,536, taken at start: what can be asked for again.
    #[serde(default = "default_history_kb")]
    pub history_kb: u32,
    /// Milliseconds in which a subscription is renewed, and what was sent acknowledged, 500..=60,000.
    #[serde(default = "default_lease_ms")]
    pub lease_ms: u32,
    /// What becomes of a subscriber that does not keep up.
    #[serde(default)]
    pub slow: Slow,
    /// Microseconds between two rounds of a conflated one, at least, 100..=10,000,000.
    #[serde(default = "default_conflate_us")]
    pub conflate_us: u32,
    /// Who may have what; the longest prefix counts.
    pub entitled: Vec<Entitled>,
}

/// What the sources of a prefix may have.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entitled {
    /// Whose.
    pub prefix: Prefix,
    /// Kinds of records, of [`Records::NAMES`]; all without it.
    #[serde(default)]
    pub records: Option<Vec<String>>,
    /// Levels a side, at most; as many as the feed publishes without it.
    #[serde(default)]
    pub depth: Option<u8>,
    /// Subscriptions of one address, 1..=64.
    #[serde(default = "default_subscriptions")]
    pub max_subscriptions: u32,
    /// Symbols; all without it.
    #[serde(default)]
    pub symbols: Option<Vec<String>>,
}

/// What becomes of a subscriber that does not keep up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slow {
    /// It gets the newest record of each kind, now and then; if that is too much as well, nothing.
    #[default]
    Conflate,
    /// It gets nothing more.
    End,
}

fn default_max_subscribers() -> u32 {
    16
}

fn default_history_kb() -> u32 {
    1_024
}

fn default_lease_ms() -> u32 {
    3_000
}

fn default_conflate_us() -> u32 {
    10_000
}

fn default_subscriptions() -> u32 {
    4
}

impl Entitled {
    /// The kinds it names; the name that is none.
    fn kinds(&self) -> Result<Records, &str> {
        let Some(names) = &self.records else { return Ok(Records::ALL) };
        let mut kinds = Records::default();
        for name in names {
            let bit = Records::NAMES.iter().position(|known| known == name);
            kinds.0 |= 1 << bit.ok_or(name.as_str())?;
        }
        Ok(kinds)
    }

    fn symbols(&self) -> Option<Box<[Symbol]>> {
        let names = self.symbols.as_ref()?;
        Some(names.iter().filter_map(|name| Symbol::new(name)).collect())
    }
}

impl FeedDistribution {
    /// As a channel is told, of a file that was checked. `depth` levels are published.
    pub fn spec(&self, depth: u8) -> DistributionSpec {
        let entitlement = |entitled: &Entitled| Entitlement {
            prefix: entitled.prefix,
            records: entitled.kinds().unwrap_or_default(),
            depth_max: entitled.depth.unwrap_or(DEPTH_MAX as u8),
            subscriptions_max: entitled.max_subscriptions,
            symbols: entitled.symbols(),
        };
        DistributionSpec {
            endpoint: Endpoint::from(self.endpoint),
            subscribers_max: self.max_subscribers as usize,
            history_bytes: (self.history_kb as usize) << 10,
            lease_ns: u64::from(self.lease_ms) * 1_000_000,
            slow: match self.slow {
                Slow::Conflate => SlowPolicy::Conflate,
                Slow::End => SlowPolicy::End,
            },
            conflate_ns: u64::from(self.conflate_us) * 1_000,
            depth,
            entitlements: Entitlements::new(self.entitled.iter().map(entitlement).collect()),
        }
    }
}

/// What can be said of a feed's distribution; `key` makes the path of a key of the section.
pub(super) fn check_distribution(
    config: &NodeConfig,
    feed: &Feed,
    distribution: &FeedDistribution,
    taken: &[(u16, String)],
    key: impl Fn(&str) -> String,
) -> Result<(), Problem> {
    check_endpoint(config, feed, distribution.endpoint, taken, &key(".endpoint"))?;
    let port = distribution.endpoint.port();
    let given_out = config.feed.iter().filter_map(|feed| feed.republish.as_ref());
    if given_out.flat_map(FeedRepublish::ports).any(|other| other == port) {
        return refuse(key(".endpoint"), format!("port {port} is also of a republish section"));
    }
    let subscribers_max = SUBSCRIBERS_MAX as u64;
    within(&key(".max_subscribers"), distribution.max_subscribers.into(), 1, subscribers_max)?;
    within(&key(".history_kb"), distribution.history_kb.into(), 64, 65_536)?;
    within(&key(".lease_ms"), distribution.lease_ms.into(), 500, 60_000)?;
    within(&key(".conflate_us"), distribution.conflate_us.into(), 100, 10_000_000)?;
    let entitled = &distribution.entitled;
    if entitled.is_empty() {
        return refuse(key(".entitled"), "is empty, so that nobody may subscribe");
    }
    if entitled.len() > ENTITLED_MAX {
        return refuse(key(".entitled"), format!("more than {ENTITLED_MAX} prefixes"));
    }
    for (index, entry) in entitled.iter().enumerate() {
        let key = |name: &str| format!("{}[{index}].{name}", key(".entitled"));
        if entitled[..index].iter().any(|other| other.prefix == entry.prefix) {
            return refuse(key("prefix"), format!("{} stands twice", entry.prefix));
        }
        if let Err(name) = entry.kinds() {
            let known = Records::NAMES.join(", ");
            return refuse(key("records"), format!("{name:?} is none of {known}"));
        }
        if entry.kinds() == Ok(Records::default()) {
            return refuse(key("records"), "is empty; leave the prefix out instead");
        }
        if let Some(depth) = entry.depth {
            within(&key("depth"), depth.into(), 1, feed.depth.max(1).into())?;
        }
        within(&key("max_subscriptions"), entry.max_subscriptions.into(), 1, subscribers_max)?;
        let symbols = entry.symbols.as_deref().unwrap_or_default();
        if entry.symbols.is_some() && !(1..=SYMBOLS_MAX).contains(&symbols.len()) {
            let text =
                format!("{} symbols; 1..={SYMBOLS_MAX}, or no such key for all", symbols.len());
            return refuse(key("symbols"), text);
        }
        let is_symbol =
            |name: &&String| Symbol::new(name).is_some_and(|name| name.name().is_some());
        if let Some(name) = symbols.iter().find(|name| !is_symbol(name)) {
            return refuse(key("symbols"), format!("{name:?} is not 1..=8 printable characters"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    /// What is said of a node with such keys in its feed's distribution.
    fn node(distribution: &str) -> Result<NodeConfig, String> {
        let text = format!(
            "[echo]\nport = 7\n[cache]\nid = \"q\"\n[[interface]]\nname = \"a\"\n\
             addresses = [\"198.18.0.1\"]\n[[feed]]\nvenue = \"nasdaq\"\n\
             group = \"233.54.12.111\"\nport = 26477\nchannel = 1\ndepth = 5\n\
             [feed.recovery]\nservers = [\"198.18.0.5:1\"]\nfrom = \"198.18.0.1:26400\"\n\
             [feed.distribution]\n{distribution}\n"
        );
        parse(&text, "n.toml").map_err(|error| error.to_string())
    }

    const ENDPOINT: &str = "endpoint = \"198.18.0.1:26700\"\n";

    #[test]
    fn a_section_says_who_may_have_what() {
        let more = "entitled = [{ prefix = \"198.18.0.0/24\" }, { prefix = \"198.18.0.7/32\", \
                    records = [\"bbo\", \"depth\"], depth = 2, max_subscriptions = 9, \
                    symbols = [\"MSFT\", \"AAPL\"] }]\nslow = \"end\"";
        let config = node(&[ENDPOINT, more].concat()).unwrap();
        let feed = &config.feed[0];
        let section = feed.distribution.as_ref().unwrap();
        assert_eq!(
            (section.max_subscribers, section.history_kb, section.lease_ms),
            (16, 1_024, 3_000)
        );
        assert!(feed.is_on_port(26_700) && feed.is_on_port(26_400) && !feed.is_on_port(26_701));
        let spec = section.spec(5);
        assert_eq!((spec.slow, spec.history_bytes, spec.depth), (SlowPolicy::End, 1 << 20, 5));
        let of = |last: u8| {
            let place = spec.entitlements.place_of([198, 18, 0, last].into()).unwrap();
            spec.entitlements.at(place)
        };
        assert_eq!(
            (of(1).records, of(1).depth_max, of(1).subscriptions_max),
            (Records::ALL, 10, 4)
        );
        assert!(of(1).symbols.is_none());
        assert_eq!(
            (of(7).records, of(7).depth_max, of(7).subscriptions_max),
            (Records(0x11), 2, 9)
        );
        assert!(of(7).covers(Symbol::new("AAPL").unwrap()));
        assert!(!of(7).covers(Symbol::new("IBM").unwrap()));
    }

    #[test]
    fn what_cannot_be_distributed_is_refused_by_name() {
        let of = |entry: &str| {
            format!("{ENDPOINT}entitled = [{{ prefix = \"198.18.0.0/24\"{entry} }}]\n")
        };
        let at = |endpoint: &str| of("").replace("198.18.0.1:26700", endpoint);
        for (distribution, expected) in [
            (ENDPOINT.to_owned(), "missing field `entitled`"),
            (format!("{ENDPOINT}entitled = []"), "feed[0].distribution.entitled: is empty"),
            (at("198.18.0.2:26700"), "feed[0].distribution.endpoint: 198.18.0.2 is not among"),
            (at("198.18.0.1:7"), "feed[0].distribution.endpoint: port 7 is also echo.port"),
            (at("198.18.0.1:26477"), "distribution.endpoint: port 26477 is also that of a line"),
            (at("198.18.0.1:26400"), "port 26400 stands twice in this feed"),
            (of("") + "max_subscribers = 65", "distribution.max_subscribers: 65 is not 1..=64"),
            (of("") + "history_kb = 1", "distribution.history_kb: 1 is not 64..=65536"),
            (of("") + "lease_ms = 60001", "distribution.lease_ms: 60001 is not 500..=60000"),
            (of(", records = [\"bba\"]"), "entitled[0].records: \"bba\" is none of bbo, last"),
            (of(", records = []"), "entitled[0].records: is empty"),
            (of(", depth = 6"), "entitled[0].depth: 6 is not 1..=5"),
            (of(", max_subscriptions = 0"), "entitled[0].max_subscriptions: 0 is not"),
            (of(", symbols = []"), "entitled[0].symbols: 0 symbols"),
            (of(", symbols = [\"A B\"]"), "entitled[0].symbols: \"A B\" is not"),
            (of(", price = 1"), "unknown field `price`"),
        ] {
            let message = node(&distribution).unwrap_err();
            assert!(message.contains(expected), "{message}\nexpected {expected}");
        }
    }
}
