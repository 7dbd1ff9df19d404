//! The worker's half: a socket it was handed, its rings and its frames.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nautilus_shm::ledger::{Frame, FrameCounts, Ledger, Recovered, Ring, RingIndices, StorePoint};

use super::XskError;
use super::binding::XskFds;
use super::header::Header;
use super::ring::{Descriptor, RingMap};
use super::sys::{self, Statistics};
use super::umem::{LedgerWords, Ownership, Umem};
use crate::kill_point;

/// A received packet.
#[derive(Debug)]
pub struct RxFrame {
    /// The frame it lies in.
    pub frame: Frame,
    /// Where in the frame its Ethernet header starts.
    pub offset: u32,
    /// Its length in bytes; `offset + length` is within the frame.
    pub length: u32,
}

/// A packet to send.
#[derive(Debug)]
pub struct TxFrame {
    /// The frame it lies in.
    pub frame: Frame,
    /// Where in the frame its Ethernet header starts.
    pub offset: u32,
    /// Its length in bytes.
    pub length: u32,
}

/// What a socket saw that it should not have, and what it asked of the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketCounters {
    /// Descriptors out of bounds, or naming a frame that was not in the kernel.
    pub refused_descriptor_count: u64,
    /// Ring indices further from ours than the ring is long.
    pub refused_index_count: u64,
    /// `sendto` calls to have the tx ring looked at.
    pub tx_wakeup_count: u64,
    /// `recvfrom` calls: to have the fill ring looked at, or one a poll where busy polling is
    /// preferred.
    pub rx_wakeup_count: u64,
    /// `sendto` calls answered with another errno than the passing ones; the interface is down or
    /// gone.
    pub tx_wakeup_error_count: u64,
    /// `recvfrom` calls answered so.
    pub rx_wakeup_error_count: u64,
}

/// A binding mapped by a process that does not own its frames yet: a warm standby.
pub struct Mapped {
    fds: XskFds,
    umem: Arc<Umem>,
    rings: [RingMap; 4],
    header: Header,
}

/// What a pair of descriptors says about itself, for a supervisor, which uses neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// Interface index the socket is for.
    pub ifindex: u32,
    /// Queue the socket is for.
    pub queue: u32,
    /// Whether the rings of the now bound socket can be mapped by a process it is handed to.
    pub maps_when_bound: bool,
}

impl Given {
    /// Checks seals and header of the memfd, and that the socket is an AF_XDP one. Nothing stays
    /// mapped.
    pub fn examine(fds: &XskFds) -> Result<Self, XskError> {
        let (umem, header) = Umem::map(fds.umem.as_fd())?;
        let maps_when_bound = match map_rings(fds.socket.as_fd(), &umem.spec().entries) {
            Ok(_) => true,
            Err(XskError::RingsOfBoundSocket) => false,
            Err(error) => return Err(error),
        };
        Ok(Self { ifindex: header.ifindex, queue: header.queue, maps_when_bound })
    }
}

impl Mapped {
    /// Maps UMEM and rings. Touches no shared state, so the owner may be at work.
    pub fn map(fds: XskFds) -> Result<Self, XskError> {
        let (umem, header) = Umem::map(fds.umem.as_fd())?;
        let rings = map_rings(fds.socket.as_fd(), &header.spec.entries)?;
        Ok(Self { fds, umem: Arc::new(umem), rings, header })
    }

    /// Interface index the socket was bound to.
    pub fn ifindex(&self) -> u32 {
        self.header.ifindex
    }

    /// Becomes the owner: the predecessor has ended. Its unfinished operation is undone, what
    /// it held becomes free, and what it queued for sending is kicked.
    pub fn take_over(self) -> Result<(XskSocket, Recovered), XskError> {
        self.take_over_observed(())
    }

