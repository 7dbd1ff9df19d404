//! Recorded machines (`host_trees/README.md`), unpacked.

#![allow(dead_code, reason = "not every test uses all of it")]

use std::path::{Path, PathBuf};

use nautilus_control::host::recording;
use tempfile::TempDir;

/// Every machine: name and text.
pub fn trees() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/host_trees");
    let mut trees = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            trees.push((name, std::fs::read_to_string(path).unwrap()));
        }
    }
    trees.sort();
    assert!(trees.len() >= 5, "{} trees", trees.len());
    trees
}

/// One machine's text.
pub fn text_of(name: &str) -> String {
    let found = trees().into_iter().find(|(known, _)| known == name);
    found.map(|(_, text)| text).expect("a known tree")
}

/// A recorded machine in a folder `tree`, with room for a state file beside it.
pub fn unpacked(text: &str) -> TempDir {
    // In memory where there is some: what a record costs on a disk is no question here.
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let folder = folder.unwrap();
    recording::unpack(text, &root(&folder)).unwrap();
    folder
}

/// The same by its name.
pub fn tree_named(name: &str) -> TempDir {
    unpacked(&text_of(name))
}

/// Where the machine lies in the folder.
pub fn root(folder: &TempDir) -> PathBuf {
    folder.path().join("tree")
}

/// Writes a file of a machine, whatever was there.
pub fn write(root: &Path, path: &str, text: &str) {
    let file = root.join(path);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, text).unwrap();
}
