//! An attached XDP program. The kernel keeps it attached while any process holds a descriptor of
//! the link, and detaches it when the last one closes, so nothing is left behind after a crash.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys;

/// One program on one interface. Dropping it detaches, unless another process holds a duplicate.
#[derive(Debug)]
pub struct XdpLink {
    fd: OwnedFd,
}

impl XdpLink {
    pub(crate) fn attach(program: BorrowedFd<'_>, ifindex: u32) -> io::Result<Self> {
        sys::link_xdp(program, ifindex).map(|fd| Self { fd })
    }

    /// A link received from another process. Errors when the descriptor is not an XDP link.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        sys::link_target(fd.as_fd())?;
        Ok(Self { fd })
    }

    /// The interface it is attached to; `None` once that interface is gone.
    pub fn ifindex(&self) -> io::Result<Option<u32>> {
        let (_, ifindex) = sys::link_target(self.fd.as_fd())?;
        Ok((ifindex != 0).then_some(ifindex))
    }

    pub(crate) fn program_id(&self) -> io::Result<u32> {
        sys::link_target(self.fd.as_fd()).map(|(program, _)| program)
    }

    /// A second descriptor of the same link.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.fd.try_clone().map(|fd| Self { fd })
    }
}

impl AsFd for XdpLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<XdpLink> for OwnedFd {
    fn from(link: XdpLink) -> Self {
        link.fd
    }
}
