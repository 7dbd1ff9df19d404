//! Where datagrams come from and go to.
//!
//! ```text
//!   xdp    AF_XDP rings        \                      / echo
//!   socket kernel UDP sockets   >  Port -> run loop  <  cache
//!   sim    seeded, no kernel   /                      \ feed
//! ```
//!
//! What crosses this trait is a datagram. Ethernet, VLAN and IP headers belong to the `xdp` port;
//! applications never see a frame. All ports pass one conformance suite.

mod counters;
mod mmsg;
pub mod parcel;
pub mod sim;
pub mod socket;
pub mod xdp;

use std::os::fd::BorrowedFd;

use nautilus_ebpf::intf::Permissions;
use nautilus_shm::ledger::FrameCounts;

pub use counters::PortCounters;
pub use sim::SimPort;
pub use socket::SocketPort;
pub use xdp::XdpPort;

use crate::net::{Endpoint, checksum};

/// Where on the host a datagram came in, and where its reply leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Link {
    /// Index into the port's own list of interfaces (not an ifindex).
    pub interface: u16,
    /// VLAN identifiers, outer first, 0 where there is no tag; bit 15 is set where the tag is a
    /// service tag (802.1ad). PCP and DEI are not carried.
    pub vlans: [u16; 2],
}

/// One received UDP datagram, borrowed from the port until [`Port::release`].
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Who sent it.
    pub source: Endpoint,
    /// Which of our endpoints, or which multicast group, it was sent to.
    pub destination: Endpoint,
    /// Where it came in.
    pub link: Link,
    /// `CLOCK_MONOTONIC` nanoseconds, taken in XDP by the `xdp` port, after the receive call by the
    /// `socket` port, from the virtual clock by the `sim` port.
    pub rx_ns: u64,
    /// What the source may do with the service it means, where the steering program has said so (the
    /// `xdp` port); `None`: the application looks its own list up.
    pub permissions: Option<Permissions>,
    /// The UDP payload; 0 to 65,507 bytes.
    pub payload: &'a [u8],
}

impl Datagram<'_> {
    /// The path a reply takes. For a datagram sent to a multicast group there is none worth taking.
    pub fn reply_path(&self) -> Path {
        Path { from: self.destination, to: self.source, link: self.link }
    }
}

/// The addressing of one outgoing datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// One of our own endpoints.
    pub from: Endpoint,
    /// The receiver.
    pub to: Endpoint,
    /// Interface and tags to leave by.
    pub link: Link,
}

/// Why a datagram was not queued. Each is counted by the port; an application goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No free frame, or the transmit ring is full.
    #[error("no transmit frame free")]
    NoFrame,
    /// No route or no neighbour for the receiver, the supervisor has been asked for it; or a sender
    /// that is a group or of the other family, for which there is no route either.
    #[error("next hop unknown")]
    NoNeighbour,
    /// The payload does not fit the link's MTU.
    #[error("payload exceeds the MTU")]
    TooLong,
}

/// The datagrams of one receive, at most [`crate::limits::BURST_DATAGRAMS_MAX`].
pub trait Burst {
    /// How many there are.
    fn len(&self) -> usize;
    /// Datagram `index`, which is below [`Self::len`].
    fn get(&self, index: usize) -> Datagram<'_>;
    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The whole frame that datagram `index` came in, where the port has frames.
    fn frame(&self, _index: usize) -> Option<Received<'_>> {
        None
    }
}

/// A frame as a port received it.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// Place of its socket among the port's.
    pub socket: usize,
    /// Ethernet header to the end.
    pub bytes: &'a [u8],
}

/// What a writer of a payload says of it: its length, and its sum if that is known already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filled {
    /// Bytes used of the buffer.
    pub bytes: usize,
    /// [`checksum::fold`](crate::net::checksum::fold) of the sum over those bytes; `None`: to be
    /// added up by the port, if it needs it.
    pub sum: Option<u16>,
}

