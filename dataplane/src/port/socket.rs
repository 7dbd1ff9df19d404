//! The kernel-socket twin of the `xdp` port: the same applications over UDP sockets, without
//! privilege, for hosts without AF_XDP and as the honest baseline beside it.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nautilus_shm::clock;
use nix::sys::socket::{setsockopt, sockopt};

use super::mmsg::{Batch, Message};
use super::{Burst, Datagram, Filled, Link, Path, Port, PortCounters, SendError, Transmit};
use crate::limits::BURST_DATAGRAMS_MAX;
use crate::net::{Discard, Endpoint, build};

/// Room for the largest UDP payload.
const RX_BYTES: usize = 65_536;

/// Room for what a 1,500-byte MTU carries.
const TX_BYTES: usize = 1536;

/// Receive buffer asked for; the kernel grants up to `net.core.rmem_max`. Too low: a stall of the
/// worker loses datagrams. Too high: memory, and old datagrams answered late.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// One socket to open.
#[derive(Clone, Debug)]
pub struct SocketSpec {
    /// Address and port; the unspecified address serves all.
    pub bind: SocketAddr,
    /// Groups to join, each on the interface of this index (0: the kernel's choice).
    pub groups: Vec<(IpAddr, u32)>,
    /// What datagrams name as [`Link::interface`].
    pub interface: u16,
    /// Whether other sockets of this user have the same address: the kernel divides the flows.
    pub shared: bool,
    /// Interface index that what is sent to groups leaves by; 0: by the routes.
    pub sends_to_groups_by: u32,
}

/// Which socket could not be opened, and why.
#[derive(Debug, thiserror::Error)]
#[error("{step} {address}: {source}")]
pub struct SocketError {
    step: &'static str,
    address: String,
    source: io::Error,
}

struct Bound {
    socket: UdpSocket,
    local: Endpoint,
    interface: u16,
    /// Whether `local` names no address, so that the packet's own one counts.
    wildcard: bool,
}

/// A port over UDP sockets.
pub struct SocketPort {
    arena: Box<[u8]>,
    received: Vec<Received>,
    batch: Box<Batch>,
    first: usize,
    sender: SocketSender,
}

struct Received {
    source: Endpoint,
    destination: Endpoint,
    link: Link,
    rx_ns: u64,
    start: usize,
    length: usize,
}

/// The sending half. Replies wait in one batch for one socket; another socket's turn flushes it.
pub struct SocketSender {
    sockets: Vec<Bound>,
    arena: Box<[u8]>,
    pending: Vec<Message>,
    pending_socket: usize,
    batch: Box<Batch>,
    counters: PortCounters,
}

/// A burst.
pub struct SocketBurst<'a> {
    arena: &'a [u8],
    received: &'a [Received],
}

impl SocketPort {
    /// Opens the sockets: non-blocking, `SO_REUSEADDR` for groups, with packet information.
    pub fn open(specs: &[SocketSpec]) -> Result<Self, SocketError> {
        Ok(Self::of(specs.iter().map(open).collect::<Result<Vec<_>, _>>()?))
    }

    /// Serves sockets that [`bind_socket`] made, in this process or another.
    pub fn adopt(sockets: Vec<OwnedFd>) -> io::Result<Self> {
        let bound = |fd: OwnedFd| {
            let socket = UdpSocket::from(fd);
            let local = socket.local_addr()?;
            let wildcard = local.ip().is_unspecified();
            Ok(Bound { socket, local: local.into(), interface: 0, wildcard })
        };
        Ok(Self::of(sockets.into_iter().map(bound).collect::<io::Result<_>>()?))
    }

    /// Its sockets, to be waited for.
    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sender.sockets.iter().map(|bound| bound.socket.as_fd())
    }

    fn of(sockets: Vec<Bound>) -> Self {
        Self {
            arena: vec![0; RX_BYTES * BURST_DATAGRAMS_MAX].into(),
            received: Vec::with_capacity(BURST_DATAGRAMS_MAX),
            batch: Box::default(),
            first: 0,
            sender: SocketSender {
                sockets,
                arena: vec![0; TX_BYTES * BURST_DATAGRAMS_MAX].into(),
                pending: Vec::with_capacity(BURST_DATAGRAMS_MAX),
                pending_socket: 0,
                batch: Box::default(),
                counters: PortCounters::default(),
            },
        }
    }

    /// Where the sockets are bound, in the order of their specifications; tells the port numbers
    /// that the kernel chose for port 0.
    pub fn local_endpoints(&self) -> impl Iterator<Item = Endpoint> {
        self.sender.sockets.iter().map(|bound| bound.local)
    }
}

