//! A transaction as it is asked for, and the checks that need no store.

use super::{
    KEY_BYTES_MAX, KeyValue, LeaseId, OPERATIONS_MAX, Revision, StoreError, TRANSACTION_BYTES_MAX,
};

/// What must hold of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// There is no such key.
    Absent,
    /// There is one.
    Present,
    /// It was created at this revision: it is still the same one.
    CreatedAt(Revision),
    /// It was last put at this revision: nobody has touched it since.
    ModifiedAt(Revision),
    /// It holds these bytes.
    Value(Vec<u8>),
}

/// A key and what must hold of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Which key.
    pub key: String,
    /// What must hold.
    pub compare: Compare,
}

impl Condition {
    /// Whether it holds of what the key is now.
    pub fn holds(&self, current: Option<&KeyValue>) -> bool {
        match (&self.compare, current) {
            (Compare::Absent, current) => current.is_none(),
            (_, None) => false,
            (Compare::Present, _) => true,
            (Compare::CreatedAt(at), Some(entry)) => entry.create_revision == *at,
            (Compare::ModifiedAt(at), Some(entry)) => entry.modify_revision == *at,
            (Compare::Value(value), Some(entry)) => entry.value == *value,
        }
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Creates or replaces a key, and binds it to this lease or to none.
    Put {
        /// Which.
        key: String,
        /// Any bytes.
        value: Vec<u8>,
        /// With whose end it goes.
        lease: Option<LeaseId>,
    },
    /// Deletes a key; an absent one is fine.
    Delete {
        /// Which.
        key: String,
    },
    /// Deletes every key that begins so.
    DeletePrefix {
        /// How; not empty.
        prefix: String,
    },
}

/// Conditions and changes that happen together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// All of them must hold.
    pub conditions: Vec<Condition>,
    /// All of them happen then. No two concern one key.
    pub operations: Vec<Operation>,
}

/// How a transaction went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done and durable.
    Committed {
        /// Its own revision; the store's where it changed nothing.
        revision: Revision,
    },
    /// A condition does not hold; nothing was changed.
    Refused {
        /// The store's revision when it was looked at.
        revision: Revision,
        /// What the conditions' keys were then, in their order.
        current: Vec<Option<KeyValue>>,
    },
}

impl Outcome {
    /// The revision of a commit; none for a refusal.
    pub fn committed(&self) -> Option<Revision> {
        match self {
            Self::Committed { revision } => Some(*revision),
            Self::Refused { .. } => None,
        }
    }
}

impl Transaction {
    /// One that does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Also asks that this holds of `key`.
    pub fn when(mut self, key: impl Into<String>, compare: Compare) -> Self {
        self.conditions.push(Condition { key: key.into(), compare });
        self
    }

    /// Also puts a key that no lease ends.
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        let (key, value) = (key.into(), value.into());
        self.operations.push(Operation::Put { key, value, lease: None });
        self
    }

    /// Also puts a key that ends with a lease.
    pub fn put_under(
        mut self,
        lease: LeaseId,
        key: impl Into<String>,
        value: impl Into<Vec<u8>>,
    ) -> Self {
        let (key, value) = (key.into(), value.into());
        self.operations.push(Operation::Put { key, value, lease: Some(lease) });
        self
    }

    /// Also deletes a key.
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.operations.push(Operation::Delete { key: key.into() });
        self
    }

    /// Also deletes all keys that begin so.
    pub fn delete_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.operations.push(Operation::DeletePrefix { prefix: prefix.into() });
        self
    }

    /// Checks all that can be checked without the store's content; every implementation calls it first.
    pub fn check(&self) -> Result<(), StoreError> {
        let count = self.conditions.len().max(self.operations.len());
        if count > OPERATIONS_MAX {
            return Err(StoreError::Operations(count));
        }
        let mut bytes = 0;
        for condition in &self.conditions {
            check_key(&condition.key)?;
            bytes += condition.key.len();
            if let Compare::Value(value) = &condition.compare {
                bytes += value.len();
            }
        }
        for (index, operation) in self.operations.iter().enumerate() {
            let (key, length) = match operation {
                Operation::Put { key, value, .. } => (key, value.len()),
                Operation::Delete { key } => (key, 0),
                Operation::DeletePrefix { prefix } => (prefix, 0),
            };
            check_key(key)?;
            bytes += key.len() + length;
            if let Some(key) = self.operations[..index].iter().find_map(|o| overlap(o, operation)) {
                return Err(StoreError::Duplicate(key));
            }
        }
        if bytes > TRANSACTION_BYTES_MAX {
            return Err(StoreError::Bytes(bytes));
        }
        Ok(())
    }
}

/// Whether `key` may be one.
pub fn check_key(key: &str) -> Result<(), StoreError> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX || key.chars().any(char::is_control) {
        return Err(StoreError::Key(key.chars().take(80).collect()));
    }
    Ok(())
}

/// A key that both could concern.
fn overlap(one: &Operation, other: &Operation) -> Option<String> {
    use Operation::{Delete, DeletePrefix, Put};
    match (one, other) {
        (DeletePrefix { prefix: a }, DeletePrefix { prefix: b }) => {
            (a.starts_with(b.as_str()) || b.starts_with(a.as_str())).then(|| b.clone())
        }
        (DeletePrefix { prefix }, Put { key, .. } | Delete { key })
        | (Put { key, .. } | Delete { key }, DeletePrefix { prefix }) => {
            key.starts_with(prefix.as_str()).then(|| key.clone())
        }
        (Put { key: a, .. } | Delete { key: a }, Put { key: b, .. } | Delete { key: b }) => {
            (a == b).then(|| b.clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_operations_on_one_key_are_refused() {
        let put = Transaction::new().put("a/b", "1");
        for transaction in [
            put.clone().put("a/b", "2"),
            put.clone().delete("a/b"),
            put.clone().delete_prefix("a/"),
            Transaction::new().delete_prefix("a/").put("a/b", ""),
            Transaction::new().delete_prefix("a").delete_prefix("a/"),
        ] {
            assert!(
                matches!(transaction.check(), Err(StoreError::Duplicate(_))),
                "{transaction:?}"
            );
        }
        assert!(put.put("a/c", "").delete_prefix("b/").check().is_ok());
    }

    #[test]
    fn limits_hold_at_their_edges() {
        let key = "k".repeat(KEY_BYTES_MAX);
        assert!(Transaction::new().put(key.clone(), "").check().is_ok());
        for bad in [String::new(), key + "k", "a\nb".into()] {
            assert!(matches!(Transaction::new().put(bad, "").check(), Err(StoreError::Key(_))));
        }
        let whole = Transaction::new().put("k", vec![0; TRANSACTION_BYTES_MAX - 1]);
        assert!(whole.check().is_ok());
        assert!(matches!(whole.delete("l").check(), Err(StoreError::Bytes(_))));
        let many = |count: usize| {
            (0..count).fold(Transaction::new(), |t, index| t.put(format!("{index}"), ""))
        };
        assert!(many(OPERATIONS_MAX).check().is_ok());
        assert!(matches!(many(OPERATIONS_MAX + 1).check(), Err(StoreError::Operations(129))));
        let empty = Transaction::new().delete_prefix("");
        assert!(matches!(empty.check(), Err(StoreError::Key(_))), "would delete everything");
    }
}
