//! The edge cache manager: caches as they are wanted, and bringing them about.
//!
//! ```text
//!   create, remove --> store (wanted) --> node's supervisor (verbs create, remove) --> answered
//!                        ^                    ^
//!   thread "caches" -----'--- each second: a node that lacks a wanted cache is given it
//! ```
//!
//! | key | value |
//! | --- | --- |
//! | `cache/wanted/{cache_id}` | a [`Wanted`] |
//!
//! What is in a cache is the node's and goes with it: a node that started anew is given an empty one. A death
//! at any instant leaves a cache wanted or not wanted, and the thread makes it so. Methods block.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nautilus_shm::attach::{CACHES_MAX, Code};
use nautilus_shm::cache_cell::{CacheIdentity, CacheState};
use serde::{Deserialize, Serialize};

use super::configuration::CacheConfiguration;
use super::whereabouts::{NoPlace, find};
use crate::attach::{ReachError, create_cache, remove_cache};
use crate::link::{Attachment, Link};
use crate::store::{Compare, Revision, Store, StoreError, Transaction};
use crate::view::ids;
use crate::watcher::Watcher;

/// Pause between two looks at what is wanted. Too low: the store is read all day; too high: a node that
/// started anew is without its caches for longer.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// Pause after a node refused a cache that is wanted. Too low: its log fills; too high: it is late where the
/// reason has gone.
const AGAIN: Duration = Duration::from_secs(5);

const WANTED: &str = "cache/wanted/";

/// What the store holds of one cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// As it should be.
    pub configuration: CacheConfiguration,
    /// It is to go.
    pub is_removing: bool,
}

/// Why a cache was not created, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Another of this id is wanted.
    #[error("cache {0} is there with another configuration: choose another id, or delete it first")]
    Conflict(String),
    /// The port is another cache's.
    #[error("port {port} of {node_id} is that of cache {other}")]
    Port {
        /// Which port.
        port: u16,
        /// Of which node.
        node_id: String,
        /// Whose it is.
        other: String,
    },
    /// There is none.
    #[error(transparent)]
    Place(#[from] NoPlace),
    /// It was not made over REST: there is no configuration to be changed.
    #[error(
        "cache {0} is in no configuration of control: the node file or its command line made it"
    )]
    NotManaged(String),
    /// The tag is another's.
    #[error("the configuration has changed meanwhile: its tag is {0}")]
    Changed(String),
    /// These fields cannot be changed while the cache is there.
    #[error(
        "what a cache is made with cannot change while it is there ({}): delete it and create it anew, \
         which empties it", .0.join(", ")
    )]
    Fixed(Vec<String>),
    /// The node is not attached. Nothing was done.
    #[error("node {node_id} is not attached: {reason}; nothing was done")]
    Unreachable {
        /// Which node.
        node_id: String,
        /// Why.
        reason: String,
    },
    /// The node said no. Nothing was done.
    #[error("{0}")]
    NodeRefused(String),
    /// The node said no, and that nothing is wanted of it any more could not be written; the thread goes on.
    #[error(
        "the node refused: {said}; that could not be written down, and is as soon as it can be: {source}"
    )]
    NotWritten {
        /// What the node said.
        said: String,
        /// Why the store did not take it.
        source: StoreError,
    },
    /// The node did not say how it went; the thread goes on.
    #[error("{0}; it is gone on with until it is so")]
    Unknown(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no store.
    #[error("caches are created where they can be remembered: configure [control.store]")]
    NoStore,
    /// A record that this version cannot read.
    #[error("the store's record of cache {0} cannot be read: {1}")]
    Record(String, String),
}

/// How a creation went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The node has it now.
    New,
    /// It was so already.
    Already,
    /// It would be made.
    Would,
}

/// Caches as they are wanted.
pub struct EdgeCacheManager {
    watcher: Watcher,
    store: Option<Arc<dyn Store>>,
    turns: Mutex<BTreeMap<String, Arc<Mutex<()>>>>,
    troubles: Mutex<BTreeMap<String, (Instant, String)>>,
    /// What the node refused and the store had no room to take back: the revision of it, and what was before.
    undos: Mutex<BTreeMap<String, (Revision, Option<Wanted>)>>,
}

