//! The run loop does not touch the heap: counted by an allocator of our own, over the simulated and
//! the socket port, in a test binary of its own so that nothing else allocates.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};

use nautilus_dataplane::app::CacheApp;
use nautilus_dataplane::app::echo::Echo;
use nautilus_dataplane::capture::event::Event;
use nautilus_dataplane::capture::tap::{Tap, Wanted};
use nautilus_dataplane::net::Endpoint;
use nautilus_dataplane::port::sim::{SimFaults, SimWorld};
use nautilus_dataplane::port::socket::{SocketPort, SocketSpec};
use nautilus_dataplane::port::{Link, Path, Port, SimPort};
use nautilus_dataplane::worker::{Served, Worker};
use nautilus_shm::capture_region::CaptureRegion;
use nautilus_shm::cells::PollPolicy;
use nautilus_shm::table::{TableWriter, heap_words};

struct Counting;

thread_local! {
    static TOUCHES: AtomicU64 = const { AtomicU64::new(0) };
}

fn touches() -> u64 {
    TOUCHES.with(|count| count.load(Ordering::Relaxed))
}

fn touch() {
    // A thread that is being torn down is not the loop.
    let _ = TOUCHES.try_with(|count| count.fetch_add(1, Ordering::Relaxed));
}

// SAFETY: hands every call to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        touch();
        // SAFETY: the caller's contract is this call's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        touch();
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ECHO_PORT: u16 = 7;

/// Turns a worker makes while `send` feeds it; what the heap saw of the turns alone.
fn touches_of_turns<P: Port>(port: P, served: u16, turns: usize, mut send: impl FnMut()) -> u64 {
    let apps = (Some(Served { ports: vec![served], app: Echo::default() }), ());
    let mut worker = Worker::new(port, apps, (), PollPolicy::Busy);
    let (mut seen, mut received) = (0, 0);
    for _ in 0..turns {
        send();
        let before = touches();
        received += worker.turn();
        seen += touches() - before;
    }
    assert!(received >= turns, "only {received} datagrams in {turns} turns");
    seen
}

#[test]
fn the_counter_counts() {
    let before = touches();
    drop(std::hint::black_box(Box::new(7u64)));
    assert_eq!(touches() - before, 2);
}

#[test]
fn a_turn_over_the_simulated_port_allocates_nothing() {
    let faults = SimFaults { loss_permille: 50, duplicate_permille: 100, reorder_permille: 100 };
    let world = SimWorld::new(7, faults);
    let path = Path {
        from: Endpoint::v4([198, 18, 0, 2], 999),
        to: Endpoint::v4([198, 18, 0, 1], ECHO_PORT),
        link: Link::default(),
    };
    let mut reply = Vec::with_capacity(2048);
    let seen = touches_of_turns(SimPort::new(world.clone()), ECHO_PORT, 2000, || {
        let mut world = world.borrow_mut();
        for number in 0..20u8 {
            world.client_sends(&path, &[number; 100]);
        }
        // Nobody serves this one.
        let to = Endpoint { port: 9, ..path.to };
        world.client_sends(&Path { to, ..path }, b"lost");
        while world.client_receives(&mut reply).is_some() {}
    });
    assert_eq!(seen, 0);
}

