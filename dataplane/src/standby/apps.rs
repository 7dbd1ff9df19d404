//! The applications of a node: echo, cache, and feeds that publish into the same cache.
//!
//! Cache and feeds write one table from one thread, so they cannot be two independent applications;
//! this is the list the run loop dispatches to.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::control_region::{ControlRegion, HistogramId};
use nautilus_shm::front_region::FrontRegion;
use nautilus_shm::histogram::Histogram;
use nautilus_shm::metrics::{MetricBank, table};
use nautilus_shm::table::{SHARDS_MAX, SharedWords, TableReader, TableRegion, TableWriter};

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
use crate::hot::XdpHotSet;
use crate::net::Endpoint;
use crate::port::{Burst, Datagram, Transmit};
use crate::worker::{Apps, Clock, Forwarded, Peers, Received};

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

/// Memory of the cache, of which a worker writes its shard and reads the others.
type Memory = SharedWords<TableRegion>;

/// What a standby was handed, mapped.
pub(super) struct Parts {
    /// Which of the node's workers it is.
    pub number: u32,
    /// The cache's table.
    pub cache: Option<Memory>,
    /// The hot set.
    pub hot: Option<XdpHotSet>,
    /// Rings to the front, and what wakes this worker.
    pub front: Option<(&'static FrontRegion, OwnedFd)>,
    /// The other workers, where there are any.
    pub peers: Option<Peers>,
}

/// What a standby makes before it is promoted: books are large.
pub(super) struct Prepared {
    number: u32,
    echo_port: Option<u16>,
    cache: Option<(u16, Memory)>,
    hot: Option<XdpHotSet>,
    feed: Option<Feed>,
    lines: Vec<Line>,
    front: Option<Forwarded>,
    peers: Option<Peers>,
}

/// Where a feed is received, and the worker that applies it: the owner of its venue's keys.
#[derive(Clone, Copy, Debug)]
struct Line {
    endpoint: Endpoint,
    worker: usize,
    is_ours: bool,
}

impl Prepared {
    /// Allocates the books of its own feeds, and makes the buffers for commands of the front.
    pub fn new(config: &NodeConfig, parts: Parts) -> Result<Self, StandbyError> {
        let Parts { number, cache, hot, front, peers } = parts;
        let owners = match (&cache, &peers) {
            (Some(memory), Some(_)) => {
                Some(TableReader::attach(memory.clone()).map_err(StandbyError::Table)?)
            }
            _ => None,
        };
        let mut lines = Vec::new();
        let mut specs = Vec::new();
        for feed in &config.feed {
            let venue = Venue::new(&feed.venue).ok_or(StandbyError::Venue)?;
            let worker = owners.as_ref().map_or(number, |table| {
                table.shard_index(format!("md:{}:", feed.venue).as_bytes())
            });
            let endpoint = Endpoint::new(feed.group, feed.port);
            let is_ours = worker == number;
            lines.push(Line { endpoint, worker: worker as usize, is_ours });
            if !is_ours {
                continue;
            }
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
            specs.push(FeedSpec { line: endpoint, channel });
        }
        Ok(Self {
            number,
            echo_port: config.echo.map(|echo| echo.port),
            cache: config.cache.as_ref().map(|cache| cache.port).zip(cache),
            hot,
            feed: (!specs.is_empty()).then(|| Feed::new(&specs)),
            lines,
            front: front.map(|(region, wake)| Forwarded::new(region, wake)),
            peers,
        })
    }