impl EdgeCacheManager {
    /// The caches of these nodes; without a store they can be looked at and removed, no more. Starts the
    /// thread that keeps them, which ends with the process.
    pub fn start(watcher: Watcher, store: Option<Arc<dyn Store>>) -> std::io::Result<Arc<Self>> {
        let (turns, troubles, undos) = Default::default();
        let own = Arc::new(Self { watcher, store, turns, troubles, undos });
        if own.store.is_some() {
            let keeper = Arc::clone(&own);
            std::thread::Builder::new().name("caches".into()).spawn(move || {
                loop {
                    keeper.keep_all();
                    std::thread::sleep(LOOK_PAUSE);
                }
            })?;
        }
        Ok(own)
    }

    /// The nodes, each with its region.
    pub fn nodes(&self) -> Vec<(String, Option<String>)> {
        let links = self.watcher.links();
        ids(&links).into_iter().zip(links).map(|(id, link)| (id, link.spec.region)).collect()
    }

    /// Every cache that is wanted, with its revision.
    pub fn wanted(&self) -> Result<Vec<(Wanted, Revision)>, CacheError> {
        let Some(store) = &self.store else { return Ok(Vec::new()) };
        let entries = store.list(WANTED)?.entries;
        entries
            .iter()
            .map(|entry| Ok((decode(&entry.key, &entry.value)?, entry.modify_revision)))
            .collect()
    }

    /// One of them.
    pub fn wanted_one(&self, id: &str) -> Result<Option<(Wanted, Revision)>, CacheError> {
        let Some(store) = &self.store else { return Ok(None) };
        let entry = store.get(&format!("{WANTED}{id}"))?;
        entry.map(|entry| Ok((decode(id, &entry.value)?, entry.modify_revision))).transpose()
    }

    /// Why the node has not got a cache that is wanted; empty otherwise.
    pub fn trouble(&self, id: &str) -> String {
        lock(&self.troubles).get(id).map_or_else(String::new, |(_, text)| text.clone())
    }

    /// Has a cache made and kept. The same again is fine.
    pub fn create(
        &self,
        wanted: &CacheConfiguration,
        dry_run: bool,
    ) -> Result<Created, CacheError> {
        let id = &wanted.cache_id;
        let store = self.store.as_ref().ok_or(CacheError::NoStore)?;
        let turn = self.turn(id);
        let _turn = lock(&turn);
        self.settle(id)?;
        match self.wanted_one(id)? {
            Some((found, _)) if found.configuration == *wanted && !found.is_removing => {
                let link = self.link(&wanted.node_id)?;
                if cell(&link, id).is_none() && !dry_run {
                    self.make(wanted, &link)?;
                }
                return Ok(Created::Already);
            }
            Some(_) => return Err(CacheError::Conflict(id.clone())),
            None => {}
        }
        let link = self.link(&wanted.node_id)?;
        let mut others = cells(&link).into_iter();
        if let Some(other) = others.find(|one| one.port == wanted.port && one.id != *id) {
            let (port, node_id, other) = (wanted.port, wanted.node_id.clone(), other.id);
            return Err(CacheError::Port { port, node_id, other });
        }
        if let Err(NoPlace::Several(_)) | Ok(_) = find(&self.watcher.links(), id, None)
            && cell(&link, id).is_none()
        {
            return Err(CacheError::Conflict(id.clone()));
        }
        if dry_run {
            return Ok(Created::Would);
        }
        let record = Wanted { configuration: wanted.clone(), is_removing: false };
        let key = format!("{WANTED}{id}");
        let put = Transaction::new().when(&key, Compare::Absent).put(&key, encode(&record));
        let Some(revision) = store.commit(&put)?.committed() else {
            return Err(CacheError::Conflict(id.clone()));
        };
        match self.make(wanted, &link) {
            Ok(()) => Ok(Created::New),
            // It never was: what the node says no to is not wanted on.
            Err(CacheError::NodeRefused(said)) => Err(self.take_back(id, revision, None, said)),
            Err(error) => Err(error),
        }
    }

