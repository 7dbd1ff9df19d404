//! A node in one thread: the worker's own loop and applications over simulated datagrams, the front's
//! own state machine over its rings, and memory that outlives both.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use nautilus_dataplane::app::{App, CacheApp};
use nautilus_dataplane::feed::channel::SnapshotPiece;
use nautilus_dataplane::front::connection::{Backend, Connection};
use nautilus_dataplane::front::link::{Heard, Link, Target};
use nautilus_dataplane::front::protocol;
use nautilus_dataplane::net::Endpoint;
use nautilus_dataplane::port::sim::SimWorld;
use nautilus_dataplane::port::{Burst, Port, SimPort, Transmit};

use nautilus_dataplane::worker::{Apps, Caches, Clock, Forwarded, Snapshots, Worker};
use nautilus_ebpf::intf::Permissions;
use nautilus_shm::cells::PollPolicy;
use nautilus_shm::front_region::{ANSWER_BYTES_MAX, COMMAND_BYTES_MAX, FrontRegion};
use nautilus_shm::sync::{AtomicU64, Outcome, watch_stores};
use nautilus_shm::table::{ReadError, TableReader, TableWriter, check, heap_words};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::hot::SimHot;

/// The cache's port.
pub const PORT: u16 = 11_211;

/// Memory of the table: room for everything a run can write.
const TABLE_BYTES: usize = 256 << 10;

/// The table's words, shared with its readers.
pub type Memory = Arc<[AtomicU64]>;

/// The world's clock.
#[derive(Clone)]
pub struct SimClock(pub Rc<RefCell<SimWorld>>);

impl SimClock {
    /// A time that no other event has.
    pub fn stamp(&self) -> u64 {
        let mut world = self.0.borrow_mut();
        world.advance(1);
        world.now_ns()
    }
}

impl Clock for SimClock {
    fn now_ns(&self) -> u64 {
        self.0.borrow().now_ns()
    }
}

/// The one cache of the node.
struct OneCache(CacheApp<Memory, SimHot>);

impl Caches for OneCache {
    type Memory = Memory;
    type Hot = SimHot;

    fn cache(&mut self, _: u32, _: u32) -> Option<&mut CacheApp<Memory, SimHot>> {
        Some(&mut self.0)
    }
}

/// No feed, so nobody asked for a snapshot.
impl Snapshots for OneCache {
    fn take_snapshot(&mut self, channel: u8, _: u64, _: u64, _: SnapshotPiece<'_>) {
        panic!("a snapshot of channel {channel}");
    }

    fn want_books(&mut self, channel: u8, _: u64) {
        panic!("books of channel {channel}");
    }
}

/// What the worker of a node with a cache and a front serves.
pub struct SimApps {
    cache: OneCache,
    front: Forwarded,
}

impl Apps for SimApps {
    fn route(&self, destination: &Endpoint) -> Option<usize> {
        (destination.port == PORT).then_some(0)
    }

    fn handle(&mut self, _: usize, now_ns: u64, burst: &impl Burst, tx: &mut impl Transmit) {
        self.cache.0.handle(now_ns, burst, tx);
    }

    fn housekeeping(&mut self, now_ns: u64, tx: &mut impl Transmit) {
        self.cache.0.housekeeping(now_ns, tx);
    }

    fn other_work(&mut self, clock: &impl Clock, _: &mut impl Transmit) -> usize {
        self.front.serve(&mut self.cache, clock)
    }
}

type SimWorker = Worker<SimPort, SimApps, (), SimClock>;

thread_local! {
    /// One region a thread: rings are taken over from run to run, as from front to front. And the
    /// generation of the last worker.
    static REGION: (&'static FrontRegion, RefCell<u64>) = {
        let region = FrontRegion::create(c"nautilus-front").expect("a memfd");
        (Box::leak(Box::new(region)), RefCell::new(0))
    };
}

/// The table contradicts itself after a repair, or cannot be repaired.
#[derive(Debug, thiserror::Error)]
#[error("damaged: {0}")]
pub struct Damaged(String);

/// A table, its hot set, and who works on them.
pub struct Node {
    /// The table.
    pub memory: Memory,
    /// The hot set.
    pub hot: SimHot,
    clock: SimClock,
    region: &'static FrontRegion,
    wake: OwnedFd,
    worker: Option<SimWorker>,
}

