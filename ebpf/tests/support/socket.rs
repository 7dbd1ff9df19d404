//! An AF_XDP socket with just what XSKMAP asks for: a UMEM, a fill ring and an RX ring. Unbound it
//! makes the program find a socket on the queue; bound it receives up to two frames.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

const CHUNK_BYTES: usize = 4096;
const CHUNKS: usize = 2;
const UMEM_BYTES: usize = CHUNK_BYTES * CHUNKS;

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
            chunk_size: CHUNK_BYTES as u32,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        socket.set(libc::XDP_UMEM_REG, &registration);
        for ring in [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING] {
            socket.set(ring, &(CHUNKS as u32));
        }
        socket
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Binds in copy mode to queue 0 and gives both chunks to the kernel. For one socket, once.
    pub fn receive_from(&self, ifindex: u32) -> Receiver<'_> {
        // SAFETY: all-zero bytes are a valid xdp_mmap_offsets.
        let mut offsets: libc::xdp_mmap_offsets = unsafe { std::mem::zeroed() };
        let mut bytes = size_of_val(&offsets) as u32;
        // SAFETY: `offsets` has `bytes` writable bytes.
        let result = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_XDP,
                libc::XDP_MMAP_OFFSETS,
                (&raw mut offsets).cast(),
                &raw mut bytes,
            )
        };
        assert_eq!(result, 0);
        let fill = self.map(libc::XDP_UMEM_PGOFF_FILL_RING as i64);
        let rx = self.map(libc::XDP_PGOFF_RX_RING);
        for chunk in 0..CHUNKS {
            // SAFETY: the fill ring has CHUNKS u64 entries at `desc`.
            unsafe {
                let entry = fill.byte_add(offsets.fr.desc as usize).cast::<u64>().add(chunk);
                entry.write((chunk * CHUNK_BYTES) as u64);
            }
        }
        // SAFETY: the producer index is an aligned u32 of the mapped ring.
        let producer =
            unsafe { AtomicU32::from_ptr(fill.byte_add(offsets.fr.producer as usize).cast()) };
        producer.store(CHUNKS as u32, Ordering::Release);

        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: libc::XDP_COPY,
            sxdp_ifindex: ifindex,
            sxdp_queue_id: 0,
            sxdp_shared_umem_fd: 0,
        };
        // SAFETY: the address is live and its size stated.
        let result = unsafe {
            libc::bind(
                self.fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as u32,
            )
        };
        assert_eq!(result, 0, "bind: {}", std::io::Error::last_os_error());
        Receiver { socket: self, fill, rx, offsets: offsets.rx, taken: 0 }
    }

    /// A page of a ring; the mapping keeps the socket open.
    fn map(&self, offset: i64) -> *mut libc::c_void {
        // SAFETY: a new mapping of the socket's own ring.
        let ring = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                self.fd.as_raw_fd(),
                offset,
            )
        };
        assert_ne!(ring, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        ring
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

/// The receiving end of a bound socket.
pub struct Receiver<'socket> {
    socket: &'socket RingSocket,
    fill: *mut libc::c_void,
    rx: *mut libc::c_void,
    offsets: libc::xdp_ring_offset,
    taken: u32,
}

impl Receiver<'_> {
    /// The next frame, with the 16 bytes before it; None after 200 ms without one.
    pub fn next(&mut self) -> Option<([u8; 16], Vec<u8>)> {
        assert!((self.taken as usize) < CHUNKS, "the fill ring is used up");
        let mut poll =
            libc::pollfd { fd: self.socket.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one live pollfd.
        unsafe { libc::poll(&raw mut poll, 1, 200) };
        // SAFETY: the producer index is an aligned u32 of the mapped ring.
        let producer =
            unsafe { AtomicU32::from_ptr(self.rx.byte_add(self.offsets.producer as usize).cast()) };
        if producer.load(Ordering::Acquire) == self.taken {
            return None;
        }
        // SAFETY: below the producer index the kernel has written CHUNKS descriptors at `desc`, and
        // what they name lies in the UMEM and is ours.
        unsafe {
            let entries = self.rx.byte_add(self.offsets.desc as usize).cast::<libc::xdp_desc>();
            let entry = entries.add(self.taken as usize).read();
            self.taken += 1;
            let packet = self.socket.umem.byte_add(entry.addr as usize).cast::<u8>();
            let frame = std::slice::from_raw_parts(packet, entry.len as usize).to_vec();
            Some((packet.sub(16).cast::<[u8; 16]>().read(), frame))
        }
    }
}

impl Drop for Receiver<'_> {
    fn drop(&mut self) {
        for ring in [self.fill, self.rx] {
            // SAFETY: a mapping of `RingSocket::map`; nothing else refers to it.
            unsafe { libc::munmap(ring, 4096) };
        }
    }
}

impl Drop for RingSocket {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`; nothing else refers to it, and the kernel pins its own pages.
        unsafe { libc::munmap(self.umem, UMEM_BYTES) };
    }
}
