//! A port without a kernel: datagrams between a test's clients and the worker, with loss,
//! duplication and reorder drawn from one seed. The same seed gives the same run.
//!
//! The world outlives the port, as UMEM and rings outlive a worker: dropping a [`SimPort`] in the
//! middle of a burst loses that burst and nothing else.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use super::{Burst, Datagram, Filled, Link, Path, Port, PortCounters, SendError, Transmit};
use crate::limits::BURST_DATAGRAMS_MAX;
use crate::net::Endpoint;

/// Largest payload the simulated link carries: a 1,500-byte MTU over IPv4.
pub const SIM_PAYLOAD_BYTES_MAX: usize = 1472;

/// Datagrams that may be on the way in each direction; more are lost, as in a full ring.
pub const SIM_QUEUE_DATAGRAMS: usize = 1024;

/// Chances in 1,000 for each datagram, in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimFaults {
    /// Lost.
    pub loss_permille: u16,
    /// Delivered twice.
    pub duplicate_permille: u16,
    /// Overtaken by a later one.
    pub reorder_permille: u16,
}

struct SimDatagram {
    source: Endpoint,
    destination: Endpoint,
    link: Link,
    rx_ns: u64,
    bytes: Box<[u8; SIM_PAYLOAD_BYTES_MAX]>,
    length: usize,
}

/// The net between clients and the worker, and the virtual clock.
pub struct SimWorld {
    random: u64,
    faults: SimFaults,
    now_ns: u64,
    to_worker: VecDeque<SimDatagram>,
    to_clients: VecDeque<SimDatagram>,
    /// Buffers in no queue; all there will ever be. Boxed, because they move between queues.
    #[allow(clippy::vec_box)]
    buffers: Vec<Box<[u8; SIM_PAYLOAD_BYTES_MAX]>>,
}

impl SimWorld {
    /// A world whose every choice follows from `seed`.
    pub fn new(seed: u64, faults: SimFaults) -> Rc<RefCell<Self>> {
        let buffers = 2 * SIM_QUEUE_DATAGRAMS + 4 * BURST_DATAGRAMS_MAX;
        Rc::new(RefCell::new(Self {
            random: seed,
            faults,
            now_ns: 1,
            to_worker: VecDeque::with_capacity(SIM_QUEUE_DATAGRAMS),
            to_clients: VecDeque::with_capacity(SIM_QUEUE_DATAGRAMS),
            buffers: (0..buffers).map(|_| Box::new([0; SIM_PAYLOAD_BYTES_MAX])).collect(),
        }))
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): the next choice.
    pub fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.random;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn chance(&mut self, permille: u16) -> bool {
        self.random() % 1000 < u64::from(permille)
    }

    /// The virtual clock, nanoseconds; starts at 1.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Moves the clock.
    pub fn advance(&mut self, by_ns: u64) {
        self.now_ns += by_ns;
    }

    /// A client sends to the worker. False when the datagram was lost or found no room.
    ///
    /// # Panics
    /// When the payload exceeds [`SIM_PAYLOAD_BYTES_MAX`].
    pub fn client_sends(&mut self, path: &Path, payload: &[u8]) -> bool {
        let Some(mut bytes) = self.buffers.pop() else { return false };
        bytes[..payload.len()].copy_from_slice(payload);
        let datagram = SimDatagram {
            source: path.from,
            destination: path.to,
            link: path.link,
            rx_ns: self.now_ns,
            bytes,
            length: payload.len(),
        };
        self.carry(datagram, true)
    }

    /// The next datagram to any client: its path (from the worker's point of view) and its payload,
    /// copied to `payload`.
    pub fn client_receives(&mut self, payload: &mut Vec<u8>) -> Option<Path> {
        let datagram = self.to_clients.pop_front()?;
        payload.clear();
        payload.extend_from_slice(&datagram.bytes[..datagram.length]);
        self.buffers.push(datagram.bytes);
        Some(Path { from: datagram.source, to: datagram.destination, link: datagram.link })
    }

    /// Datagrams no worker has received yet.
    pub fn waiting(&self) -> usize {
        self.to_worker.len()
    }

    /// Buffers that are in no queue and no burst; all of them, once everything is delivered.
    pub fn free_buffers(&self) -> usize {
        self.buffers.len()
    }

    fn carry(&mut self, datagram: SimDatagram, inward: bool) -> bool {
        let faults = self.faults;
        if self.chance(faults.loss_permille) {
            self.buffers.push(datagram.bytes);
            return false;
        }
        if self.chance(faults.duplicate_permille)
            && let Some(mut bytes) = self.buffers.pop()
        {
            bytes[..datagram.length].copy_from_slice(&datagram.bytes[..datagram.length]);
            self.put(SimDatagram { bytes, ..datagram }, inward);
        }
        self.put(datagram, inward)
    }

