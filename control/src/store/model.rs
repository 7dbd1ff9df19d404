//! The contract of a store as a value: everything in two maps, nothing durable. Tests run an
//! implementation beside it and compare.

use std::collections::BTreeMap;

use super::{
    Change, Changes, Compare, KeyValue, LeaseId, Operation, Outcome, Revision, Transaction,
};

/// What becomes of a key: bytes and a lease, or nothing.
type Wanted = Option<(Vec<u8>, Option<LeaseId>)>;

/// A store's meaning, without waits and files.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// The last revision.
    pub revision: Revision,
    /// Every key.
    pub entries: BTreeMap<String, KeyValue>,
    /// Every transaction that changed something.
    pub history: Vec<Changes>,
    leases: Vec<LeaseId>,
}

impl Model {
    /// A lease was granted.
    pub fn grant(&mut self, lease: LeaseId) {
        assert!(!self.leases.contains(&lease), "lease {lease:?} was given twice");
        self.leases.push(lease);
    }

    /// A lease was revoked or its time was up; whether there was one.
    pub fn end_lease(&mut self, lease: LeaseId) -> bool {
        let Some(index) = self.leases.iter().position(|known| *known == lease) else {
            return false;
        };
        self.leases.remove(index);
        let bound = self.entries.values().filter(|entry| entry.lease == Some(lease));
        let keys: Vec<String> = bound.map(|entry| entry.key.clone()).collect();
        self.change(keys.into_iter().map(|key| (key, None)).collect());
        true
    }

    /// What a transaction does; none where it names a lease that has ended.
    pub fn commit(&mut self, transaction: &Transaction) -> Option<Outcome> {
        let now = |key: &String| self.entries.get(key);
        let holds = |compare: &Compare, entry: Option<&KeyValue>| match (compare, entry) {
            (Compare::Absent, entry) => entry.is_none(),
            (_, None) => false,
            (Compare::Present, Some(_)) => true,
            (Compare::CreatedAt(at), Some(entry)) => *at == entry.create_revision,
            (Compare::ModifiedAt(at), Some(entry)) => *at == entry.modify_revision,
            (Compare::Value(value), Some(entry)) => *value == entry.value,
        };
        if !transaction.conditions.iter().all(|c| holds(&c.compare, now(&c.key))) {
            let current = transaction.conditions.iter().map(|c| now(&c.key).cloned()).collect();
            return Some(Outcome::Refused { revision: self.revision, current });
        }
        let mut changes: BTreeMap<String, Wanted> = BTreeMap::new();
        for operation in &transaction.operations {
            match operation {
                Operation::Put { key, value, lease } => {
                    if lease.is_some_and(|lease| !self.leases.contains(&lease)) {
                        return None;
                    }
                    changes.insert(key.clone(), Some((value.clone(), *lease)));
                }
                Operation::Delete { key } => {
                    changes.extend(now(key).map(|_| (key.clone(), None)));
                }
                Operation::DeletePrefix { prefix } => {
                    let under = self.entries.keys().filter(|key| key.starts_with(prefix.as_str()));
                    changes.extend(under.map(|key| (key.clone(), None)));
                }
            }
        }
        self.change(changes);
        Some(Outcome::Committed { revision: self.revision })
    }

    /// What a watch from `from` on this prefix has to deliver.
    pub fn changes_since(&self, prefix: &str, from: Revision) -> Vec<Changes> {
        let later = self.history.iter().filter(|changes| changes.revision >= from);
        let under = later.map(|Changes { revision, changes }| Changes {
            revision: *revision,
            changes: changes.iter().filter(|c| c.key().starts_with(prefix)).cloned().collect(),
        });
        under.filter(|changes| !changes.changes.is_empty()).collect()
    }

    fn change(&mut self, wanted: BTreeMap<String, Wanted>) {
        if wanted.is_empty() {
            return;
        }
        self.revision = self.revision.next();
        let mut changes = Vec::new();
        for (key, put) in wanted {
            let old = self.entries.remove(&key);
            let Some((value, lease)) = put else {
                changes.push(Change::Delete { key });
                continue;
            };
            let entry = KeyValue {
                key: key.clone(),
                value,
                create_revision: old.as_ref().map_or(self.revision, |old| old.create_revision),
                modify_revision: self.revision,
                version: old.map_or(1, |old| old.version + 1),
                lease,
            };
            changes.push(Change::Put(entry.clone()));
            self.entries.insert(key, entry);
        }
        self.history.push(Changes { revision: self.revision, changes });
    }
}
