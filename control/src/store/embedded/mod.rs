//! The store of one host: one redb file, one writing process, every commit on disk before its answer.
//!
//! ```text
//!   commit -> write lock -> leases due end -> conditions -> entries + events + head, one redb transaction
//!          -> fsync -> head published -> watches wake, read the events they have not seen
//! ```
//!
//! Written by the one process that has the file locked; read by nobody else. Changes are kept as events
//! for watches, the latest [`Options::history_revisions`] of them at least.
//!
//! After a failed read or write the file is closed, and opened and checked again by the next call: a full
//! disk that has space again needs no restart.

mod apply;
mod file;
mod leases;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
use std::time::{Duration, Instant};

use redb::{Database, ReadTransaction, ReadableDatabase};

use super::{
    KeyValue, Lease, LeaseId, Listing, Outcome, Revision, Store, StoreError, TTL_MAX, Transaction,
    Watch, check_key,
};
use apply::Batch;
use file::{ENTRIES, META, entry};
use leases::Leases;

/// Monotonic time since some moment.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Duration;
}

/// The clock of this process.
#[derive(Debug)]
pub struct MonotonicClock(Instant);

impl Default for MonotonicClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for MonotonicClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// How an embedded store behaves.
#[derive(Clone)]
pub struct Options {
    /// Revisions whose events are kept for watches. Too low: a reader that pauses has to list again; too
    /// high: the file grows.
    pub history_revisions: u64,
    /// What leases live by. With a clock that is not the process's, leases end at the first write, or
    /// [`Embedded::end_due_leases`], after their time.
    pub clock: Option<Arc<dyn Clock>>,
}

impl Default for Options {
    fn default() -> Self {
        Self { history_revisions: 10_000, clock: None }
    }
}

/// The store. Dropping it closes the file; watches that are still held then say so.
pub struct Embedded {
    inner: Arc<Inner>,
    expirer: Option<std::thread::JoinHandle<()>>,
}

struct Inner {
    path: PathBuf,
    history_revisions: u64,
    clock: Arc<dyn Clock>,
    /// None after a failure: the next call opens the file again.
    database: RwLock<Option<Database>>,
    leases: Mutex<Leases>,
    head: Mutex<Head>,
    changed: Condvar,
}

/// What waits are about.
struct Head {
    revision: Revision,
    is_closed: bool,
}

impl Embedded {
    /// Opens the store in this file, or makes one. Everything in it is read and checked.
    pub fn open(path: &Path, options: Options) -> Result<Self, StoreError> {
        let database = file::open(path)?;
        let runs_itself = options.clock.is_none();
        let clock = options.clock.unwrap_or_else(|| Arc::new(MonotonicClock::default()));
        let inner = Arc::new(Inner {
            path: path.into(),
            history_revisions: options.history_revisions.max(1),
            clock,
            database: RwLock::new(None),
            leases: Mutex::new(Leases::default()),
            head: Mutex::new(Head { revision: Revision(0), is_closed: false }),
            changed: Condvar::new(),
        });
        inner.take_over(&database)?;
        *write(&inner.database) = Some(database);
        let expirer = if runs_itself { Some(leases::spawn(&inner)?) } else { None };
        Ok(Self { inner, expirer })
    }

    /// Ends the leases whose time is up.
    pub fn end_due_leases(&self) -> Result<(), StoreError> {
        self.inner.end_due_leases()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        lock(&self.inner.head).is_closed = true;
        self.inner.changed.notify_all();
        if let Some(expirer) = self.expirer.take() {
            // It ends at the flag; a panic in it has been printed.
            let _ = expirer.join();
        }
        *write(&self.inner.database) = None;
    }
}

impl Inner {
    /// Brings memory to what a database that was just opened says.
    fn take_over(&self, database: &Database) -> Result<(), StoreError> {
        let now = self.clock.now();
        let read = self.told(database.begin_read())?;
        lock(&self.leases).load(&read, now).map_err(|error| self.failure(error))?;
        let revision = self.told(head(&read))?;
        self.publish(revision);
        Ok(())
    }

    fn publish(&self, revision: Revision) {
        let mut head = lock(&self.head);
        head.revision = head.revision.max(revision);
        self.changed.notify_all();
    }

    fn told<T>(&self, result: Result<T, impl Into<redb::Error>>) -> Result<T, StoreError> {
        result.map_err(|error| self.failure(error.into()))
    }

    fn failure(&self, error: redb::Error) -> StoreError {
        file::failure(&self.path, error)
    }