/// Opens one socket, for [`SocketPort::adopt`]. Its address may come to the host later.
pub fn bind_socket(spec: &SocketSpec) -> Result<OwnedFd, SocketError> {
    bind_to(spec, true).map(|bound| bound.socket.into())
}

fn open(spec: &SocketSpec) -> Result<Bound, SocketError> {
    bind_to(spec, false)
}

fn bind_to(spec: &SocketSpec, free: bool) -> Result<Bound, SocketError> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, socket};

    let fail = |step: &'static str| {
        let address = spec.bind.to_string();
        move |errno: nix::Error| SocketError { step, address, source: errno.into() }
    };
    let family = if spec.bind.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(family, SockType::Datagram, flags, None).map_err(fail("socket for"))?;
    if spec.bind.is_ipv4() {
        setsockopt(&fd, sockopt::Ipv4PacketInfo, &true).map_err(fail("IP_PKTINFO for"))?;
    } else {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true).map_err(fail("IPV6_V6ONLY for"))?;
        setsockopt(&fd, sockopt::Ipv6RecvPacketInfo, &true).map_err(fail("IPV6_PKTINFO for"))?;
    }
    if !spec.groups.is_empty() {
        setsockopt(&fd, sockopt::ReuseAddr, &true).map_err(fail("SO_REUSEADDR for"))?;
    }
    if spec.shared {
        setsockopt(&fd, sockopt::ReusePort, &true).map_err(fail("SO_REUSEPORT for"))?;
    }
    if free {
        setsockopt(&fd, sockopt::IpFreebind, &true).map_err(fail("IP_FREEBIND for"))?;
    }
    // Less than asked for is fine: the kernel caps it silently.
    setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES).map_err(fail("SO_RCVBUF for"))?;
    let address = SockaddrStorage::from(spec.bind);
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &address).map_err(fail("bind to"))?;
    let socket = UdpSocket::from(fd);
    for (group, ifindex) in &spec.groups {
        let joined = match group {
            IpAddr::V4(group) => super::mmsg::join_v4(socket.as_fd(), *group, *ifindex),
            IpAddr::V6(group) => socket.join_multicast_v6(group, *ifindex),
        };
        joined.map_err(|source| SocketError {
            step: "joining group",
            address: group.to_string(),
            source,
        })?;
    }
    if spec.sends_to_groups_by != 0 {
        let (is_v4, ifindex) = (spec.bind.is_ipv4(), spec.sends_to_groups_by);
        super::mmsg::send_to_groups_by(socket.as_fd(), is_v4, ifindex).map_err(|source| {
            let (step, address) = ("choosing the interface of groups for", spec.bind.to_string());
            SocketError { step, address, source }
        })?;
    }
    let local = socket.local_addr().map_err(|source| SocketError {
        step: "getsockname of",
        address: spec.bind.to_string(),
        source,
    })?;
    let wildcard = spec.bind.ip().is_unspecified();
    Ok(Bound { socket, local: local.into(), interface: spec.interface, wildcard })
}

impl Burst for SocketBurst<'_> {
    fn len(&self) -> usize {
        self.received.len()
    }

    fn get(&self, index: usize) -> Datagram<'_> {
        let received = &self.received[index];
        Datagram {
            source: received.source,
            destination: received.destination,
            link: received.link,
            rx_ns: received.rx_ns,
            permissions: None,
            payload: &self.arena[received.start..received.start + received.length],
        }
    }
}

impl SocketSender {
    /// Sends the batch. A datagram the kernel refuses (no route, no buffer) is counted and skipped.
    fn push_out(&mut self) {
        let mut first = 0;
        while first < self.pending.len() {
            let fd = self.sockets[self.pending_socket].socket.as_fd();
            self.counters.tx_wakeup_count += 1;
            let arena = &self.arena[first * TX_BYTES..];
            match self.batch.send(fd, arena, TX_BYTES, &self.pending[first..]) {
                Ok(sent) if sent > 0 => first += sent,
                _ => {
                    self.counters.send_error_count += 1;
                    first += 1;
                }
            }
        }
        self.pending.clear();
    }
}

