//! Nothing is allocated after the distribution of a channel has been made: counted by the allocator itself.

#[path = "support/counting.rs"]
mod counting;

use counting::{ALLOCATIONS, Sink};
use nautilus_dataplane::app::feed::{Feed, FeedSpec};
use nautilus_dataplane::feed::book::BookLimits;
use nautilus_dataplane::feed::channel::ChannelSpec;
use nautilus_dataplane::feed::distribution::wire::{Mode, Records, Reply, Request};
use nautilus_dataplane::feed::distribution::{
    Distribution, DistributionSpec, Entitlement, Entitlements, SlowPolicy,
};
use nautilus_dataplane::feed::moldudp64::Session;
use nautilus_dataplane::feed::session::Start;
use nautilus_dataplane::feed::{Protocol, Venue};
use nautilus_dataplane::net::Endpoint;
use nautilus_dataplane::port::{Burst, Datagram, Filled, Link, Path, SendError, Transmit};
use nautilus_dataplane::replay::generate::{Generator, GeneratorSpec};
use nautilus_dataplane::replay::pack::Packer;
use std::sync::atomic::Ordering;

/// Takes what is sent without keeping it.
#[derive(Default)]
struct Wire {
    buffer: Vec<u8>,
    sent: u64,
    cookie: u64,
}

impl Transmit for Wire {
    fn send<F: Into<Filled>>(
        &mut self,
        _: &Path,
        write: impl FnOnce(&mut [u8]) -> F,
    ) -> Result<(), SendError> {
        self.sent += 1;
        let Filled { bytes, .. } = write(&mut self.buffer).into();
        if let Some(reply) = Reply::parse(&self.buffer[..bytes]) {
            self.cookie = self.cookie.max(reply.cookie);
        }
        // A port that is full now and then.
        if self.sent.is_multiple_of(50) { Err(SendError::NoFrame) } else { Ok(()) }
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

/// The only test of this program, so that nothing else allocates meanwhile: subscribers come, ask again, do not
/// keep up and go.
#[test]
fn distributing_allocates_nothing_after_start() {
    let mut packets = Vec::new();
    for (day, session) in [*b"000000MON1", *b"000000TUE1"].into_iter().enumerate() {
        let spec = GeneratorSpec { seed: day as u64, symbols: 20, messages: 40_000, rate: 100_000 };
        let mut generator = Generator::new(spec).unwrap();
        let mut packer = Packer::new(Session(session), 1);
        let mut packet = Vec::new();
        while let Some(message) = generator.next_message() {
            if !packer.push(message) {
                packer.take(&mut packet);
                packets.push(packet.clone());
                assert!(packer.push(message));
            }
        }
        packets.push(packer.end_of_session().to_vec());
    }
    let line = Endpoint::v4([233, 54, 12, 111], 26_477);
    let endpoint = Endpoint::v4([198, 18, 0, 1], 26_700);
    let channel = ChannelSpec {
        venue: Venue::new("nasdaq").unwrap(),
        protocol: Protocol::NasdaqItch50,
        channel: 1,
        start: Start::Session,
        silence_limit_ns: 3_000_000_000,
        depth: 5,
        hold_limit_ns: 5_000_000,
        books: BookLimits { orders_max: 1 << 14, levels_max: 1 << 14, hash_seed: 3 },
    };
    let spec = DistributionSpec {
        endpoint,
        subscribers_max: 8,
        history_bytes: 1 << 16,
        lease_ns: 100_000_000,
        slow: SlowPolicy::Conflate,
        conflate_ns: 1_000_000,
        depth: 5,
        entitlements: Entitlements::new(vec![Entitlement {
            prefix: "198.18.0.0/15".parse().unwrap(),
            records: Records::ALL,
            depth_max: 5,
            subscriptions_max: 64,
            symbols: None,
        }]),
    };
    let feed = Feed::new(&[FeedSpec { lines: vec![line], channel, recovery: None }]);
    let mut feed = feed.distributing(vec![Some(Distribution::new(spec))]);
    let mut wire = Wire { buffer: vec![0; 1_400], ..Wire::default() };
    let mut keyspace = Sink::default();
    fn datagram(destination: Endpoint, rx_ns: u64, payload: &[u8]) -> One<'_> {
        let source = Endpoint::v4([198, 18, 0, 2], 4_000);
        let link = Link::default();
        One(Datagram { source, destination, link, rx_ns, permissions: None, payload })
    }
    let ask = |number: u64, cookie| {
        let mut request = Request::to_all(number, Records::ALL, 5);
        request.cookie = cookie;
        request.mode = if number.is_multiple_of(2) { Mode::Full } else { Mode::Conflated };
        request.encode(&[])
    };
    let mut asked: Vec<Vec<u8>> = Vec::new();
    for number in 0..9 {
        feed.handle(&datagram(endpoint, 1, &ask(number, 0)), &mut keyspace);
        wire.cookie = 0;
        feed.send(1, &mut wire);
        asked.push(ask(number, wire.cookie));
    }
    let mut again = [0; 20];
    again[..10].copy_from_slice(b"0000000000");
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for (index, packet) in packets.iter().enumerate() {
        let now_ns = 2 + index as u64 * 200_000;
        feed.handle(&datagram(line, now_ns, packet), &mut keyspace);
        if index % 100 < asked.len() {
            feed.handle(&datagram(endpoint, now_ns, &asked[index % 100]), &mut keyspace);
            feed.handle(&datagram(endpoint, now_ns, &again), &mut keyspace);
        }
        feed.send(now_ns, &mut wire);
        feed.housekeeping(now_ns, &mut keyspace);
        feed.send(now_ns, &mut wire);
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0);
    let counts = feed.distributions().next().unwrap().counts();
    assert!(counts.begun > 8 && counts.messages > 10_000 && counts.slowed > 0, "{counts:?}");
    assert!(counts.refused.iter().sum::<u64>() > 0 && counts.delayed_packets > 0, "{counts:?}");
}
