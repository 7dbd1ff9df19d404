//! Items read out of the caches' shared memory, as any reader on the host does.
//!
//! ```text
//!   look --> mapped? --heartbeat older than 1 s--> attach again --not heard--> Detached, with the reason
//!              | value whole, valid                     | another memory: read there
//!              v                                        v
//!            item <--------------------------------------
//! ```
//!
//! Nothing is kept of what was read: each look is at the memory, between question and answer. One reader a
//! cache, used by one request at a time; attaching blocks, so it has a thread.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::{Duration, Instant};

use nautilus_client::{AttachError, CacheReader, Look, ReadError, VALUE_BYTES_MAX};
use nautilus_shm::attach::Code;
use tokio::sync::Mutex;

use super::item::Item;
use super::key::Key;

/// How long a key that is being written is tried. Too low: a worker that died in the middle of a change makes
/// errors; too high: a client waits for one that does not come back.
const BUSY_MAX: Duration = Duration::from_millis(500);

/// Pause between two tries of it.
const BUSY_PAUSE: Duration = Duration::from_micros(200);

/// How long the reason why a cache could not be attached holds. Too low: each request to a dead node asks for
/// it; too high: one that is back is read late.
const REASON_HOLDS: Duration = Duration::from_millis(100);

/// Room for a value at first; longer ones are read again.
const VALUE_BYTES_USUAL: usize = 4096;

/// Why there is no item.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadFailure {
    /// The key is not there.
    #[error("no such key")]
    Miss,
    /// The node has no cache of this id.
    #[error("no such cache")]
    NoCache,
    /// The node has not been heard for 1 s, or refuses.
    #[error("the cache is detached from its node: {0}")]
    Detached(String),
    /// The host may not answer for the cache at the moment.
    #[error("the lease of this cache has run out")]
    LeaseExpired,
    /// The key was being written all the time.
    #[error("the key is being written, by a worker that may have died over it; ask again")]
    Busy,
}

/// A cache: run directory of its node, and its id.
type Name = (PathBuf, String);

/// The caches that are mapped.
#[derive(Debug, Default)]
pub struct Readers {
    slots: StdMutex<HashMap<Name, Arc<Mutex<Slot>>>>,
}

#[derive(Debug, Default)]
struct Slot {
    reader: Option<CacheReader>,
    /// Why the last try to attach failed.
    failed: Option<(Instant, ReadFailure)>,
}

impl Readers {
    /// Reads a key of the cache `id` of the node at `run_dir`. What is returned was true at some instant
    /// between call and return.
    pub async fn look(&self, run_dir: &Path, id: &str, key: &Key) -> Result<Item, ReadFailure> {
        let slot = self.slot(run_dir, id);
        let until = Instant::now() + BUSY_MAX;
        let mut attached = false;
        loop {
            let mut held = slot.lock().await;
            match held.look(key) {
                Ok(item) => return Ok(item),
                Err(ReadError::Miss | ReadError::Suspect) => return Err(ReadFailure::Miss),
                Err(ReadError::LeaseExpired) => return Err(ReadFailure::LeaseExpired),
                Err(ReadError::Detached) if attached => {
                    return Err(ReadFailure::Detached("not heard for 1 s".into()));
                }
                Err(ReadError::Detached) => {
                    held.attach(run_dir, id).await?;
                    attached = true;
                    continue;
                }
                // A value that grows while it is read is read again, too.
                Err(ReadError::WriterBusy | ReadError::BufferTooSmall { .. }) => {}
            }
            drop(held);
            if Instant::now() >= until {
                return Err(ReadFailure::Busy);
            }
            tokio::time::sleep(BUSY_PAUSE).await;
        }
    }

    /// Lets go of a cache that is gone.
    pub fn forget(&self, run_dir: &Path, id: &str) {
        self.lock().remove(&(run_dir.to_owned(), id.to_owned()));
    }

    fn slot(&self, run_dir: &Path, id: &str) -> Arc<Mutex<Slot>> {
        Arc::clone(self.lock().entry((run_dir.to_owned(), id.to_owned())).or_default())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Name, Arc<Mutex<Slot>>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn look(&mut self, key: &Key) -> Result<Item, ReadError> {
        let reader = self.reader.as_mut().ok_or(ReadError::Detached)?;
        let mut bytes = vec![0; VALUE_BYTES_USUAL];
        let found: Look = match reader.look(key.bytes(), &mut bytes) {
            Err(ReadError::BufferTooSmall { value_bytes }) if value_bytes <= VALUE_BYTES_MAX => {
                bytes.resize(value_bytes, 0);
                reader.look(key.bytes(), &mut bytes)?
            }
            found => found?,
        };
        bytes.truncate(found.value.value_bytes);
        Ok(Item::of(&found, bytes))
    }

    async fn attach(&mut self, run_dir: &Path, id: &str) -> Result<(), ReadFailure> {
        if let Some((at, failure)) = &self.failed
            && at.elapsed() < REASON_HOLDS
        {
            return Err(failure.clone());
        }
        let (known, run_dir, id) = (self.reader.clone(), run_dir.to_owned(), id.to_owned());
        let ask = move || match known {
            Some(mut reader) => reader.reattach().map(|_| reader),
            None => CacheReader::attach(&run_dir, &id),
        };
        let asked = tokio::task::spawn_blocking(ask).await;
        let failure = match asked {
            Ok(Ok(reader)) => {
                (self.reader, self.failed) = (Some(reader), None);
                return Ok(());
            }
            Ok(Err(AttachError::Refused { code: Code::NoCache, .. })) => {
                self.reader = None;
                ReadFailure::NoCache
            }
            Ok(Err(error)) => ReadFailure::Detached(error.to_string()),
            Err(error) => ReadFailure::Detached(error.to_string()),
        };
        self.failed = Some((Instant::now(), failure.clone()));
        Err(failure)
    }
}
