//! Nothing is allocated after a channel has been made: counted by the allocator itself.

use nautilus_dataplane::app::{ChannelState, Keyspace, PutError};
use nautilus_dataplane::feed::Venue;
use nautilus_dataplane::feed::book::BookLimits;
use nautilus_dataplane::feed::channel::{Channel, ChannelSpec};
use nautilus_dataplane::feed::moldudp64::{HEADER_BYTES, Session};
use nautilus_dataplane::feed::session::Start;
use nautilus_dataplane::replay::generate::{Generator, GeneratorSpec};
use nautilus_dataplane::replay::pack::Packer;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every call is passed on unchanged to the system allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Counts what is published and keeps nothing.
#[derive(Default)]
struct Sink {
    puts: u64,
    live: u64,
}

impl Keyspace for Sink {
    fn begin_channel(&mut self, _channel: u8) {}

    fn put(&mut self, _key: &[u8], _value: &[u8], _channel: u8, _: u64) -> Result<(), PutError> {
        self.puts += 1;
        // Refusals take other paths, which must not allocate either.
        if self.puts.is_multiple_of(100) { Err(PutError::NoRoom) } else { Ok(()) }
    }

    fn set_channel(&mut self, _channel: u8, state: ChannelState) {
        self.live += u64::from(matches!(state, ChannelState::LiveUntil(_)));
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

    let mut channel = Channel::new(ChannelSpec {
        venue: Venue::new("nasdaq").unwrap(),
        channel: 1,
        start: Start::Session,
        silence_limit_ns: 3_000_000_000,
        depth: 0,
        hold_limit_ns: 5_000_000,
        books: BookLimits { orders_max: 1 << 14, levels_max: 1 << 14, hash_seed: 3 },
    });
    let mut keyspace = Sink::default();
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    channel.begin(&mut keyspace);
    for (index, packet) in packets.iter().enumerate() {
        let now_ns = index as u64 * 1_000_000;
        channel.handle(now_ns, packet, &mut keyspace);
        channel.housekeeping(now_ns, &mut keyspace);
    }
    let after = ALLOCATIONS.load(Ordering::Relaxed);
    assert_eq!(after - before, 0);
    assert!(keyspace.puts > 10_000 && keyspace.live > 10, "{} {}", keyspace.puts, keyspace.live);
    let counters = channel.counters();
    assert_eq!((counters.sessions, counters.malformed_packets(), counters.gaps), (2, 1, 1));
}