    fn put(&mut self, datagram: SimDatagram, inward: bool) -> bool {
        let overtakes = self.chance(self.faults.reorder_permille);
        let choice = self.random() as usize;
        let queue = if inward { &mut self.to_worker } else { &mut self.to_clients };
        if queue.len() == SIM_QUEUE_DATAGRAMS {
            self.buffers.push(datagram.bytes);
            return false;
        }
        queue.push_back(datagram);
        if overtakes {
            let last = queue.len() - 1;
            queue.swap(choice % queue.len(), last);
        }
        true
    }
}

/// The worker's end of a [`SimWorld`].
pub struct SimPort {
    burst: Vec<SimDatagram>,
    sender: SimSender,
}

/// The sending half.
pub struct SimSender {
    world: Rc<RefCell<SimWorld>>,
    pending: Vec<SimDatagram>,
    counters: PortCounters,
}

/// A burst.
pub struct SimBurst<'a>(&'a [SimDatagram]);

/// Replies held back until the flush.
const PENDING_MAX: usize = 2 * BURST_DATAGRAMS_MAX;

impl SimPort {
    /// A port, by the only worker of that world.
    pub fn new(world: Rc<RefCell<SimWorld>>) -> Self {
        Self {
            burst: Vec::with_capacity(BURST_DATAGRAMS_MAX),
            sender: SimSender {
                world,
                pending: Vec::with_capacity(PENDING_MAX),
                counters: PortCounters::default(),
            },
        }
    }
}

impl Drop for SimPort {
    /// What the worker held dies with it; its memory does not.
    fn drop(&mut self) {
        self.release();
        let buffers = &mut self.sender.world.borrow_mut().buffers;
        buffers.extend(self.sender.pending.drain(..).map(|datagram| datagram.bytes));
    }
}

impl Burst for SimBurst<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, index: usize) -> Datagram<'_> {
        let datagram = &self.0[index];
        Datagram {
            source: datagram.source,
            destination: datagram.destination,
            link: datagram.link,
            rx_ns: datagram.rx_ns,
            permissions: None,
            payload: &datagram.bytes[..datagram.length],
        }
    }
}

impl SimSender {
    fn push_out(&mut self) {
        let mut world = self.world.borrow_mut();
        for datagram in self.pending.drain(..) {
            world.carry(datagram, false);
        }
    }
}

impl Transmit for SimSender {
    fn send<F: Into<Filled>>(
        &mut self,
        path: &Path,
        write: impl FnOnce(&mut [u8]) -> F,
    ) -> Result<(), SendError> {
        if path.from.is_v4() != path.to.is_v4() || path.from.is_multicast() {
            self.counters.no_neighbour_count += 1;
            return Err(SendError::NoNeighbour);
        }
        if self.pending.len() == PENDING_MAX {
            self.push_out();
        }
        let Some(mut bytes) = self.world.borrow_mut().buffers.pop() else {
            self.counters.no_frame_count += 1;
            return Err(SendError::NoFrame);
        };
        let filled: Filled = write(&mut bytes[..]).into();
        debug_assert!(filled.is_true_of(&bytes[..]), "a wrong sum");
        let length = filled.bytes;
        if length > SIM_PAYLOAD_BYTES_MAX {
            self.world.borrow_mut().buffers.push(bytes);
            self.counters.too_long_count += 1;
            return Err(SendError::TooLong);
        }
        self.counters.sent_count += 1;
        self.counters.sent_bytes += length as u64;
        self.pending.push(SimDatagram {
            source: path.from,
            destination: path.to,
            link: path.link,
            rx_ns: 0,
            bytes,
            length,
        });
        Ok(())
    }
}

impl Port for SimPort {
    type Received<'a> = SimBurst<'a>;
    type Sender = SimSender;

    fn receive(&mut self) -> usize {
        let mut world = self.sender.world.borrow_mut();
        while self.burst.len() < BURST_DATAGRAMS_MAX {
            let Some(datagram) = world.to_worker.pop_front() else { break };
            self.sender.counters.received_count += 1;
            self.sender.counters.received_bytes += datagram.length as u64;
            self.burst.push(datagram);
        }
        self.burst.len()
    }

    fn split(&mut self) -> (SimBurst<'_>, &mut SimSender) {
        (SimBurst(&self.burst), &mut self.sender)
    }

    fn release(&mut self) {
        let buffers = &mut self.sender.world.borrow_mut().buffers;
        buffers.extend(self.burst.drain(..).map(|datagram| datagram.bytes));
    }

    fn flush(&mut self) {
        self.sender.push_out();
    }

    fn wait(&mut self, timeout_ns: u64, _other: Option<BorrowedFd<'_>>) {
        let mut world = self.sender.world.borrow_mut();
        if world.to_worker.is_empty() {
            world.advance(timeout_ns);
        }
    }

    fn counters(&self) -> &PortCounters {
        &self.sender.counters
    }
}
