//! The netlink socket: dumps, notifications and the two requests the supervisor makes.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};

use super::codec::{Messages, Request, u32_at};
use super::{Change, Link};

/// Largest datagram the kernel sends for a dump.
const DATAGRAM_BYTES: usize = 64 * 1024;

/// Dumps that the kernel said were interrupted are asked for again, this often.
const DUMP_TRIES: usize = 8;

/// Room for notifications that arrive while the supervisor is busy; an overrun means a new dump.
const RECEIVE_BYTES: usize = 1 << 20;

const GROUPS: i32 = libc::RTMGRP_LINK
    | libc::RTMGRP_NEIGH
    | libc::RTMGRP_IPV4_IFADDR
    | libc::RTMGRP_IPV6_IFADDR
    | libc::RTMGRP_IPV4_ROUTE
    | libc::RTMGRP_IPV6_ROUTE;

/// Why netlink could not be used.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket.
    #[error("netlink socket: {0}")]
    Open(#[source] io::Error),
    /// One request.
    #[error("netlink request {kind}: {source}")]
    Request {
        /// `RTM_*`.
        kind: u16,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel changed the table under every dump.
    #[error("netlink dump {kind} was interrupted {DUMP_TRIES} times")]
    Interrupted {
        /// `RTM_*`.
        kind: u16,
    },
}

/// An rtnetlink socket.
#[derive(Debug)]
pub struct NetlinkSocket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl NetlinkSocket {
    /// A socket for requests.
    pub fn for_requests() -> Result<Self, NetlinkError> {
        Self::open(0, SockFlag::SOCK_CLOEXEC)
    }

    /// A socket that hears every change; reads do not block.
    pub fn for_changes() -> Result<Self, NetlinkError> {
        Self::open(GROUPS as u32, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)
    }

    fn open(groups: u32, flags: SockFlag) -> Result<Self, NetlinkError> {
        let open = |errno: Errno| NetlinkError::Open(errno.into());
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)
            .map_err(open)?;
        // Beyond rmem_max only with CAP_NET_ADMIN; the kernel's bound is taken otherwise.
        if setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BYTES).is_err() {
            setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BYTES).map_err(open)?;
        }
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups)).map_err(open)?;
        Ok(Self { fd, sequence: 0, buffer: vec![0; DATAGRAM_BYTES] })
    }

    /// Takes what has arrived on a socket of [`Self::for_changes`]. `false` when the kernel dropped
    /// notifications because this side was slow: the tables must be dumped anew.
    pub fn changes(&mut self, mut each: impl FnMut(Change)) -> io::Result<bool> {
        loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(length) => {
                    for message in Messages(&self.buffer[..length]) {
                        if let Some(change) = Change::from_message(&message) {
                            each(change);
                        }
                    }
                }
                Err(Errno::EAGAIN) => return Ok(true),
                Err(Errno::ENOBUFS) => return Ok(false),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Every link, address, route and neighbour there is, in this order.
    pub fn dump_all(&mut self) -> Result<Vec<Change>, NetlinkError> {
        let mut all = Vec::new();
        for (kind, fixed_bytes) in [
            (libc::RTM_GETLINK, 16),
            (libc::RTM_GETADDR, 8),
            (libc::RTM_GETROUTE, 12),
            (libc::RTM_GETNEIGH, 12),
        ] {
            all.append(&mut self.dump(kind, fixed_bytes)?);
        }
        Ok(all)
    }

    /// Every link there is.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let links = self.dump(libc::RTM_GETLINK, 16)?;
        let link = |change| if let Change::Link(link) = change { Some(link) } else { None };
        Ok(links.into_iter().filter_map(link).collect())
    }

    fn dump(&mut self, kind: u16, fixed_bytes: usize) -> Result<Vec<Change>, NetlinkError> {
        for _ in 0..DUMP_TRIES {
            self.sequence += 1;
            let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
            let request = Request::new(kind, flags, self.sequence, &[0; 16][..fixed_bytes]);
            self.send(kind, &request.finish())?;
            let mut found = Vec::new();
            if self.answers(kind, |change| found.push(change))? {
                return Ok(found);
            }
        }
        Err(NetlinkError::Interrupted { kind })
    }

    /// Asks the kernel to resolve `address` on the interface, as if a packet were waiting for it.
    pub fn resolve(&mut self, ifindex: u32, address: IpAddr) -> Result<(), NetlinkError> {
        let (family, octets) = match address {
            IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
            IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
        };
        // struct ndmsg: family, padding, ifindex, state, flags, type. NTF_USE starts the probes.
        let mut fixed = [0u8; 12];
        fixed[0] = family as u8;
        fixed[4..8].copy_from_slice(&ifindex.to_ne_bytes());
        fixed[8..10].copy_from_slice(&libc::NUD_NONE.to_ne_bytes());
        fixed[10] = libc::NTF_USE;
        self.sequence += 1;
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE;
        let request = Request::new(libc::RTM_NEWNEIGH, flags, self.sequence, &fixed)
            .attribute(libc::NDA_DST, &octets);
        self.send(libc::RTM_NEWNEIGH, &request.finish())?;
        self.answers(libc::RTM_NEWNEIGH, |_| {}).map(|_| ())
    }

    fn send(&self, kind: u16, request: &[u8]) -> Result<(), NetlinkError> {
        send(self.fd.as_raw_fd(), request, MsgFlags::empty())
            .map(|_| ())
            .map_err(|errno| NetlinkError::Request { kind, source: errno.into() })
    }

    /// Reads to the end of an answer; `false` when the kernel says the dump is inconsistent.
    fn answers(&mut self, kind: u16, mut each: impl FnMut(Change)) -> Result<bool, NetlinkError> {
        let mut consistent = true;
        loop {
            let length = match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(length) => length,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(NetlinkError::Request { kind, source: errno.into() }),
            };
            for message in Messages(&self.buffer[..length]) {
                if message.sequence != self.sequence {
                    continue;
                }
                consistent &= i32::from(message.flags) & libc::NLM_F_DUMP_INTR == 0;
                match i32::from(message.kind) {
                    libc::NLMSG_DONE => return Ok(consistent),
                    libc::NLMSG_ERROR => {
                        let code = u32_at(message.body, 0).unwrap_or_default() as i32;
                        if code == 0 {
                            return Ok(consistent);
                        }
                        let source = io::Error::from_raw_os_error(-code);
                        return Err(NetlinkError::Request { kind, source });
                    }
                    _ => {
                        if let Some(change) = Change::from_message(&message) {
                            each(change);
                        }
                    }
                }
            }
        }
    }
}

impl AsFd for NetlinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_namespace_has_a_loopback() {
        let mut netlink = NetlinkSocket::for_requests().unwrap();
        let links = netlink.links().unwrap();
        let lo = links.iter().find(|link| link.loopback).expect("loopback");
        assert_eq!(lo.name, "lo");
        let all = netlink.dump_all().unwrap();
        assert!(all.len() >= links.len());
        let gone = netlink.resolve(u32::MAX, "198.18.0.1".parse().unwrap()).unwrap_err();
        assert!(matches!(gone, NetlinkError::Request { kind: libc::RTM_NEWNEIGH, .. }), "{gone}");
    }
}
