//! A replay without a network: the packets that workers saw, in their order, through the same channels and books,
//! into a keyspace in memory.
//!
//! ```text
//!   recording -> begin, packets, turns, housekeepings, requests, snapshots -> Feed -> MemoryKeyspace
//!                        with the stamps and times that the worker had
//! ```
//!
//! The clock is that of the recording: nothing here reads another. Of a node's capture, with every packet in
//! it from the beginning of its workers on, the records are those of the node, byte for byte. A file of other
//! hands has no events: then housekeeping comes with the first packet after each [`STEP_NS`].

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::recording::{Content, Found, Recording, RecordingError};
use crate::app::feed::{Feed, FeedSpec};
use crate::app::feed_specs::spec_of;
use crate::app::{ChannelState, Keyspace, PutError};
use crate::capture::event::Event;
use crate::config::NodeConfig;
use crate::net::{RxChecksum, parse::parse};
use crate::port::{Burst, Datagram, Filled, Link, Path as TransmitPath, SendError, Transmit};
use crate::worker::run_loop::HOUSEKEEPING_NS;

/// Time of a recording without events between two housekeepings.
pub const STEP_NS: u64 = HOUSEKEEPING_NS;

/// What stops it.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// A file.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// The node file has nothing to replay into.
    #[error("the node file has no [[feed]]")]
    NoFeed,
    /// An event of another version.
    #[error("{0}: an event that this version does not know")]
    Event(std::path::PathBuf),
}

/// Records in memory, as a reader of a cache finds them.
#[derive(Debug, Default)]
pub struct MemoryKeyspace {
    values: BTreeMap<Vec<u8>, (Vec<u8>, u8)>,
    live_until_ns: HashMap<u8, u64>,
}

impl MemoryKeyspace {
    /// Every key and its record, in the order of the keys.
    pub fn records(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.values.iter().map(|(key, (value, _))| (key.as_slice(), value.as_slice()))
    }

    /// The instant until which a channel may be believed; 0 when it is suspect.
    pub fn live_until_ns(&self, channel: u8) -> u64 {
        self.live_until_ns.get(&channel).copied().unwrap_or(0)
    }
}

impl Keyspace for MemoryKeyspace {
    fn begin_channel(&mut self, channel: u8) {
        self.values.retain(|_, (_, owner)| *owner != channel);
        self.live_until_ns.remove(&channel);
    }

    fn put(&mut self, key: &[u8], value: &[u8], channel: u8, _: u64) -> Result<(), PutError> {
        match self.values.get_mut(key) {
            Some((known, owner)) => {
                known.clear();
                known.extend_from_slice(value);
                *owner = channel;
            }
            None => drop(self.values.insert(key.to_vec(), (value.to_vec(), channel))),
        }
        Ok(())
    }

    fn set_channel(&mut self, channel: u8, state: ChannelState) {
        let until_ns = match state {
            ChannelState::Suspect => 0,
            ChannelState::LiveUntil(until_ns) => until_ns,
        };
        self.live_until_ns.insert(channel, until_ns);
    }
}

/// What a replay did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfflineSummary {
    /// Packets of feeds.
    pub packets: u64,
    /// Packets of nobody, and frames that hold no datagram.
    pub other_frames: u64,
    /// Events.
    pub events: u64,
    /// Workers that began in the recording.
    pub workers: u64,
    /// Workers whose beginning is not in the recording: what they applied before is not known.
    pub begun_before: u64,
    /// Events of channels that the node file does not have.
    pub unknown: u64,
    /// What was found of the files.
    pub found: Found,
    /// The last stamp.
    pub last_ns: u64,
}

impl OfflineSummary {
    /// Whether nothing is missing that could make a difference.
    pub fn is_exact(&self) -> bool {
        self.found.missing == 0 && self.begun_before == 0 && self.unknown == 0
    }
}

/// Feeds of the caches of one worker, by place.
type Feeds = BTreeMap<u8, Feed>;

/// A replay of feeds as a node file has them.
pub struct Offline<'a> {
    config: &'a NodeConfig,
    recording: Recording,
    workers: BTreeMap<u8, Feeds>,
    run: Option<u64>,
    /// Of a recording without events.
    stepped_ns: u64,
    keyspace: MemoryKeyspace,
    summary: OfflineSummary,
}

impl<'a> Offline<'a> {
    /// Nothing replayed yet.
    pub fn new(config: &'a NodeConfig) -> Result<Self, OfflineError> {
        if config.feed.is_empty() {
            return Err(OfflineError::NoFeed);
        }
        Ok(Self {
            config,
            recording: Recording::default(),
            workers: BTreeMap::new(),
            run: None,
            stepped_ns: 0,
            keyspace: MemoryKeyspace::default(),
            summary: OfflineSummary::default(),
        })
    }

    /// What was published.
    pub fn keyspace(&self) -> &MemoryKeyspace {
        &self.keyspace
    }

    /// The feeds as they stand.
    pub fn feeds(&self) -> impl Iterator<Item = &Feed> {
        self.workers.values().flat_map(BTreeMap::values)
    }

    /// What was done.
    pub fn summary(&self) -> OfflineSummary {
        OfflineSummary { found: *self.recording.found(), ..self.summary }
    }

