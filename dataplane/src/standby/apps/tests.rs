//! Which datagram is whose, and what is timed.

use super::super::caches::Line;
use super::*;
use crate::access::AccessList;
use crate::app::feed::FeedSpec;
use crate::app::feed_specs::SILENCE_LIMIT_NS;
use crate::feed::Venue;
use crate::feed::book::BookLimits;
use crate::feed::channel::ChannelSpec;
use crate::feed::session::Start;
use crate::port::{Filled, Link, Path, SendError};
use crate::supervisor::caches::CacheOpened;
use crate::worker::apps::{Dispatched, dispatch};
use nautilus_shm::region::Access;
use nautilus_shm::table::{SharedWords, TableRegion, TableWriter};

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
        protocol: Default::default(),
        channel: 1,
        start: Start::Session,
        silence_limit_ns: SILENCE_LIMIT_NS,
        depth: 0,
        hold_limit_ns: 0,
        books,
    };
    let table = TableWriter::create(TableRegion::create(4, false).unwrap(), 1, 1).unwrap();
    let fd = table.memory().fd().try_clone_to_owned().unwrap();
    let memory = SharedWords::new(TableRegion::attach(fd, Access::ReadWrite).unwrap());
    let cache = PreparedCache {
        opened: CacheOpened {
            place: 5,
            generation: 1,
            section: toml::from_str("id = \"q\"").unwrap(),
        },
        number: 0,
        is_alone: true,
        memory,
        access: AccessList::everybody(),
        hot: None,
        feed: Some(Feed::new(&[FeedSpec { lines: vec![line], channel, recovery: None }])),
        lines: vec![Line { endpoint: line, worker: 0, is_ours: true, brings: true }],
    };
    let (front, peers, capture) = (None, None, None);
    let prepared = Prepared { echo_port: None, caches: vec![cache], front, peers, capture };
    let region = ControlRegion::create(c"nautilus-control").unwrap();
    let region: &'static ControlRegion = Box::leak(Box::new(region));
    let mut apps = prepared.take_over(region, 2, 1).unwrap();
    let mut handle = |destination, rx_ns| {
        let source = Endpoint::new([198, 18, 0, 2].into(), 9);
        let link = Link::default();
        let burst = One(Datagram {
            source,
            destination,
            link,
            rx_ns,
            permissions: None,
            payload: b"short",
        });
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
    let feed = apps.caches.feeds().next().unwrap();
    assert_eq!((feed.unknown_line(), feed.channels().next().unwrap().counters().packets), (0, 1));
}
