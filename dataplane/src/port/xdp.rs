//! The AF_XDP port: frames in, datagrams out.
//!
//! ```text
//!   rx ring -> frames -> parse, checksums -> burst -> release -> fill ring
//!   send -> frame: payload, then headers in front of it -> flush -> tx ring -> completion -> pool
//! ```
//!
//! Every frame between the rings is a token of [`crate::xsk`]; nothing here is unsafe.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use nautilus_ebpf::intf::Permissions;
use nautilus_shm::ledger::{Frame, FrameCounts, StorePoint};

use super::{Burst, Datagram, Filled, Link, Path, Port, PortCounters, SendError, Transmit};
use crate::limits::{BURST_DATAGRAMS_MAX, REPLY_PAYLOAD_BYTES_MAX};
use crate::net::{Endpoint, LinkAddress, Parsed, RxChecksum, build, ethernet, parse::parse};
use crate::xsk::{RxFrame, SocketCounters, TxFrame, Umem, XskSocket};
use nautilus_shm::clock;

/// Bytes of `struct rx_meta`, directly in front of a received frame (`ebpf/src/intf.h`).
const RX_META_BYTES: usize = 16;

/// Where in a frame the payload of what we send begins: behind the room the kernel uses for the
/// metadata of received packets, and the longest headers. Words of values are copied whole, and the
/// headers of IPv4 begin near the start of a cache line.
const PAYLOAD_OFFSET: usize = 368;
const _: () = assert!(PAYLOAD_OFFSET >= crate::limits::XDP_HEADROOM_BYTES as usize + 22 + 40 + 8);
const _: () = assert!(
    PAYLOAD_OFFSET + 1472 <= crate::limits::CHUNK_BYTES_SMALL as usize,
    "a full packet of a 1,500-byte MTU fits the small chunk"
);

/// Packets queued for one socket before they are pushed out in the middle of a burst. Too low: more
/// system calls for long replies. Too high: frames wait that reception could use.
const PENDING_MAX: usize = 256;

/// A stamp older than this, or from the future, is not one the program wrote for this packet.
const STAMP_AGE_NS_MAX: u64 = 60_000_000_000;

/// How to reach a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Ours on that link.
    pub source_mac: [u8; 6],
    /// MTU of the link in bytes of IP packet.
    pub mtu_bytes: u32,
}

/// The worker's view of addresses, routes and neighbours.
pub trait NextHops {
    /// The next hop towards `destination` over `ifindex` with these VLAN identifiers. When it is
    /// not known the supervisor is asked for it and `None` is returned. Must not block or allocate.
    fn lookup(&mut self, ifindex: u32, vlans: [u16; 2], destination: &Endpoint) -> Option<NextHop>;
}

/// One socket of the port.
pub struct XdpPortSocket<P: StorePoint = ()> {
    /// The socket, taken over.
    pub socket: XskSocket<P>,
    /// Index of its interface, as datagrams name it in [`Link::interface`].
    pub interface: u16,
    /// Interface index in the kernel.
    pub ifindex: u32,
}

/// The port of a worker: one or more sockets.
pub struct XdpPort<N, P: StorePoint = ()> {
    burst: XdpBurst,
    /// Packets taken from one ring and not yet parsed.
    arrived: Vec<RxFrame>,
    /// Socket that is asked first, so that none starves.
    first: usize,
    checksums: RxChecksum,
    sender: XdpSender<N, P>,
}

/// Datagrams of one receive. Borrowed by the run loop until released.
pub struct XdpBurst {
    umems: Vec<Arc<Umem>>,
    received: Vec<Received>,
}

struct Received {
    frame: Frame,
    socket: usize,
    link: Link,
    parsed: Parsed,
    /// Start of the payload in the frame, and end of the packet.
    offset: u32,
    end: u32,
    rx_ns: u64,
    permissions: Option<Permissions>,
}

/// The place of no socket: of an interface that has none of this worker's queues.
const NO_SOCKET: usize = usize::MAX;

