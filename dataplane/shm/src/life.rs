//! Where a node is in its life, as its supervisor says: a few words beside the supervisor's cell.
//!
//! ```text
//!   parked --start--> starting --> running --park--> parking --> parked
//!                                  running, with a moment in drain_until_ns: draining
//! ```
//!
//! Single writer: the supervisor. The front reads whether it may take connections; control reads all.

use crate::cells::{text_words, words_text};
use crate::seqlock::{SeqLock, WriterBusy};
use crate::shared::Shared;
use crate::sync::{AtomicU64, Ordering};

/// Bytes of the name of a release; the rules for names allow 63.
pub const RELEASE_BYTES_MAX: usize = 64;

/// Bytes of the version that a program was built with.
pub const VERSION_BYTES_MAX: usize = 32;

const RELEASE_WORDS: usize = RELEASE_BYTES_MAX / 8;
const VERSION_WORDS: usize = VERSION_BYTES_MAX / 8;

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum NodePhase {
    /// It has its resources; workers serve or are being started.
    #[default]
    Running = 0,
    /// Its supervisor opens what it needs.
    Starting = 1,
    /// A supervisor and nothing else: no NIC resource, no worker, no cache.
    Parked = 2,
    /// Workers finish and everything is given back.
    Parking = 3,
}

impl NodePhase {
    /// Name in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Starting => "starting",
            Self::Parked => "parked",
            Self::Parking => "parking",
        }
    }

    fn from_code(code: u64) -> Self {
        match code {
            1 => Self::Starting,
            2 => Self::Parked,
            3 => Self::Parking,
            _ => Self::Running,
        }
    }
}

/// What a node runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Release {
    /// Name of its folder below the node's releases; empty for the programs the node was started with.
    pub name: String,
    /// Version that its supervisor was built with.
    pub version: String,
}

/// The words.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct LifeCell {
    phase: AtomicU64,
    drain_until_ns: AtomicU64,
    front_leave: AtomicU64,
    release: SeqLock<{ RELEASE_WORDS + VERSION_WORDS }>,
}

// SAFETY: repr(C) of shared words only; padding is never read.
unsafe impl Shared for LifeCell {}

impl LifeCell {
    /// Says where the node is.
    pub fn set_phase(&self, phase: NodePhase) {
        self.phase.store(phase as u64, Ordering::Relaxed);
    }

    /// Where the node is.
    pub fn phase(&self) -> NodePhase {
        NodePhase::from_code(self.phase.load(Ordering::Relaxed))
    }

    /// From now on no new TCP connection is taken, and at this moment (`CLOCK_MONOTONIC`) those that are
    /// left are closed; 0 takes clients again.
    pub fn set_drain_until(&self, moment_ns: u64) {
        self.drain_until_ns.store(moment_ns, Ordering::Relaxed);
    }

    /// When the last connections are closed; 0 for a node that takes clients.
    pub fn drain_until_ns(&self) -> u64 {
        self.drain_until_ns.load(Ordering::Relaxed)
    }

    /// Fronts up to this generation are to leave: another one waits.
    pub fn set_front_leave(&self, generation: u64) {
        self.front_leave.store(generation, Ordering::Relaxed);
    }

    /// The last generation of fronts that are to leave.
    pub fn front_leave(&self) -> u64 {
        self.front_leave.load(Ordering::Relaxed)
    }

    /// Says what the node runs; longer texts are cut at a character.
    pub fn set_release(&self, release: &Release) {
        let mut words = [0; RELEASE_WORDS + VERSION_WORDS];
        words[..RELEASE_WORDS].copy_from_slice(&text_words::<RELEASE_WORDS>(&release.name));
        words[RELEASE_WORDS..].copy_from_slice(&text_words::<VERSION_WORDS>(&release.version));
        self.release.write(&words);
    }

    /// What the node runs.
    pub fn release(&self) -> Result<Release, WriterBusy> {
        let words = self.release.read()?;
        let (name, version) = words.split_at(RELEASE_WORDS);
        Ok(Release { name: words_text(name), version: words_text(version) })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::shared::zeroed_box;

    #[test]
    fn what_was_written_is_read() {
        let cell = zeroed_box::<LifeCell>();
        assert_eq!((cell.phase(), cell.drain_until_ns()), (NodePhase::Running, 0));
        assert_eq!(cell.release(), Ok(Release::default()));
        for phase in
            [NodePhase::Starting, NodePhase::Parked, NodePhase::Parking, NodePhase::Running]
        {
            cell.set_phase(phase);
            assert_eq!(cell.phase(), phase);
        }
        let release = Release { name: "r".repeat(63), version: "0.1.0".into() };
        cell.set_release(&release);
        assert_eq!(cell.release(), Ok(release));
    }
}