impl From<usize> for Filled {
    fn from(bytes: usize) -> Self {
        Self { bytes, sum: None }
    }
}

impl Filled {
    /// Whether the sum, if there is one, is that of the bytes it was told for.
    pub fn is_true_of(&self, buffer: &[u8]) -> bool {
        let actual = || checksum::fold(checksum::add(0, &buffer[..self.bytes]));
        self.bytes > buffer.len() || self.sum.is_none_or(|sum| sum == actual())
    }
}

/// The sending half, usable while a burst is still borrowed.
pub trait Transmit {
    /// Queues one datagram: `write` fills the front of a buffer of at least
    /// [`crate::limits::REPLY_PAYLOAD_BYTES_MAX`] bytes and returns the length it used, or
    /// [`Filled`]. Nothing leaves before [`Port::flush`] unless the port runs out of room.
    fn send<F: Into<Filled>>(
        &mut self,
        path: &Path,
        write: impl FnOnce(&mut [u8]) -> F,
    ) -> Result<(), SendError>;
}

/// One source and sink of datagrams, owned by one worker thread.
pub trait Port {
    /// The received half of [`Self::split`].
    type Received<'a>: Burst
    where
        Self: 'a;
    /// The sending half of [`Self::split`].
    type Sender: Transmit;

    /// Takes what has arrived, up to a burst, and returns how many datagrams that gave. The ring's
    /// consumer index is published before this returns: a datagram is handed out at most once, even
    /// across the death of the worker. Packets that do not parse are counted and dropped here.
    fn receive(&mut self) -> usize;

    /// The burst of the last [`Self::receive`], and the sender to answer it with.
    fn split(&mut self) -> (Self::Received<'_>, &mut Self::Sender);

    /// Gives the burst's buffers back. Called once after each burst was handled.
    fn release(&mut self);

    /// Pushes out what was queued and collects what has been sent.
    fn flush(&mut self);

    /// Sleeps until something may have arrived, or `other` is readable, at most `timeout_ns`, in one
    /// system call. Called only by the adaptive and interrupt poll policies.
    fn wait(&mut self, timeout_ns: u64, other: Option<BorrowedFd<'_>>);

    /// What the port has counted since it was made.
    fn counters(&self) -> &PortCounters;

    /// Frames by state over all its sockets; zeroes for a port without frames.
    fn frame_counts(&self) -> FrameCounts {
        FrameCounts::default()
    }

    /// Whether the states of the frames add up to all there are, and every frame that is held is in
    /// the burst or queued for sending. False means that one was lost. True for a port without
    /// frames.
    fn frames_add_up(&self) -> bool {
        true
    }
}

/// Descriptors one `poll` of a port covers.
const POLL_DESCRIPTORS_MAX: usize = crate::limits::QUEUES_MAX + 1;

/// Sleeps until one of the descriptors is readable, at most `timeout_ns`, in one system call and
/// without allocating. A signal or an error ends the sleep, the loop then looks for itself.
fn poll_readable<'a>(descriptors: impl Iterator<Item = BorrowedFd<'a>>, timeout_ns: u64) {
    use nix::poll::{PollFd, PollFlags, ppoll};
    use nix::sys::time::TimeSpec;

    let mut list = [None; POLL_DESCRIPTORS_MAX];
    let mut count = 0;
    for (place, descriptor) in list.iter_mut().zip(descriptors) {
        *place = Some(descriptor);
        count += 1;
    }
    let Some(first) = list[0] else { return };
    let mut polled: [PollFd<'a>; POLL_DESCRIPTORS_MAX] =
        list.map(|descriptor| PollFd::new(descriptor.unwrap_or(first), PollFlags::POLLIN));
    let timeout = TimeSpec::from(std::time::Duration::from_nanos(timeout_ns));
    let _ = ppoll(&mut polled[..count], Some(timeout), None);
}