    /// Gives a cache another configuration, if its tag is still this one.
    pub fn configure(
        &self,
        wanted: &CacheConfiguration,
        holds: impl Fn(Revision) -> Result<(), CacheError>,
        dry_run: bool,
    ) -> Result<Revision, CacheError> {
        let id = &wanted.cache_id;
        let store = self.store.as_ref().ok_or(CacheError::NoStore)?;
        let turn = self.turn(id);
        let _turn = lock(&turn);
        self.settle(id)?;
        let Some((found, revision)) = self.wanted_one(id)? else {
            find(&self.watcher.links(), id, None)?;
            return Err(CacheError::NotManaged(id.clone()));
        };
        holds(revision)?;
        let fields = found.configuration.differences(wanted);
        if fields.is_empty() {
            return Ok(revision);
        }
        // What the node has is made of them. A cache that it has not got can still be any other.
        let link = self.link(&found.configuration.node_id)?;
        if found.is_removing || cell(&link, id).is_some() {
            return Err(CacheError::Fixed(fields));
        }
        if dry_run {
            return Ok(revision);
        }
        let key = format!("{WANTED}{id}");
        let record = Wanted { configuration: wanted.clone(), is_removing: false };
        let now = Compare::ModifiedAt(revision);
        let put = Transaction::new().when(&key, now).put(&key, encode(&record));
        let Some(revision) = store.commit(&put)?.committed() else {
            return Err(CacheError::Conflict(id.clone()));
        };
        lock(&self.troubles).remove(id);
        Ok(revision)
    }

    /// Removes a cache and all that is in it; `holds` judges the tag of its configuration, if it has one.
    pub fn remove(
        &self,
        id: &str,
        node: Option<&str>,
        holds: impl Fn(Option<Revision>) -> Result<(), CacheError>,
        dry_run: bool,
    ) -> Result<(), CacheError> {
        let turn = self.turn(id);
        let _turn = lock(&turn);
        self.settle(id)?;
        let wanted = self.wanted_one(id)?;
        holds(wanted.as_ref().map(|(_, revision)| *revision))?;
        let node_id = match (&wanted, node) {
            (Some((found, _)), None) => found.configuration.node_id.clone(),
            (Some((found, _)), Some(node)) if found.configuration.node_id == node => node.into(),
            _ => find(&self.watcher.links(), id, node)?.node_id,
        };
        let wanted = wanted.filter(|(found, _)| found.configuration.node_id == node_id);
        let link = self.link(&node_id)?;
        if dry_run {
            return Ok(());
        }
        let (Some(store), Some((found, revision))) = (&self.store, wanted) else {
            return unmake(&link.spec.run_dir, id);
        };
        let key = format!("{WANTED}{id}");
        let marked = Wanted { is_removing: true, ..found.clone() };
        let now = Compare::ModifiedAt(revision);
        let put = Transaction::new().when(&key, now).put(&key, encode(&marked));
        let Some(revision) = store.commit(&put)?.committed() else {
            return Err(CacheError::Conflict(id.into()));
        };
        match unmake(&link.spec.run_dir, id) {
            // It is gone, and the mark says that it should be: the thread writes down that nothing is left to do.
            Ok(()) => match store.commit(&Transaction::new().delete(&key)) {
                Ok(_) => {
                    lock(&self.troubles).remove(id);
                    Ok(())
                }
                Err(error) => Err(CacheError::Unknown(error.to_string())),
            },
            Err(CacheError::NodeRefused(said)) => {
                Err(self.take_back(id, revision, Some(found), said))
            }
            Err(error) => Err(error),
        }
    }

    /// Writes down what was wanted before the node refused what is wanted since `revision`; now or as soon as it can.
    fn take_back(
        &self,
        id: &str,
        revision: Revision,
        before: Option<Wanted>,
        said: String,
    ) -> CacheError {
        lock(&self.undos).insert(id.into(), (revision, before));
        match self.settle(id) {
            Err(CacheError::Store(source)) => CacheError::NotWritten { said, source },
            _ => CacheError::NodeRefused(said),
        }
    }

    /// Writes down what could not be written before. Whoever comes next with this id finds it so, or is told.
    fn settle(&self, id: &str) -> Result<(), CacheError> {
        let Some((revision, before)) = lock(&self.undos).get(id).cloned() else { return Ok(()) };
        if let Some(store) = &self.store {
            let key = format!("{WANTED}{id}");
            let undo = Transaction::new().when(&key, Compare::ModifiedAt(revision));
            store.commit(&match before {
                Some(before) => undo.put(&key, encode(&before)),
                None => undo.delete(&key),
            })?;
        }
        lock(&self.undos).remove(id);
        Ok(())
    }