    /// Replays the next file.
    pub fn file(&mut self, path: &Path) -> Result<(), OfflineError> {
        let Self { config, recording, workers, run, stepped_ns, keyspace, summary } = self;
        let mut file = recording.open(path)?;
        let mut state = State { config, workers, stepped_ns, keyspace, summary };
        loop {
            let Some(recorded) = file.next_record()? else { return Ok(()) };
            state.summary.last_ns = state.summary.last_ns.max(recorded.stamp_ns);
            let (stamp_ns, worker) = (recorded.stamp_ns, recorded.worker);
            if recorded.run != *run {
                // Another run of the node: its workers say what they begin with.
                state.workers.clear();
                *run = recorded.run;
            }
            match recorded.content {
                Content::Frame(frame) => {
                    state.frame(worker, stamp_ns, frame, recorded.has_events);
                }
                Content::Event(bytes) => {
                    let Some((cache, event)) = Event::decode(bytes) else {
                        return Err(OfflineError::Event(path.to_path_buf()));
                    };
                    state.event(worker, stamp_ns, cache, &event);
                }
            }
        }
    }
}

/// What a record changes.
struct State<'s, 'a> {
    config: &'a NodeConfig,
    workers: &'s mut BTreeMap<u8, Feeds>,
    stepped_ns: &'s mut u64,
    keyspace: &'s mut MemoryKeyspace,
    summary: &'s mut OfflineSummary,
}

impl State<'_, '_> {
    fn frame(&mut self, worker: u8, stamp_ns: u64, frame: &[u8], has_events: bool) {
        // The worker has verified what it wanted to.
        let Ok(parsed) = parse(frame, RxChecksum::Trust) else {
            self.summary.other_frames += 1;
            return;
        };
        if !self.workers.contains_key(&worker) {
            self.begin_all(worker, has_events);
        }
        let Some(feeds) = self.workers.get_mut(&worker) else { return };
        if !has_events && stamp_ns.saturating_sub(*self.stepped_ns) >= STEP_NS {
            *self.stepped_ns = stamp_ns;
            for feed in feeds.values_mut() {
                feed.turn(stamp_ns, self.keyspace);
                feed.housekeeping(stamp_ns, self.keyspace);
            }
        }
        let Some(feed) = feeds.values_mut().find(|feed| feed.is_for(&parsed.destination)) else {
            self.summary.other_frames += 1;
            return;
        };
        self.summary.packets += 1;
        let start = usize::from(parsed.payload_offset);
        let datagram = Datagram {
            source: parsed.source,
            destination: parsed.destination,
            link: Link { interface: 0, vlans: parsed.vlans },
            rx_ns: stamp_ns,
            permissions: None,
            payload: &frame[start..start + usize::from(parsed.payload_bytes)],
        };
        feed.handle(&One(datagram), self.keyspace);
        if !has_events {
            // Nobody's requests were recorded.
            feed.ask(stamp_ns, &mut Nowhere);
        }
    }

    /// A worker whose beginning is not in the recording, or one of another program.
    fn begin_all(&mut self, worker: u8, has_events: bool) {
        self.summary.begun_before += u64::from(has_events);
        let mut feeds = Feeds::new();
        for place in 0..self.config.cache.len().max(1) {
            let of_place =
                |feed: &&crate::config::Feed| self.config.cache_of(feed).unwrap_or(0) == place;
            let own = self.config.feed.iter().filter(of_place);
            let specs: Vec<FeedSpec> =
                own.filter_map(|feed| spec_of(feed, self.config, 0)).collect();
            if !specs.is_empty() {
                feeds.insert(place as u8, Feed::new(&specs));
            }
        }
        self.workers.insert(worker, feeds);
    }

    fn event(&mut self, worker: u8, now_ns: u64, cache: u8, event: &Event<'_>) {
        self.summary.events += 1;
        if let Event::Begin(channels) = event {
            let mut specs = Vec::new();
            for begun in channels.iter() {
                let mut known = self.config.feed.iter();
                let known = known.find(|feed| feed.channel == begun.channel);
                let spec = known.and_then(|feed| spec_of(feed, self.config, begun.generation));
                self.summary.unknown += u64::from(spec.is_none());
                specs.extend(spec);
            }
            let mut feed = Feed::new(&specs);
            feed.begin(self.keyspace);
            self.summary.workers += 1;
            self.workers.entry(worker).or_default().insert(cache, feed);
            return;
        }
        let Some(feeds) = self.workers.get_mut(&worker) else { return };
        if *event == Event::Ask {
            return feeds.values_mut().for_each(|feed| feed.ask(now_ns, &mut Nowhere));
        }
        let Some(feed) = feeds.get_mut(&cache) else { return };
        match *event {
            Event::Turn => drop(feed.turn(now_ns, self.keyspace)),
            Event::Housekeeping => feed.housekeeping(now_ns, self.keyspace),
            Event::Snapshot { channel, attempt, piece } => {
                feed.take_snapshot(channel, attempt, now_ns, piece, self.keyspace);
            }
            Event::Begin(_) | Event::Ask => {}
        }
    }
}

struct One<'a>(Datagram<'a>);

impl Burst for One<'_> {
    fn len(&self) -> usize {
        1
    }

    fn get(&self, _: usize) -> Datagram<'_> {
        self.0
    }
}

/// Where requests go: their replies are in the recording.
struct Nowhere;

impl Transmit for Nowhere {
    fn send<F: Into<Filled>>(
        &mut self,
        _: &TransmitPath,
        _: impl FnOnce(&mut [u8]) -> F,
    ) -> Result<(), SendError> {
        Err(SendError::NoNeighbour)
    }
}
