//! When leases end. Their keys and times to live are in the file, their deadlines only here: after a
//! restart each lease has its whole time again, for nobody could keep it alive meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use redb::{ReadTransaction, ReadableTable};

use super::file::LEASES;
use super::{Inner, lock};
use crate::store::{Lease, LeaseId, StoreError};

/// Longest sleep of the thread that ends leases, and its pause after a failure. Too low: wakes for
/// nothing; too high: a lease granted while it sleeps ends that much late.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// Deadlines of all leases.
#[derive(Default)]
pub struct Leases(BTreeMap<LeaseId, Deadline>);

struct Deadline {
    ttl: Duration,
    at: Duration,
}

impl Leases {
    /// Takes what the file says; a lease known already keeps its deadline.
    pub fn load(&mut self, read: &ReadTransaction, now: Duration) -> Result<(), redb::Error> {
        let mut found = BTreeMap::new();
        for row in read.open_table(LEASES)?.iter()? {
            let (id, ttl_ms) = row?;
            let (id, ttl) = (LeaseId(id.value()), Duration::from_millis(ttl_ms.value()));
            let at = self.0.get(&id).map_or(now + ttl, |deadline| deadline.at);
            found.insert(id, Deadline { ttl, at });
        }
        self.0 = found;
        Ok(())
    }

    pub fn insert(&mut self, id: LeaseId, ttl: Duration, now: Duration) {
        self.0.insert(id, Deadline { ttl, at: now + ttl });
    }

    pub fn forget(&mut self, ids: &[LeaseId]) {
        for id in ids {
            self.0.remove(id);
        }
    }

    /// Those whose time is up.
    pub fn due(&self, now: Duration) -> Vec<LeaseId> {
        self.0.iter().filter(|(_, deadline)| deadline.at <= now).map(|(id, _)| *id).collect()
    }

    pub fn get(&self, id: LeaseId, now: Duration) -> Result<Lease, StoreError> {
        // One whose time is up is gone, whether or not its keys have been deleted yet.
        let deadline = self.0.get(&id).filter(|deadline| deadline.at > now);
        let Deadline { ttl, at } = deadline.ok_or(StoreError::NoLease(id))?;
        Ok(Lease { id, ttl: *ttl, left: *at - now })
    }

    pub fn keep_alive(&mut self, id: LeaseId, now: Duration) -> Result<Lease, StoreError> {
        let Lease { ttl, .. } = self.get(id, now)?;
        self.insert(id, ttl, now);
        self.get(id, now)
    }
}

/// Starts the thread that ends leases while nobody writes.
pub fn spawn(inner: &Arc<Inner>) -> Result<JoinHandle<()>, StoreError> {
    let own = Arc::clone(inner);
    let path = inner.path.clone();
    std::thread::Builder::new()
        .name("store-leases".into())
        .spawn(move || {
            while !wait(&own) {
                // A failure is met again, and told, by whoever writes next.
                let _ = own.end_due_leases();
            }
        })
        .map_err(|source| StoreError::Open { path, source })
}

/// Sleeps for a while; whether the store has been closed.
fn wait(inner: &Inner) -> bool {
    let head = lock(&inner.head);
    if head.is_closed {
        return true;
    }
    let result = inner.changed.wait_timeout(head, LOOK_PAUSE);
    result.map_or(true, |(head, _)| head.is_closed)
}
