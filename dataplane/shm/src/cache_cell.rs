//! Which caches a node has: one cell a place, written by the supervisor.
//!
//! A place is what everything else knows a cache by: its metric banks, its hot words, the number in a
//! command of the front. A place that is used again has another generation. Everybody reads.

use crate::cells::{text_words, words_text};
use crate::seqlock::{SeqLock, WriterBusy};
use crate::shared::{Padded, Shared};

/// Bytes of a cache's id; the id rules allow 63.
pub const CACHE_ID_BYTES_MAX: usize = 64;

const ID_WORDS: usize = CACHE_ID_BYTES_MAX / 8;

/// Where a cache is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CacheState {
    /// No cache has this place.
    #[default]
    None = 0,
    /// Its memory is being made.
    Creating = 1,
    /// It is served.
    Serving = 2,
    /// It is no longer served; its memory goes.
    Removing = 3,
}

impl CacheState {
    /// Name in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Creating => "creating",
            Self::Serving => "serving",
            Self::Removing => "removing",
        }
    }

    fn from_code(code: u64) -> Self {
        match code {
            1 => Self::Creating,
            2 => Self::Serving,
            3 => Self::Removing,
            _ => Self::None,
        }
    }
}

/// What the supervisor says about the cache of one place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheIdentity {
    /// Its id, at most 64 bytes; longer is cut at a character.
    pub id: String,
    /// Counts the caches of the node; never used twice while the node runs. 0 before the first of this
    /// place.
    pub generation: u32,
    /// Where it is in its life.
    pub state: CacheState,
    /// UDP and TCP port.
    pub port: u16,
    /// Memory of the table in MiB.
    pub max_memory_mb: u32,
    /// Longest value a client may store, in bytes.
    pub max_value_bytes: u32,
    /// Whether its hot keys are answered in XDP.
    pub has_hot_set: bool,
}

/// One place. Its only writer is the supervisor.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct CacheCell(Padded<SeqLock<{ 2 + ID_WORDS }>>);

// SAFETY: repr(C) of shared words only; padding is never read.
unsafe impl Shared for CacheCell {}

impl CacheCell {
    /// Replaces the identity.
    pub fn set_identity(&self, identity: &CacheIdentity) {
        let mut words = [0; 2 + ID_WORDS];
        words[0] = u64::from(identity.generation)
            | u64::from(identity.port) << 32
            | (identity.state as u64) << 48
            | u64::from(identity.has_hot_set) << 56;
        words[1] = u64::from(identity.max_memory_mb) | u64::from(identity.max_value_bytes) << 32;
        words[2..].copy_from_slice(&text_words::<ID_WORDS>(&identity.id));
        self.0.0.write(&words);
    }

    /// The identity as one.
    pub fn identity(&self) -> Result<CacheIdentity, WriterBusy> {
        self.0.0.read().map(|words| Self::from_words(&words))
    }

    /// The identity as the supervisor itself wrote it, or as its dead predecessor left it.
    pub fn own_identity(&self) -> CacheIdentity {
        Self::from_words(&self.0.0.own())
    }

    fn from_words(words: &[u64; 2 + ID_WORDS]) -> CacheIdentity {
        CacheIdentity {
            id: words_text(&words[2..]),
            generation: words[0] as u32,
            state: CacheState::from_code(words[0] >> 48 & 0xff),
            port: (words[0] >> 32) as u16,
            max_memory_mb: words[1] as u32,
            max_value_bytes: (words[1] >> 32) as u32,
            has_hot_set: words[0] >> 56 & 1 == 1,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::shared::zeroed_box;

    #[test]
    fn what_was_written_is_read_and_an_unused_place_is_none() {
        let cell = zeroed_box::<CacheCell>();
        assert_eq!(cell.identity(), Ok(CacheIdentity::default()));
        let identity = CacheIdentity {
            id: "q".repeat(63),
            generation: u32::MAX,
            state: CacheState::Removing,
            port: u16::MAX,
            max_memory_mb: 65_536,
            max_value_bytes: 1 << 20,
            has_hot_set: true,
        };
        cell.set_identity(&identity);
        assert_eq!(cell.identity(), Ok(identity.clone()));
        assert_eq!(cell.own_identity(), identity);
    }
}
