//! Nothing is allocated after a channel has been made: counted by the allocator itself.

#[path = "support/counting.rs"]
mod counting;

use counting::{ALLOCATIONS, BYTES, Sink};
use nautilus_dataplane::feed::book::BookLimits;
use nautilus_dataplane::feed::channel::{Channel, ChannelSpec};
use nautilus_dataplane::feed::held::HeldLimits;
use nautilus_dataplane::feed::iex::iextp::{Header, PROTOCOL_TOPS, VERSION};
use nautilus_dataplane::feed::iex::tops::{QuoteUpdate, TradeReport};
use nautilus_dataplane::feed::iex::wire::{Price, Timestamp};
use nautilus_dataplane::feed::moldudp64::{HEADER_BYTES, MessageRequest, Session};
use nautilus_dataplane::feed::publisher::Publisher;
use nautilus_dataplane::feed::republish::RepublishSpec;
use nautilus_dataplane::feed::request_server::RequestLimits;
use nautilus_dataplane::feed::session::Start;
use nautilus_dataplane::feed::{Protocol, Symbol, Venue};
use nautilus_dataplane::net::Endpoint;
use nautilus_dataplane::port::{Datagram, Filled, Link, Path, SendError, Transmit};
use nautilus_dataplane::replay::generate::{Generator, GeneratorSpec};
use nautilus_dataplane::replay::pack::Packer;
use std::sync::atomic::Ordering;

/// Takes what is given out, but for every tenth packet.
struct Wire {
    sent: u64,
    buffer: [u8; 2_048],
}

impl Transmit for Wire {
    fn send<F: Into<Filled>>(
        &mut self,
        _path: &Path,
        write: impl FnOnce(&mut [u8]) -> F,
    ) -> Result<(), SendError> {
        self.sent += 1;
        if self.sent.is_multiple_of(10) {
            return Err(SendError::NoFrame);
        }
        let filled: Filled = write(&mut self.buffer[..1_472]).into();
        assert!(filled.bytes <= 1_472);
        Ok(())
    }
}

/// The only test of this program, so that nothing else allocates meanwhile.
#[test]
fn nothing_is_allocated_after_start() {
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
    // A gap, a copy, a broken packet and noise.
    packets.insert(900, packets[890].clone());
    packets.insert(950, packets[940][..HEADER_BYTES + 5].to_vec());
    packets.remove(2_000);

    let channel = Channel::new(ChannelSpec {
        venue: Venue::new("nasdaq").unwrap(),
        protocol: Default::default(),
        channel: 1,
        start: Start::Session,
        silence_limit_ns: 3_000_000_000,
        depth: 0,
        hold_limit_ns: 5_000_000,
        books: BookLimits { orders_max: 1 << 14, levels_max: 1 << 14, hash_seed: 3 },
    });
    let at = |port| Endpoint::v4([198, 18, 0, 1], port);
    let mut channel = channel
        .republishing(RepublishSpec {
            group: Endpoint::v4([239, 1, 1, 1], 1),
            from: at(2),
            interface: 0,
            flush_ns: 0,
            history_bytes: 4 << 20,
            requests: Some((at(3), RequestLimits::default())),
            hash_seed: 1,
        })
        .showing();
    let (mut wire, mut pieces) = (Wire { sent: 0, buffer: [0; 2_048] }, 0);
    let mut keyspace = Sink::default();
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    channel.begin(&mut keyspace);
    for (index, packet) in packets.iter().enumerate() {
        let now_ns = index as u64 * 1_000_000;
        channel.handle(now_ns, packet, &mut keyspace);
        channel.housekeeping(now_ns, &mut keyspace);
        let request = MessageRequest {
            session: Session(*b"000000MON1"),
            sequence: 1 + index as u64,
            count: 20,
        };
        channel.take_request(&Datagram {
            source: Endpoint::v4([198, 18, 0, 9], 9),
            destination: at(3),
            link: Link::default(),
            rx_ns: now_ns,
            permissions: None,
            payload: &request.encode(),
        });
        let _ = channel.republish(now_ns, &mut wire);
        if index % 100 == 0 {
            channel.want_books(index as u64);
        }
        channel.show_books(|_| {
            pieces += 1;
            index % 7 != 0
        });
    }
    let after = ALLOCATIONS.load(Ordering::Relaxed);
    assert_eq!(after - before, 0);
    assert!(keyspace.puts > 10_000 && keyspace.live > 10, "{} {}", keyspace.puts, keyspace.live);
    let given_out = channel.republish_counts().unwrap();
    assert!(given_out.messages > 70_000 && given_out.requests.answered > 1_000, "{given_out:?}");
    assert!(pieces > 1_000 && channel.show_counts().unwrap().complete > 10, "{pieces}");
    let counters = channel.counters();
    assert_eq!((counters.sessions, counters.malformed_packets(), counters.gaps), (2, 1, 1));
    quotes_allocate_nothing();
    what_is_taken_is_what_is_foretold();
}

