//! The feed application: datagrams of several channels into one keyspace.
//!
//! ```text
//!   burst -> by (group, port) -> line of a Channel -> Keyspace (cache table)
//!         \-> by own endpoint -> reply to a Channel        |
//!                              requests to its servers <---+ what no line brought
//!                                     Applied -> XDP, which drops copies of what was applied
//!                                     Distribution -> records to subscribers, who ask at its endpoint
//! ```
//!
//! The worker that runs it owns every channel here; the keyspace is written by it alone.

use super::{App, Keyspace};
use crate::feed::applied::Applied;
use crate::feed::channel::{Channel, ChannelSpec, SnapshotPiece};
use crate::feed::distribution::{Distribution, Outlet};
use crate::feed::moldudp64::{REQUEST_BYTES, Session};
use crate::feed::recovery::requests::WINDOW_PIECES;
use crate::feed::recovery::{Recovery, RecoverySpec};
use crate::feed::republish::RepublishSpec;
use crate::net::Endpoint;
use crate::port::{Burst, Datagram, Link, Path, SendError, Transmit};
use nautilus_shm::front_region::SnapshotMessage;

/// A channel and the multicast groups and ports it is received on.
#[derive(Clone, Debug)]
pub struct FeedSpec {
    /// Group and port of each line, A first; at most [`crate::feed::lines::LINES_MAX`].
    pub lines: Vec<Endpoint>,
    /// What the channel is.
    pub channel: ChannelSpec,
    /// How it gets back what no line brought, if it does; and the number of its first attempt to get a
    /// snapshot, which no worker before has used.
    pub recovery: Option<(RecoverySpec, u64)>,
}

/// Where a line is received, whose it is, and which of its channel's.
#[derive(Clone, Copy)]
struct Line {
    endpoint: Endpoint,
    channel: usize,
    index: usize,
}

/// Every channel of a node, without the keyspace: for a loop whose keyspace is shared with the cache.
pub struct Feed {
    channels: Vec<Channel>,
    /// Of each channel, where XDP looks at what it has applied.
    applied: Vec<Option<Applied>>,
    /// Of each channel, its subscribers.
    distributions: Vec<Option<Distribution>>,
    lines: Vec<Line>,
    /// Endpoints that replies come to, with their channel.
    replies: Vec<(Endpoint, usize)>,
    /// Of each channel, the number of its first attempt to get a snapshot.
    generations: Vec<u64>,
    /// Endpoints that requests for what is republished come to, the same way.
    requests: Vec<(Endpoint, usize)>,
    unknown_line: u64,
}

/// A snapshot that somebody is to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotWanted {
    /// Number of the channel.
    pub channel: u8,
    /// Which attempt it is.
    pub attempt: u64,
    /// The session it is to be of.
    pub session: Session,
}

impl Feed {
    /// Makes the channels. Panics when two share a line or a channel number, which configuration
    /// refuses earlier.
    pub fn new(specs: &[FeedSpec]) -> Self {
        let mut lines: Vec<Line> = Vec::new();
        for (channel, spec) in specs.iter().enumerate() {
            for other in &specs[..channel] {
                assert_ne!(spec.channel.channel, other.channel.channel, "a channel number twice");
            }
            for (index, endpoint) in spec.lines.iter().enumerate() {
                let is_taken = lines.iter().any(|line| line.endpoint == *endpoint);
                assert!(!is_taken, "a line twice: {endpoint:?}");
                lines.push(Line { endpoint: *endpoint, channel, index });
            }
        }
        let channel = |spec: &FeedSpec| {
            let recovery = spec.recovery.map(|(spec, attempt)| Recovery::new(spec, attempt));
            Channel::with_recovery(spec.channel, spec.lines.len(), recovery)
        };
        let reply = |(channel, spec): (usize, &FeedSpec)| Some((spec.recovery?.0.from, channel));
        Self {
            channels: specs.iter().map(channel).collect(),
            applied: specs.iter().map(|_| None).collect(),
            distributions: specs.iter().map(|_| None).collect(),
            lines,
            replies: specs.iter().enumerate().filter_map(reply).collect(),
            generations: specs
                .iter()
                .map(|spec| spec.recovery.map_or(0, |(_, first)| first))
                .collect(),
            requests: Vec::new(),
            unknown_line: 0,
        }
    }

