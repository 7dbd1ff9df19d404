//! What a UMEM memfd says about itself, on its last page: enough for a worker to map the socket
//! without being told anything else. Written once by the supervisor before any worker exists.

use nautilus_shm::ledger::LEDGER_LAYOUT_VERSION;
use nautilus_shm::sync::{AtomicU32, Ordering};

use super::mapping::Mapping;
use super::{CopyMode, UmemSpec, XskError};

/// Bytes at the end of the memfd.
pub const HEADER_BYTES: usize = 4096;

/// "NEUMEM" and the header's own layout version.
const MAGIC: [u32; 2] = [0x4d45_554e, 0x0001_4d45];

/// Geometry and address of a bound socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub spec: UmemSpec,
    pub ifindex: u32,
    pub queue: u32,
    pub mode: CopyMode,
}

const WORDS: usize = 13;

impl Header {
    fn words(&self) -> [u32; WORDS] {
        let UmemSpec { frames, chunk_bytes, huge_pages, entries } = self.spec;
        [
            MAGIC[0],
            MAGIC[1],
            LEDGER_LAYOUT_VERSION,
            frames,
            chunk_bytes,
            u32::from(huge_pages),
            entries[0],
            entries[1],
            entries[2],
            entries[3],
            self.ifindex,
            self.queue,
            u32::from(self.mode == CopyMode::ZeroCopy),
        ]
    }

    fn slots(mapping: &Mapping) -> Option<&[AtomicU32]> {
        mapping.atomics(mapping.bytes().checked_sub(HEADER_BYTES)?, WORDS)
    }

    /// Writes the header; the magic, which makes it one, comes last.
    pub fn write(&self, mapping: &Mapping) {
        let slots = Self::slots(mapping).expect("a UMEM has room for its header");
        for (slot, word) in slots.iter().zip(self.words()).rev() {
            slot.store(word, Ordering::Release);
        }
    }

    /// Reads and checks the header against the size of the mapping it lies in.
    pub fn read(mapping: &Mapping) -> Result<Self, XskError> {
        let problem = |problem: String| XskError::Header { problem };
        let slots = Self::slots(mapping).ok_or_else(|| problem("is too small".into()))?;
        let words: [u32; WORDS] = std::array::from_fn(|slot| slots[slot].load(Ordering::Acquire));
        if words[..2] != MAGIC {
            return Err(problem(format!("starts with {:x?}, not {MAGIC:x?}", &words[..2])));
        }
        if words[2] != LEDGER_LAYOUT_VERSION {
            return Err(problem(format!(
                "has layout version {}, this program speaks {LEDGER_LAYOUT_VERSION}",
                words[2]
            )));
        }
        let spec = UmemSpec {
            frames: words[3],
            chunk_bytes: words[4],
            huge_pages: words[5] != 0,
            entries: [words[6], words[7], words[8], words[9]],
        };
        spec.check()?;
        if spec.total_bytes() != mapping.bytes() {
            return Err(problem(format!(
                "has {} bytes, its header says {}",
                mapping.bytes(),
                spec.total_bytes()
            )));
        }
        let mode = if words[12] != 0 { CopyMode::ZeroCopy } else { CopyMode::Copy };
        Ok(Self { spec, ifindex: words[10], queue: words[11], mode })
    }
}
