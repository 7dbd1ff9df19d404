//! An AF_XDP socket with just what XSKMAP asks for: a UMEM, a fill ring and an RX ring. It is not
//! bound, so nothing arrives; it makes the program find a socket on the queue.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const UMEM_BYTES: usize = 4096 * 2;

pub struct RingSocket {
    fd: OwnedFd,
    umem: *mut libc::c_void,
}

impl RingSocket {
    pub fn new() -> Self {
        // SAFETY: an anonymous mapping of a fixed size, checked below.
        let umem = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                UMEM_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(umem, libc::MAP_FAILED);
        // SAFETY: takes integers; a valid result is a descriptor of ours.
        let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        assert!(fd >= 0, "AF_XDP socket: {}", std::io::Error::last_os_error());
        // SAFETY: just opened, owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let socket = Self { fd, umem };
        let registration = libc::xdp_umem_reg {
            addr: umem.expose_provenance() as u64,
            len: UMEM_BYTES as u64,
            chunk_size: 4096,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        socket.set(libc::XDP_UMEM_REG, &registration);
        for ring in [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING] {
            socket.set(ring, &2u32);
        }
        socket
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn set<T>(&self, option: i32, value: &T) {
        // SAFETY: `value` is live and its size is stated.
        let result = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_XDP,
                option,
                std::ptr::from_ref(value).cast(),
                size_of::<T>() as u32,
            )
        };
        assert_eq!(result, 0, "AF_XDP option {option}: {}", std::io::Error::last_os_error());
    }
}

impl Drop for RingSocket {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`; nothing else refers to it, and the kernel pins its own pages.
        unsafe { libc::munmap(self.umem, UMEM_BYTES) };
    }
}