    /// The same that says to XDP what its channels have applied; in the order of their specifications, `None`
    /// for one whose copies are not dropped there. Panics when there are not as many.
    pub fn saying(self, applied: Vec<Option<Applied>>) -> Self {
        assert_eq!(applied.len(), self.channels.len(), "one a channel");
        Self { applied, ..self }
    }

    /// The same whose records go to subscribers as well; in the order of the specifications, `None` for a channel
    /// that has none. Panics when there are not as many.
    pub fn distributing(self, distributions: Vec<Option<Distribution>>) -> Self {
        assert_eq!(distributions.len(), self.channels.len(), "one a channel");
        Self { distributions, ..self }
    }

    /// The subscribers of those channels that have any.
    pub fn distributions(&self) -> impl Iterator<Item = &Distribution> {
        self.distributions.iter().flatten()
    }

    /// The same that gives out again what its channels apply, in the order of their specifications, where there
    /// is some. Panics when there are not as many.
    pub fn republishing(self, specs: Vec<Option<RepublishSpec>>) -> Self {
        assert_eq!(specs.len(), self.channels.len(), "one a channel");
        let Self { channels, mut requests, .. } = self;
        let with = |(place, (channel, spec)): (usize, (Channel, Option<RepublishSpec>))| {
            let Some(spec) = spec else { return channel };
            requests.extend(spec.requests.map(|(at, _)| (at, place)));
            channel.republishing(spec)
        };
        let channels = channels.into_iter().zip(specs).enumerate().map(with).collect();
        Self { channels, requests, ..self }
    }

    /// The same whose channels of these numbers show their books to the front.
    pub fn showing(self, numbers: &[u8]) -> Self {
        let shows = |channel: Channel| match numbers.contains(&channel.spec().channel) {
            true => channel.showing(),
            false => channel,
        };
        Self { channels: self.channels.into_iter().map(shows).collect(), ..self }
    }

    /// The channels, in the order of their specifications.
    pub fn channels(&self) -> impl Iterator<Item = &Channel> {
        self.channels.iter()
    }

    /// Number of each channel, and of its first attempt to get a snapshot.
    pub fn begun(&self) -> impl Iterator<Item = (u8, u64)> {
        let generations = self.generations.iter().copied();
        self.channels.iter().map(|channel| channel.spec().channel).zip(generations)
    }

    /// Whether datagrams to this endpoint are for one of the channels.
    pub fn is_for(&self, destination: &Endpoint) -> bool {
        self.lines.iter().any(|line| line.endpoint == *destination)
            || self.replies.iter().any(|(endpoint, _)| endpoint == destination)
    }

    /// Changes with everything that time alone does to the channels, see [`Channel::effects`].
    pub fn effects(&self) -> u64 {
        self.channels.iter().map(Channel::effects).fold(0, |sum, one| sum.rotate_left(7) ^ one)
    }

    /// Datagrams for a group and port that no channel has.
    pub fn unknown_line(&self) -> u64 {
        self.unknown_line
    }

    /// Takes every channel over. A worker calls this when it becomes active, before it serves a read:
    /// what its predecessor published may be older than it says.
    pub fn begin<K: Keyspace>(&mut self, keyspace: &mut K) {
        for applied in self.applied.iter_mut().flatten() {
            applied.begin();
        }
        for (channel, distribution) in self.channels.iter_mut().zip(&mut self.distributions) {
            channel.begin(&mut Outlet::new(keyspace, distribution.as_mut()));
        }
    }

