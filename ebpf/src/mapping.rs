//! A BPF array mapped as words. Others write and read it meanwhile, so that it is only ever seen as
//! atomics.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// Unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: shared memory of atomics, owned by nobody's thread.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// The first `words` words of an mmapable array whose shape has been checked.
    pub(crate) fn new(map: BorrowedFd<'_>, words: usize) -> io::Result<Self> {
        Self::part(map, 0, words)
    }

    /// `words` words of it from `first_word` on, which begins a page.
    pub(crate) fn part(map: BorrowedFd<'_>, first_word: usize, words: usize) -> io::Result<Self> {
        let offset = libc::off_t::try_from(first_word * 8).map_err(io::Error::other)?;
        // SAFETY: a new mapping; the kernel refuses what lies beyond the array's pages.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                words * 8,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                map.as_raw_fd(),
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { start, words })
    }

    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping of `part`, page-aligned, of that many words, and it lives as long as
        // `self`; every access of this process is atomic.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping of `part`, which nothing else refers to.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.words * 8) };
    }
}
