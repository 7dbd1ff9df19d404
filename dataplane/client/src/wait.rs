//! Waiting until a key is another than it was.
//!
//! ```text
//!   look (a whole get) -> as it was -> its buckets are watched for 20 us, then after ever longer
//!        ^                             pauses, up to 200 us; what changes there is looked at
//!        +------------------------------------------------------------------+
//! ```
//!
//! The writer wakes nobody: that would cost it a system call a write. Every pause ends in a whole look,
//! so that what changes no bucket (expiry, a flush, a silent feed, a dead node) is seen too.

use std::time::Duration;

use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::table::Watch;

use crate::error::{ReadError, WaitError};
use crate::reader::{CacheReader, VERSION_MISS, VERSION_SUSPECT, Value};

/// How long a wait watches without a pause, in nanoseconds. Too low: a change that is about to come is
/// met by a sleeping thread; too high: a core burns for keys that rest.
pub const SPIN_NS: u64 = 20_000;

/// First pause of a wait, in nanoseconds.
const PAUSE_NS_MIN: u64 = 10_000;

/// Longest pause of a wait, in nanoseconds; the kernel adds its timer slack, 50 us for a thread of the
/// normal scheduler. Too low: waiting costs a core; too high: a change is seen late.
pub const PAUSE_NS_MAX: u64 = 200_000;

impl CacheReader {
    /// Waits until `key` differs from `last_version` and returns what it is then, its value in `out`.
    ///
    /// `last_version` is the version last seen: of a [`Value`], [`VERSION_MISS`] when the key was not
    /// there, [`VERSION_SUSPECT`] when it was suspect. A key that went away is the answer
    /// [`ReadError::Miss`], one that turned suspect [`ReadError::Suspect`]. Changes between two looks
    /// are seen as one. A timeout of zero looks once. [`ReadError::Detached`] ends the wait unless
    /// [`Self::set_automatic`] is on.
    pub fn wait_for_change(
        &mut self,
        key: &[u8],
        last_version: u64,
        out: &mut [u8],
        timeout: Duration,
    ) -> Result<Value, WaitError> {
        let begun_ns = monotonic_ns();
        let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        let mut waiting = Waiting {
            spin_until_ns: begun_ns + SPIN_NS,
            deadline_ns: begun_ns.saturating_add(timeout_ns),
            pause_ns: PAUSE_NS_MIN,
        };
        loop {
            // Before the look: whatever changes after it is seen.
            let watch = self.memory.table.watch(key);
            let now_ns = monotonic_ns();
            match self.memory.get(key, now_ns, out) {
                Ok(value) if value.version != last_version => return Ok(value),
                Err(ReadError::Miss) if last_version != VERSION_MISS => {
                    return Err(ReadError::Miss.into());
                }
                Err(ReadError::Suspect) if last_version != VERSION_SUSPECT => {
                    return Err(ReadError::Suspect.into());
                }
                Err(error @ (ReadError::LeaseExpired | ReadError::BufferTooSmall { .. })) => {
                    return Err(error.into());
                }
                Err(ReadError::Detached) if !self.is_automatic() => {
                    return Err(ReadError::Detached.into());
                }
                Err(ReadError::Detached) => {
                    self.reattach_in_turn();
                }
                Ok(_) | Err(ReadError::Miss | ReadError::Suspect | ReadError::WriterBusy) => {}
            }
            if now_ns >= waiting.deadline_ns {
                return Err(WaitError::TimedOut);
            }
            self.rest(&watch, &mut waiting);
        }
    }

    /// Returns when the buckets have changed, or when it is time for a look.
    fn rest(&self, watch: &Watch, waiting: &mut Waiting) {
        let mut now_ns = monotonic_ns();
        while now_ns < waiting.spin_until_ns.min(waiting.deadline_ns) {
            if self.memory.table.changed(watch) {
                return;
            }
            std::hint::spin_loop();
            now_ns = monotonic_ns();
        }
        // Whatever the buckets say: a busy neighbour of the key must not keep this thread awake.
        let left_ns = waiting.deadline_ns.saturating_sub(now_ns);
        std::thread::sleep(Duration::from_nanos(waiting.pause_ns.min(left_ns)));
        waiting.pause_ns = (waiting.pause_ns * 2).min(PAUSE_NS_MAX);
    }
}

/// How far a wait has come.
struct Waiting {
    spin_until_ns: u64,
    deadline_ns: u64,
    pause_ns: u64,
}