    fn take_in(&mut self) {
        for (channel, applied) in self.channels.iter_mut().zip(&mut self.applied) {
            if let Some(applied) = applied {
                applied.take_in(channel);
            }
        }
    }

    /// Only after the records of what was applied are in the keyspace.
    fn say(&mut self) {
        for (channel, applied) in self.channels.iter().zip(&mut self.applied) {
            if let Some(applied) = applied {
                applied.say(channel);
            }
        }
    }

    /// Applies a burst. Same rules as [`App::handle`]; what it has to send [`Self::send`] sends.
    pub fn handle<K: Keyspace>(&mut self, burst: &impl Burst, keyspace: &mut K) {
        self.take_in();
        for index in 0..burst.len() {
            let datagram = burst.get(index);
            let line = self.lines.iter().find(|line| line.endpoint == datagram.destination);
            let Some(Line { channel, index, .. }) = line.copied() else {
                self.handle_reply(&datagram, keyspace);
                continue;
            };
            let outlet = &mut Outlet::new(keyspace, self.distributions[channel].as_mut());
            self.channels[channel].handle_from(index, datagram.rx_ns, datagram.payload, outlet);
        }
        self.say();
    }

    fn handle_reply<K: Keyspace>(&mut self, datagram: &Datagram<'_>, keyspace: &mut K) {
        let is_own = |(endpoint, _): &&(Endpoint, usize)| *endpoint == datagram.destination;
        if let Some(&(_, channel)) = self.requests.iter().find(is_own) {
            self.channels[channel].take_request(datagram);
            return;
        }
        if let Some(&(_, channel)) = self.replies.iter().find(is_own) {
            let outlet = &mut Outlet::new(keyspace, self.distributions[channel].as_mut());
            let Datagram { source, rx_ns, payload, .. } = datagram;
            self.channels[channel].handle_reply(source, *rx_ns, payload, outlet);
            return;
        }
        let asked = self.distributions.iter_mut().flatten();
        match asked.into_iter().find(|own| own.endpoint() == datagram.destination) {
            Some(distribution) => distribution.handle(datagram),
            None => self.unknown_line += 1,
        }
    }

    /// Work that has been waiting, every turn of the loop; bounded. Returns how many channels had some.
    #[inline]
    pub fn turn<K: Keyspace>(&mut self, now_ns: u64, keyspace: &mut K) -> usize {
        let mut count = 0;
        for (channel, distribution) in self.channels.iter_mut().zip(&mut self.distributions) {
            let outlet = &mut Outlet::new(keyspace, distribution.as_mut());
            count += usize::from(channel.turn(now_ns, outlet));
        }
        count
    }

    /// Sends what is due: what is given out, and requests.
    pub fn send(&mut self, now_ns: u64, tx: &mut impl Transmit) {
        self.give_out(now_ns, tx);
        self.ask(now_ns, tx);
    }

    /// Sends what is due of what is given out again, and to subscribers; `false` when the port has no way for it.
    #[inline]
    pub fn give_out(&mut self, now_ns: u64, tx: &mut impl Transmit) -> bool {
        let mut has_way = true;
        for (channel, distribution) in self.channels.iter_mut().zip(&mut self.distributions) {
            has_way &= channel.republish(now_ns, tx) != Err(SendError::NoNeighbour);
            if let Some(distribution) = distribution {
                has_way &= distribution.pump(now_ns, channel, tx);
            }
        }
        has_way
    }

    /// In place of [`Self::give_out`] while the node's kill switch is on: nothing is given out, and subscribers hear why.
    pub fn fall_silent(&mut self, now_ns: u64, tx: &mut impl Transmit) {
        self.channels.iter_mut().for_each(Channel::fall_silent);
        for distribution in self.distributions.iter_mut().flatten() {
            distribution.fall_silent(now_ns, tx);
        }
    }