impl Node {
    /// An empty cache, nobody at work.
    pub fn new(clock: SimClock, shards: u32, seed: u64) -> Self {
        let (memory, hot): (Memory, SimHot) = (heap_words(TABLE_BYTES).into(), SimHot::default());
        drop(TableWriter::create_with(memory.clone(), shards, seed, hot.clone()).expect("room"));
        let region = REGION.with(|(region, _)| *region);
        // What the run before has left is nobody's.
        let mut scratch = vec![0; COMMAND_BYTES_MAX.max(ANSWER_BYTES_MAX) + 64];
        let (mut requests, mut answers) =
            (region.requests().consumer(), region.answers().consumer());
        while !requests.is_empty() || !answers.is_empty() {
            let _ = requests.pop(&mut scratch);
            let _ = answers.pop(&mut scratch);
        }
        let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC);
        let wake = wake.expect("an eventfd").into();
        Self { memory, hot, clock, region, wake, worker: None }
    }

    /// Whether a worker lives.
    pub fn is_served(&self) -> bool {
        self.worker.is_some()
    }

    /// A new worker takes over what the dead one has left; `watch` may kill it, too. Says whether it
    /// lives.
    pub fn succeed(&mut self, watch: impl FnMut() -> bool + 'static) -> Result<bool, Damaged> {
        let generation = REGION.with(|(_, last)| {
            *last.borrow_mut() += 1;
            *last.borrow()
        });
        let mut front = Forwarded::new(self.region, self.wake.try_clone().expect("a descriptor"));
        let (memory, hot) = (self.memory.clone(), self.hot.clone());
        let made = watch_stores(watch, || {
            front.take_over(generation);
            TableWriter::attach_with(memory, hot)
        });
        let table = match made {
            Outcome::Killed => return Ok(false),
            Outcome::Finished(table) => table.map_err(|error| Damaged(error.to_string()))?,
        };
        check(&self.memory).map_err(|error| Damaged(error.to_string()))?;
        let apps = SimApps { cache: OneCache(CacheApp::new(table, 0)), front };
        let port = SimPort::new(self.clock.0.clone());
        let clock = self.clock.clone();
        self.worker = Some(Worker::with_clock(port, apps, (), PollPolicy::Adaptive, clock));
        Ok(true)
    }

    /// One turn of the worker's loop, `watch` being called before each of its stores. False: it died.
    pub fn turn(&mut self, watch: impl FnMut() -> bool + 'static) -> bool {
        let Some(worker) = &mut self.worker else { return false };
        let lives = watch_stores(watch, || worker.turn()) != Outcome::Killed;
        if !lives {
            self.worker = None;
        }
        lives
    }

    /// The worker dies between two turns, or with a burst in its hands.
    pub fn kill(&mut self, with_burst: bool) {
        if let Some(mut worker) = self.worker.take()
            && with_burst
        {
            worker.port.receive();
        }
    }

    /// A new front, in place of the one before.
    pub fn front(&self, connections: usize) -> SimFront {
        let wake = self.wake.try_clone().expect("a descriptor");
        SimFront {
            link: Link::new(self.region, wake, self.region.advance_front()),
            table: TableReader::attach(self.memory.clone()).expect("a table"),
            connections: (0..connections).map(|_| Connection::default()).collect(),
        }
    }
}

/// The front: its connections, its way to the worker, and its view of the table.
pub struct SimFront {
    link: Link<'static>,
    table: TableReader<Memory>,
    connections: Vec<Connection>,
}

struct At<'a> {
    table: &'a TableReader<Memory>,
    link: &'a mut Link<'static>,
    number: u64,
    now_ns: u64,
}

impl Backend for At<'_> {
    fn refusal(&mut self) -> Option<&'static [u8]> {
        None
    }

    fn ahead(&mut self, _keys: &[u8]) {}

    fn read(&mut self, key: &[u8], with_version: bool, out: &mut Vec<u8>) -> bool {
        let mut value = [0; 2048];
        match self.table.get(key, self.now_ns, &mut value) {
            Ok(hit) => {
                protocol::write_item(key, &hit, with_version, &value[..hit.value_bytes], out);
                true
            }
            Err(ReadError::WriterBusy) => false,
            Err(_) => true,
        }
    }

    fn worker_of(&self, _: &[u8]) -> usize {
        0
    }

    fn forward(&mut self, _: usize, command: &[u8]) -> bool {
        let target = Target { place: 0, generation: 0 };
        self.link.forward(target, self.number, Permissions::ALL, command)
    }
}

impl SimFront {
    /// Bytes of a client.
    pub fn receive(&mut self, number: usize, bytes: &[u8], now_ns: u64) {
        let Self { link, table, connections } = self;
        let at = &mut At { table, link, number: number as u64, now_ns };
        connections[number].receive(bytes, at);
    }

    /// Takes the worker's answers and goes on with what waited for them.
    pub fn step(&mut self, now_ns: u64) {
        let Self { link, table, connections } = self;
        let deliver =
            |number: u64, text: Option<&[u8]>| connections[number as usize].answered(text);
        link.poll(deliver, |heard| match heard {
            // A worker was killed: where there are no books, none is lost.
            Heard::BooksLost => {}
            other => panic!("{other:?} of a node without a feed"),
        });
        for (number, connection) in connections.iter_mut().enumerate() {
            let at = &mut At { table, link, number: number as u64, now_ns };
            connection.resume(at);
        }
    }

    /// What a client gets, once nothing of it is at the worker.
    pub fn answer(&mut self, number: usize) -> Option<Vec<u8>> {
        let connection = &mut self.connections[number];
        let whole = connection.in_flight() == 0 && connection.has_output();
        whole.then(|| connection.take_output())
    }
}
