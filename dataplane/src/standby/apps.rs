//! The applications of a node: echo, caches, and feeds that publish into the same caches.
//!
//! A cache and its feeds write one table from one thread, so they cannot be two independent applications;
//! this is the list the run loop dispatches to.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use nautilus_shm::attach::CACHES_MAX;
use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::control_region::{ControlRegion, HistogramId};
use nautilus_shm::front_region::FrontRegion;
use nautilus_shm::histogram::Histogram;
use nautilus_shm::kill_switch::KillSwitch;
use nautilus_shm::metrics::{MetricBank, table};

use super::StandbyError;
use super::caches::{One, PreparedCache, ServedCaches};
use super::captured::PreparedCapture;
use super::changes::Inbox;
use crate::app::App;
use crate::app::echo::Echo;
use crate::app::feed::Feed;
use crate::config::NodeConfig;
use crate::feed::metrics::FeedMetrics;
use crate::net::Endpoint;
use crate::port::{Burst, Datagram, Transmit};
use crate::worker::apps::APPS_MAX;
use crate::worker::{Apps, Clock, Forwarded, Peers, Received};

/// How often counts go into the metric bank.
const PUBLISH_NS: u64 = 10_000_000;

/// How long what feeds give out leaves by another worker before the own port is tried again. Too low: packets are
/// refused for nothing. Too high: after an interface was away it takes the longer way for longer.
const OUT_BY_PEER_NS: u64 = 1_000_000_000;

/// How often the wall clock is compared, for absolute expiry times of later writes.
const WALL_CLOCK_NS: u64 = 250_000_000;

/// Numbers of the applications: echo, the caches by place, their feeds by the same.
const ECHO: usize = 0;
const CACHES: usize = 1;
const FEEDS: usize = CACHES + CACHES_MAX;

const _: () = assert!(FEEDS + CACHES_MAX <= APPS_MAX, "every application has a number");

/// What a standby makes before it is promoted.
pub(super) struct Prepared {
    echo_port: Option<u16>,
    caches: Vec<PreparedCache>,
    front: Option<Forwarded>,
    peers: Option<Peers>,
    capture: Option<PreparedCapture>,
}

impl Prepared {
    /// Makes the buffers for commands of the front, which has rings with this worker and the eventfd that
    /// wakes it; `peers` are the other workers, where there are any;
    /// `capture` is what it captures with.
    pub fn new(
        config: &NodeConfig,
        caches: Vec<PreparedCache>,
        front: Option<(&'static FrontRegion, OwnedFd)>,
        peers: Option<Peers>,
        capture: Option<PreparedCapture>,
    ) -> Self {
        Self {
            echo_port: config.echo.map(|echo| echo.port),
            caches,
            front: front.map(|(region, wake)| Forwarded::new(region, wake)),
            peers,
            capture,
        }
    }

    /// One more cache.
    pub fn add(&mut self, cache: PreparedCache) {
        self.caches.push(cache);
    }

    /// One cache less.
    pub fn forget(&mut self, gone: (u16, u32)) {
        self.caches.retain(|cache| (cache.opened.place, cache.opened.generation) != gone);
    }

    /// Takes everything over from a dead predecessor.
    pub fn take_over(
        self,
        region: &'static ControlRegion,
        index: usize,
        generation: u64,
    ) -> Result<NodeApps, StandbyError> {
        let Self { echo_port, caches, mut front, mut peers, capture } = self;
        if let Some(front) = &mut front {
            front.take_over(generation);
        }
        if let Some(peers) = &mut peers {
            peers.take_over(generation);
        }
        let mut caches = ServedCaches::take_over(caches, region, index, realtime_offset_ns())?;
        if let Some(capture) = capture {
            caches.capture_with(capture.take_over(), monotonic_ns());
        }
        let has_feeds = caches.feeds().next().is_some();
        Ok(NodeApps {
            echo_port,
            echo: Echo::default(),
            echoed_published: 0,
            has_feeds,
            feed_peer: None,
            out_peer: None,
            out_by_peer_until_ns: 0,
            caches,
            changes: None,
            feed_metrics: FeedMetrics::default(),
            front,
            peers,
            parcel: vec![1; Peers::BUFFER_BYTES].into(),
            kill_switch: region.kill_switch(),
            // One that never was: the first look says what holds.
            obeyed_turn: u64::MAX,
            process: index,
            xdp_to_book: region.histogram(index, HistogramId::XdpToBook),
            bank: region.metrics(index),
            published_ns: 0,
            wall_clock_ns: 0,
        })
    }
}

/// `CLOCK_REALTIME - CLOCK_MONOTONIC`; no kernel entry where the clock is the TSC.
pub(super) fn realtime_offset_ns() -> i64 {
    let realtime = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    realtime.as_nanos() as i64 - monotonic_ns() as i64
}

/// Echo, caches and feeds of one worker.
pub(super) struct NodeApps {
    echo_port: Option<u16>,
    echo: Echo,
    echoed_published: u64,
    caches: ServedCaches,
    changes: Option<Inbox>,
    /// Whether there is a feed at all: without one an idle turn does not look for it.
    has_feeds: bool,
    /// The worker that the last packet of a feed came by, if it was another.
    feed_peer: Option<usize>,
    /// The last other worker that one came by.
    out_peer: Option<usize>,
    /// What feeds give out again leaves by that worker until then.
    out_by_peer_until_ns: u64,
    feed_metrics: FeedMetrics,
    front: Option<Forwarded>,
    peers: Option<Peers>,
    /// What another worker sent, while it is handled.
    parcel: Box<[u8]>,
    kill_switch: &'static KillSwitch,
    /// The turn of the switch that the region says this worker obeys.
    obeyed_turn: u64,
    /// The worker's slot.
    process: usize,
    xdp_to_book: &'static Histogram,
    bank: MetricBank<'static>,
    published_ns: u64,
    wall_clock_ns: u64,
}

impl Apps for NodeApps {
    #[inline]
    fn route(&self, destination: &Endpoint) -> Option<usize> {
        let port = destination.port;
        if let Some(place) = self.caches.by_port(port) {
            return Some(CACHES + place);
        }
        if self.echo_port == Some(port) {
            return Some(ECHO);
        }
        // A group that no channel has, on a port of another: nobody serves it, and it counts so.
        self.caches.by_feed_line(destination).map(|place| FEEDS + place)
    }

