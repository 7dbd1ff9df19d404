//! Who sleeps, and who has to wake it: one sleeper, any number of wakers, over shared memory.
//!
//! ```text
//!   sleeper: announce, fence, look once more -> nothing: block on the eventfd     woke: take the word back
//!   waker:   push, fence, announced?         -> yes, and nobody did before: write the eventfd
//! ```
//!
//! Writers: the sleeper `asleep_until_ns`, wakers `is_woken`. A late write of a waker leaves the eventfd
//! readable for the next sleep, which then ends at once: the sleeper reads it after every sleep.

use crate::shared::{Padded, Shared};
use crate::sync::{AtomicU64, Ordering, fence};

/// The words of one sleeper.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct Sleep {
    /// Not 0 while it sleeps, or is about to: until when at the latest.
    asleep_until_ns: Padded<AtomicU64>,
    /// Not 0 once a waker has taken it upon itself to wake this sleep.
    is_woken: Padded<AtomicU64>,
}

// SAFETY: repr(C) of shared words only; padding is never read.
unsafe impl Shared for Sleep {}

impl Sleep {
    /// Announces a sleep until `until_ns`, not 0. The caller looks for work once more afterwards and sleeps
    /// only when there is none.
    #[inline]
    pub fn announce(&self, until_ns: u64) {
        self.is_woken.0.store(0, Ordering::Relaxed);
        self.asleep_until_ns.0.store(until_ns, Ordering::Relaxed);
        // SYNC POINT: pairs with the fence in `must_wake`. Either the sleeper sees what was pushed or the
        // one who pushed sees the announcement.
        fence(Ordering::SeqCst);
    }

    /// Awake again.
    #[inline]
    pub fn woke(&self) {
        self.asleep_until_ns.0.store(0, Ordering::Relaxed);
    }

    /// Whether the sleeper has to be woken for what was just pushed, by the caller and nobody else.
    #[inline]
    pub fn must_wake(&self) -> bool {
        // SYNC POINT: pairs with the fence in `announce`.
        fence(Ordering::SeqCst);

        self.is_asleep() && self.is_woken.0.swap(1, Ordering::Relaxed) == 0
    }

    /// Whether a sleep is announced.
    #[inline]
    pub fn is_asleep(&self) -> bool {
        self.asleep_until_ns.0.load(Ordering::Relaxed) != 0
    }
}