    /// Looks at everything that is wanted, and has done what is missing.
    fn keep_all(&self) {
        let Ok(all) = self.wanted() else { return };
        for (wanted, _) in all {
            let id = wanted.configuration.cache_id.clone();
            let turn = self.turn(&id);
            let Ok(_turn) = turn.try_lock() else { continue };
            let tried = lock(&self.troubles).get(&id).map(|(at, _)| *at);
            if tried.is_some_and(|at| at.elapsed() < AGAIN) {
                continue;
            }
            let kept = self.keep(&id);
            let mut troubles = lock(&self.troubles);
            match kept {
                Ok(()) => drop(troubles.remove(&id)),
                Err(error) => drop(troubles.insert(id, (Instant::now(), error.to_string()))),
            }
        }
    }

    fn keep(&self, id: &str) -> Result<(), CacheError> {
        self.settle(id)?;
        // As it is now: it was read before our turn.
        let Some((wanted, revision)) = self.wanted_one(id)? else { return Ok(()) };
        let link = self.link(&wanted.configuration.node_id)?;
        if wanted.is_removing {
            unmake(&link.spec.run_dir, id)?;
            let key = format!("{WANTED}{id}");
            let now = Compare::ModifiedAt(revision);
            let gone = Transaction::new().when(&key, now).delete(&key);
            if let Some(store) = &self.store {
                store.commit(&gone)?;
            }
            return Ok(());
        }
        match cell(&link, id) {
            Some(found) if found.port == wanted.configuration.port => Ok(()),
            Some(found) => {
                let text = format!("the node has another cache {id}, at port {}", found.port);
                Err(CacheError::NodeRefused(text))
            }
            None => self.make(&wanted.configuration, &link),
        }
    }

    /// Has the node make it; the same again is fine.
    fn make(&self, wanted: &CacheConfiguration, link: &Link) -> Result<(), CacheError> {
        let section =
            wanted.section().map_err(|error| CacheError::NodeRefused(error.to_string()))?;
        judged(create_cache(&link.spec.run_dir, &section))
    }

    /// The node, attached.
    fn link(&self, node_id: &str) -> Result<Link, CacheError> {
        let links = self.watcher.links();
        let at = ids(&links).iter().position(|id| id == node_id);
        let link = at.and_then(|at| links.into_iter().nth(at));
        let link = link.ok_or_else(|| NoPlace::NoNode(node_id.into()))?;
        if link.attachment() != Attachment::Attached {
            let reason = match link.reason.as_str() {
                "" => "its supervisor has stopped beating",
                reason => reason,
            };
            let (node_id, reason) = (node_id.into(), reason.into());
            return Err(CacheError::Unreachable { node_id, reason });
        }
        Ok(link)
    }

    fn turn(&self, id: &str) -> Arc<Mutex<()>> {
        Arc::clone(lock(&self.turns).entry(id.to_owned()).or_default())
    }
}

fn unmake(run_dir: &Path, id: &str) -> Result<(), CacheError> {
    match remove_cache(run_dir, id) {
        Err(ReachError::Refused { code: Code::NoCache, .. }) => Ok(()),
        answer => judged(answer),
    }
}

fn judged(answer: Result<String, ReachError>) -> Result<(), CacheError> {
    match answer {
        Ok(_) => Ok(()),
        Err(error @ ReachError::Answer { .. }) => Err(CacheError::Unknown(error.to_string())),
        Err(ReachError::Refused { code: Code::NotReady, .. }) => {
            Err(CacheError::Unknown("the node is still being set up".into()))
        }
        Err(ReachError::Refused { said, .. }) if !said.is_empty() => {
            Err(CacheError::NodeRefused(said.trim_start_matches(": ").into()))
        }
        Err(error) => Err(CacheError::NodeRefused(error.to_string())),
    }
}

/// The caches that a node has, or is about to have.
fn cells(link: &Link) -> Vec<CacheIdentity> {
    let Some(attached) = &link.attached else { return Vec::new() };
    let cells = (0..CACHES_MAX).filter_map(|place| attached.region.cache(place).ok());
    cells.filter(|cell| matches!(cell.state, CacheState::Creating | CacheState::Serving)).collect()
}

fn cell(link: &Link, id: &str) -> Option<CacheIdentity> {
    cells(link).into_iter().find(|cell| cell.id == id)
}

fn encode(wanted: &Wanted) -> Vec<u8> {
    // A struct of texts and numbers always serializes.
    serde_json::to_vec(wanted).unwrap_or_default()
}

fn decode(id: &str, bytes: &[u8]) -> Result<Wanted, CacheError> {
    let wrong = |error: serde_json::Error| CacheError::Record(id.into(), error.to_string());
    serde_json::from_slice(bytes).map_err(wrong)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
