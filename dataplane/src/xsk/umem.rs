//! The packet memory of one socket.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use nautilus_shm::ledger::{Frame, LedgerMemory, Ring};
use nautilus_shm::sync::{AtomicU8, AtomicU32};

use super::XskError;
use super::header::{HEADER_BYTES, Header};
use super::mapping::Mapping;
use crate::limits::{CHUNK_BYTES_LARGE, CHUNK_BYTES_SMALL, RX_RING_SHARE, TRANSMIT_RESERVE_SHARE};

/// Size of a UMEM and of the rings around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UmemSpec {
    /// Number of frames, a power of two in 64..=65,536.
    pub frames: u32,
    /// Bytes of one frame: 2,048 or 4,096.
    pub chunk_bytes: u32,
    /// Whether the memory is on huge pages of the default size. Without them the exit of a killed
    /// worker takes 0.3 ms longer (4,096 frames), which is part of every takeover.
    pub huge_pages: bool,
    /// Entries of the fill, rx, tx and completion ring, powers of two up to 65,536.
    pub entries: [u32; 4],
}

impl UmemSpec {
    /// The usual shape: fill, tx and completion ring have room for every frame and cannot overflow;
    /// the rx ring has `1 / RX_RING_SHARE` of that.
    ///
    /// While no worker runs one of two bounds is met. With a long rx ring the fill ring runs dry:
    /// every frame is then in the rx ring, the driver is left without one, and the successor
    /// receives nothing new before it has worked frames off and given them back. With a shorter rx
    /// ring the kernel drops the newest packets (`rx_ring_full`), keeps their frames for the next,
    /// and the fill ring is never empty: the backlog is bounded, and its oldest packet is not much
    /// older than the outage.
    pub fn new(frames: u32, chunk_bytes: u32, huge_pages: bool) -> Self {
        let entries = [frames, frames / RX_RING_SHARE, frames, frames];
        Self { frames, chunk_bytes, huge_pages, entries }
    }

    /// Refuses what the kernel, or an index of 16 bits, could not hold.
    pub fn check(&self) -> Result<(), XskError> {
        let bound = 64..=65_536;
        let problem = if !self.frames.is_power_of_two() || !bound.contains(&self.frames) {
            "frames must be a power of two in 64..=65536"
        } else if ![CHUNK_BYTES_SMALL, CHUNK_BYTES_LARGE].contains(&self.chunk_bytes) {
            "a frame has 2048 or 4096 bytes"
        } else if self.entries.iter().any(|n| !n.is_power_of_two() || *n > 65_536) {
            "ring entries must be powers of two up to 65536"
        } else {
            return Ok(());
        };
        Err(XskError::Spec { frames: self.frames, chunk_bytes: self.chunk_bytes, problem })
    }

    /// Bytes the frames take; the part that is registered with the kernel.
    pub fn frame_bytes(&self) -> usize {
        self.frames as usize * self.chunk_bytes as usize
    }

    fn intents_offset(&self) -> usize {
        self.frame_bytes() + self.frames as usize
    }

    /// Bytes of the whole memfd.
    pub fn total_bytes(&self) -> usize {
        let page = if self.huge_pages { huge_page_bytes() } else { 4096 };
        (self.intents_offset() + 4 * size_of::<u32>() + HEADER_BYTES).next_multiple_of(page)
    }

    /// Frames kept back from reception, so that there is something to reply with however much
    /// arrives. Too low: replies fail with `NoFrame` under a burst. Too high: reception drops
    /// sooner while no worker runs.
    pub fn transmit_reserve(&self) -> u32 {
        self.frames / TRANSMIT_RESERVE_SHARE
    }
}

/// `Hugepagesize` of `/proc/meminfo` in bytes; 2 MiB where it cannot be read.
fn huge_page_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text.lines().find_map(|line| {
        line.strip_prefix("Hugepagesize:")?.trim().strip_suffix(" kB")?.parse::<usize>().ok()
    });
    kib.map_or(2 << 20, |kib| kib << 10)
}

/// A mapped UMEM.
pub struct Umem {
    mapping: Mapping,
    spec: UmemSpec,
    /// Ledger whose tokens open frames of this mapping; 0 while nobody owns it.
    ledger: AtomicU32,
}