/// The sending half.
pub struct XdpSender<N, P: StorePoint = ()> {
    sockets: Vec<Sending<P>>,
    /// By interface: the socket that last received, whose queue a reply leaves by.
    by_interface: Vec<usize>,
    next_hops: N,
    counters: PortCounters,
}

struct Sending<P: StorePoint> {
    socket: XskSocket<P>,
    ifindex: u32,
    interface: u16,
    pending: Vec<TxFrame>,
    /// Counters of the socket that are in the port's already.
    counted: SocketCounters,
}

impl<N: NextHops, P: StorePoint> XdpPort<N, P> {
    /// A port over sockets that were taken over; none for a worker that only does what others send it.
    /// Allocates everything it will ever use.
    pub fn new(sockets: Vec<XdpPortSocket<P>>, next_hops: N, checksums: RxChecksum) -> Self {
        let interfaces = sockets.iter().map(|socket| socket.interface).max().unwrap_or(0);
        let mut by_interface = vec![NO_SOCKET; usize::from(interfaces) + 1];
        for (index, socket) in sockets.iter().enumerate().rev() {
            by_interface[usize::from(socket.interface)] = index;
        }
        let umems = sockets.iter().map(|socket| socket.socket.umem().clone()).collect();
        let sockets = sockets
            .into_iter()
            .map(|XdpPortSocket { socket, interface, ifindex }| Sending {
                socket,
                ifindex,
                interface,
                pending: Vec::with_capacity(PENDING_MAX),
                counted: SocketCounters::default(),
            })
            .collect();
        Self {
            burst: XdpBurst { umems, received: Vec::with_capacity(BURST_DATAGRAMS_MAX) },
            arrived: Vec::with_capacity(BURST_DATAGRAMS_MAX),
            first: 0,
            checksums,
            sender: XdpSender {
                sockets,
                by_interface,
                next_hops,
                counters: PortCounters::default(),
            },
        }
    }

    /// Its sockets, for statistics and checks.
    pub fn sockets(&self) -> impl Iterator<Item = &XskSocket<P>> {
        self.sender.sockets.iter().map(|sending| &sending.socket)
    }

    fn take_from(&mut self, index: usize, now_ns: &mut u64) {
        let room = BURST_DATAGRAMS_MAX - self.burst.received.len();
        let Sending { socket, interface, .. } = &mut self.sender.sockets[index];
        socket.receive(room as u32, |packet| self.arrived.push(packet));
        if self.arrived.is_empty() {
            return;
        }
        if *now_ns == 0 {
            *now_ns = clock::monotonic_ns();
        }
        self.sender.by_interface[usize::from(*interface)] = index;
        let umem = &self.burst.umems[index];
        let counters = &mut self.sender.counters;
        for RxFrame { mut frame, offset, length } in self.arrived.drain(..) {
            let (start, end) = (offset as usize, (offset + length) as usize);
            let bytes = umem.bytes_mut(&mut frame);
            let stamp = take_stamp(&mut bytes[..start], *now_ns);
            let (rx_ns, permissions) = match stamp {
                Some((rx_ns, permissions)) => (rx_ns, Some(permissions)),
                None => {
                    counters.unstamped_count += 1;
                    (*now_ns, None)
                }
            };
            match parse(&bytes[start..end], self.checksums) {
                Ok(parsed) => {
                    counters.received_count += 1;
                    counters.received_bytes += u64::from(parsed.payload_bytes);
                    let link = Link { interface: *interface, vlans: parsed.vlans };
                    let payload = offset + u32::from(parsed.payload_offset);
                    self.burst.received.push(Received {
                        frame,
                        socket: index,
                        link,
                        parsed,
                        offset: payload,
                        end: offset + length,
                        rx_ns,
                        permissions,
                    });
                }
                Err(reason) => {
                    counters.discard(reason);
                    socket.release(frame);
                }
            }
        }
    }
}

