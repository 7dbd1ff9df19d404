//! The worker's end: copies what it is about to handle into its ring, and never waits.
//!
//! A datagram of a feed is captured by the worker that applies it, in the order in which it does; one of
//! another port by the worker at which it arrived. Called from the run loop: no allocation, no system call.

use nautilus_shm::capture_ring::{CaptureProducer, SourcePlace};
use nautilus_shm::cells::INTERFACES_MAX;
use nautilus_shm::metrics::{MetricBank, table};

use super::event::Event;
use super::source::{Source, SourceKind};
use crate::limits::QUEUES_MAX;
use crate::net::Endpoint;
use crate::port::{Burst, Datagram, parcel};

/// What is captured of what arrives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Lines of feeds and replies to their requests.
    pub feeds: bool,
    /// Other ports.
    pub ports: Vec<u16>,
}

/// A worker's end of the capture.
#[derive(Debug)]
pub struct Tap {
    producer: CaptureProducer<'static>,
    wanted: Wanted,
    /// Places of the queues, in the order of the port's sockets.
    queues: [Option<SourcePlace>; QUEUES_MAX],
    /// Places of datagrams without a frame, by interface.
    datagrams: [Option<SourcePlace>; INTERFACES_MAX],
    events: Option<SourcePlace>,
    counts: Counts,
    published: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    captured: u64,
    dropped: u64,
}

impl Tap {
    /// Goes on where the worker before stopped, which is dead. `queues` are those of the port's sockets, as
    /// (interface, queue).
    pub fn new(
        producer: CaptureProducer<'static>,
        wanted: Wanted,
        queues: impl Iterator<Item = (u16, u32)>,
    ) -> Self {
        let mut places = [None; QUEUES_MAX];
        for (place, (interface, queue)) in places.iter_mut().zip(queues) {
            *place = producer.place(frame_source(interface, queue).identity());
        }
        let events = wanted.feeds.then(|| producer.place(Source::EVENTS.identity())).flatten();
        Self {
            producer,
            wanted,
            queues: places,
            datagrams: [None; INTERFACES_MAX],
            events,
            counts: Counts::default(),
            published: Counts::default(),
        }
    }

    /// Whether a datagram to this port is captured although it is of no feed.
    #[inline]
    pub fn wants_port(&self, port: u16) -> bool {
        self.wanted.ports.contains(&port)
    }

    /// Whether feeds are captured.
    #[inline]
    pub fn wants_feeds(&self) -> bool {
        self.wanted.feeds
    }

    /// Captures those of a burst whose destination is `wanted`.
    pub fn burst(&mut self, burst: &impl Burst, wanted: impl Fn(&Tap, &Endpoint) -> bool) {
        for index in 0..burst.len() {
            let datagram = burst.get(index);
            if !wanted(self, &datagram.destination) {
                continue;
            }
            match burst.frame(index) {
                Some(frame) => {
                    let place = self.queues.get(frame.socket).copied().flatten();
                    self.push(place, datagram.rx_ns, &[frame.bytes]);
                }
                None => {
                    let interface = datagram.link.interface;
                    let slot = usize::from(interface) % INTERFACES_MAX;
                    if self.datagrams[slot].is_none() {
                        let kind = SourceKind::Datagram;
                        let source = Source { kind, interface: slot as u8, number: 0 };
                        self.datagrams[slot] = self.producer.place(source.identity());
                    }
                    self.datagram(self.datagrams[slot], &datagram);
                }
            }
        }
    }

    /// Captures a datagram that worker `from` sent on.
    pub fn sent_on(&mut self, datagram: &Datagram<'_>, from: usize) {
        let slot = usize::from(datagram.link.interface) % INTERFACES_MAX;
        let source =
            Source { kind: SourceKind::SentOn, interface: slot as u8, number: from as u16 };
        let place = self.producer.place(source.identity());
        self.datagram(place, datagram);
    }

    /// Captures an event at the time that the code was given; `cache` is the place of the feeds' cache.
    pub fn event(&mut self, now_ns: u64, cache: u8, event: &Event<'_>) {
        if self.events.is_some() {
            let (header, bytes) = event.encode(cache);
            self.push(self.events, now_ns, &[&header, bytes]);
        }
    }