    /// Asks request servers for what is missing, as far as it is time to. A request that the port does not
    /// take is asked again like one that was lost.
    pub fn ask(&mut self, now_ns: u64, tx: &mut impl Transmit) {
        for channel in &mut self.channels {
            let Some(&RecoverySpec { from, interface, .. }) = channel.recovery_spec() else {
                continue;
            };
            for _ in 0..WINDOW_PIECES {
                let Some((to, session, request)) = channel.next_request(now_ns) else { break };
                let link = Link { interface, vlans: [0; 2] };
                let _ = tx.send(&Path { from, to, link }, |out| {
                    out[..REQUEST_BYTES].copy_from_slice(&request.encode(session));
                    REQUEST_BYTES
                });
            }
        }
    }

    /// Snapshots that somebody is to fetch; the same until their first piece has come.
    pub fn snapshots_wanted(&self) -> impl Iterator<Item = SnapshotWanted> {
        self.channels.iter().filter_map(|channel| {
            let (attempt, session) = channel.snapshot_wanted()?;
            Some(SnapshotWanted { channel: channel.spec().channel, attempt, session })
        })
    }

    /// The front wants the books of the channel of this number, if there is one here.
    pub fn want_books(&mut self, number: u8, attempt: u64) {
        let channel = self.channels.iter_mut().find(|channel| channel.spec().channel == number);
        if let Some(channel) = channel {
            channel.want_books(attempt);
        }
    }

    /// Shows some of the books that the front wants, every turn of the loop; see [`Channel::show_books`]. Returns
    /// how many channels have some wanted of them.
    #[inline]
    pub fn show_books(&mut self, mut push: impl FnMut(&SnapshotMessage<'_>) -> bool) -> usize {
        self.channels.iter_mut().map(|channel| usize::from(channel.show_books(&mut push))).sum()
    }

    /// Takes in a piece of a snapshot for the channel of this number; `false` when there is none here.
    pub fn take_snapshot<K: Keyspace>(
        &mut self,
        number: u8,
        attempt: u64,
        now_ns: u64,
        piece: SnapshotPiece<'_>,
        keyspace: &mut K,
    ) -> bool {
        let place = self.channels.iter().position(|channel| channel.spec().channel == number);
        let Some(place) = place else { return false };
        let outlet = &mut Outlet::new(keyspace, self.distributions[place].as_mut());
        self.channels[place].take_snapshot(attempt, now_ns, piece, outlet);
        true
    }

    /// Bounded work between bursts. Same rules as [`App::housekeeping`].
    pub fn housekeeping<K: Keyspace>(&mut self, now_ns: u64, keyspace: &mut K) {
        self.take_in();
        for (channel, distribution) in self.channels.iter_mut().zip(&mut self.distributions) {
            channel.housekeeping(now_ns, &mut Outlet::new(keyspace, distribution.as_mut()));
        }
        self.say();
    }
}

/// The feed as an application of its own, with a keyspace that nothing else writes.
pub struct FeedApp<K> {
    feed: Feed,
    keyspace: K,
}

impl<K: Keyspace> FeedApp<K> {
    /// An application of these channels, which it has not taken over yet.
    pub fn new(specs: &[FeedSpec], keyspace: K) -> Self {
        Self { feed: Feed::new(specs), keyspace }
    }

    /// Takes every channel over, see [`Feed::begin`].
    pub fn begin(&mut self) {
        self.feed.begin(&mut self.keyspace);
    }

    /// The channels.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// The keyspace.
    pub fn keyspace(&self) -> &K {
        &self.keyspace
    }
}

impl<K: Keyspace> App for FeedApp<K> {
    fn handle(&mut self, now_ns: u64, burst: &impl Burst, tx: &mut impl Transmit) {
        self.feed.handle(burst, &mut self.keyspace);
        self.feed.send(now_ns, tx);
    }

    fn housekeeping(&mut self, now_ns: u64, tx: &mut impl Transmit) {
        self.feed.turn(now_ns, &mut self.keyspace);
        self.feed.housekeeping(now_ns, &mut self.keyspace);
        self.feed.send(now_ns, tx);
    }
}
