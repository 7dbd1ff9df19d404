//! The atomics every module uses: the core ones, or those of loom when it explores interleavings.

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU8, AtomicU32, Ordering};