    /// Takes the table over from a dead predecessor and every channel with it.
    pub fn take_over<'a>(
        mut self,
        region: &'a ControlRegion,
        index: usize,
        generation: u64,
    ) -> Result<NodeApps<'a>, StandbyError> {
        if let Some(front) = &mut self.front {
            front.take_over(generation);
        }
        if let Some(peers) = &mut self.peers {
            peers.take_over(generation);
        }
        let cache = match self.cache {
            Some((port, memory)) => {
                let own = match &self.peers {
                    Some(_) => self.number..self.number + 1,
                    None => 0..SHARDS_MAX,
                };
                let writer = TableWriter::attach_shards(memory.clone(), self.hot, own)
                    .map_err(StandbyError::Table)?;
                let mut app = CacheApp::new(writer, realtime_offset_ns());
                if self.peers.is_some() {
                    let reader = TableReader::attach(memory).map_err(StandbyError::Table)?;
                    app = app.with_others(reader);
                }
                Some((port, app))
            }
            None => None,
        };
        let mut apps = NodeApps {
            echo_port: self.echo_port,
            echo: Echo::default(),
            echoed_published: 0,
            cache,
            feed: self.feed,
            is_alone: self.peers.is_none(),
            lines: self.lines,
            feed_metrics: FeedMetrics::default(),
            front: self.front,
            peers: self.peers,
            parcel: vec![1; Peers::BUFFER_BYTES].into(),
            xdp_to_book: region.histogram(index, HistogramId::XdpToBook),
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
    cache: Option<(u16, CacheApp<Memory, Option<XdpHotSet>>)>,
    feed: Option<Feed>,
    lines: Vec<Line>,
    /// No other worker: every line is ours.
    is_alone: bool,
    feed_metrics: FeedMetrics,
    front: Option<Forwarded>,
    peers: Option<Peers>,
    /// What another worker sent, while it is handled.
    parcel: Box<[u8]>,
    xdp_to_book: &'a Histogram,
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
            // A group that no channel has, on a port of another: nobody serves it, and it counts so.
            _ if self.lines.iter().any(|line| line.endpoint == *destination) => Some(FEED),
            _ => None,
        }
    }

    #[inline]
    fn handle(&mut self, app: usize, now_ns: u64, burst: &impl Burst, tx: &mut impl Transmit) {
        match (app, &mut self.cache, &mut self.feed) {
            (ECHO, ..) => self.echo.handle(now_ns, burst, tx),
            (CACHE, Some((_, cache)), _) => {
                cache.handle(now_ns, burst, tx);
                if let (Some(outbox), Some(peers)) = (cache.outbox(), &mut self.peers) {
                    outbox.drain(|to, parcel| peers.send_on(to, parcel));
                }
            }
            (FEED, ..) => self.feed(burst),
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
        if let Some(front) = &mut self.front {
            front.publish(&self.bank);
        }
        if let Some(peers) = &mut self.peers {
            peers.publish(&self.bank);
        }
        if let Some(feed) = &self.feed {
            self.feed_metrics.publish(feed, now_ns, &self.bank);
        }
        let echoed = self.echo.echoed_count - self.echoed_published;
        self.bank.add(table::ECHOED_PACKETS, echoed);
        self.echoed_published = self.echo.echoed_count;
    }

    #[inline]
    fn other_work(&mut self, clock: &impl Clock, tx: &mut impl Transmit) -> usize {
        let of_front = match (&mut self.front, &mut self.cache) {
            (Some(front), Some((_, cache))) => front.serve(cache, clock),
            _ => 0,
        };
        if self.is_alone { of_front } else { of_front + self.take_on(clock, tx) }
    }

    #[inline]
    fn sleeps(&mut self, until_ns: u64) -> bool {
        self.front.as_mut().is_none_or(|front| front.sleeps(until_ns))
            && self.peers.as_mut().is_none_or(|peers| peers.sleeps(until_ns))
    }

    #[inline]
    fn woke(&mut self) {
        if let Some(front) = &mut self.front {
            front.woke();
        }
        if let Some(peers) = &mut self.peers {
            peers.woke();
        }
    }

    #[inline]
    fn wake_descriptor(&self) -> Option<BorrowedFd<'_>> {
        // Both are the same eventfd.
        let of_peers = self.peers.as_ref().map(Peers::wake_descriptor);
        of_peers.or_else(|| self.front.as_ref().map(Forwarded::wake_descriptor))
    }
}

