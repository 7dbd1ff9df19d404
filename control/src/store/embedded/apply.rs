//! What is done to the tables in one commit of the file.

use std::time::Duration;

use redb::{ReadableTable, Table, WriteTransaction};

use super::file::{
    COMPACTED, ENTRIES, EVENTS, HEAD, LEASE_KEYS, LEASES, META, NEXT_LEASE, Stored, StoredEvent,
    entry,
};
use crate::store::{LeaseId, Operation, Outcome, Revision, Transaction};

/// The tables, and the revision they have come to.
pub struct Batch<'t> {
    entries: Table<'t, &'static str, Stored<'static>>,
    events: Table<'t, (u64, &'static str), StoredEvent<'static>>,
    leases: Table<'t, i64, u64>,
    lease_keys: Table<'t, (i64, &'static str), ()>,
    meta: Table<'t, &'static str, u64>,
    head: u64,
    compacted: u64,
    is_changed: bool,
}

impl<'t> Batch<'t> {
    pub fn open(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        let meta = transaction.open_table(META)?;
        let number = |name| Ok::<_, redb::Error>(meta.get(name)?.map_or(0, |found| found.value()));
        let (head, compacted) = (number(HEAD)?, number(COMPACTED)?);
        Ok(Self {
            entries: transaction.open_table(ENTRIES)?,
            events: transaction.open_table(EVENTS)?,
            leases: transaction.open_table(LEASES)?,
            lease_keys: transaction.open_table(LEASE_KEYS)?,
            meta,
            head,
            compacted,
            is_changed: false,
        })
    }

    pub fn head(&self) -> Revision {
        Revision(self.head)
    }

    /// Writes the revision; says it, and whether there is anything to commit.
    pub fn finish(mut self, history_revisions: u64) -> Result<(Revision, bool), redb::Error> {
        // Twice the history before half of it is dropped: one deletion of many rather than many of one.
        if self.head - self.compacted > history_revisions.saturating_mul(2) {
            self.compact(Revision(self.head - history_revisions))?;
        }
        if self.is_changed {
            self.meta.insert(HEAD, self.head)?;
        }
        Ok((Revision(self.head), self.is_changed))
    }

    /// Checks and does a transaction; or names the lease that does not exist.
    pub fn apply(
        &mut self,
        transaction: &Transaction,
    ) -> Result<Result<Outcome, LeaseId>, redb::Error> {
        let mut current = Vec::with_capacity(transaction.conditions.len());
        let mut holds = true;
        for condition in &transaction.conditions {
            let key = condition.key.as_str();
            let found = self.entries.get(key)?.map(|found| entry(key, found.value()));
            holds &= condition.holds(found.as_ref());
            current.push(found);
        }
        if !holds {
            return Ok(Ok(Outcome::Refused { revision: Revision(self.head), current }));
        }
        for operation in &transaction.operations {
            if let Operation::Put { lease: Some(lease), .. } = operation
                && self.leases.get(lease.0)?.is_none()
            {
                return Ok(Err(*lease));
            }
        }
        let revision = self.head + 1;
        for operation in &transaction.operations {
            match operation {
                Operation::Put { key, value, lease } => self.put(revision, key, value, *lease)?,
                Operation::Delete { key } => self.delete(revision, key)?,
                Operation::DeletePrefix { prefix } => {
                    for key in self.keys_under(prefix)? {
                        self.delete(revision, &key)?;
                    }
                }
            }
        }
        Ok(Ok(Outcome::Committed { revision: Revision(self.head) }))
    }

    fn put(
        &mut self,
        revision: u64,
        key: &str,
        value: &[u8],
        lease: Option<LeaseId>,
    ) -> Result<(), redb::Error> {
        let old = self.entries.get(key)?.map(|found| {
            let (create, _, version, lease, _) = found.value();
            (create, version, lease)
        });
        let (create, version) =
            old.map_or((revision, 1), |(create, version, _)| (create, version + 1));
        if let Some((_, _, bound)) = old
            && bound != 0
        {
            self.lease_keys.remove((bound, key))?;
        }
        let lease = lease.map_or(0, |lease| lease.0);
        if lease != 0 {
            self.lease_keys.insert((lease, key), ())?;
        }
        self.entries.insert(key, (create, revision, version, lease, value))?;
        self.events.insert((revision, key), Some((create, version, lease, value)))?;
        self.changed_at(revision);
        Ok(())
    }

    fn delete(&mut self, revision: u64, key: &str) -> Result<(), redb::Error> {
        let Some(lease) = self.entries.remove(key)?.map(|old| old.value().3) else { return Ok(()) };
        if lease != 0 {
            self.lease_keys.remove((lease, key))?;
        }
        self.events.insert((revision, key), None)?;
        self.changed_at(revision);
        Ok(())
    }

    fn changed_at(&mut self, revision: u64) {
        self.head = revision;
        self.is_changed = true;
    }

    fn keys_under(&self, prefix: &str) -> Result<Vec<String>, redb::Error> {
        let mut keys = Vec::new();
        for found in self.entries.range(prefix..)? {
            let (key, _) = found?;
            if !key.value().starts_with(prefix) {
                break;
            }
            keys.push(key.value().to_owned());
        }
        Ok(keys)
    }

    /// Forgets events through this revision, which has happened.
    pub fn compact(&mut self, through: Revision) -> Result<(), redb::Error> {
        if through.0 <= self.compacted {
            return Ok(());
        }
        self.events.retain_in((0, "")..(through.0 + 1, ""), |_, _| false)?;
        self.compacted = through.0;
        self.meta.insert(COMPACTED, through.0)?;
        self.is_changed = true;
        Ok(())
    }

    /// A new lease, numbered from 1.
    pub fn grant(&mut self, ttl: Duration) -> Result<LeaseId, redb::Error> {
        let next = self.meta.get(NEXT_LEASE)?.map_or(1, |found| found.value());
        let id = i64::try_from(next).unwrap_or(i64::MAX);
        self.meta.insert(NEXT_LEASE, next + 1)?;
        self.leases.insert(id, u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))?;
        self.is_changed = true;
        Ok(LeaseId(id))
    }

    /// Ends a lease and its keys, at a revision of its own if it has any. Whether there was one.
    pub fn end_lease(&mut self, lease: LeaseId) -> Result<bool, redb::Error> {
        if self.leases.remove(lease.0)?.is_none() {
            return Ok(false);
        }
        self.is_changed = true;
        let mut keys = Vec::new();
        for found in self.lease_keys.range((lease.0, "")..(lease.0 + 1, ""))? {
            keys.push(found?.0.value().1.to_owned());
        }
        let revision = self.head + 1;
        for key in keys {
            self.delete(revision, &key)?;
        }
        Ok(true)
    }
}
