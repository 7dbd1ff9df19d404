//! An allocator that counts, and a keyspace that keeps nothing: for programs of one test that hold a feed to the
//! rule that nothing is allocated after start.
#![allow(dead_code)]

use nautilus_dataplane::app::{ChannelState, Keyspace, PutError};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

/// Allocations so far.
pub static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// Bytes of them.
pub static BYTES: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every call is passed on unchanged to the system allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Counts what is published and keeps nothing.
#[derive(Default)]
pub struct Sink {
    /// Records that were to be kept, of which each hundredth is refused.
    pub puts: u64,
    /// Times that a channel was said to be live.
    pub live: u64,
}

impl Keyspace for Sink {
    fn begin_channel(&mut self, _channel: u8) {}

    fn put(&mut self, _key: &[u8], _value: &[u8], _channel: u8, _: u64) -> Result<(), PutError> {
        self.puts += 1;
        // Refusals take other paths, which must not allocate either.
        if self.puts.is_multiple_of(100) { Err(PutError::NoRoom) } else { Ok(()) }
    }

    fn set_channel(&mut self, _channel: u8, state: ChannelState) {
        self.live += u64::from(matches!(state, ChannelState::LiveUntil(_)));
    }
}