/// Reads the steering program's stamp at the end of the headroom, when it ran and what it found the source
/// may do, and makes it unreadable for the next packet in this frame, which may come without one.
#[inline]
fn take_stamp(headroom: &mut [u8], now_ns: u64) -> Option<(u64, Permissions)> {
    let meta = headroom.last_chunk_mut::<RX_META_BYTES>()?;
    let &mut [s0, s1, s2, s3, s4, s5, s6, s7, m0, m1, m2, m3, p0, p1, p2, p3] = meta;
    if u32::from_ne_bytes([m0, m1, m2, m3]) != nautilus_ebpf::intf::RX_META_MAGIC {
        return None;
    }
    meta[8..12].fill(0);
    let rx_ns = u64::from_ne_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
    let permissions = Permissions::masked(u32::from_ne_bytes([p0, p1, p2, p3]));
    let age_ns = now_ns.checked_sub(rx_ns).filter(|age_ns| *age_ns < STAMP_AGE_NS_MAX);
    age_ns.map(|_| (rx_ns, permissions))
}

impl Burst for &XdpBurst {
    fn len(&self) -> usize {
        self.received.len()
    }

    #[inline]
    fn get(&self, index: usize) -> Datagram<'_> {
        let received = &self.received[index];
        let bytes = self.umems[received.socket].bytes(&received.frame);
        let offset = received.offset as usize;
        let end = offset + usize::from(received.parsed.payload_bytes);
        Datagram {
            source: received.parsed.source,
            destination: received.parsed.destination,
            link: received.link,
            rx_ns: received.rx_ns,
            permissions: received.permissions,
            payload: &bytes[offset..end],
        }
    }

    fn frame(&self, index: usize) -> Option<super::Received<'_>> {
        let received = &self.received[index];
        let start = (received.offset - u32::from(received.parsed.payload_offset)) as usize;
        let bytes = self.umems[received.socket].bytes(&received.frame);
        Some(super::Received {
            socket: received.socket,
            bytes: &bytes[start..received.end as usize],
        })
    }
}

impl<N: NextHops, P: StorePoint> Transmit for XdpSender<N, P> {
    #[inline]
    fn send<F: Into<Filled>>(
        &mut self,
        path: &Path,
        write: impl FnOnce(&mut [u8]) -> F,
    ) -> Result<(), SendError> {
        let is_v4 = path.to.is_v4();
        let Some(sending) = self
            .by_interface
            .get(usize::from(path.link.interface))
            .and_then(|index| self.sockets.get_mut(*index))
            .filter(|_| path.from.is_v4() == is_v4 && !path.from.is_multicast())
        else {
            self.counters.no_neighbour_count += 1;
            return Err(SendError::NoNeighbour);
        };
        let identifiers = path.link.vlans.map(|vlan| vlan & ethernet::VLAN_IDENTIFIER_MASK);
        let Some(hop) = self.next_hops.lookup(sending.ifindex, identifiers, &path.to) else {
            self.counters.no_neighbour_count += 1;
            return Err(SendError::NoNeighbour);
        };
        if sending.pending.len() == PENDING_MAX {
            sending.push_out(&mut self.counters);
        }
        if sending.pending.len() == PENDING_MAX {
            self.counters.no_frame_count += 1;
            return Err(SendError::NoFrame);
        }
        let Some(mut frame) = sending.socket.hold().or_else(|| {
            sending.push_out(&mut self.counters);
            sending.socket.hold()
        }) else {
            self.counters.no_frame_count += 1;
            return Err(SendError::NoFrame);
        };
        let umem = sending.socket.umem();
        let bytes = umem.bytes_mut(&mut frame);
        let payload_max = build::payload_bytes_max(hop.mtu_bytes as usize, is_v4);
        let room = (bytes.len() - PAYLOAD_OFFSET).min(payload_max.max(REPLY_PAYLOAD_BYTES_MAX));
        let payload = &mut bytes[PAYLOAD_OFFSET..PAYLOAD_OFFSET + room];
        let filled: Filled = write(payload).into();
        debug_assert!(filled.is_true_of(payload), "a wrong sum");
        let used = filled.bytes;
        if used > payload_max || used > room {
            sending.socket.release(frame);
            self.counters.too_long_count += 1;
            return Err(SendError::TooLong);
        }
        let link =
            LinkAddress { destination: hop.mac, source: hop.source_mac, vlans: path.link.vlans };
        let start = PAYLOAD_OFFSET - build::header_bytes(link.vlans, is_v4);
        let end = PAYLOAD_OFFSET + used;
        let frame_bytes = &mut bytes[start..end];
        match filled.sum {
            Some(sum) => build::headers_summed(frame_bytes, &link, &path.from, &path.to, sum),
            None => build::headers(frame_bytes, &link, &path.from, &path.to),
        }
        sending.pending.push(TxFrame { frame, offset: start as u32, length: (end - start) as u32 });
        self.counters.sent_count += 1;
        self.counters.sent_bytes += used as u64;
        Ok(())
    }
}