    #[inline]
    fn seen(&mut self, burst: &impl Burst) {
        self.caches.see(burst);
    }

    #[inline]
    fn handle(&mut self, app: usize, now_ns: u64, burst: &impl Burst, tx: &mut impl Transmit) {
        match app {
            ECHO => self.echo.handle(now_ns, burst, tx),
            CACHES..FEEDS => {
                if let Some(cache) = self.caches.at(app - CACHES) {
                    cache.handle(now_ns, burst, tx, self.peers.as_mut());
                }
            }
            _ => {
                self.feed(app - FEEDS, burst);
                self.feed_peer = None;
                self.give_out(now_ns, tx);
                self.ask(now_ns, tx);
            }
        }
    }

    fn housekeeping(&mut self, now_ns: u64, tx: &mut impl Transmit) {
        let sets_clock = now_ns.saturating_sub(self.wall_clock_ns) >= WALL_CLOCK_NS;
        if sets_clock {
            self.wall_clock_ns = now_ns;
        }
        let turn = self.kill_switch.turn();
        if let Some(inbox) = &self.changes {
            inbox.look(|change| self.caches.change(change));
        }
        for place in 0..CACHES_MAX {
            let Some(cache) = self.caches.at(place) else { continue };
            cache.app.housekeeping(now_ns, tx);
            if sets_clock {
                cache.app.set_realtime_offset_ns(realtime_offset_ns());
            }
            self.caches.keep_feeds(place, now_ns);
        }
        if self.has_feeds {
            self.give_out(now_ns, tx);
            self.ask(now_ns, tx);
            self.want_snapshots();
        }
        if turn != self.obeyed_turn {
            // What was queued before has left with the flush, and nothing was since.
            self.kill_switch.obey(self.process, turn, monotonic_ns());
            self.obeyed_turn = turn;
        }
        if now_ns.saturating_sub(self.published_ns) < PUBLISH_NS {
            return;
        }
        self.published_ns = now_ns;
        self.caches.publish();
        if let Some(front) = &mut self.front {
            front.publish(&self.bank);
        }
        if let Some(peers) = &mut self.peers {
            peers.publish(&self.bank);
        }
        self.caches.publish_capture(&self.bank);
        self.feed_metrics.publish(self.caches.feeds(), now_ns, &self.bank);
        let echoed = self.echo.echoed_count - self.echoed_published;
        self.bank.add(table::ECHOED_PACKETS, echoed);
        self.echoed_published = self.echo.echoed_count;
    }

