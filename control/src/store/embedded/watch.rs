//! A watch: a place in the events of the file.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use redb::ReadTransaction;

use super::file::{COMPACTED, EVENTS, META, StoredEvent};
use super::{Inner, head, lock};
use crate::store::{
    Change, Changes, KeyValue, LeaseId, Revision, StoreError, TRANSACTION_BYTES_MAX, Watch, Watched,
};

/// Transactions read ahead. Too low: a search of the file for each; too high: memory for readers that
/// take them slowly.
const AHEAD: usize = 32;

pub struct EmbeddedWatch {
    inner: Weak<Inner>,
    prefix: String,
    /// The first revision not read yet.
    from: Revision,
    ahead: VecDeque<Changes>,
}

/// What a search of the events found.
enum Found {
    Compacted(Revision),
    /// All there is in revisions before this one.
    Read(Vec<Changes>, Revision),
}

impl EmbeddedWatch {
    pub fn new(inner: &Arc<Inner>, prefix: &str, from: Revision) -> Self {
        let from = from.max(Revision(1));
        Self { inner: Arc::downgrade(inner), prefix: prefix.into(), from, ahead: VecDeque::new() }
    }

    fn search(&self, transaction: &ReadTransaction) -> Result<Found, redb::Error> {
        let meta = transaction.open_table(META)?;
        let compacted = Revision(meta.get(COMPACTED)?.map_or(0, |found| found.value()));
        if self.from <= compacted {
            return Ok(Found::Compacted(compacted.next()));
        }
        let events = transaction.open_table(EVENTS)?;
        let (mut found, mut bytes): (Vec<Changes>, usize) = (Vec::new(), 0);
        for row in events.range((self.from.0, "")..)? {
            let (key, event) = row?;
            let (revision, key) = key.value();
            let revision = Revision(revision);
            let is_new = found.last().is_none_or(|last| last.revision != revision);
            if is_new && (found.len() == AHEAD || bytes >= TRANSACTION_BYTES_MAX) {
                return Ok(Found::Read(found, revision));
            }
            if !key.starts_with(&self.prefix) {
                continue;
            }
            let change = change(revision, key, event.value());
            bytes +=
                key.len() + if let Change::Put(entry) = &change { entry.value.len() } else { 0 };
            match found.last_mut().filter(|_| !is_new) {
                Some(last) => last.changes.push(change),
                None => found.push(Changes { revision, changes: vec![change] }),
            }
        }
        Ok(Found::Read(found, head(transaction)?.next().max(self.from)))
    }
}

impl Watch for EmbeddedWatch {
    fn next(&mut self, wait: Duration) -> Result<Watched, StoreError> {
        let until = Instant::now() + wait;
        loop {
            if let Some(changes) = self.ahead.pop_front() {
                return Ok(Watched::Changes(changes));
            }
            let inner = self.inner.upgrade().ok_or(StoreError::Closed)?;
            match inner.reading(|transaction| self.search(transaction))? {
                Found::Compacted(oldest) => return Ok(Watched::Compacted { oldest }),
                Found::Read(found, next) => {
                    self.ahead = found.into();
                    self.from = next;
                }
            }
            if !self.ahead.is_empty() {
                continue;
            }
            let mut now = lock(&inner.head);
            while now.revision < self.from && !now.is_closed {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(Watched::Idle);
                }
                let waited = inner.changed.wait_timeout(now, left);
                now = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            if now.is_closed {
                return Err(StoreError::Closed);
            }
        }
    }
}

fn change(revision: Revision, key: &str, event: StoredEvent<'_>) -> Change {
    let Some((create, version, lease, value)) = event else {
        return Change::Delete { key: key.into() };
    };
    Change::Put(KeyValue {
        key: key.into(),
        value: value.into(),
        create_revision: Revision(create),
        modify_revision: revision,
        version,
        lease: (lease != 0).then_some(LeaseId(lease)),
    })
}