    /// Runs `work` on the database, opened again if need be, and closes it if it fails by itself.
    fn with<T>(&self, work: impl Fn(&Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let result = loop {
            if let Some(database) = &*read(&self.database) {
                break work(database);
            }
            self.open_again()?;
        };
        if matches!(
            result,
            Err(StoreError::Io { .. } | StoreError::Full(_) | StoreError::Corrupt { .. })
        ) {
            *write(&self.database) = None;
        }
        result
    }

    fn open_again(&self) -> Result<(), StoreError> {
        let mut place = write(&self.database);
        if lock(&self.head).is_closed {
            return Err(StoreError::Closed);
        }
        if place.is_none() {
            let database = file::open(&self.path)?;
            // A commit that failed may have reached the disk: its revision is taken over too.
            self.take_over(&database)?;
            *place = Some(database);
        }
        Ok(())
    }

    fn reading<T>(
        &self,
        work: impl Fn(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        self.with(|database| {
            let transaction = self.told(database.begin_read())?;
            self.told(work(&transaction))
        })
    }

    /// Ends the leases that are due, then does `work`, in one commit of the file. The revision is
    /// published, and `settle` called, once it is on disk.
    fn writing<T>(
        &self,
        work: impl Fn(&mut Batch<'_>) -> Result<T, redb::Error>,
        settle: impl Fn(&mut Leases, &T, Duration),
    ) -> Result<T, StoreError> {
        self.with(|database| {
            let mut leases = lock(&self.leases);
            let due = leases.due(self.clock.now());
            let transaction = self.told(database.begin_write())?;
            let (result, revision, is_changed) = self.told((|| {
                let mut batch = Batch::open(&transaction)?;
                for lease in &due {
                    batch.end_lease(*lease)?;
                }
                let result = work(&mut batch)?;
                let (revision, is_changed) = batch.finish(self.history_revisions)?;
                Ok::<_, redb::Error>((result, revision, is_changed))
            })())?;
            if is_changed {
                self.told(transaction.commit())?;
            } else {
                self.told(transaction.abort())?;
            }
            leases.forget(&due);
            settle(&mut leases, &result, self.clock.now());
            self.publish(revision);
            Ok(result)
        })
    }

    fn end_due_leases(&self) -> Result<(), StoreError> {
        if lock(&self.leases).due(self.clock.now()).is_empty() {
            return Ok(());
        }
        self.writing(|_| Ok(()), |_, (), _| ())
    }
}

impl Store for Embedded {
    fn get(&self, key: &str) -> Result<Option<KeyValue>, StoreError> {
        check_key(key)?;
        self.inner.reading(|transaction| {
            let table = transaction.open_table(ENTRIES)?;
            Ok(table.get(key)?.map(|found| entry(key, found.value())))
        })
    }

    fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.inner.reading(|transaction| {
            let table = transaction.open_table(ENTRIES)?;
            let mut entries = Vec::new();
            for found in table.range(prefix..)? {
                let (key, value) = found?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                entries.push(entry(key.value(), value.value()));
            }
            Ok(Listing { revision: head(transaction)?, entries })
        })
    }

    fn commit(&self, transaction: &Transaction) -> Result<Outcome, StoreError> {
        transaction.check()?;
        let applied = self.inner.writing(|batch| batch.apply(transaction), |_, _, _| ())?;
        applied.map_err(StoreError::NoLease)
    }

    fn watch(&self, prefix: &str, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        Ok(Box::new(watch::EmbeddedWatch::new(&self.inner, prefix, from)))
    }

    fn compact(&self, through: Revision) -> Result<(), StoreError> {
        let head = self.inner.writing(
            |batch| {
                let head = batch.head();
                if through <= head {
                    batch.compact(through)?;
                }
                Ok(head)
            },
            |_, _, _| (),
        )?;
        if through > head {
            return Err(StoreError::Future { asked: through, current: head });
        }
        Ok(())
    }

    fn grant(&self, ttl: Duration) -> Result<Lease, StoreError> {
        if ttl < Duration::from_secs(1) || ttl > TTL_MAX {
            return Err(StoreError::Ttl(ttl.as_secs_f64()));
        }
        let id = self
            .inner
            .writing(|batch| batch.grant(ttl), |leases, id, now| leases.insert(*id, ttl, now))?;
        Ok(Lease { id, ttl, left: ttl })
    }

    fn keep_alive(&self, lease: LeaseId) -> Result<Lease, StoreError> {
        lock(&self.inner.leases).keep_alive(lease, self.inner.clock.now())
    }

    fn lease(&self, lease: LeaseId) -> Result<Lease, StoreError> {
        lock(&self.inner.leases).get(lease, self.inner.clock.now())
    }

    fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        let found = self
            .inner
            .writing(|batch| batch.end_lease(lease), |leases, _, _| leases.forget(&[lease]))?;
        if found { Ok(()) } else { Err(StoreError::NoLease(lease)) }
    }
}

fn head(transaction: &ReadTransaction) -> Result<Revision, redb::Error> {
    let meta = transaction.open_table(META)?;
    Ok(Revision(meta.get(file::HEAD)?.map_or(0, |found| found.value())))
}

// What the locks guard is whole at every instant: replaced by single assignments, or by redb.

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(place: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    place.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(place: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    place.write().unwrap_or_else(PoisonError::into_inner)
}