    #[inline]
    fn other_work(&mut self, clock: &impl Clock, tx: &mut impl Transmit) -> usize {
        let mut count = match &mut self.front {
            Some(front) => front.serve(&mut self.caches, clock),
            None => 0,
        };
        if self.has_feeds {
            count += self.caches.turn_feeds(clock.now_ns());
            if let Some(front) = &mut self.front {
                let feeds = self.caches.feeds_mut();
                count += feeds
                    .map(|(feed, _)| feed.show_books(|piece| front.push_books(piece)))
                    .sum::<usize>();
            }
        }
        if self.peers.is_some() {
            count += self.take_on(clock, tx);
        }
        if self.has_feeds && count > 0 {
            self.give_out(clock.now_ns(), tx);
        }
        count
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

impl NodeApps {
    /// Caches that come and go are found here.
    pub fn take_changes_from(&mut self, inbox: Inbox) {
        self.changes = Some(inbox);
    }

    /// Where the feeds are received that this worker applies.
    pub fn applied_lines(&self) -> Vec<Endpoint> {
        self.caches.applied_lines()
    }

    /// What came for the feeds of a cache.
    fn feed(&mut self, place: usize, burst: &impl Burst) {
        let Some(cache) = self.caches.at(place) else { return };
        cache.feed(burst, self.peers.as_mut());
        let end_ns = monotonic_ns();
        for datagram in (0..burst.len()).map(|index| burst.get(index)) {
            if cache.applies(&datagram.destination) {
                self.xdp_to_book.record(end_ns.saturating_sub(datagram.rx_ns));
            }
        }
    }

    /// Asks request servers for what feeds miss, by way of the worker that the last packet of a feed came
    /// by: only that one is certain to have a socket of an interface.
    fn ask(&mut self, now_ns: u64, tx: &mut impl Transmit) {
        let Self { caches, peers, feed_peer, .. } = self;
        match (*feed_peer, peers.as_mut()) {
            (Some(peer), Some(peers)) => caches.ask(now_ns, &mut peers.answers(peer)),
            _ => caches.ask(now_ns, tx),
        }
        if let (Some(_), Some(peers)) = (feed_peer, peers) {
            peers.wake();
        }
    }

    /// Sends what feeds give out again, and what their subscribers get, by the own port, so that it leaves in order; where that has no socket of the
    /// interface, by the last other worker that a packet of a feed came by.
    fn give_out(&mut self, now_ns: u64, tx: &mut impl Transmit) {
        let Self { caches, peers, out_peer, out_by_peer_until_ns, kill_switch, .. } = self;
        let has_way = now_ns >= *out_by_peer_until_ns;
        let is_halted = kill_switch.is_on();
        for (feed, _) in caches.feeds_mut() {
            match (*out_peer, peers.as_mut()) {
                (Some(peer), Some(peers)) if is_halted && !has_way => {
                    feed.fall_silent(now_ns, &mut peers.answers(peer));
                }
                _ if is_halted => feed.fall_silent(now_ns, tx),
                (Some(peer), Some(peers)) if !has_way => {
                    feed.give_out(now_ns, &mut peers.answers(peer));
                }
                _ => {
                    if !feed.give_out(now_ns, tx) {
                        *out_by_peer_until_ns = now_ns + OUT_BY_PEER_NS;
                    }
                }
            }
        }
        if let (false, Some(peers)) = (has_way, peers) {
            peers.wake();
        }
    }

    /// Tells the front which snapshots are wanted.
    fn want_snapshots(&mut self) {
        let Some(front) = &mut self.front else { return };
        for wanted in self.caches.feeds().flat_map(Feed::snapshots_wanted) {
            front.want_snapshot(&wanted);
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
            None | Some(ECHO) => {}
            Some(app @ CACHES..FEEDS) => {
                let Some(cache) = self.caches.at(app - CACHES) else { return };
                cache.app.handle(now_ns, &One(datagram), &mut peers.answers(from));
                if let Some(outbox) = cache.app.outbox() {
                    peers.send_all(outbox);
                }
            }
            // It is never sent on twice: all workers know whose it is.
            Some(app) => {
                self.caches.see_sent_on(&datagram, from);
                self.feed(app - FEEDS, &One(datagram));
                (self.feed_peer, self.out_peer) = (Some(from), Some(from));
                self.caches.ask(now_ns, &mut peers.answers(from));
            }
        }
    }
}

#[cfg(test)]
mod tests;