    fn datagram(&mut self, place: Option<SourcePlace>, datagram: &Datagram<'_>) {
        let header = parcel::header(datagram);
        self.push(place, datagram.rx_ns, &[&header, datagram.payload]);
    }

    #[inline]
    fn push(&mut self, place: Option<SourcePlace>, stamp_ns: u64, parts: &[&[u8]]) {
        match place.is_some_and(|place| self.producer.push(place, stamp_ns, parts)) {
            true => self.counts.captured += 1,
            false => self.counts.dropped += 1,
        }
    }

    /// Adds what was counted since the last time.
    pub fn publish(&mut self, bank: &MetricBank<'_>) {
        bank.add(table::CAPTURED, self.counts.captured - self.published.captured);
        bank.add(table::CAPTURE_DROPPED, self.counts.dropped - self.published.dropped);
        self.published = self.counts;
    }
}

/// A queue of an interface as a source.
pub fn frame_source(interface: u16, queue: u32) -> Source {
    let kind = SourceKind::Frame;
    Source { kind, interface: interface as u8, number: queue as u16 }
}

#[cfg(test)]
mod tests {
    use nautilus_shm::capture_region::CaptureRegion;

    use super::*;
    use crate::port::{Link, Received};

    const FRAME: [u8; 60] = [6; 60];

    /// Datagrams of which those to even ports have a frame.
    struct Mixed<'a>(Vec<Datagram<'a>>);

    impl Burst for Mixed<'_> {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn get(&self, index: usize) -> Datagram<'_> {
            self.0[index]
        }

        fn frame(&self, index: usize) -> Option<Received<'_>> {
            let is_even = self.0[index].destination.port.is_multiple_of(2);
            is_even.then_some(Received { socket: 1, bytes: &FRAME })
        }
    }

    #[test]
    fn frames_datagrams_and_events_keep_their_order_and_sources() {
        let region = CaptureRegion::create(c"nautilus-capture", 1, 1).unwrap();
        let region: &'static CaptureRegion = Box::leak(Box::new(region));
        let wanted = Wanted { feeds: true, ports: vec![10, 11] };
        let queues = [(0, 4), (2, 5)];
        let mut tap = Tap::new(region.ring(0).producer(), wanted, queues.into_iter());
        let datagram = |port, rx_ns| Datagram {
            source: Endpoint::v4([198, 18, 0, 2], 9),
            destination: Endpoint::v4([198, 18, 0, 1], port),
            link: Link { interface: 3, vlans: [0; 2] },
            rx_ns,
            permissions: None,
            payload: b"payload",
        };
        let burst = Mixed(vec![datagram(10, 1), datagram(11, 2), datagram(12, 3)]);
        tap.burst(&burst, |tap, to| tap.wants_port(to.port));
        tap.event(4, 7, &Event::Turn);
        tap.sent_on(&datagram(11, 5), 2);
        let source = |kind, interface, number| Source { kind, interface, number };
        let parcel = [&parcel::header(&datagram(11, 2))[..], b"payload"].concat();
        let sent_on = [&parcel::header(&datagram(11, 5))[..], b"payload"].concat();
        let expected = [
            (source(SourceKind::Frame, 2, 5), 1, FRAME.to_vec()),
            (source(SourceKind::Datagram, 3, 0), 2, parcel),
            (Source::EVENTS, 4, Event::Turn.encode(7).0.to_vec()),
            (source(SourceKind::SentOn, 3, 2), 5, sent_on),
        ];
        let (mut consumer, mut out) = (region.ring(0).consumer(), Vec::new());
        for (sequence, (source, stamp_ns, bytes)) in (0..).zip(expected) {
            let read = consumer.next(&mut out).unwrap().unwrap();
            assert_eq!(Source::from_identity(read.identity), Some(source));
            assert_eq!((read.sequence, read.stamp_ns, &out), (sequence, stamp_ns, &bytes));
        }
        assert_eq!(consumer.next(&mut out), Ok(None));
    }
}
