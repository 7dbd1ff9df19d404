//! The feed application: datagrams of several channels into one keyspace.
//!
//! ```text
//!   burst -> by (group, port) -> line of a Channel -> Keyspace (cache table)
//! ```
//!
//! The worker that runs it owns every channel here; the keyspace is written by it alone.

use super::{App, Keyspace};
use crate::feed::channel::{Channel, ChannelSpec};
use crate::net::Endpoint;
use crate::port::{Burst, Transmit};

/// A channel and the multicast groups and ports it is received on.
#[derive(Clone, Debug)]
pub struct FeedSpec {
    /// Group and port of each line, A first; at most [`crate::feed::lines::LINES_MAX`].
    pub lines: Vec<Endpoint>,
    /// What the channel is.
    pub channel: ChannelSpec,
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
    lines: Vec<Line>,
    unknown_line: u64,
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
        let channel = |spec: &FeedSpec| Channel::with_lines(spec.channel, spec.lines.len());
        Self { channels: specs.iter().map(channel).collect(), lines, unknown_line: 0 }
    }

    /// The channels, in the order of their specifications.
    pub fn channels(&self) -> impl Iterator<Item = &Channel> {
        self.channels.iter()
    }

    /// Datagrams for a group and port that no channel has.
    pub fn unknown_line(&self) -> u64 {
        self.unknown_line
    }

    /// Takes every channel over. A worker calls this when it becomes active, before it serves a read:
    /// what its predecessor published may be older than it says.
    pub fn begin<K: Keyspace>(&mut self, keyspace: &mut K) {
        for channel in &mut self.channels {
            channel.begin(keyspace);
        }
    }

    /// Applies a burst. Same rules as [`App::handle`]; a feed sends nothing.
    pub fn handle<K: Keyspace>(&mut self, burst: &impl Burst, keyspace: &mut K) {
        for index in 0..burst.len() {
            let datagram = burst.get(index);
            let line = self.lines.iter().find(|line| line.endpoint == datagram.destination);
            let Some(Line { channel, index, .. }) = line.copied() else {
                self.unknown_line += 1;
                continue;
            };
            let channel = &mut self.channels[channel];
            channel.handle_from(index, datagram.rx_ns, datagram.payload, keyspace);
        }
    }

    /// Bounded work between bursts. Same rules as [`App::housekeeping`].
    pub fn housekeeping<K: Keyspace>(&mut self, now_ns: u64, keyspace: &mut K) {
        for channel in &mut self.channels {
            channel.housekeeping(now_ns, keyspace);
        }
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
    fn handle(&mut self, _now_ns: u64, burst: &impl Burst, _tx: &mut impl Transmit) {
        self.feed.handle(burst, &mut self.keyspace);
    }

    fn housekeeping(&mut self, now_ns: u64, _tx: &mut impl Transmit) {
        self.feed.housekeeping(now_ns, &mut self.keyspace);
    }
}