impl Umem {
    /// A new memfd of this shape, zeroed, reserved and sealed against resizing.
    pub fn create(name: &CStr, spec: &UmemSpec) -> Result<OwnedFd, XskError> {
        spec.check()?;
        let huge = if spec.huge_pages { libc::MFD_HUGETLB } else { 0 };
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | huge;
        // SAFETY: the name is NUL-terminated; the call makes a new descriptor.
        let fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
        if fd < 0 {
            return Err(XskError::system("memfd_create of the UMEM"));
        }
        // SAFETY: just made, owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let bytes = spec.total_bytes() as libc::off_t;
        // SAFETY: plain calls on our own descriptor.
        let failed = unsafe {
            libc::fchmod(fd.as_raw_fd(), 0o600) < 0
                || libc::ftruncate(fd.as_raw_fd(), bytes) < 0
                || libc::fallocate(fd.as_raw_fd(), 0, 0, bytes) < 0
        };
        if failed {
            return Err(XskError::system("reserving the memory of the UMEM"));
        }
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        // SAFETY: as above.
        if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) } < 0 {
            return Err(XskError::system("sealing the UMEM"));
        }
        Ok(fd)
    }

    /// Maps a memfd of known shape.
    pub(super) fn map_as(fd: BorrowedFd<'_>, spec: UmemSpec) -> Result<Self, XskError> {
        let mapping = Mapping::new(fd, 0, spec.total_bytes())
            .map_err(|source| XskError::System { step: "mapping the UMEM", source })?;
        Ok(Self { mapping, spec, ledger: AtomicU32::new(0) })
    }

    /// Maps a memfd by what its own header says. One that could still shrink under us is refused.
    pub(super) fn map(fd: BorrowedFd<'_>) -> Result<(Self, Header), XskError> {
        let problem = |problem: &str| XskError::Header { problem: problem.into() };
        // SAFETY: plain calls on a borrowed descriptor; `stat` is plain data.
        let (seals, size) = unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            if libc::fstat(fd.as_raw_fd(), &mut stat) < 0 {
                return Err(XskError::system("fstat of the UMEM memfd"));
            }
            (libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS), stat.st_size)
        };
        let needed = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;
        if seals < 0 || seals & needed != needed {
            return Err(problem("is not a sealed memfd"));
        }
        let bytes = usize::try_from(size).map_err(|_| problem("has no size"))?;
        if bytes < HEADER_BYTES || !bytes.is_multiple_of(4096) {
            return Err(problem("is too small"));
        }
        let mapping = Mapping::new(fd, 0, bytes)
            .map_err(|source| XskError::System { step: "mapping the UMEM", source })?;
        let header = Header::read(&mapping)?;
        Ok((Self { mapping, spec: header.spec, ledger: AtomicU32::new(0) }, header))
    }

    pub(super) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    pub(super) fn adopt(&self, ledger: u32) {
        self.ledger.store(ledger, nautilus_shm::sync::Ordering::Relaxed);
    }

    /// Its shape.
    pub fn spec(&self) -> &UmemSpec {
        &self.spec
    }

    fn chunk(&self, frame: &Frame) -> (*mut u8, usize) {
        let ledger = self.ledger.load(nautilus_shm::sync::Ordering::Relaxed);
        assert!(ledger == frame.ledger() && frame.index() < self.spec.frames, "foreign frame");
        let chunk_bytes = self.spec.chunk_bytes as usize;
        let offset = frame.index() as usize * chunk_bytes;
        // SAFETY: index < frames, and frames * chunk_bytes lie in the mapping.
        (unsafe { self.mapping.base().as_ptr().add(offset) }, chunk_bytes)
    }

    /// The bytes of a frame that is held.
    ///
    /// # Panics
    /// When the token belongs to another socket.
    #[inline]
    pub fn bytes<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        let (start, bytes) = self.chunk(frame);
        // SAFETY: in bounds; the token is the only one for this frame (not Clone, given out by the
        // one ledger that owns this mapping), its state is HELD, so neither the kernel nor another
        // process writes it, and the borrow of the token keeps `bytes_mut` away.
        unsafe { std::slice::from_raw_parts(start, bytes) }
    }

    /// The bytes of a frame that is held, to write.
    ///
    /// # Panics
    /// When the token belongs to another socket.
    #[inline]
    #[allow(clippy::mut_from_ref)]
    pub fn bytes_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        let (start, bytes) = self.chunk(frame);
        // SAFETY: as in `bytes`; the exclusive borrow of the only token makes the slice exclusive.
        unsafe { std::slice::from_raw_parts_mut(start, bytes) }
    }
}

