//! The two ways in which one writer publishes more than one word to any number of readers.
//!
//! ```text
//!   SeqLock    sequence | w0 w1 .. wn            odd while written; a reader retries
//!   Latch      version  | copy 0 | copy 1        never busy; the reader uses copy[version & 1]
//! ```
//!
//! Payload words are relaxed atomics, so a race is a retry and never undefined. A sequence lock left
//! odd by a killed writer stays busy until the next writer; a latch left half-written still answers
//! with its old copy. Use the latch where readers must go on while the writer is dead.
//!
//! Single writer: the process named by the structure that embeds the lock. Two writers at once give
//! wrong payloads, not undefined behaviour.

use crate::shared::Shared;
use crate::sync::{AtomicU64, Ordering, fence, spin_loop};

/// Attempts of a bounded read. Too low: a reader gives up on a writer that was only slow. Too high:
/// a reader spins on a writer that was preempted or killed inside its section.
/// (Under loom each attempt multiplies the interleavings; two show a retry.)
pub const READ_ATTEMPTS_MAX: u32 = if cfg!(loom) { 2 } else { 64 };

/// The writer is inside its section, was preempted there, or died there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the writer is busy or died while writing")]
pub struct WriterBusy;

/// The sequence word of a sequence lock, for payloads that this module does not own.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct Sequence(AtomicU64);

// SAFETY: a transparent atomic word.
unsafe impl Shared for Sequence {}

impl Sequence {
    /// Opens the writer's section: the sequence is odd from here to [`Self::end_write`]. A section
    /// left open by a killed writer is taken over.
    #[inline]
    pub fn begin_write(&self) {
        let odd = self.0.load(Ordering::Relaxed) | 1;
        self.0.store(odd, Ordering::Relaxed);
        // SYNC POINT: this release fence pairs with the acquire fence in `validate`: a reader that
        // saw any word of this section's payload sees the odd sequence (or a later one).
        fence(Ordering::Release);
    }

    /// Closes the writer's section.
    #[inline]
    pub fn end_write(&self) {
        let odd = self.0.load(Ordering::Relaxed) | 1;
        // SYNC POINT: this release store pairs with the acquire in `begin_read`: a reader that sees
        // the even sequence sees the whole payload.
        self.0.store(odd.wrapping_add(1), Ordering::Release);
    }

    /// The sequence to read under, `None` while the writer is in its section.
    #[inline]
    pub fn begin_read(&self) -> Option<u64> {
        // SYNC POINT: pairs with the release store in `end_write`.
        let sequence = self.0.load_acquire();
        (sequence & 1 == 0).then_some(sequence)
    }

    /// Whether everything read since [`Self::begin_read`] belongs to one write.
    #[inline]
    pub fn validate(&self, sequence: u64) -> bool {
        // SYNC POINT: pairs with the release fence in `begin_write`.
        fence(Ordering::Acquire);
        self.0.load(Ordering::Relaxed) == sequence
    }
}

/// `WORDS` words under a sequence lock.
#[repr(C)]
#[derive(Debug)]
pub struct SeqLock<const WORDS: usize> {
    sequence: Sequence,
    words: [AtomicU64; WORDS],
}

// SAFETY: repr(C) of shared words only.
unsafe impl<const WORDS: usize> Shared for SeqLock<WORDS> {}

