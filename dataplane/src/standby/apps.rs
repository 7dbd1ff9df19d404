//! The applications of a node: echo, cache, and feeds that publish into the same cache.
//!
//! Cache and feeds write one table from one thread, so they cannot be two independent applications;
//! this is the list the run loop dispatches to.

use std::time::{SystemTime, UNIX_EPOCH};

use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::control_region::ControlRegion;
use nautilus_shm::metrics::{MetricBank, table};
use nautilus_shm::table::{TableRegion, TableWriter};

use super::StandbyError;
use crate::app::echo::Echo;
use crate::app::feed::{Feed, FeedSpec};
use crate::app::{App, CacheApp};
use crate::config::{FeedStart, NodeConfig};
use crate::feed::Venue;
use crate::feed::book::BookLimits;
use crate::feed::channel::ChannelSpec;
use crate::feed::metrics::FeedMetrics;
use crate::feed::session::Start;
use crate::net::Endpoint;
use crate::port::{Burst, Transmit};
use crate::worker::Apps;

/// Silence after which a feed's keys are suspect: three of MoldUDP64's heartbeats, one a second.
const SILENCE_LIMIT_NS: u64 = 3_000_000_000;

/// Open orders per price level on average; a day of NASDAQ has more.
const ORDERS_PER_LEVEL: u32 = 4;

/// How often counts go into the metric bank.
const PUBLISH_NS: u64 = 10_000_000;

/// How often the wall clock is compared, for absolute expiry times of later writes.
const WALL_CLOCK_NS: u64 = 250_000_000;

const ECHO: usize = 0;
const CACHE: usize = 1;
const FEED: usize = 2;

/// What a standby makes before it is promoted: books are large.
pub(super) struct Prepared {
    echo_port: Option<u16>,
    cache: Option<(u16, TableRegion)>,
    feed: Option<Feed>,
    feed_ports: Vec<u16>,
}

impl Prepared {
    /// Maps the cache and allocates the books.
    pub fn new(config: &NodeConfig, cache: Option<TableRegion>) -> Result<Self, StandbyError> {
        let mut specs = Vec::new();
        for feed in &config.feed {
            let venue = Venue::new(&feed.venue).ok_or(StandbyError::Venue)?;
            let start = match feed.start {
                FeedStart::Session => Start::Session,
                FeedStart::Any => Start::Any,
            };
            let books = BookLimits {
                orders_max: feed.max_orders,
                levels_max: feed.max_orders / ORDERS_PER_LEVEL,
                hash_seed: monotonic_ns(),
            };
            let channel = ChannelSpec {
                venue,
                channel: feed.channel,
                start,
                silence_limit_ns: SILENCE_LIMIT_NS,
                books,
            };
            specs.push(FeedSpec { line: Endpoint::new(feed.group, feed.port), channel });
        }
        Ok(Self {
            echo_port: config.echo.map(|echo| echo.port),
            cache: config.cache.as_ref().map(|cache| cache.port).zip(cache),
            feed: (!specs.is_empty()).then(|| Feed::new(&specs)),
            feed_ports: config.feed.iter().map(|feed| feed.port).collect(),
        })
    }

    /// Takes the table over from a dead predecessor and every channel with it.
    pub fn take_over<'a>(
        self,
        region: &'a ControlRegion,
        index: usize,
    ) -> Result<NodeApps<'a>, StandbyError> {
        let cache = match self.cache {
            Some((port, memory)) => {
                let writer = TableWriter::attach(memory).map_err(StandbyError::Table)?;
                Some((port, CacheApp::new(writer, realtime_offset_ns())))
            }
            None => None,
        };
        let mut apps = NodeApps {
            echo_port: self.echo_port,
            echo: Echo::default(),
            echoed_published: 0,
            cache,
            feed: self.feed,
            feed_ports: self.feed_ports,
            feed_metrics: FeedMetrics::default(),
            bank: region.metrics(index),
            published_ns: 0,
            wall_clock_ns: 0,
        };
        if let (Some(feed), Some((_, cache))) = (&mut apps.feed, &mut apps.cache) {
            feed.begin(cache);
        }
        Ok(apps)
    }
}

/// `CLOCK_REALTIME - CLOCK_MONOTONIC`; no kernel entry where the clock is the TSC.
fn realtime_offset_ns() -> i64 {
    let realtime = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    realtime.as_nanos() as i64 - monotonic_ns() as i64
}

/// Echo, cache and feeds of one worker.
pub(super) struct NodeApps<'a> {
    echo_port: Option<u16>,
    echo: Echo,
    echoed_published: u64,
    cache: Option<(u16, CacheApp<TableRegion>)>,
    feed: Option<Feed>,
    feed_ports: Vec<u16>,
    feed_metrics: FeedMetrics,
    bank: MetricBank<'a>,
    published_ns: u64,
    wall_clock_ns: u64,
}

impl Apps for NodeApps<'_> {
    #[inline]
    fn route(&self, destination: &Endpoint) -> Option<usize> {
        let port = destination.port;
        match &self.cache {
            Some((cache, _)) if *cache == port => Some(CACHE),
            _ if self.echo_port == Some(port) => Some(ECHO),
            _ if self.feed_ports.contains(&port) => Some(FEED),
            _ => None,
        }
    }

    #[inline]
    fn handle(&mut self, app: usize, now_ns: u64, burst: &impl Burst, tx: &mut impl Transmit) {
        match (app, &mut self.cache, &mut self.feed) {
            (ECHO, ..) => self.echo.handle(now_ns, burst, tx),
            (CACHE, Some((_, cache)), _) => cache.handle(now_ns, burst, tx),
            (FEED, Some((_, cache)), Some(feed)) => feed.handle(burst, cache),
            _ => {}
        }
    }

    fn housekeeping(&mut self, now_ns: u64, tx: &mut impl Transmit) {
        if let Some((_, cache)) = &mut self.cache {
            cache.housekeeping(now_ns, tx);
            if let Some(feed) = &mut self.feed {
                feed.housekeeping(now_ns, cache);
            }
            if now_ns.saturating_sub(self.wall_clock_ns) >= WALL_CLOCK_NS {
                self.wall_clock_ns = now_ns;
                cache.set_realtime_offset_ns(realtime_offset_ns());
            }
        }
        if now_ns.saturating_sub(self.published_ns) < PUBLISH_NS {
            return;
        }
        self.published_ns = now_ns;
        if let Some((_, cache)) = &mut self.cache {
            cache.publish(&self.bank);
        }
        if let Some(feed) = &self.feed {
            self.feed_metrics.publish(feed, now_ns, &self.bank);
        }
        let echoed = self.echo.echoed_count - self.echoed_published;
        self.bank.add(table::ECHOED_PACKETS, echoed);
        self.echoed_published = self.echo.echoed_count;
    }
}
