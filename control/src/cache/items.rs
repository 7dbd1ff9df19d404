//! Items of all caches of all nodes: found, read, changed.

use super::command::{Condition, KEY_RULE, Reply, delete, store};
use super::item::Item;
use super::key::Key;
use super::readers::{ReadFailure, Readers};
use super::whereabouts::{NoPlace, Place, find};
use super::writers::{WriteFailure, Writers};
use crate::watcher::Watcher;

/// Why an item could not be read or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// Which cache is meant.
    #[error(transparent)]
    Place(#[from] NoPlace),
    /// A read.
    #[error(transparent)]
    Read(#[from] ReadFailure),
    /// A change that has no answer.
    #[error(transparent)]
    Write(#[from] WriteFailure),
    /// What the condition asks for is not so. Nothing was changed.
    #[error("{0}")]
    Condition(&'static str),
    /// The key cannot be written. Nothing was changed.
    #[error("{KEY_RULE}")]
    Key,
    /// The value is longer than the cache takes.
    #[error("the value has {bytes} bytes, the cache takes {bytes_max}{}", if *.is_gone { "; what the key had is gone" } else { "" })]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// What the cache takes.
        bytes_max: u32,
        /// Whether the old value was lost over it.
        is_gone: bool,
    },
    /// The cache has no memory for a value of this length.
    #[error("the cache has no memory for {0} bytes; what the key had is gone")]
    NoMemory(usize),
    /// A feed publishes the key. Nothing was changed.
    #[error("a feed of the node publishes this key: nobody else writes it")]
    FeedOwned,
}

const OTHER_VERSION: &str = "the key has another version";
const ABSENT: &str = "the key is not there";

/// All items.
#[derive(Debug)]
pub struct Items {
    watcher: Watcher,
    readers: Readers,
    writers: Writers,
}

impl Items {
    /// The items of these nodes' caches.
    pub fn new(watcher: Watcher) -> Self {
        Self { watcher, readers: Readers::default(), writers: Writers::default() }
    }

    /// Where a cache is.
    pub fn place(&self, id: &str, node: Option<&str>) -> Result<Place, NoPlace> {
        find(&self.watcher.links(), id, node)
    }

    /// Reads a key.
    pub async fn read(&self, place: &Place, key: &Key) -> Result<Item, ItemError> {
        let id = &place.identity.id;
        let read = self.readers.look(&place.run_dir, id, key).await;
        if read == Err(ReadFailure::NoCache) {
            self.forget(place);
        }
        Ok(read?)
    }

    /// Stores a value if the condition holds, and returns its version.
    pub async fn store(
        &self,
        place: &Place,
        key: &Key,
        value: &[u8],
        ttl_ms: Option<u64>,
        condition: Condition,
    ) -> Result<Option<u64>, ItemError> {
        let (bytes, bytes_max) = (value.len(), place.identity.max_value_bytes);
        // The front would take the old value away.
        if bytes > bytes_max as usize {
            return Err(ItemError::TooLarge { bytes, bytes_max, is_gone: false });
        }
        let command = store(key, value, ttl_ms, condition).ok_or(ItemError::Key)?;
        match self.ask(place, &command).await? {
            Reply::Done(version) => Ok(version),
            Reply::TooLarge | Reply::NoMemory => Err(ItemError::NoMemory(bytes)),
            Reply::FeedOwned => Err(ItemError::FeedOwned),
            Reply::Exists => Err(ItemError::Condition(OTHER_VERSION)),
            _ if condition == Condition::Absent => Err(ItemError::Condition("the key is there")),
            _ => Err(ItemError::Condition(ABSENT)),
        }
    }

    /// Deletes a key if the condition holds.
    pub async fn delete(
        &self,
        place: &Place,
        key: &Key,
        condition: Condition,
    ) -> Result<(), ItemError> {
        let version = match condition {
            Condition::Version(version) => Some(version),
            _ => None,
        };
        let command = delete(key, version).ok_or(ItemError::Key)?;
        match self.ask(place, &command).await? {
            Reply::Done(_) => Ok(()),
            Reply::FeedOwned => Err(ItemError::FeedOwned),
            Reply::NotFound if condition == Condition::Always => Err(ReadFailure::Miss.into()),
            Reply::NotFound => Err(ItemError::Condition(ABSENT)),
            _ => Err(ItemError::Condition(OTHER_VERSION)),
        }
    }

    async fn ask(&self, place: &Place, command: &[u8]) -> Result<Reply, ItemError> {
        let asked = self.writers.ask(&place.run_dir, &place.identity.id, command).await;
        if asked == Err(WriteFailure::NoCache) {
            self.forget(place);
        }
        Ok(asked?)
    }

    /// Lets go of what is held of a cache that is gone.
    pub fn forget(&self, place: &Place) {
        self.readers.forget(&place.run_dir, &place.identity.id);
        self.writers.forget(&place.run_dir, &place.identity.id);
    }
}