/// The same of a protocol that says quotes: more stocks than there is room for, over two sessions.
fn quotes_allocate_nothing() {
    let segments: Vec<Vec<u8>> = (0..140_000_u32).map(segment).collect();
    let mut channel = Channel::new(ChannelSpec {
        venue: Venue::new("iex").unwrap(),
        protocol: Protocol::IexTops16,
        channel: 1,
        start: Start::Session,
        silence_limit_ns: 3_000_000_000,
        depth: 0,
        hold_limit_ns: 5_000_000,
        books: BookLimits { orders_max: 1, levels_max: 1, hash_seed: 3 },
    });
    let mut keyspace = Sink::default();
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    channel.begin(&mut keyspace);
    for (index, segment) in segments.iter().enumerate() {
        channel.handle(index as u64, segment, &mut keyspace);
        if index % 64 == 0 {
            channel.housekeeping(index as u64, &mut keyspace);
        }
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0);
    let counters = channel.counters();
    assert_eq!((counters.sessions, counters.messages), (2, 280_000));
    assert_eq!(counters.no_room, 2 * 2 * (70_000 - (1 << 16)), "of each session the last stocks");
    assert!(counters.trades > 120_000 && keyspace.puts > 300_000, "{}", keyspace.puts);
}

/// A quote and a trade of a stock of its own, in the session of one half of all segments.
fn segment(number: u32) -> Vec<u8> {
    let (session, stock) = (number / 70_000, number % 70_000);
    let mut symbol = *b"        ";
    symbol[..5].copy_from_slice(format!("{stock:05}").as_bytes());
    let (at, symbol) = (Timestamp(1_517_236_200_000_000_000), Symbol(symbol));
    let quote = QuoteUpdate::encode(0, at, symbol, 1, Price(2), Price(4), 3);
    let trade = TradeReport::encode(0, at, symbol, 1, Price(3), u64::from(number));
    let mut payload = Vec::new();
    for message in [&quote[..], &trade] {
        payload.extend_from_slice(&(message.len() as u16).to_le_bytes());
        payload.extend_from_slice(message);
    }
    let header = Header {
        version: VERSION,
        protocol: PROTOCOL_TOPS,
        channel: 1,
        session,
        payload_bytes: payload.len() as u16,
        count: 2,
        sequence: u64::from(stock) * 2 + 1,
        ..Header::default()
    };
    [&header.encode()[..], &payload].concat()
}

/// What an operator is told that a channel takes is what it takes.
fn what_is_taken_is_what_is_foretold() {
    for protocol in [Protocol::NasdaqItch50, Protocol::IexTops16] {
        let books = BookLimits { orders_max: 100_000, levels_max: 25_000, hash_seed: 3 };
        let spec = ChannelSpec {
            venue: Venue::new("nasdaq").unwrap(),
            protocol,
            channel: 1,
            start: Start::Session,
            silence_limit_ns: 3_000_000_000,
            depth: 0,
            hold_limit_ns: 0,
            books,
        };
        let before = BYTES.load(Ordering::Relaxed);
        let channel = Channel::new(spec);
        let taken = BYTES.load(Ordering::Relaxed) - before;
        let queue = HeldLimits::default().bytes_max as u64;
        let foretold = Publisher::memory_bytes(protocol, &books) + queue;
        // The windows of lines, and what is held beside packets, come to less than a fiftieth.
        let difference = taken.abs_diff(foretold);
        assert!(difference * 50 < taken, "{protocol:?}: {taken} bytes taken, {foretold} foretold");
        assert_eq!(channel.stock_count(), 0);
    }
}