/// Every command, hits and misses, long answers and values put together.
#[test]
fn a_turn_of_the_cache_allocates_nothing() {
    const CACHE_PORT: u16 = 11_211;
    let texts = [
        "set a 0 0 2\r\n10\r\nset b 0 100 600\r\n{}\r\nset c 0 0 0\r\n\r\n",
        "get a\r\n",
        "gets a b c d\r\nget b b b b b b b b b b\r\ngat 10 a b\r\n",
        "append b 0 0 600\r\n{}\r\nprepend b 0 0 1\r\nx\r\nget b\r\n",
        "incr a 5\r\ndecr a 100\r\ncas a 0 0 1 7\r\nx\r\nadd d 0 0 1\r\nx\r\nreplace d 0 0 1\r\ny\r\n",
        "touch a 10\r\nstats\r\nstats items\r\nversion\r\nverbosity 1\r\nfoo\r\n",
        "mg b v t s f c k h l O1 @v @a @m9 @s\r\nmg none N10 v\r\nmg YQ== b k v R9 T9\r\n",
        "ms a 2 T10 c k\r\n11\r\nma a D5 v t c\r\nma n N10 J5 v\r\nmd b I\r\nmg b v\r\nmd b q\r\n",
        "me a\r\nmn\r\ndelete d\r\nflush_all 10\r\nflush_all\r\nquit\r\n",
    ];
    let datagrams: Vec<Vec<u8>> = texts
        .iter()
        .map(|text| text.replace("{}", &"v".repeat(600)))
        .map(|text| [&[0, 1, 0, 0, 0, 1, 0, 0], text.as_bytes()].concat())
        .collect();
    let faults = SimFaults { loss_permille: 0, duplicate_permille: 0, reorder_permille: 100 };
    let world = SimWorld::new(7, faults);
    let path = Path {
        from: Endpoint::v4([198, 18, 0, 2], 999),
        to: Endpoint::v4([198, 18, 0, 1], CACHE_PORT),
        link: Link::default(),
    };
    let table = TableWriter::create(heap_words(4 << 20), 1, 1).unwrap();
    let apps = (Some(Served { ports: vec![CACHE_PORT], app: CacheApp::new(table, 0) }), ());
    let mut worker = Worker::new(SimPort::new(world.clone()), apps, (), PollPolicy::Busy);
    let mut reply = Vec::with_capacity(2048);
    let (mut seen, mut answers) = (0, 0);
    for _ in 0..500 {
        for datagram in &datagrams {
            world.borrow_mut().client_sends(&path, datagram);
        }
        let before = touches();
        worker.turn();
        seen += touches() - before;
        while world.borrow_mut().client_receives(&mut reply).is_some() {
            answers += 1;
        }
    }
    assert_eq!(seen, 0);
    assert!(answers > 500 * 35, "{answers} answers");
}

#[test]
fn a_turn_over_the_socket_port_allocates_nothing() {
    let bind: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let port = SocketPort::open(&[SocketSpec {
        bind,
        groups: Vec::new(),
        interface: 0,
        shared: false,
        sends_to_groups_by: 0,
    }])
    .unwrap();
    let service: SocketAddr = port.local_endpoints().next().unwrap().into();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(service).unwrap();
    client.set_nonblocking(true).unwrap();
    let mut buffer = [0; 2048];
    let seen = touches_of_turns(port, service.port(), 500, || {
        for number in 0..20u8 {
            client.send(&[number; 100]).unwrap();
        }
        while client.recv(&mut buffer).is_ok() {}
    });
    assert_eq!(seen, 0);
}

/// A capture, also of what finds its ring full.
#[test]
fn what_is_captured_allocates_nothing() {
    let region = CaptureRegion::create(c"nautilus-capture", 1, 1).unwrap();
    let region: &'static CaptureRegion = Box::leak(Box::new(region));
    let wanted = Wanted { feeds: true, ports: vec![ECHO_PORT] };
    let mut tap = Tap::new(region.ring(0).producer(), wanted, std::iter::empty());
    let world = SimWorld::new(7, SimFaults::default());
    let mut port = SimPort::new(world.clone());
    let path = Path {
        from: Endpoint::v4([198, 18, 0, 2], 999),
        to: Endpoint::v4([198, 18, 0, 1], ECHO_PORT),
        link: Link::default(),
    };
    let mut seen = 0;
    for number_ns in 0..200 {
        for number in 0..20u8 {
            world.borrow_mut().client_sends(&path, &[number; 900]);
        }
        port.receive();
        let (burst, _) = port.split();
        let before = touches();
        tap.burst(&burst, |tap, to| tap.wants_port(to.port));
        tap.event(number_ns, 0, &Event::Housekeeping);
        seen += touches() - before;
        port.release();
    }
    let (mut captured, mut dropped) = (0, 0);
    for counts in region.ring(0).counts() {
        captured += counts.captured;
        dropped += counts.dropped;
    }
    assert!(captured > 1000 && dropped > 1000, "{captured} {dropped}");
    assert_eq!((captured + dropped, seen), (200 * 21, 0));
}
