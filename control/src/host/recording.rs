//! A recorded machine as one text file: a line a file, `path<tab>bytes`, with what is no plain text
//! escaped. Small enough to be kept beside the tests that run on it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Why a recording could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// A file operation.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line that is none of ours.
    #[error("line {0} of the recording is not `path<tab>bytes`, or its path leaves the tree")]
    Line(usize),
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> RecordingError {
    move |source| RecordingError::File { path: path.into(), source }
}

/// Every file below a folder, by its path there.
pub fn files(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>, RecordingError> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(current) = folders.pop() {
        for entry in std::fs::read_dir(&current).map_err(at(&current))? {
            let path = entry.map_err(at(&current))?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).map_err(at(&path))?;
                let name = path.strip_prefix(folder).unwrap_or(&path);
                found.insert(name.to_string_lossy().into_owned(), bytes);
            }
        }
    }
    Ok(found)
}

/// A recorded tree as text.
pub fn pack(folder: &Path) -> Result<String, RecordingError> {
    let lines = files(folder)?;
    Ok(lines.iter().map(|(path, bytes)| format!("{path}\t{}\n", bytes.escape_ascii())).collect())
}

/// Makes the tree of a text below a folder. Lines that begin with `#` say where it comes from.
pub fn unpack(text: &str, folder: &Path) -> Result<(), RecordingError> {
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with('#')) {
        let wrong = || RecordingError::Line(index + 1);
        let (path, bytes) = line.split_once('\t').ok_or_else(wrong)?;
        let inside = path.split('/').all(|part| !part.is_empty() && part != "..");
        let bytes = unescaped(bytes).filter(|_| inside).ok_or_else(wrong)?;
        let file = folder.join(path);
        std::fs::create_dir_all(file.parent().unwrap_or(folder)).map_err(at(&file))?;
        std::fs::write(&file, bytes).map_err(at(&file))?;
    }
    Ok(())
}

/// What [`slice::escape_ascii`] made.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'\\' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let (kind, after) = after.split_first()?;
        rest = after;
        bytes.push(match kind {
            b't' => b'\t',
            b'n' => b'\n',
            b'r' => b'\r',
            b'\\' | b'\'' | b'"' => *kind,
            b'x' => {
                let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
                rest = &rest[2..];
                u8::from_str_radix(digits, 16).ok()?
            }
            _ => return None,
        });
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            prop_assert_eq!(unescaped(&bytes.escape_ascii().to_string()), Some(bytes));
        }

        #[test]
        fn any_text_is_taken_or_refused(text in "[\\\\a-z0-9x]{0,40}") {
            let _ = unescaped(&text);
        }
    }

    #[test]
    fn a_tree_comes_back_and_nothing_outside_is_written() {
        let one = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(one.path().join("proc/sys")).unwrap();
        std::fs::write(one.path().join("proc/sys/a"), b"1\t2\n\0\xff").unwrap();
        std::fs::write(one.path().join("b"), b"").unwrap();
        let two = tempfile::tempdir().unwrap();
        unpack(&format!("# origin\n{}", pack(one.path()).unwrap()), two.path()).unwrap();
        assert_eq!(files(one.path()).unwrap(), files(two.path()).unwrap());
        for line in ["../x\ty", "/etc/x\ty", "x", "x\t\\q"] {
            assert!(matches!(unpack(line, two.path()), Err(RecordingError::Line(1))), "{line}");
        }
    }
}