/// The ledger words of a mapped UMEM, found once.
pub struct LedgerWords {
    states: NonNull<AtomicU8>,
    intents: NonNull<AtomicU32>,
    umem: Arc<Umem>,
}

// SAFETY: points at atomics in a mapping that `umem` keeps and that is not bound to a thread.
unsafe impl Send for LedgerWords {}

impl LedgerWords {
    pub(super) fn new(umem: Arc<Umem>) -> Self {
        let spec = umem.spec;
        let states = umem.mapping.atomics::<AtomicU8>(spec.frame_bytes(), spec.frames as usize);
        let intents = umem.mapping.atomics::<AtomicU32>(spec.intents_offset(), 4);
        // Both are inside the mapping because its size is `spec.total_bytes()`.
        let states = NonNull::from(states.expect("states in the mapping")).cast();
        let intents = NonNull::from(intents.expect("intents in the mapping")).cast();
        Self { states, intents, umem }
    }
}

impl LedgerMemory for LedgerWords {
    #[inline]
    fn states(&self) -> &[AtomicU8] {
        // SAFETY: `frames` atomics checked in `new`, mapped as long as `umem` lives.
        unsafe { std::slice::from_raw_parts(self.states.as_ptr(), self.umem.spec.frames as usize) }
    }

    #[inline]
    fn intent(&self, ring: Ring) -> &AtomicU32 {
        // SAFETY: four atomics checked in `new`, `Ring` is below four, mapped as above.
        unsafe { self.intents.add(ring as usize).as_ref() }
    }
}

/// The right to be the one writer of a UMEM. Between processes a record lock on the memfd, which
/// the kernel drops when the owner dies; inside this process a list.
pub(super) struct Ownership {
    fd: OwnedFd,
    inode: (u64, u64),
}

static OWNED_HERE: Mutex<Vec<(u64, u64)>> = Mutex::new(Vec::new());

impl Ownership {
    /// Takes the right, or says who has it. Process-associated locks end when *any* descriptor of
    /// the file is closed in this process, so a worker keeps the descriptors it was given.
    pub fn take(fd: BorrowedFd<'_>) -> Result<Self, XskError> {
        // SAFETY: `stat` is plain data, filled by the call.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: a borrowed descriptor and a valid place for the answer.
        if unsafe { libc::fstat(fd.as_raw_fd(), &mut stat) } < 0 {
            return Err(XskError::system("fstat of the UMEM memfd"));
        }
        let inode = (stat.st_dev, stat.st_ino);
        let mut owned = OWNED_HERE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if owned.contains(&inode) {
            return Err(XskError::Owned { pid: 0 });
        }
        let mut lock = record(libc::F_WRLCK);
        // SAFETY: a borrowed descriptor and a valid lock description.
        if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLK, &lock) } < 0 {
            // SAFETY: as above; the call fills in the owner.
            unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETLK, &mut lock) };
            return Err(XskError::Owned { pid: lock.l_pid });
        }
        let fd = fd
            .try_clone_to_owned()
            .map_err(|source| XskError::System { step: "duplicating the UMEM memfd", source })?;
        owned.push(inode);
        Ok(Self { fd, inode })
    }
}

fn record(kind: i32) -> libc::flock {
    // SAFETY: plain data, zero means "the whole file".
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock
}

impl Drop for Ownership {
    fn drop(&mut self) {
        let mut owned = OWNED_HERE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        owned.retain(|inode| *inode != self.inode);
        // SAFETY: our own descriptor and a valid lock description.
        unsafe { libc::fcntl(self.fd.as_raw_fd(), libc::F_SETLK, &record(libc::F_UNLCK)) };
    }
}
