//! The caches of one worker: mapped by the standby, taken over when it is promoted, found by port and by
//! place.

use nautilus_shm::attach::CACHES_MAX;
use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::control_region::ControlRegion;
use nautilus_shm::region::Access;
use nautilus_shm::sampled_hits::HitRegion;
use nautilus_shm::table::{SHARDS_MAX, SharedWords, TableReader, TableRegion, TableWriter};

use super::StandbyError;
use super::changes::{Change, Outcome};
use super::xdp_maps::XdpMaps;
use crate::access::AccessList;
use crate::app::cache::Banks;
use crate::app::feed::Feed;
use crate::app::feed_specs::{asked_of, lines_of, republish_of, spec_of};
use crate::app::{App, CacheApp};
use crate::capture::tap::Tap;
use crate::config::{self, NodeConfig};
use crate::feed::applied::Applied;
use crate::feed::channel::SnapshotPiece;
use crate::feed::distribution::Distribution;
use crate::hot::XdpHotSet;
use crate::net::Endpoint;
use crate::port::{Burst, Datagram, Transmit};
use crate::supervisor::caches::CacheOpened;
use crate::supervisor::handover::Fds;
use crate::worker::{Caches, Peers, Snapshots};

/// Memory of a cache, of which a worker writes its shard and reads the others.
pub(super) type Memory = SharedWords<TableRegion>;

/// A cache application of a real node.
pub(super) type NodeCache = CacheApp<Memory, Option<XdpHotSet>>;

/// A cache as one of the node's workers has it.
pub(super) struct Place<'a> {
    pub opened: &'a CacheOpened,
    /// Which of the node's workers it is.
    pub number: u32,
    /// No other worker: every shard and every feed is its own.
    pub is_alone: bool,
}

/// Where a line of a feed is received, and the worker that applies it: the owner of its venue's keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub endpoint: Endpoint,
    pub worker: usize,
    pub is_ours: bool,
    /// Messages come to it, not requests for them.
    pub brings: bool,
}

/// What a standby makes of one cache before it is promoted: books are large.
pub(super) struct PreparedCache {
    pub opened: CacheOpened,
    pub number: u32,
    pub is_alone: bool,
    pub memory: Memory,
    pub access: AccessList,
    pub hot: Option<XdpHotSet>,
    pub feed: Option<Feed>,
    pub lines: Vec<Line>,
}

impl PreparedCache {
    /// Maps the memory and allocates the books of the worker's own feeds that publish into it.
    pub fn new(
        &Place { opened, number, is_alone }: &Place<'_>,
        config: &NodeConfig,
        maps: &XdpMaps,
        fds: &mut Fds,
    ) -> Result<Self, StandbyError> {
        let memory = TableRegion::attach(fds.take(&opened.memory_name())?, Access::ReadWrite)?;
        let hits = HitRegion::attach(fds.take(&opened.hits_name())?, Access::ReadWrite)?;
        let memory = SharedWords::new(memory.with_hits(hits));
        let table = TableReader::attach(memory.clone()).map_err(StandbyError::Table)?;
        let (mut lines, mut specs) = (Vec::new(), Vec::new());
        let (mut applied, mut distributions) = (Vec::new(), Vec::new());
        let (mut republish, mut shown) = (Vec::new(), Vec::new());
        let feeds = config.feed.iter().enumerate();
        for (place, feed) in feeds.filter(|(_, feed)| publishes_into(feed, opened, config)) {
            let owner = || table.shard_index(format!("md:{}:", feed.venue).as_bytes());
            let worker = if is_alone { number } else { owner() };
            let is_ours = worker == number;
            let worker = worker as usize;
            let line = |endpoint, brings| Line { endpoint, worker, is_ours, brings };
            let replies = feed.requests_from().map(Endpoint::from);
            lines.extend(lines_of(feed).into_iter().chain(replies).map(|at| line(at, true)));
            lines.extend(asked_of(feed).map(|at| line(at, false)));
            if is_ours {
                // No worker before had one of this number: it was made earlier.
                let spec = spec_of(feed, config, monotonic_ns()).ok_or(StandbyError::Venue)?;
                specs.push(spec);
                // XDP can read the header of no other framing.
                let slot = match feed.protocol.is_moldudp64() {
                    true => maps.slot_of_feed(place)?,
                    false => None,
                };
                applied.push(slot.map(Applied::new));
                let section = feed.distribution.as_ref();
                distributions
                    .push(section.map(|section| Distribution::new(section.spec(feed.depth))));
                republish.push(republish_of(feed, config));
                shown.extend(feed.shows_books().then_some(feed.channel));
            }
        }
        Ok(Self {
            opened: opened.clone(),
            number,
            is_alone,
            memory,
            access: config.access_to(&opened.section),
            hot: maps.hot_set_of(opened)?,
            feed: (!specs.is_empty())
                .then(|| Feed::new(&specs).saying(applied).distributing(distributions))
                .map(|feed| feed.republishing(republish).showing(&shown)),
            lines,
        })
    }

