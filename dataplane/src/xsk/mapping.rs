//! One shared mapping, unmapped when dropped.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

/// A readable and writable shared mapping of another object's memory. Other processes and the
/// kernel write it too, so it is only ever looked at through atomics, or through frames whose
/// ledger state makes them this process's alone.
pub struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and nothing in it is bound to one.
unsafe impl Send for Mapping {}
// SAFETY: a shared reference gives out addresses and references to atomics only.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `bytes` of `fd` from `offset`, with all pages present.
    pub fn new(fd: BorrowedFd<'_>, offset: u64, bytes: usize) -> std::io::Result<Self> {
        let offset = libc::off_t::try_from(offset).map_err(|_| std::io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                fd.as_raw_fd(),
                offset,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        let base = NonNull::new(address.cast()).ok_or(std::io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, bytes })
    }

    /// First byte.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Length in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// `count` atomics from `offset` on; `None` if they do not lie in the mapping, aligned.
    pub fn atomics<T: Atomic>(&self, offset: usize, count: usize) -> Option<&[T]> {
        let end = count.checked_mul(size_of::<T>())?.checked_add(offset)?;
        if end > self.bytes
            || !(self.base.as_ptr() as usize + offset).is_multiple_of(align_of::<T>())
        {
            return None;
        }
        // SAFETY: in bounds and aligned by the check above, mapped until `self` is dropped, and
        // every bit pattern is an atomic's; concurrent writers are what atomics are for.
        Some(unsafe {
            std::slice::from_raw_parts(self.base.as_ptr().add(offset).cast::<T>(), count)
        })
    }

    /// One atomic at `offset`; `None` as for [`Self::atomics`].
    pub fn atomic<T: Atomic>(&self, offset: usize) -> Option<&T> {
        self.atomics(offset, 1)?.first()
    }
}

/// Types that may lie in memory others write.
///
/// # Safety
/// Any bit pattern is valid and all access is atomic.
pub unsafe trait Atomic {}
// SAFETY: an atomic byte.
unsafe impl Atomic for nautilus_shm::sync::AtomicU8 {}
// SAFETY: an atomic word.
unsafe impl Atomic for nautilus_shm::sync::AtomicU32 {}
// SAFETY: an atomic word.
unsafe impl Atomic for nautilus_shm::sync::AtomicU64 {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: base and length are those of the mmap in `new`; every reference into it borrows
        // from `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}
