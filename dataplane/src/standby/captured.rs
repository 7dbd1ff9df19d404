//! What a worker captures of its work: packets before they are handled, and what else moved its feeds when it
//! had an effect.

use nautilus_shm::capture_region::CaptureRegion;
use nautilus_shm::metrics::MetricBank;

use super::StandbyError;
use super::caches::ServedCaches;
use crate::app::feed::Feed;
use crate::capture::event::{Begun, Channels, Event};
use crate::capture::tap::{Tap, Wanted};
use crate::config::NodeConfig;
use crate::feed::channel::SnapshotPiece;
use crate::net::Endpoint;
use crate::port::{Burst, Datagram, Transmit};
use crate::supervisor::handover::{Assignment, Fds};

/// In place of the place of a cache: all of them.
const EVERY_CACHE: u8 = u8::MAX;

/// What a standby maps to capture with, once it is promoted.
pub(super) struct PreparedCapture {
    region: &'static CaptureRegion,
    number: usize,
    wanted: Wanted,
    queues: Vec<(u16, u32)>,
}

impl PreparedCapture {
    /// Maps the rings; `None` for a node that captures nothing.
    pub fn take(
        config: &NodeConfig,
        assignment: &Assignment,
        fds: &mut Fds,
    ) -> Result<Option<Self>, StandbyError> {
        let Some(capture) = &config.capture else { return Ok(None) };
        // Lives as long as the process, as the loop does.
        let region = &*Box::leak(Box::new(CaptureRegion::attach(fds.take("capture")?)?));
        let number = assignment.worker as usize;
        if number >= region.workers() {
            return Err(StandbyError::Unexpected("a capture region of fewer workers"));
        }
        let own = assignment.queues.iter().filter(|row| row.worker == assignment.worker);
        let queues = own.map(|row| (row.interface, row.queue)).collect();
        let wanted = Wanted {
            feeds: capture.feeds && !config.feed.is_empty(),
            ports: capture.ports.clone(),
        };
        Ok(Some(Self { region, number, wanted, queues }))
    }

    /// Goes on where the worker before stopped, which is dead.
    pub fn take_over(self) -> Tap {
        Tap::new(self.region.ring(self.number).producer(), self.wanted, self.queues.into_iter())
    }
}

impl ServedCaches {
    /// Captures from here on, and says first which channels were taken over.
    pub fn capture_with(&mut self, mut tap: Tap, now_ns: u64) {
        for cache in self.all() {
            let Some(feed) = &cache.feed else { continue };
            let mut room = Channels::room();
            let begun = feed.begun().map(|(channel, generation)| Begun { channel, generation });
            let channels = Channels::new(begun, &mut room);
            tap.event(now_ns, cache.place as u8, &Event::Begin(channels));
        }
        self.tap = Some(tap);
    }

    /// A burst is about to be handled.
    #[inline]
    pub fn see(&mut self, burst: &impl Burst) {
        let Some(mut tap) = self.tap.take() else { return };
        tap.burst(burst, |tap, to| tap.wants_port(to.port) || self.captures_feed(tap, to));
        self.tap = Some(tap);
    }

    fn captures_feed(&self, tap: &Tap, destination: &Endpoint) -> bool {
        tap.wants_feeds() && self.applies(destination)
    }

    /// A datagram of a feed that another worker sent on is about to be handled.
    pub fn see_sent_on(&mut self, datagram: &Datagram<'_>, from: usize) {
        let Some(mut tap) = self.tap.take() else { return };
        if self.captures_feed(&tap, &datagram.destination) {
            tap.sent_on(datagram, from);
        }
        self.tap = Some(tap);
    }

    /// [`Feed::turn`] of every feed.
    #[inline]
    pub fn turn_feeds(&mut self, now_ns: u64) -> usize {
        let Self { places, tap, .. } = self;
        let mut count = 0;
        for cache in places.iter_mut().flatten() {
            let Some(feed) = &mut cache.feed else { continue };
            let turned = feed.turn(now_ns, &mut cache.app);
            count += turned;
            if turned > 0
                && let Some(tap) = tap
            {
                tap.event(now_ns, cache.place as u8, &Event::Turn);
            }
        }
        count
    }

    /// [`Feed::housekeeping`] of the feeds of the cache in a place.
    pub fn keep_feeds(&mut self, place: usize, now_ns: u64) {
        let Self { places, tap, .. } = self;
        let Some(cache) = places.get_mut(place).and_then(Option::as_mut) else { return };
        let Some(feed) = &mut cache.feed else { return };
        let before = tap.as_ref().map(|_| feed.effects());
        feed.housekeeping(now_ns, &mut cache.app);
        if let Some(tap) = tap
            && before != Some(feed.effects())
        {
            tap.event(now_ns, place as u8, &Event::Housekeeping);
        }
    }

    /// [`Feed::ask`] of every feed.
    pub fn ask(&mut self, now_ns: u64, tx: &mut impl Transmit) {
        let Some(tap) = &mut self.tap else {
            return self.feeds_mut().for_each(|(feed, _)| feed.ask(now_ns, tx));
        };
        let mut has_effect = false;
        for feed in self.places.iter_mut().flatten().filter_map(|cache| cache.feed.as_mut()) {
            let before = feed.effects();
            feed.ask(now_ns, tx);
            has_effect |= before != feed.effects();
        }
        if has_effect {
            tap.event(now_ns, EVERY_CACHE, &Event::Ask);
        }
    }

    /// A piece of a snapshot is about to be taken in.
    pub fn see_snapshot(
        &mut self,
        channel: u8,
        attempt: u64,
        now_ns: u64,
        piece: SnapshotPiece<'_>,
    ) {
        let Some(tap) = &mut self.tap else { return };
        let owns = |feed: &Feed| feed.channels().any(|own| own.spec().channel == channel);
        let mut caches = self.places.iter().flatten();
        if let Some(cache) = caches.find(|cache| cache.feed.as_ref().is_some_and(owns)) {
            let event = Event::Snapshot { channel, attempt, piece };
            tap.event(now_ns, cache.place as u8, &event);
        }
    }

    /// Adds what was counted since the last time.
    pub fn publish_capture(&mut self, bank: &MetricBank<'_>) {
        if let Some(tap) = &mut self.tap {
            tap.publish(bank);
        }
    }
}