    /// Takes the worker's part of the table over from a dead predecessor and every channel with it.
    pub fn take_over(
        self,
        region: &'static ControlRegion,
        index: usize,
        realtime_offset_ns: i64,
    ) -> Result<ServedCache, StandbyError> {
        let Self { opened, number, is_alone, memory, access, hot, mut feed, lines } = self;
        if usize::from(opened.place) >= CACHES_MAX {
            return Err(StandbyError::Unexpected("a cache has no place"));
        }
        let own = if is_alone { 0..SHARDS_MAX } else { number..number + 1 };
        let writer = TableWriter::attach_shards(memory.clone(), hot, own);
        let mut app = CacheApp::new(writer.map_err(StandbyError::Table)?, realtime_offset_ns)
            .with_access(access)
            .with_banks(Banks::of_node(region, index, usize::from(opened.place)));
        app.set_value_bytes_max(opened.section.max_value_bytes);
        if !is_alone {
            let reader = TableReader::attach(memory).map_err(StandbyError::Table)?;
            app = app.with_others(reader, number);
        }
        if let Some(feed) = &mut feed {
            feed.begin(&mut app);
        }
        Ok(ServedCache {
            place: usize::from(opened.place),
            generation: opened.generation,
            port: opened.section.port,
            app,
            feed,
            lines,
        })
    }
}

/// Whether a feed publishes into a cache: its section names it, or names none and it is the first of the
/// node file.
fn publishes_into(feed: &config::Feed, opened: &CacheOpened, config: &NodeConfig) -> bool {
    let cache = config.cache_of(feed).and_then(|place| config.cache.get(place));
    cache.is_some_and(|cache| cache.id == opened.section.id)
}

/// One cache as the loop serves it, with the feeds that publish into it.
pub(super) struct ServedCache {
    pub place: usize,
    generation: u32,
    port: u16,
    pub app: NodeCache,
    pub feed: Option<Feed>,
    lines: Vec<Line>,
}

impl ServedCache {
    /// Handles requests and sends on what is for other workers.
    #[inline]
    pub fn handle(
        &mut self,
        now_ns: u64,
        burst: &impl Burst,
        tx: &mut impl Transmit,
        peers: Option<&mut Peers>,
    ) {
        self.app.handle(now_ns, burst, tx);
        if let (Some(outbox), Some(peers)) = (self.app.outbox(), peers) {
            peers.send_all(outbox);
        }
    }

    /// Applies what is of our feeds and sends the rest on.
    pub fn feed(&mut self, burst: &impl Burst, peers: Option<&mut Peers>) {
        let Some(peers) = peers else {
            if let Some(feed) = &mut self.feed {
                feed.handle(burst, &mut self.app);
            }
            return;
        };
        for index in 0..burst.len() {
            let datagram = burst.get(index);
            let line = self.lines.iter().find(|line| line.endpoint == datagram.destination);
            match (line, &mut self.feed) {
                (Some(line), _) if !line.is_ours => peers.send_on_whole(line.worker, &datagram),
                (_, Some(feed)) => feed.handle(&One(datagram), &mut self.app),
                _ => {}
            }
        }
    }

    /// Whether this worker applies what comes on a line of this cache.
    #[inline]
    pub fn applies(&self, destination: &Endpoint) -> bool {
        let is_it = |line: &Line| line.is_ours && line.brings && line.endpoint == *destination;
        self.lines.iter().any(is_it)
    }
}

/// A burst of one.
pub(super) struct One<'a>(pub Datagram<'a>);

impl Burst for One<'_> {
    fn len(&self) -> usize {
        1
    }

    fn get(&self, _index: usize) -> Datagram<'_> {
        self.0
    }
}

/// All caches of a worker by place.
pub(super) struct ServedCaches {
    pub(super) places: [Option<Box<ServedCache>>; CACHES_MAX],
    /// Ports by place, 0 for none: what every datagram is looked up in.
    ports: [u16; CACHES_MAX],
    /// Where the node captures something.
    pub(super) tap: Option<Tap>,
}

