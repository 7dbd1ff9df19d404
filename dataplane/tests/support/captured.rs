//! What the tests of captures share: a folder that the writer may use, what is in its files, and the comparison
//! of a replay with a cache.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use nautilus_dataplane::config;
use nautilus_dataplane::replay::offline::{Offline, OfflineSummary};
use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::control_region::{ControlReader, WORKERS_MAX};
use nautilus_shm::metrics::{Counter, table};

use crate::supervised::Supervised;

/// A folder that everybody may write in, as the worker's user has to.
pub fn folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("ne-capture").tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder.path(), open).unwrap();
    folder
}

/// The section of a node file.
pub fn section(folder: &Path, more: &str) -> String {
    format!("[capture]\ndirectory = {folder:?}\n{more}")
}

/// The files of a folder with this end, oldest first.
pub fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_such = |path: &PathBuf| path.to_str().is_some_and(|path| path.ends_with(end));
    let mut files: Vec<PathBuf> = entries.filter(is_such).collect();
    files.sort();
    files
}

/// A counter of all workers.
pub fn sum(region: &ControlReader, counter: Counter) -> u64 {
    (0..WORKERS_MAX).map(|slot| region.metrics(slot).counter(counter)).sum()
}

/// What was to be captured, what was, and what found no room.
pub fn counted(region: &ControlReader) -> (u64, u64) {
    (sum(region, table::CAPTURED), sum(region, table::CAPTURE_DROPPED))
}

/// The process of this name that the node's supervisor has started.
pub fn process_of(node: &Supervised, name: &str) -> Option<i32> {
    let children = format!("/proc/{0}/task/{0}/children", node.supervisor_pid());
    let children = std::fs::read_to_string(children).unwrap();
    let is_it = |pid: &&str| {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm"));
        // The kernel keeps 15 bytes of a name.
        comm.is_ok_and(|comm| name.starts_with(comm.trim()) && comm.trim().len() >= 14)
    };
    children.split_whitespace().find(is_it).and_then(|pid| pid.parse().ok())
}

/// Every record that a replay of the files gives, by key.
pub fn replayed(
    node: &Supervised,
    files: &[PathBuf],
) -> (BTreeMap<String, Vec<u8>>, OfflineSummary) {
    let config = config::load(&node.config).unwrap();
    let mut offline = Offline::new(&config).unwrap();
    files.iter().for_each(|file| offline.file(file).unwrap());
    let records = offline.keyspace().records();
    let text = |key: &[u8]| String::from_utf8(key.to_vec()).unwrap();
    let records = records.map(|(key, record)| (text(key), record.to_vec())).collect();
    (records, offline.summary())
}

/// What the cache holds under these keys, suspect or not.
pub fn held<'a>(
    node: &Supervised,
    cache: &str,
    keys: impl Iterator<Item = &'a String>,
) -> BTreeMap<String, Vec<u8>> {
    let reader = node.reader(cache).unwrap();
    let mut out = vec![0; 4096];
    keys.filter_map(|key| {
        let hit = reader.look(key.as_bytes(), monotonic_ns(), &mut out).ok()?;
        Some((key.clone(), out[..hit.value_bytes].to_vec()))
    })
    .collect()
}

/// A line a packet as tshark has it; `None` where there is no tshark.
pub fn tshark(file: &Path, arguments: &[&str]) -> Option<Vec<String>> {
    let output = Command::new("tshark").arg("-r").arg(file).args(arguments).output().ok()?;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tshark {arguments:?}: {error}");
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.lines().map(str::to_owned).collect())
}
