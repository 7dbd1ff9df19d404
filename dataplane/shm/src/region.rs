//! One shared memory region: a memfd with a header, reserved and sealed.
//!
//! ```text
//!   memfd  0           128                                bytes
//!          | header    | what the owner lays out          |
//!            magic, version, layout hash, bytes, generation, heartbeat
//! ```
//!
//! The supervisor (or whoever plays it) creates regions and writes the header; everyone else
//! attaches to a received file descriptor. A region has no name, so nothing outlives its last
//! descriptor. It belongs to root with mode 0600: a process that was given a read-only descriptor
//! cannot turn it into a writable one through `/proc/self/fd`. It is sealed against shrinking and
//! growing, and its pages are reserved when it is made, so touching it never raises SIGBUS.

mod huge;

use std::ffi::{CStr, c_int};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use crate::shared::Shared;
use crate::sync::{AtomicU64, Ordering};

/// The pages of `huge_pages: true`, the default size of x86-64 and most of aarch64.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Where the first structure of a region may lie; before it is the header.
pub const REGION_HEADER_BYTES: usize = size_of::<RegionHeader>();

const SEALS: c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

/// What both sides of a region must agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionSpec {
    /// What kind of region this is; not 0.
    pub magic: u64,
    /// Counts deliberate changes of the layout.
    pub layout_version: u32,
    /// Changes with any change of the layout; see [`layout_hash`].
    pub layout_hash: u64,
    /// Size with the header. With `huge_pages` it is rounded up to [`HUGE_PAGE_BYTES`].
    pub bytes: usize,
    /// Reserve huge pages. Creation fails when there are not enough; the caller may try again
    /// without and says so.
    pub huge_pages: bool,
}

/// What a process may do with a region it attaches to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Map with `PROT_READ` only.
    ReadOnly,
    /// Map for reading and writing.
    ReadWrite,
}

/// Why a region could not be made or attached to.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    /// `memfd_create` failed.
    #[error("cannot create a memfd: {0}")]
    Create(#[source] io::Error),
    /// The memory could not be reserved.
    #[error("cannot reserve {bytes} bytes{}: {source}", if *huge_pages { " of huge pages (see vm.nr_hugepages)" } else { "" })]
    Reserve {
        /// Size asked for.
        bytes: usize,
        /// Whether of huge pages.
        huge_pages: bool,
        /// What the kernel said.
        source: io::Error,
    },
    /// Ownership or seals could not be set.
    #[error("cannot restrict and seal the region: {0}")]
    Seal(#[source] io::Error),
    /// The descriptor could not be examined.
    #[error("cannot examine the descriptor: {0}")]
    Examine(#[source] io::Error),
    /// `mmap` failed. "Permission denied" means that a read-only descriptor was to be mapped for
    /// writing.
    #[error("cannot map {bytes} bytes for {access:?}: {source}")]
    Map {
        /// Size asked for.
        bytes: usize,
        /// Access asked for.
        access: Access,
        /// What the kernel said.
        source: io::Error,
    },
    /// The descriptor's file is smaller than the region should be.
    #[error("the descriptor holds {actual_bytes} bytes, the region needs {expected_bytes}")]
    TooSmall {
        /// Size that the caller's layout needs.
        expected_bytes: usize,
        /// Size of the file.
        actual_bytes: usize,
    },
    /// The file could shrink under the mapping.
    #[error("the descriptor is not a memfd sealed against shrinking and growing")]
    NotSealed,
    /// Another kind of region, or none.
    #[error("magic is {actual:#018x}, expected {expected:#018x}: not this kind of region")]
    Magic {
        /// The caller's.
        expected: u64,
        /// The region's.
        actual: u64,
    },
    /// Made by another version.
    #[error("layout version is {actual}, this program needs {expected}: run the same release")]
    LayoutVersion {
        /// The caller's.
        expected: u32,
        /// The region's.
        actual: u64,
    },
    /// Made by another build with the same layout version.
    #[error(
        "layout hash is {actual:#018x}, this program needs {expected:#018x}: run the same build"
    )]
    LayoutHash {
        /// The caller's.
        expected: u64,
        /// The region's.
        actual: u64,
    },
    /// A view does not fit.
    #[error("{bytes} bytes at offset {offset} lie outside the region or on its header")]
    OutOfBounds {
        /// Where the view was to start.
        offset: usize,
        /// How long it is.
        bytes: usize,
    },
    /// A view is not aligned.
    #[error("offset {offset} is not a multiple of {align}")]
    Misaligned {
        /// Where the view was to start.
        offset: usize,
        /// What the type needs.
        align: usize,
    },
    /// A writable view of a read-only region was asked for.
    #[error("the region is attached read-only")]
    ReadOnly,
}

