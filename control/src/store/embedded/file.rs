//! The file: its tables, how it is made and opened, what its failures mean.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | entries | key | create revision, modify revision, version, lease or 0, bytes |
//! | events | revision, key | the same without the revision of the put; none for a deletion |
//! | leases | lease | time to live, ms |
//! | lease keys | lease, key | nothing |
//! | meta | name | number: layout version, head, compacted, next lease |

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase, StorageError, TableDefinition};

use crate::store::{KeyValue, LeaseId, Revision, StoreError};

/// Create revision, modify revision, version, lease or 0, value.
pub type Stored<'a> = (u64, u64, u64, i64, &'a [u8]);

/// Create revision, version, lease or 0, value; none for a deletion.
pub type StoredEvent<'a> = Option<(u64, u64, i64, &'a [u8])>;

pub const ENTRIES: TableDefinition<&str, Stored> = TableDefinition::new("entries");
pub const EVENTS: TableDefinition<(u64, &str), StoredEvent> = TableDefinition::new("events");
pub const LEASES: TableDefinition<i64, u64> = TableDefinition::new("leases");
pub const LEASE_KEYS: TableDefinition<(i64, &str), ()> = TableDefinition::new("lease keys");
pub const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

pub const HEAD: &str = "head";
pub const COMPACTED: &str = "compacted";
pub const NEXT_LEASE: &str = "next lease";
const LAYOUT: &str = "layout";
const LAYOUT_VERSION: u64 = 1;

/// Memory for cached pages. The whole of a site's configuration fits.
const CACHE_BYTES: usize = 16 << 20;

/// An entry from its row.
pub fn entry(key: &str, (create, modify, version, lease, value): Stored<'_>) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: value.into(),
        create_revision: Revision(create),
        modify_revision: Revision(modify),
        version,
        lease: (lease != 0).then_some(LeaseId(lease)),
    }
}

/// Opens the file, made first if there is none, and checks every page of it.
pub fn open(path: &Path) -> Result<Database, StoreError> {
    if !path.exists() {
        make(path)?;
    }
    let database = checked(path)?;
    let told = |error: redb::Error| failure(path, error);
    let transaction = database.begin_read().map_err(|error| told(error.into()))?;
    let meta = transaction.open_table(META).map_err(|error| told(error.into()))?;
    let layout = meta.get(LAYOUT).map_err(|error| told(error.into()))?.map(|found| found.value());
    if layout != Some(LAYOUT_VERSION) {
        let found = layout.map_or_else(|| "none".into(), |found| found.to_string());
        let reason = format!("layout version {found}, this program has {LAYOUT_VERSION}");
        return Err(StoreError::Corrupt { path: path.into(), reason });
    }
    Ok(database)
}

fn checked(path: &Path) -> Result<Database, StoreError> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    // A damaged file may make redb panic; for us it is one more thing found in a file.
    match catch_unwind(AssertUnwindSafe(|| builder.open(path))) {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(error)) => Err(open_failure(path, error)),
        Err(_) => {
            let reason = "its pages contradict each other".into();
            Err(StoreError::Corrupt { path: path.into(), reason })
        }
    }
}

/// Makes the file with empty tables beside its place and links it there when it is whole: a death while
/// it is made leaves no half of one, and of two processes that make it one finds the other's.
fn make(path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Open { path: path.into(), source };
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let new = PathBuf::from(name);
    // A predecessor of the same number may have died here.
    let _ = std::fs::remove_file(&new);
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(failed)?;
    let result = fill(&new).map_err(|error| failure(path, error)).and_then(|()| {
        match std::fs::hard_link(&new, path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            other => other.map_err(failed),
        }
    });
    let _ = std::fs::remove_file(&new);
    result?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = std::fs::File::open(folder.unwrap_or(Path::new("."))).map_err(failed)?;
    folder.sync_all().map_err(failed)
}

fn fill(path: &Path) -> Result<(), redb::Error> {
    let database = Database::create(path)?;
    let transaction = database.begin_write()?;
    transaction.open_table(ENTRIES)?;
    transaction.open_table(EVENTS)?;
    transaction.open_table(LEASES)?;
    transaction.open_table(LEASE_KEYS)?;
    transaction.open_table(META)?.insert(LAYOUT, LAYOUT_VERSION)?;
    transaction.commit()?;
    Ok(())
}

fn open_failure(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            StoreError::InUse(path.into())
        }
        DatabaseError::Storage(StorageError::Io(source))
            if !is_damage(&source) && !is_full(&source) =>
        {
            StoreError::Open { path: path.into(), source }
        }
        error => failure(path, error.into()),
    }
}

/// What an error of redb means to an operator.
pub fn failure(path: &Path, error: redb::Error) -> StoreError {
    let path = path.to_path_buf();
    match error {
        redb::Error::Io(source) if is_full(&source) => StoreError::Full(path),
        redb::Error::Io(source) if is_damage(&source) => {
            StoreError::Corrupt { path, reason: source.to_string() }
        }
        redb::Error::Corrupted(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::RepairAborted
        | redb::Error::TableDoesNotExist(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::TableIsMultimap(_) => {
            StoreError::Corrupt { path, reason: error.to_string() }
        }
        error => StoreError::Io { path, reason: error.to_string() },
    }
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// Not what redb writes, or the file ends before its content does.
fn is_damage(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    matches!(error.kind(), InvalidData | UnexpectedEof)
}
