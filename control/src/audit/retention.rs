//! Which files there are, and which may go: the oldest beyond the number kept, and only with a receipt
//! of the export beside it that names its last hash.

use std::path::{Path, PathBuf};

use super::record::{self, Hash, hex};
use super::trail::io;
use super::{AuditError, AuditOptions};

/// The name of the file whose first record has this number.
pub(super) fn file_name(sequence: u64) -> String {
    format!("audit-{sequence:020}.log")
}

/// The last part of a path.
pub(super) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Files of a trail with the numbers of their first records, in order.
pub(super) fn files(dir: &Path) -> Result<Vec<(PathBuf, u64)>, AuditError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io("listing", dir))? {
        let path = entry.map_err(io("listing", dir))?.path();
        let name = name(&path);
        let number = name.strip_prefix("audit-").and_then(|rest| rest.strip_suffix(".log"));
        let Some(first) = number.and_then(|number| number.parse().ok()) else { continue };
        if name == file_name(first) {
            files.push((path, first));
        }
    }
    files.sort_by_key(|(_, first)| *first);
    Ok(files)
}

/// A file that may go.
pub(super) struct Oldest {
    path: PathBuf,
    /// Its name.
    pub name: String,
    /// The number of the record after its last.
    pub next_sequence: u64,
    /// The hash of its last record.
    pub last_hash: Hash,
}

impl Oldest {
    /// Removes it and its receipt.
    pub fn remove(&self) -> Result<(), AuditError> {
        std::fs::remove_file(&self.path).map_err(io("removing", &self.path))?;
        let receipt = receipt_of(&self.path);
        std::fs::remove_file(&receipt).map_err(io("removing", &receipt))
    }
}

/// The oldest file, if there are more than are kept and it was exported.
pub(super) fn oldest_to_go(options: &AuditOptions) -> Result<Option<Oldest>, AuditError> {
    let files = files(&options.dir)?;
    let [(path, _), (next, next_sequence), ..] = &files[..] else { return Ok(None) };
    if files.len() <= options.keep_files.max(1) {
        return Ok(None);
    }
    let Ok(receipt) = std::fs::read_to_string(receipt_of(path)) else { return Ok(None) };
    let bytes = std::fs::read(next).map_err(io("reading", next))?;
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let document: serde_json::Value =
        serde_json::from_slice(first.get(65..).unwrap_or_default()).unwrap_or_default();
    let previous = document["previous"].as_str().unwrap_or_default().as_bytes();
    let Some(last_hash) = record::from_hex(previous) else { return Ok(None) };
    if receipt.trim() != hex(&last_hash) {
        return Ok(None);
    }
    let (name, next_sequence) = (name(path), *next_sequence);
    Ok(Some(Oldest { path: path.clone(), name, next_sequence, last_hash }))
}

fn receipt_of(path: &Path) -> PathBuf {
    path.with_added_extension("exported")
}