impl NodeApps<'_> {
    /// Where the feeds are received that this worker applies.
    pub fn applied_lines(&self) -> Vec<Endpoint> {
        self.lines.iter().filter(|line| line.is_ours).map(|line| line.endpoint).collect()
    }

    /// Applies what is of our feeds and sends the rest on.
    fn feed(&mut self, burst: &impl Burst) {
        let Some((_, cache)) = &mut self.cache else { return };
        if let Some(peers) = &mut self.peers {
            for index in 0..burst.len() {
                let datagram = burst.get(index);
                let line = self.lines.iter().find(|line| line.endpoint == datagram.destination);
                match (line, &mut self.feed) {
                    (Some(line), _) if !line.is_ours => {
                        peers.send_on_whole(line.worker, &datagram);
                    }
                    (_, Some(feed)) => feed.handle(&One(datagram), cache),
                    _ => {}
                }
            }
        } else if let Some(feed) = &mut self.feed {
            feed.handle(burst, cache);
        }
        let end_ns = monotonic_ns();
        let is_ours = |datagram: &Datagram<'_>| {
            self.is_alone
                || self
                    .lines
                    .iter()
                    .any(|line| line.is_ours && line.endpoint == datagram.destination)
        };
        for datagram in (0..burst.len()).map(|index| burst.get(index)).filter(is_ours) {
            self.xdp_to_book.record(end_ns.saturating_sub(datagram.rx_ns));
        }
    }

    /// Handles some of what other workers sent, and wakes those that were sent something.
    fn take_on(&mut self, clock: &impl Clock, tx: &mut impl Transmit) -> usize {
        let Some(mut peers) = self.peers.take() else { return 0 };
        let mut count = 0;
        if !peers.is_empty() {
            let mut parcel = std::mem::take(&mut self.parcel);
            count = peers.take(
                &mut parcel,
                || clock.now_ns(),
                |peers, received| match received {
                    Received::Datagram(datagram, from) => {
                        self.taken_on(datagram, from, peers, clock)
                    }
                    Received::Answer(path, payload) => {
                        // What the port cannot send, it counts.
                        let _ = tx.send(&path, |out| {
                            let bytes = payload.len().min(out.len());
                            out[..bytes].copy_from_slice(&payload[..bytes]);
                            bytes
                        });
                    }
                },
            );
            self.parcel = parcel;
        }
        peers.wake();
        self.peers = Some(peers);
        count
    }

    fn taken_on(
        &mut self,
        datagram: Datagram<'_>,
        from: usize,
        peers: &mut Peers,
        clock: &impl Clock,
    ) {
        // After it has arrived.
        let now_ns = clock.now_ns();
        match self.route(&datagram.destination) {
            Some(CACHE) => {
                let Some((_, cache)) = &mut self.cache else { return };
                cache.handle(now_ns, &One(datagram), &mut peers.answers(from));
                if let Some(outbox) = cache.outbox() {
                    outbox.drain(|to, parcel| peers.send_on(to, parcel));
                }
            }
            // A feed's datagram is never sent on twice: all workers know whose it is.
            Some(FEED) => self.feed(&One(datagram)),
            _ => {}
        }
    }
}

/// A burst of one.
struct One<'a>(Datagram<'a>);

impl Burst for One<'_> {
    fn len(&self) -> usize {
        1
    }

    fn get(&self, _index: usize) -> Datagram<'_> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::{Filled, Link, Path, SendError};
    use crate::worker::apps::{Dispatched, dispatch};
    use nautilus_shm::region::Access;

    struct Nowhere;

    impl Transmit for Nowhere {
        fn send<F: Into<Filled>>(
            &mut self,
            _: &Path,
            _: impl FnOnce(&mut [u8]) -> F,
        ) -> Result<(), SendError> {
            Err(SendError::NoFrame)
        }
    }

    #[test]
    fn feed_packets_are_timed_and_groups_without_a_channel_are_nobodys() {
        let line = Endpoint::new([233, 54, 12, 111].into(), 26_477);
        let books = BookLimits { orders_max: 16, levels_max: 16, hash_seed: 1 };
        let channel = ChannelSpec {
            venue: Venue::new("nasdaq").unwrap(),
            channel: 1,
            start: Start::Session,
            silence_limit_ns: SILENCE_LIMIT_NS,
            books,
        };
        let table = TableWriter::create(TableRegion::create(4, false).unwrap(), 1, 1).unwrap();
        let fd = table.memory().fd().try_clone_to_owned().unwrap();
        let memory = SharedWords::new(TableRegion::attach(fd, Access::ReadWrite).unwrap());
        let prepared = Prepared {
            number: 0,
            echo_port: None,
            cache: Some((11_211, memory)),
            hot: None,
            feed: Some(Feed::new(&[FeedSpec { line, channel }])),
            lines: vec![Line { endpoint: line, worker: 0, is_ours: true }],
            front: None,
            peers: None,
        };
        let region = ControlRegion::create(c"nautilus-control").unwrap();
        let mut apps = prepared.take_over(&region, 2, 1).unwrap();
        let mut handle = |destination, rx_ns| {
            let source = Endpoint::new([198, 18, 0, 2].into(), 9);
            let link = Link::default();
            let burst = One(Datagram { source, destination, link, rx_ns, payload: b"short" });
            let mut dispatched = Dispatched::default();
            dispatch(&mut apps, rx_ns, &burst, &mut Nowhere, &mut dispatched);
            dispatched.no_application
        };
        let age_ns = 50_000_000;
        assert_eq!(handle(line, monotonic_ns() - age_ns), 0);
        let snapshot = region.histogram(2, HistogramId::XdpToBook).snapshot();
        assert_eq!(snapshot.count(), 1);
        assert!(snapshot.sum() >= age_ns, "{} ns", snapshot.sum());

        let other = Endpoint::new([233, 54, 12, 112].into(), line.port);
        assert_eq!(handle(other, monotonic_ns()), 1);
        assert_eq!(region.histogram(2, HistogramId::XdpToBook).snapshot().count(), 1);
        let feed = apps.feed.as_ref().unwrap();
        assert_eq!(
            (feed.unknown_line(), feed.channels().next().unwrap().counters().packets),
            (0, 1)
        );
    }
}