/// The start of every region. Written by its creator and by a supervisor that takes it over; read
/// by all.
#[repr(C, align(128))]
struct RegionHeader {
    magic: AtomicU64,
    layout_version: AtomicU64,
    layout_hash: AtomicU64,
    bytes: AtomicU64,
    generation: AtomicU64,
    heartbeat_ns: AtomicU64,
}

// SAFETY: repr(C) of atomic words; the tail padding is never read.
unsafe impl Shared for RegionHeader {}

/// A mapped region. Unmapped when dropped.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    bytes: usize,
    access: Access,
    fd: OwnedFd,
}

// SAFETY: the mapping lives as long as the value and is only handed out as `&T` of `Shared` types,
// which are `Sync`.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Makes, reserves, restricts, seals and maps a region with generation 1. `name` shows up in
    /// `/proc/<pid>/maps` and means nothing.
    pub fn create(name: &CStr, spec: &RegionSpec) -> Result<Self, RegionError> {
        assert!(spec.magic != 0 && spec.bytes >= REGION_HEADER_BYTES, "a region has a header");
        let bytes = reserved_bytes(spec);
        let huge = if spec.huge_pages { libc::MFD_HUGETLB | libc::MFD_HUGE_2MB } else { 0 };
        // SAFETY: `name` is a NUL-terminated string that lives across the call.
        let fd = unsafe {
            libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | huge)
        };
        if fd < 0 {
            return Err(RegionError::Create(io::Error::last_os_error()));
        }
        // SAFETY: the descriptor was just created and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        reserve(&fd, bytes).map_err(|source| RegionError::Reserve {
            bytes,
            huge_pages: spec.huge_pages,
            source,
        })?;
        restrict(&fd).map_err(RegionError::Seal)?;
        let region = Self::map(fd, bytes, Access::ReadWrite)?;
        let header = region.header();
        header.layout_version.store(spec.layout_version.into(), Ordering::Relaxed);
        header.layout_hash.store(spec.layout_hash, Ordering::Relaxed);
        header.bytes.store(bytes as u64, Ordering::Relaxed);
        header.generation.store(1, Ordering::Relaxed);
        // SYNC POINT: pairs with the acquire load in `attach`: who sees the magic sees the header.
        header.magic.store(spec.magic, Ordering::Release);
        Ok(region)
    }

    /// Gives the memory back to the system although others still map it: they read zeros from then on, a
    /// heartbeat that stopped at 0 among them. For an owner whose region nobody writes any more.
    pub fn give_back(&self) -> io::Result<()> {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let bytes = file_bytes(&self.fd)?;
        // SAFETY: acts on our own descriptor; whoever maps the file may see any bytes at any time.
        let result = unsafe { libc::fallocate(self.fd.as_raw_fd(), mode, 0, bytes as libc::off_t) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Maps a region somebody else made, after checking that it is sealed, large enough and of the
    /// caller's layout. Nothing is read through the mapping before those checks allow it.
    pub fn attach(fd: OwnedFd, spec: &RegionSpec, access: Access) -> Result<Self, RegionError> {
        let expected_bytes = reserved_bytes(spec);
        // SAFETY: fcntl on an owned descriptor with no pointer argument.
        let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
        if seals < 0 || seals & SEALS != SEALS {
            return Err(RegionError::NotSealed);
        }
        let actual_bytes = file_bytes(&fd).map_err(RegionError::Examine)?;
        if actual_bytes < expected_bytes {
            return Err(RegionError::TooSmall { expected_bytes, actual_bytes });
        }
        let region = Self::map(fd, expected_bytes, access)?;
        let header = region.header();
        // SYNC POINT: pairs with the release store in `create`.
        let actual = header.magic.load_acquire();
        if actual != spec.magic {
            return Err(RegionError::Magic { expected: spec.magic, actual });
        }
        let actual = header.layout_version.load(Ordering::Relaxed);
        if actual != u64::from(spec.layout_version) {
            return Err(RegionError::LayoutVersion { expected: spec.layout_version, actual });
        }
        let actual = header.layout_hash.load(Ordering::Relaxed);
        if actual != spec.layout_hash {
            return Err(RegionError::LayoutHash { expected: spec.layout_hash, actual });
        }
        let actual_bytes = header.bytes.load(Ordering::Relaxed) as usize;
        if actual_bytes != expected_bytes {
            return Err(RegionError::TooSmall { expected_bytes, actual_bytes });
        }
        Ok(region)
    }

    fn map(fd: OwnedFd, bytes: usize, access: Access) -> Result<Self, RegionError> {
        let protection = match access {
            Access::ReadOnly => libc::PROT_READ,
            Access::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        };
        let reserved = huge_aligned_addresses(bytes).unwrap_or(std::ptr::null_mut());
        let fixed = if reserved.is_null() { 0 } else { libc::MAP_FIXED };
        // SAFETY: a fresh mapping at an address of the kernel's choice, or over addresses that were
        // reserved for it; the descriptor is open, and its size was set or checked and sealed by the
        // caller.
        let base = unsafe {
            libc::mmap(
                reserved.cast(),
                bytes,
                protection,
                libc::MAP_SHARED | libc::MAP_POPULATE | fixed,
                fd.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            let source = io::Error::last_os_error();
            if !reserved.is_null() {
                // SAFETY: the reservation, which nothing uses.
                unsafe { libc::munmap(reserved.cast(), bytes) };
            }
            return Err(RegionError::Map { bytes, access, source });
        }
        let base = NonNull::new(base.cast()).expect("mmap does not return the null page");
        Ok(Self { base, bytes, access, fd })
    }

    fn header(&self) -> &RegionHeader {
        // SAFETY: every mapping holds at least the header (`create` asserts it; `attach` compares
        // with the same specification), mmap aligns to a page, and `RegionHeader` is `Shared`.
        unsafe { self.base.cast::<RegionHeader>().as_ref() }
    }

    /// The descriptor, to be passed on to a process that may write.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// A descriptor of the same memory that can only be mapped for reading, to be passed on to
    /// readers. Opened through `/proc/self/fd`, so the caller must own the region.
    pub fn reopen_read_only(&self) -> io::Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        Ok(std::fs::OpenOptions::new().read(true).open(path)?.into())
    }

    /// Size of the mapping with the header.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How this process attached.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Counts the supervisors that have owned the region; 1 at creation.
    pub fn generation(&self) -> u64 {
        self.header().generation.load(Ordering::Relaxed)
    }

    /// Takes the region over: moves the generation on by one and returns it. Owner only.
    pub fn advance_generation(&self) -> Result<u64, RegionError> {
        self.require_write()?;
        let generation = self.generation() + 1;
        self.header().generation.store(generation, Ordering::Relaxed);
        Ok(generation)
    }

    /// When the owner was last seen alive, `CLOCK_MONOTONIC` nanoseconds; 0 before the first beat.
    pub fn heartbeat_ns(&self) -> u64 {
        self.header().heartbeat_ns.load(Ordering::Relaxed)
    }

    /// Says that the owner is alive. Owner only.
    pub fn beat(&self, now_ns: u64) -> Result<(), RegionError> {
        self.require_write()?;
        self.header().heartbeat_ns.store(now_ns, Ordering::Relaxed);
        Ok(())
    }

    /// The structure at `offset` from the region's start, for its writer. Fails on a region
    /// attached read-only.
    pub fn view<T: Shared>(&self, offset: usize) -> Result<&T, RegionError> {
        self.require_write()?;
        // SAFETY: the mapping is writable.
        unsafe { self.view_unwritten(offset) }
    }

    /// The structure at `offset`, on any mapping.
    ///
    /// # Safety
    ///
    /// On a region attached read-only, the caller neither stores through the reference nor loads
    /// with another ordering than `Relaxed`: a store would raise SIGSEGV. Wrap the reference in a
    /// type that only reads.
    pub unsafe fn view_unwritten<T: Shared>(&self, offset: usize) -> Result<&T, RegionError> {
        let bytes = size_of::<T>();
        let fits = offset.checked_add(bytes).is_some_and(|end| end <= self.bytes);
        if !fits || offset < REGION_HEADER_BYTES {
            return Err(RegionError::OutOfBounds { offset, bytes });
        }
        let align = align_of::<T>();
        if !offset.is_multiple_of(align) {
            return Err(RegionError::Misaligned { offset, align });
        }
        // SAFETY: inside the mapping and aligned (mmap aligns to a page, no type to more); every bit
        // pattern is a `T` and all of it is atomic, by the contract of `Shared`; the mapping lives as
        // long as `self`.
        Ok(unsafe { self.base.add(offset).cast::<T>().as_ref() })
    }

    /// All whole words from `offset` on, on any mapping; none if the region ends before. `offset` is
    /// a multiple of 8 behind the header.
    ///
    /// # Safety
    ///
    /// As for [`Self::view_unwritten`].
    #[inline]
    pub unsafe fn words_unwritten(&self, offset: usize) -> &[AtomicU64] {
        assert!(offset >= REGION_HEADER_BYTES && offset.is_multiple_of(8), "words are aligned");
        let count = self.bytes.saturating_sub(offset) / 8;
        if count == 0 {
            return &[];
        }
        // SAFETY: inside the mapping, aligned, atomic words only, alive as long as `self`.
        unsafe { std::slice::from_raw_parts(self.base.add(offset).cast().as_ptr(), count) }
    }

    fn require_write(&self) -> Result<(), RegionError> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(RegionError::ReadOnly),
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this length, and every view borrowed `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// FNV-1a over numbers that describe a layout (offsets, sizes, counts), to be computed at compile
/// time from `offset_of!` and `size_of`.
pub const fn layout_hash(numbers: &[u64]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut index = 0;
    while index < numbers.len() {
        hash = layout_hash_bytes(hash, &numbers[index].to_le_bytes());
        index += 1;
    }
    hash
}

/// Continues [`layout_hash`] with bytes, such as the names of slots.
pub const fn layout_hash_bytes(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(0x100_0000_01b3);
        index += 1;
    }
    hash
}

fn reserved_bytes(spec: &RegionSpec) -> usize {
    if spec.huge_pages { spec.bytes.next_multiple_of(HUGE_PAGE_BYTES) } else { spec.bytes }
}

/// Reserves addresses for a mapping that starts on a boundary of huge pages: elsewhere the kernel maps
/// a huge page as 512 small ones. `None` for a mapping too small to hold one, or when there are none.
fn huge_aligned_addresses(bytes: usize) -> Option<*mut u8> {
    if bytes < HUGE_PAGE_BYTES {
        return None;
    }
    let protection = libc::PROT_NONE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let page_bytes = 4096;
    let wanted = bytes.next_multiple_of(page_bytes);
    // SAFETY: addresses of the kernel's choice that nothing uses.
    let base = unsafe {
        let length = wanted + HUGE_PAGE_BYTES;
        libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0)
    };
    if base == libc::MAP_FAILED {
        return None;
    }
    let base: *mut u8 = base.cast();
    let before = base.align_offset(HUGE_PAGE_BYTES);
    // SAFETY: both ends are parts of the reservation, which nobody else knows; `before` is a multiple
    // of the page size below `HUGE_PAGE_BYTES`.
    unsafe {
        if before > 0 {
            libc::munmap(base.cast(), before);
        }
        libc::munmap(base.add(before + wanted).cast(), HUGE_PAGE_BYTES - before);
        Some(base.add(before))
    }
}

fn reserve(fd: &OwnedFd, bytes: usize) -> io::Result<()> {
    let length = libc::off_t::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
    loop {
        // SAFETY: a call on an owned descriptor without pointers. It also sets the file's size.
        if unsafe { libc::fallocate(fd.as_raw_fd(), 0, 0, length) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn restrict(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: calls on an owned descriptor without pointers. A memfd is made with mode 0777.
    let result = unsafe {
        match libc::fchmod(fd.as_raw_fd(), 0o600) {
            0 => libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, SEALS),
            failed => failed,
        }
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn file_bytes(fd: &OwnedFd) -> io::Result<usize> {
    // SAFETY: `stat` is plain data for the call to fill, on an owned descriptor.
    let (result, stat) = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        (libc::fstat(fd.as_raw_fd(), &mut stat), stat)
    };
    if result == 0 { Ok(stat.st_size as usize) } else { Err(io::Error::last_os_error()) }
}
