//! Where control keeps what is wanted: deployments, plans, progress, configuration.
//!
//! ```text
//!   get, list ------> one revision, whole
//!   commit ---------> conditions hold? -> every change, one new revision, durable -> answer
//!   watch from R ---> each later revision once, in order ... or "compacted: list again"
//!   grant, keep ----> a lease; when it ends, so do the keys put under it
//! ```
//!
//! Meaning and limits are those of etcd v3, so that an implementation over it needs nothing that is not
//! here: revisions number the changing transactions of the whole store, a key's `version` counts its puts
//! since it was created, leases have times to live and their keys go with them in one revision.
//! Methods block; who must not block calls them from a thread that may. [`conformance`] is the contract
//! as a suite, [`model`] the contract as a value, [`embedded`] the implementation of one host.

pub mod conformance;
pub mod embedded;
mod error;
pub mod model;
mod transaction;

use std::time::Duration;

pub use error::StoreError;
pub use transaction::{Compare, Condition, Operation, Outcome, Transaction, check_key};

/// Longest key. etcd allows more; a key is a path of ids here.
pub const KEY_BYTES_MAX: usize = 512;

/// Keys and values of one transaction together. Too high: etcd refuses the request (1.5 MiB unless
/// configured); too low: a plan of a large deployment does not fit.
pub const TRANSACTION_BYTES_MAX: usize = 1 << 20;

/// Conditions, and operations, of one transaction: etcd's default.
pub const OPERATIONS_MAX: usize = 128;

/// Longest lease: above it, a typing error is likelier than a wish.
pub const TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Number of a transaction that changed something; 0 before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// The one after it.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A lease's number, positive, never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

/// A lease as it was granted or asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its number.
    pub id: LeaseId,
    /// What it lives after each keepalive: at least what was asked for.
    pub ttl: Duration,
    /// What is left of that.
    pub left: Duration,
}

/// A key and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// UTF-8, 1 to [`KEY_BYTES_MAX`] bytes.
    pub key: String,
    /// Any bytes.
    pub value: Vec<u8>,
    /// Revision of the put that found no such key.
    pub create_revision: Revision,
    /// Revision of the last put.
    pub modify_revision: Revision,
    /// Puts since then, the creating one included.
    pub version: u64,
    /// The lease it was last put under.
    pub lease: Option<LeaseId>,
}

/// Every key under a prefix, at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Revision of the whole store when it was read: watch from the next one to miss nothing.
    pub revision: Revision,
    /// In order of their bytes.
    pub entries: Vec<KeyValue>,
}

/// What happened to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is this now.
    Put(KeyValue),
    /// It is gone: deleted, or its lease ended.
    Delete {
        /// Which.
        key: String,
    },
}

impl Change {
    /// The key it is about.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Delete { key } => key,
        }
    }
}

/// What one transaction did under the watched prefix; never a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The transaction's revision.
    pub revision: Revision,
    /// One per key, in order of the keys' bytes.
    pub changes: Vec<Change>,
}

/// What a look at a watch brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// The next transaction.
    Changes(Changes),
    /// Revisions the watch has not delivered are no longer kept. It delivers nothing more: list the
    /// prefix and watch from there.
    Compacted {
        /// The first revision that is still kept.
        oldest: Revision,
    },
    /// Nothing came in the time given.
    Idle,
}

/// Changes from a revision on, each once and in order.
///
/// What is not yet taken is not copied for the watch: it waits in the store's history, whose length is
/// bounded. A reader that falls behind it is told so by [`Watched::Compacted`].
pub trait Watch: Send {
    /// The next transaction that changed something here; waits up to `wait` for one.
    fn next(&mut self, wait: Duration) -> Result<Watched, StoreError>;
}

/// Keys with revisions, transactions, watches and leases.
pub trait Store: Send + Sync {
    /// One key as it is now.
    fn get(&self, key: &str) -> Result<Option<KeyValue>, StoreError>;

    /// Every key that begins with `prefix`, at one revision. The empty prefix is every key.
    fn list(&self, prefix: &str) -> Result<Listing, StoreError>;

    /// Checks every condition and, if all hold, makes every change, at one revision. Durable before it
    /// answers. A transaction that changes nothing (no operation, deletes of absent keys) takes no revision.
    fn commit(&self, transaction: &Transaction) -> Result<Outcome, StoreError>;

    /// Changes under `prefix` from revision `from` on, which may be one that is yet to come.
    fn watch(&self, prefix: &str, from: Revision) -> Result<Box<dyn Watch>, StoreError>;

    /// Forgets changes up to and including `through`; what keys are now is not touched. Again, or an
    /// older one, is fine.
    fn compact(&self, through: Revision) -> Result<(), StoreError>;

    /// A new lease. The store may round `ttl` up.
    fn grant(&self, ttl: Duration) -> Result<Lease, StoreError>;

    /// Gives a lease its whole time again. [`StoreError::NoLease`] once it has ended.
    fn keep_alive(&self, lease: LeaseId) -> Result<Lease, StoreError>;

    /// A lease that has not ended.
    fn lease(&self, lease: LeaseId) -> Result<Lease, StoreError>;

    /// Ends a lease now: its keys are deleted in one revision.
    fn revoke(&self, lease: LeaseId) -> Result<(), StoreError>;
}
