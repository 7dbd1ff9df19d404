//! Whole Ethernet frames onto and off an interface, by the kernel's packet socket (packet(7)).

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvfrom, sendto,
    setsockopt, socket, sockopt,
};

/// The frame without its outermost 802.1Q or 802.1ad tag: how a packet socket shows it
/// (`skb_vlan_untag` runs before the packet taps). A frame too short for what follows a tag keeps it.
pub fn without_outer_tag(frame: &[u8]) -> Vec<u8> {
    match frame.get(12..14) {
        Some([0x81, 0x00] | [0x88, 0xa8]) if frame.len() >= 18 => {
            [&frame[..12], &frame[16..]].concat()
        }
        _ => frame.to_vec(),
    }
}

/// A packet socket on one interface of the namespace it was opened in.
#[derive(Debug)]
pub struct FrameSocket {
    socket: OwnedFd,
    address: LinkAddr,
}

impl FrameSocket {
    /// Opens it on `interface` of the calling thread's namespace.
    pub fn open(interface: &str) -> Result<Self, Errno> {
        let address = getifaddrs()?
            .filter(|one| one.interface_name == interface)
            .find_map(|one| one.address?.as_link_addr().copied())
            .ok_or(Errno::ENODEV)?;
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::EthAll,
        )?;
        Ok(Self { socket, address })
    }

    /// Has the kernel keep so many bytes of frames that are not received yet, whatever its usual limit.
    pub fn keep(&self, bytes: usize) -> Result<(), Errno> {
        setsockopt(&self.socket, sockopt::RcvBufForce, &bytes)
    }

    /// The interface's MAC address.
    pub fn mac(&self) -> [u8; 6] {
        self.address.addr().expect("an Ethernet interface has one")
    }

    /// Sends one frame. `EINVAL` for one without an Ethernet header, `EMSGSIZE` over the MTU.
    pub fn send(&self, frame: &[u8]) -> Result<(), Errno> {
        loop {
            match sendto(self.socket.as_raw_fd(), frame, &self.address, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::EAGAIN | Errno::ENOBUFS) => self.wait(PollFlags::POLLOUT, 10)?,
                Err(error) => return Err(error),
            }
        }
    }

    /// The next frame that came in on the interface (not one that left by it) within `timeout`. The
    /// kernel has taken the outermost VLAN tag off by then: see [`without_outer_tag`].
    pub fn receive<'a>(
        &self,
        buffer: &'a mut [u8],
        timeout: Duration,
    ) -> Result<Option<&'a [u8]>, Errno> {
        /// `PACKET_OUTGOING` of linux/if_packet.h.
        const OUTGOING: u8 = 4;
        let deadline = Instant::now() + timeout;
        loop {
            match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), buffer) {
                Ok((length, Some(from)))
                    if from.ifindex() == self.address.ifindex() && from.pkttype() != OUTGOING =>
                {
                    return Ok(Some(&buffer[..length]));
                }
                Ok(_) => {}
                Err(Errno::EAGAIN) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(None);
                    }
                    self.wait(PollFlags::POLLIN, left.as_millis().clamp(1, 60_000) as u16)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn wait(&self, what: PollFlags, timeout_ms: u16) -> Result<(), Errno> {
        let mut entry = [PollFd::new(std::os::fd::AsFd::as_fd(&self.socket), what)];
        match poll(&mut entry, timeout_ms) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