    /// [`Self::take_over`] with an observer of every store the ledger makes.
    pub fn take_over_observed<P: StorePoint>(
        self,
        point: P,
    ) -> Result<(XskSocket<P>, Recovered), XskError> {
        let (mut socket, recovered) =
            XskSocket::with_rings(self.fds, self.umem, self.rings, point)?;
        socket.refill();
        socket.kick();
        Ok((socket, recovered))
    }
}

fn map_rings(fd: BorrowedFd<'_>, entries: &[u32; 4]) -> Result<[RingMap; 4], XskError> {
    let offsets = sys::mmap_offsets(fd)?;
    if kill_point::bound_rings_are_refused() && sys::is_bound(fd) {
        return Err(XskError::RingsOfBoundSocket);
    }
    let map = |ring: Ring| RingMap::map(fd, ring, &offsets, entries[ring as usize]);
    Ok([map(Ring::Fill)?, map(Ring::Rx)?, map(Ring::Tx)?, map(Ring::Completion)?])
}

/// The one user of a bound socket.
pub struct XskSocket<P: StorePoint = ()> {
    ledger: Ledger<LedgerWords, P>,
    umem: Arc<Umem>,
    fill: RingMap,
    rx: RingMap,
    tx: RingMap,
    completion: RingMap,
    /// Our own ends of the rings, which only we move.
    fill_producer: u32,
    rx_consumer: u32,
    tx_producer: u32,
    completion_consumer: u32,
    counters: SocketCounters,
    zero_copy: bool,
    /// Nobody polls the driver but us: the kernel leaves its interrupts off while we do.
    prefer_busy_poll: bool,
    fds: XskFds,
    _ownership: Ownership,
}

impl<P: StorePoint> XskSocket<P> {
    pub(super) fn over(
        fds: XskFds,
        umem: Arc<Umem>,
        point: P,
    ) -> Result<(Self, Recovered), XskError> {
        let rings = map_rings(fds.socket.as_fd(), &umem.spec().entries)?;
        Self::with_rings(fds, umem, rings, point)
    }

    fn with_rings(
        fds: XskFds,
        umem: Arc<Umem>,
        rings: [RingMap; 4],
        point: P,
    ) -> Result<(Self, Recovered), XskError> {
        let ownership = Ownership::take(fds.umem.as_fd())?;
        let [fill, rx, tx, completion] = rings;
        let indices = RingIndices {
            index: [fill.producer(), rx.consumer(), tx.producer(), completion.consumer()],
            entries: umem.spec().entries,
        };
        let header = Header::read(umem.mapping())?;
        // Asked of the socket itself: what was set on it cannot differ from what we are told.
        let prefer_busy_poll = sys::prefers_busy_poll(fds.socket.as_fd())?;
        let (ledger, recovered) =
            Ledger::recover(LedgerWords::new(umem.clone()), point, &indices, |ring, index| {
                let address = match ring {
                    Ring::Fill => fill.address(index),
                    Ring::Rx => rx.descriptor(index).address,
                    Ring::Tx => tx.descriptor(index).address,
                    Ring::Completion => completion.address(index),
                };
                frame_of(&umem, address)
            })?;
        umem.adopt(ledger.identifier());
        let [fill_producer, rx_consumer, tx_producer, completion_consumer] = indices.index;
        let socket = Self {
            ledger,
            umem,
            fill,
            rx,
            tx,
            completion,
            fill_producer,
            rx_consumer,
            tx_producer,
            completion_consumer,
            counters: SocketCounters::default(),
            zero_copy: header.mode == super::CopyMode::ZeroCopy,
            prefer_busy_poll,
            fds,
            _ownership: ownership,
        };
        Ok((socket, recovered))
    }

    /// The packet memory.
    pub fn umem(&self) -> &Arc<Umem> {
        &self.umem
    }