impl Transmit for SocketSender {
    fn send<F: Into<Filled>>(
        &mut self,
        path: &Path,
        write: impl FnOnce(&mut [u8]) -> F,
    ) -> Result<(), SendError> {
        let is_v4 = path.to.is_v4();
        let suits = |bound: &Bound| {
            bound.local.port == path.from.port
                && bound.local.is_v4() == path.from.is_v4()
                && (bound.wildcard || bound.local.address == path.from.address)
        };
        let socket = self.sockets.iter().position(suits);
        let Some(socket) =
            socket.filter(|_| path.from.is_v4() == is_v4 && !path.from.is_multicast())
        else {
            self.counters.no_neighbour_count += 1;
            return Err(SendError::NoNeighbour);
        };
        if socket != self.pending_socket || self.pending.len() == BURST_DATAGRAMS_MAX {
            self.push_out();
            self.pending_socket = socket;
        }
        let start = self.pending.len() * TX_BYTES;
        let payload_max = build::payload_bytes_max(1500, is_v4);
        let payload = &mut self.arena[start..start + payload_max];
        let filled: Filled = write(payload).into();
        debug_assert!(filled.is_true_of(payload), "a wrong sum");
        let length = filled.bytes;
        if length > payload_max {
            self.counters.too_long_count += 1;
            return Err(SendError::TooLong);
        }
        self.counters.sent_count += 1;
        self.counters.sent_bytes += length as u64;
        self.pending.push(Message { peer: path.to, local: path.from, length, truncated: false });
        Ok(())
    }
}

impl Port for SocketPort {
    type Received<'a> = SocketBurst<'a>;
    type Sender = SocketSender;

    fn receive(&mut self) -> usize {
        let sockets = self.sender.sockets.len();
        for turn in 0..sockets {
            let index = (self.first + turn) % sockets;
            let taken = self.received.len();
            let room = BURST_DATAGRAMS_MAX - taken;
            if room == 0 {
                break;
            }
            let Bound { socket, local, interface, wildcard } = &self.sender.sockets[index];
            let counters = &mut self.sender.counters;
            let received = &mut self.received;
            counters.rx_wakeup_count += 1;
            let arena = &mut self.arena[taken * RX_BYTES..];
            // WouldBlock is the usual answer; another error (an ICMP answer to an earlier send)
            // concerns no datagram that could be handed out.
            let _ = self.batch.receive(socket.as_fd(), arena, RX_BYTES, room, |slot, message| {
                if message.truncated {
                    counters.discard(Discard::Truncated);
                    return;
                }
                // A bound address still learns the destination: it may have been a group.
                let mut destination = message.local;
                if destination == Endpoint::default() && !wildcard {
                    destination = *local;
                }
                destination.port = local.port;
                counters.received_count += 1;
                counters.received_bytes += message.length as u64;
                received.push(Received {
                    source: message.peer,
                    destination,
                    link: Link { interface: *interface, vlans: [0; 2] },
                    rx_ns: 0,
                    start: (taken + slot) * RX_BYTES,
                    length: message.length,
                });
            });
        }
        self.first = (self.first + 1) % sockets.max(1);
        if !self.received.is_empty() {
            let now_ns = clock::monotonic_ns();
            self.received.iter_mut().for_each(|received| received.rx_ns = now_ns);
        }
        self.received.len()
    }

    fn split(&mut self) -> (SocketBurst<'_>, &mut SocketSender) {
        (SocketBurst { arena: &self.arena, received: &self.received }, &mut self.sender)
    }

    fn release(&mut self) {
        self.received.clear();
    }

    fn flush(&mut self) {
        self.sender.push_out();
    }

    fn wait(&mut self, timeout_ns: u64, other: Option<BorrowedFd<'_>>) {
        let sockets = self.sender.sockets.iter().map(|bound| bound.socket.as_fd());
        super::poll_readable(sockets.chain(other), timeout_ns);
    }

    fn counters(&self) -> &PortCounters {
        &self.sender.counters
    }
}