impl ServedCaches {
    /// Takes every prepared cache over.
    pub fn take_over(
        prepared: Vec<PreparedCache>,
        region: &'static ControlRegion,
        index: usize,
        realtime_offset_ns: i64,
    ) -> Result<Self, StandbyError> {
        let places = [const { None }; CACHES_MAX];
        let mut this = Self { places, ports: [0; CACHES_MAX], tap: None };
        for cache in prepared {
            let served = cache.take_over(region, index, realtime_offset_ns)?;
            let place = served.place;
            this.ports[place] = served.port;
            this.places[place] = Some(Box::new(served));
        }
        Ok(this)
    }

    /// Makes a change and returns what was in its place, to be dropped elsewhere: that may take long.
    pub fn change(&mut self, change: Change) -> Outcome {
        match change {
            Change::Add(cache) => {
                let place = cache.place;
                // Bounded by the supervisor and, when it was opened, by the metric banks.
                let own = self.places.get_mut(place)?;
                self.ports[place] = cache.port;
                own.replace(cache)
            }
            Change::Forget(place, generation) => {
                let place = usize::from(place);
                let own = self.places.get_mut(place)?;
                own.as_ref().filter(|cache| cache.generation == generation)?;
                self.ports[place] = 0;
                own.take()
            }
        }
    }

    /// Place of the cache on this port.
    #[inline]
    pub fn by_port(&self, port: u16) -> Option<usize> {
        self.ports.iter().position(|own| *own == port).filter(|_| port != 0)
    }

    /// Place of the cache that a feed line publishes into.
    #[inline]
    pub fn by_feed_line(&self, destination: &Endpoint) -> Option<usize> {
        let has_line = |cache: &Option<Box<ServedCache>>| {
            cache
                .as_ref()
                .is_some_and(|cache| cache.lines.iter().any(|line| line.endpoint == *destination))
        };
        self.places.iter().position(has_line)
    }

    /// Whether this worker applies what comes to this endpoint: a line of a feed, or replies to one.
    #[inline]
    pub fn applies(&self, destination: &Endpoint) -> bool {
        self.places.iter().flatten().any(|cache| cache.applies(destination))
    }

    /// The cache of a place.
    #[inline]
    pub fn at(&mut self, place: usize) -> Option<&mut ServedCache> {
        self.places.get_mut(place)?.as_deref_mut()
    }

    /// Every cache.
    pub fn all(&mut self) -> impl Iterator<Item = &mut ServedCache> {
        self.places.iter_mut().flatten().map(Box::as_mut)
    }

    /// Every line that this worker applies.
    pub fn applied_lines(&self) -> Vec<Endpoint> {
        let lines = self.places.iter().flatten().flat_map(|cache| &cache.lines);
        lines.filter(|line| line.is_ours).map(|line| line.endpoint).collect()
    }

    /// Every feed, to be worked on, with the cache it publishes into.
    #[inline]
    pub fn feeds_mut(&mut self) -> impl Iterator<Item = (&mut Feed, &mut NodeCache)> {
        let caches = self.places.iter_mut().flatten();
        caches.filter_map(|cache| cache.feed.as_mut().map(|feed| (feed, &mut cache.app)))
    }

    /// Every feed.
    pub fn feeds(&self) -> impl Iterator<Item = &Feed> {
        self.places.iter().flatten().filter_map(|cache| cache.feed.as_ref())
    }

    /// Publishes what was counted.
    pub fn publish(&mut self) {
        for cache in self.places.iter_mut().flatten() {
            cache.app.publish();
        }
    }
}

impl Snapshots for ServedCaches {
    fn take_snapshot(&mut self, channel: u8, attempt: u64, now_ns: u64, piece: SnapshotPiece<'_>) {
        self.see_snapshot(channel, attempt, now_ns, piece);
        for (feed, keyspace) in self.feeds_mut() {
            if feed.take_snapshot(channel, attempt, now_ns, piece, keyspace) {
                return;
            }
        }
    }

    fn want_books(&mut self, channel: u8, attempt: u64) {
        self.feeds_mut().for_each(|(feed, _)| feed.want_books(channel, attempt));
    }
}

impl Caches for ServedCaches {
    type Memory = Memory;
    type Hot = Option<XdpHotSet>;

    #[inline]
    fn cache(&mut self, place: u32, generation: u32) -> Option<&mut NodeCache> {
        let cache = self.at(place as usize)?;
        (cache.generation == generation).then_some(&mut cache.app)
    }
}
