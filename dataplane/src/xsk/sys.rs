//! The system calls of an AF_XDP socket.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::XskError;

/// `XDP_STATISTICS` of a socket: packets the kernel could not deliver or send, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Dropped for other reasons than the next ones, a packet longer than a frame among them.
    pub rx_dropped_count: u64,
    /// Addresses in the fill ring that no frame has.
    pub rx_invalid_count: u64,
    /// Descriptors in the tx ring that the kernel refused.
    pub tx_invalid_count: u64,
    /// Dropped because the rx ring was full.
    pub rx_ring_full_count: u64,
    /// Dropped because the fill ring was empty.
    pub fill_ring_empty_count: u64,
    /// Times the kernel found the tx ring empty.
    pub tx_ring_empty_count: u64,
}

pub fn socket() -> Result<OwnedFd, XskError> {
    // SAFETY: makes a new descriptor.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(XskError::system("socket(AF_XDP)"));
    }
    // SAFETY: just made, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub fn set_option<T>(
    fd: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: &T,
    step: &'static str,
) -> Result<(), XskError> {
    let bytes = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `bytes` bytes of a live value.
    let result = unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), bytes)
    };
    if result < 0 { Err(XskError::system(step)) } else { Ok(()) }
}

/// # Safety
/// Every bit pattern must be a `T`, all-zero included.
unsafe fn option<T>(fd: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<T> {
    // SAFETY: all-zero is a `T` by this function's contract.
    let mut value: T = unsafe { std::mem::zeroed() };
    let mut bytes = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `bytes` bytes into a live value.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            name,
            std::ptr::from_mut(&mut value).cast(),
            &mut bytes,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

pub fn mmap_offsets(fd: BorrowedFd<'_>) -> Result<libc::xdp_mmap_offsets, XskError> {
    // SAFETY: a struct of integers.
    unsafe { option(fd, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS) }
        .map_err(|source| XskError::System { step: "XDP_MMAP_OFFSETS", source })
}

/// Whether the socket was given `SO_PREFER_BUSY_POLL`; reading it takes no privilege.
pub fn prefers_busy_poll(fd: BorrowedFd<'_>) -> Result<bool, XskError> {
    // SAFETY: an integer.
    unsafe { option::<i32>(fd, libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL) }
        .map(|value| value != 0)
        .map_err(|source| XskError::System { step: "reading SO_PREFER_BUSY_POLL", source })
}

/// What the kernel counted on an AF_XDP socket; takes no privilege.
pub fn statistics(fd: BorrowedFd<'_>) -> io::Result<Statistics> {
    // SAFETY: a struct of integers.
    let raw: libc::xdp_statistics = unsafe { option(fd, libc::SOL_XDP, libc::XDP_STATISTICS) }?;
    Ok(Statistics {
        rx_dropped_count: raw.rx_dropped,
        rx_invalid_count: raw.rx_invalid_descs,
        tx_invalid_count: raw.tx_invalid_descs,
        rx_ring_full_count: raw.rx_ring_full,
        fill_ring_empty_count: raw.rx_fill_ring_empty_descs,
        tx_ring_empty_count: raw.tx_ring_empty_descs,
    })
}

pub fn bind(fd: BorrowedFd<'_>, ifindex: u32, queue: u32, flags: u16) -> io::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: ifindex,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: 0,
    };
    let bytes = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the kernel reads `bytes` bytes of a live address.
    let result = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), bytes) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether the socket has been bound: only then its ring sizes can no longer be set. The size tried
/// here, 0, never is one.
pub fn is_bound(fd: BorrowedFd<'_>) -> bool {
    set_option(fd, libc::SOL_XDP, libc::XDP_RX_RING, &0u32, "XDP_RX_RING").is_err_and(
        |error| matches!(error, XskError::System { source, .. } if source.raw_os_error() == Some(libc::EBUSY)),
    )
}

/// Asks the kernel to send what is in the tx ring. Copy mode takes at most 32 packets a call and
/// then answers EAGAIN.
pub fn kick_tx(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no buffer and no address.
    let result = unsafe {
        libc::sendto(fd.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets the driver receive: it has asked for it, or busy polling is preferred.
pub fn kick_rx(fd: BorrowedFd<'_>) -> io::Result<()> {
    let null = std::ptr::null_mut();
    // SAFETY: no buffer and no address.
    let result = unsafe {
        libc::recvfrom(fd.as_raw_fd(), null, 0, libc::MSG_DONTWAIT, null.cast(), null.cast())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