impl<const WORDS: usize> Default for SeqLock<WORDS> {
    fn default() -> Self {
        Self { sequence: Sequence::default(), words: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl<const WORDS: usize> SeqLock<WORDS> {
    /// Replaces the payload. Single writer.
    #[inline]
    pub fn write(&self, words: &[u64; WORDS]) {
        self.sequence.begin_write();
        for (to, from) in self.words.iter().zip(words) {
            to.store(*from, Ordering::Relaxed);
        }
        self.sequence.end_write();
    }

    /// One attempt to read a payload that was written as a whole.
    #[inline]
    pub fn try_read(&self) -> Option<[u64; WORDS]> {
        let sequence = self.sequence.begin_read()?;
        let words = std::array::from_fn(|index| self.words[index].load(Ordering::Relaxed));
        self.sequence.validate(sequence).then_some(words)
    }

    /// Up to [`READ_ATTEMPTS_MAX`] attempts.
    pub fn read(&self) -> Result<[u64; WORDS], WriterBusy> {
        for _ in 0..READ_ATTEMPTS_MAX {
            if let Some(words) = self.try_read() {
                return Ok(words);
            }
            spin_loop();
        }
        Err(WriterBusy)
    }

    /// The payload as the writer itself last stored it, whether or not its section is open: for the
    /// writer's own read-modify-write, and for its successor after a kill.
    #[inline]
    pub fn own(&self) -> [u64; WORDS] {
        std::array::from_fn(|index| self.words[index].load(Ordering::Relaxed))
    }
}

/// The version word of a two-copy structure whose copies this module does not own.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct Version(AtomicU64);

// SAFETY: a transparent atomic word.
unsafe impl Shared for Version {}

impl Version {
    /// Which copy, 0 or 1, the writer is to fill before [`Self::publish`].
    #[inline]
    pub fn begin_write(&self) -> usize {
        let version = self.0.load(Ordering::Relaxed);
        // SYNC POINT: this release fence pairs with the acquire fence in `validate`: a reader that
        // saw a word of the coming payload sees that the version has moved past the copy's old use.
        fence(Ordering::Release);
        (version.wrapping_add(1) & 1) as usize
    }

    /// Makes the filled copy the current one.
    #[inline]
    pub fn publish(&self) {
        let version = self.0.load(Ordering::Relaxed);
        // SYNC POINT: this release store pairs with the acquire in `current`.
        self.0.store(version.wrapping_add(1), Ordering::Release);
    }

    /// The current version; its copy is `version & 1`. 0 until the first publish.
    #[inline]
    pub fn current(&self) -> u64 {
        // SYNC POINT: pairs with the release store in `publish`.
        self.0.load_acquire()
    }

    /// Whether the copy read since [`Self::current`] was still the current one at its end.
    #[inline]
    pub fn validate(&self, version: u64) -> bool {
        // SYNC POINT: pairs with the release fence in `begin_write`.
        fence(Ordering::Acquire);
        self.0.load(Ordering::Relaxed) == version
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::{Outcome, kill_after};

    #[test]
    fn a_payload_comes_back_whole() {
        let lock = SeqLock::<3>::default();
        assert_eq!(lock.read(), Ok([0; 3]));
        lock.write(&[1, 2, 3]);
        assert_eq!(lock.read(), Ok([1, 2, 3]));
        assert_eq!(lock.own(), [1, 2, 3]);
    }

    #[test]
    fn a_killed_writer_leaves_the_old_value_or_busy_and_its_successor_repairs_it() {
        // Stores of a write: the odd sequence, three words, the even sequence.
        for stores in 0..=5 {
            let lock = SeqLock::<3>::default();
            lock.write(&[1; 3]);
            let outcome = kill_after(stores, || lock.write(&[2; 3]));
            match stores {
                0 => assert_eq!(lock.read(), Ok([1; 3])),
                5 => {
                    assert_eq!(outcome, Outcome::Finished(()));
                    assert_eq!(lock.read(), Ok([2; 3]));
                }
                _ => assert_eq!(lock.read(), Err(WriterBusy), "after {stores} stores"),
            }
            lock.write(&[3; 3]);
            assert_eq!(lock.read(), Ok([3; 3]));
        }
    }

    #[test]
    fn readers_never_see_a_mixture() {
        let lock = SeqLock::<4>::default();
        let rounds = if cfg!(miri) { 200 } else { 200_000 };
        std::thread::scope(|scope| {
            scope.spawn(|| (1..=rounds).for_each(|round| lock.write(&[round; 4])));
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut last = 0;
                    while last < rounds {
                        if let Some(words) = lock.try_read() {
                            assert_eq!(words, [words[0]; 4]);
                            assert!(words[0] >= last);
                            last = words[0];
                        }
                        std::thread::yield_now();
                    }
                });
            }
        });
    }
}