    /// The socket, for `poll`.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fds.socket.as_fd()
    }

    /// Frames by state.
    pub fn counts(&self) -> FrameCounts {
        self.ledger.counts()
    }

    /// The frame ledger.
    pub fn ledger(&self) -> &Ledger<LedgerWords, P> {
        &self.ledger
    }

    /// What went wrong, and system calls made.
    pub fn counters(&self) -> SocketCounters {
        self.counters
    }

    /// What the kernel could not deliver or send.
    pub fn statistics(&self) -> std::io::Result<Statistics> {
        sys::statistics(self.fd())
    }

    /// Whether each poll lets the driver receive with one `recvfrom`.
    pub fn prefers_busy_poll(&self) -> bool {
        self.prefer_busy_poll
    }

    /// Takes up to `max` packets, handing each to `out`. None may be looked at before this returns.
    /// Where busy polling is preferred the driver is polled first, with exactly one system call.
    #[inline]
    pub fn receive(&mut self, max: u32, mut out: impl FnMut(RxFrame)) {
        if self.prefer_busy_poll {
            self.kick_rx();
        }
        let pending = self.rx.producer().wrapping_sub(self.rx_consumer);
        if pending == 0 {
            return;
        }
        if pending > self.rx.entries() {
            self.counters.refused_index_count += 1;
            return;
        }
        let count = pending.min(max);
        let (rx, umem) = (&self.rx, &self.umem);
        let chunk_bytes = umem.spec().chunk_bytes;
        let place = std::cell::Cell::new(Descriptor { address: 0, length: 0 });
        self.counters.refused_descriptor_count += u64::from(self.ledger.receive(
            self.rx_consumer,
            count,
            |index| {
                // Read once: the copy is checked and used, whatever the ring says later.
                let descriptor = rx.descriptor(index);
                place.set(descriptor);
                let frame = frame_of(umem, descriptor.address)?;
                let offset = (descriptor.address % u64::from(chunk_bytes)) as u32;
                (descriptor.length <= chunk_bytes - offset).then_some(frame)
            },
            |_, frame| {
                let Descriptor { address, length } = place.get();
                let offset = (address % u64::from(chunk_bytes)) as u32;
                out(RxFrame { frame, offset, length });
            },
            |end| rx.publish_consumer(end),
        ));
        self.rx_consumer = self.rx_consumer.wrapping_add(count);
    }

    /// A free frame to write a packet into.
    #[inline]
    pub fn hold(&mut self) -> Option<Frame> {
        self.ledger.hold()
    }

    /// Gives a frame back.
    #[inline]
    pub fn release(&mut self, frame: Frame) {
        self.ledger.release(frame);
    }

    /// Gives free frames to the fill ring, down to the transmit reserve.
    #[inline]
    pub fn refill(&mut self) {
        let spec = self.umem.spec();
        let counts = self.ledger.counts();
        let wanted = (spec.frames - spec.transmit_reserve()).saturating_sub(counts.rx);
        let used = self.fill_producer.wrapping_sub(self.fill.consumer());
        let Some(room) = self.fill.entries().checked_sub(used) else {
            self.counters.refused_index_count += 1;
            return;
        };
        let count = wanted.min(room);
        if count != 0 {
            let fill = &self.fill;
            let chunk_bytes = u64::from(spec.chunk_bytes);
            let given = self.ledger.fill(
                self.fill_producer,
                count,
                |index, frame| fill.write_address(index, u64::from(frame) * chunk_bytes),
                |end| fill.publish_producer(end),
            );
            self.fill_producer = self.fill_producer.wrapping_add(given);
        }
        // The next poll tells the driver anyway where busy polling is preferred.
        if !self.prefer_busy_poll && self.fill.needs_wakeup() {
            self.kick_rx();
        }
    }

    #[inline]
    fn kick_rx(&mut self) {
        self.counters.rx_wakeup_count += 1;
        if sys::kick_rx(self.fds.socket.as_fd()).is_err_and(|error| !is_again(&error)) {
            self.counters.rx_wakeup_error_count += 1;
        }
    }

    /// Packets the tx ring has room for.
    #[inline]
    pub fn tx_room(&mut self) -> u32 {
        let used = self.tx_producer.wrapping_sub(self.tx.consumer());
        self.tx.entries().checked_sub(used).unwrap_or_else(|| {
            self.counters.refused_index_count += 1;
            0
        })
    }

    /// Queues packets for sending, in order, emptying `packets`; what finds no room stays in it.
    /// A packet whose place lies outside its frame is released and counted.
    #[inline]
    pub fn queue(&mut self, packets: &mut Vec<TxFrame>) {
        let count = packets.len().min(self.tx_room() as usize);
        let chunk_bytes = self.umem.spec().chunk_bytes;
        for (offset, packet) in packets[..count].iter_mut().enumerate() {
            if packet.offset.checked_add(packet.length).is_none_or(|end| end > chunk_bytes) {
                debug_assert!(false, "a packet outside its frame");
                (packet.offset, packet.length) = (0, 0);
            }
            let start = u64::from(packet.frame.index()) * u64::from(chunk_bytes);
            self.tx.write_descriptor(
                self.tx_producer.wrapping_add(offset as u32),
                Descriptor { address: start + u64::from(packet.offset), length: packet.length },
            );
        }
        let tx = &self.tx;
        let frames = packets.drain(..count).map(|packet| packet.frame);
        self.ledger.transmit(self.tx_producer, frames, |end| tx.publish_producer(end));
        self.tx_producer = self.tx_producer.wrapping_add(count as u32);
    }

    /// Has the kernel send what is queued: one call a batch of 32 in copy mode, none in zero copy
    /// unless the driver asks or sleeps between our polls. Bounded; what is left is kicked the next time.
    #[inline]
    pub fn kick(&mut self) {
        /// Packets one copy-mode `sendto` takes (`TX_BATCH_SIZE` in net/xdp/xsk.c).
        const TX_BATCH: u32 = 32;
        let mut queued = self.tx_producer.wrapping_sub(self.tx.consumer());
        let awake = self.zero_copy && !self.prefer_busy_poll && !self.tx.needs_wakeup();
        if queued == 0 || awake {
            return;
        }
        for _ in 0..=(queued.min(self.tx.entries()) / TX_BATCH) {
            self.counters.tx_wakeup_count += 1;
            let result = sys::kick_tx(self.fds.socket.as_fd());
            let stopped = result.is_err_and(|error| !is_again(&error));
            self.counters.tx_wakeup_error_count += u64::from(stopped);
            let left = self.tx_producer.wrapping_sub(self.tx.consumer());
            if stopped || left == 0 || left == queued || self.zero_copy {
                return;
            }
            queued = left;
        }
    }

    /// Collects sent frames.
    #[inline]
    pub fn reap(&mut self) {
        let pending = self.completion.producer().wrapping_sub(self.completion_consumer);
        if pending == 0 {
            return;
        }
        if pending > self.completion.entries() {
            self.counters.refused_index_count += 1;
            return;
        }
        let (completion, umem) = (&self.completion, &self.umem);
        self.counters.refused_descriptor_count += u64::from(self.ledger.complete(
            self.completion_consumer,
            pending,
            |index| frame_of(umem, completion.address(index)),
            |end| completion.publish_consumer(end),
        ));
        self.completion_consumer = self.completion_consumer.wrapping_add(pending);
    }

    /// Whether packets wait in the rx ring.
    #[inline]
    pub fn is_readable(&self) -> bool {
        self.rx.producer() != self.rx_consumer
    }
}

/// The passing errnos: more to send, completion ring full or no memory at the moment. Everything
/// else (ENETDOWN while the link is down, ENXIO once the interface is gone) is counted.
fn is_again(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS))
}

/// Frame of a UMEM address the kernel named.
#[inline]
fn frame_of(umem: &Umem, address: u64) -> Option<u32> {
    let frame = address / u64::from(umem.spec().chunk_bytes);
    (frame < u64::from(umem.spec().frames)).then_some(frame as u32)
}