impl<P: StorePoint> Sending<P> {
    fn push_out(&mut self, counters: &mut PortCounters) {
        if !self.pending.is_empty() {
            self.socket.queue(&mut self.pending);
        }
        self.socket.kick();
        self.socket.reap();
        self.socket.refill();
        let now = self.socket.counters();
        let before = std::mem::replace(&mut self.counted, now);
        counters.tx_wakeup_count += now.tx_wakeup_count - before.tx_wakeup_count;
        counters.rx_wakeup_count += now.rx_wakeup_count - before.rx_wakeup_count;
        counters.send_error_count += now.tx_wakeup_error_count - before.tx_wakeup_error_count;
        counters.refused_descriptor_count +=
            now.refused_descriptor_count - before.refused_descriptor_count;
        counters.refused_descriptor_count += now.refused_index_count - before.refused_index_count;
    }
}

impl<N: NextHops, P: StorePoint> Port for XdpPort<N, P> {
    type Received<'a>
        = &'a XdpBurst
    where
        Self: 'a;
    type Sender = XdpSender<N, P>;

    #[inline]
    fn receive(&mut self) -> usize {
        let sockets = self.sender.sockets.len();
        let mut now_ns = 0;
        for turn in 0..sockets {
            let index = (self.first + turn) % sockets;
            self.take_from(index, &mut now_ns);
            if self.burst.received.len() == BURST_DATAGRAMS_MAX {
                break;
            }
        }
        self.first = (self.first + 1) % sockets.max(1);
        self.burst.received.len()
    }

    #[inline]
    fn split(&mut self) -> (Self::Received<'_>, &mut Self::Sender) {
        (&self.burst, &mut self.sender)
    }

    #[inline]
    fn release(&mut self) {
        for received in self.burst.received.drain(..) {
            self.sender.sockets[received.socket].socket.release(received.frame);
        }
    }

    #[inline]
    fn flush(&mut self) {
        for sending in &mut self.sender.sockets {
            sending.push_out(&mut self.sender.counters);
        }
    }

    fn wait(&mut self, timeout_ns: u64, other: Option<BorrowedFd<'_>>) {
        let sockets = &self.sender.sockets;
        if sockets.iter().any(|sending| sending.socket.is_readable()) {
            return;
        }
        let sockets = sockets.iter().map(|sending| sending.socket.fd());
        super::poll_readable(sockets.chain(other), timeout_ns);
    }

    fn counters(&self) -> &PortCounters {
        &self.sender.counters
    }

    fn frames_add_up(&self) -> bool {
        self.sender.sockets.iter().enumerate().all(|(index, sending)| {
            let received = self.burst.received.iter().filter(|one| one.socket == index).count();
            let counts = sending.socket.counts();
            counts.total() == sending.socket.umem().spec().frames
                && counts.held as usize == received + sending.pending.len()
        })
    }

    fn frame_counts(&self) -> FrameCounts {
        self.sockets().fold(FrameCounts::default(), |sum, socket| {
            let counts = socket.counts();
            FrameCounts {
                free: sum.free + counts.free,
                held: sum.held + counts.held,
                rx: sum.rx + counts.rx,
                tx: sum.tx + counts.tx,
            }
        })
    }
}
