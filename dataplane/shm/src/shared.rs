//! What may live in memory that other processes map.

use crate::sync::{AtomicU8, AtomicU32, AtomicU64};

/// Marks a type that may be laid over shared memory.
///
/// # Safety
///
/// The implementor guarantees that the type
/// - is `repr(C)` or `repr(transparent)` with no implicit padding that is ever read,
/// - consists of the atomics of [`crate::sync`] and other `Shared` types only: another process may
///   change any byte at any time,
/// - accepts every bit pattern, all zeroes included, and has no `Drop`.
pub unsafe trait Shared: Sized + Sync {}

// SAFETY: a transparent atomic; any bit pattern is a value.
unsafe impl Shared for AtomicU8 {}
// SAFETY: as above.
unsafe impl Shared for AtomicU32 {}
// SAFETY: as above.
unsafe impl Shared for AtomicU64 {}
// SAFETY: an array of shared values is laid out without gaps beyond those of its elements.
unsafe impl<T: Shared, const N: usize> Shared for [T; N] {}

/// A value of its own two cache lines (the adjacent-line prefetcher works on pairs), with the same
/// layout on every architecture.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct Padded<T>(pub T);

// SAFETY: the padding after the value is never read.
unsafe impl<T: Shared> Shared for Padded<T> {}

/// An all-zero value on the heap: shared structures in one process, for tests and simulations.
#[cfg(not(loom))]
pub fn zeroed_box<T: Shared>() -> Box<T> {
    const { assert!(size_of::<T>() > 0) };
    let layout = std::alloc::Layout::new::<T>();
    // SAFETY: the layout has a non-zero size (asserted above).
    let pointer = unsafe { std::alloc::alloc_zeroed(layout) }.cast::<T>();
    if pointer.is_null() {
        std::alloc::handle_alloc_error(layout);
    }
    // SAFETY: freshly allocated by the global allocator with T's layout; all zeroes is a valid T by
    // the contract of `Shared`.
    unsafe { Box::from_raw(pointer) }
}
