//! The files of a capture: named, bounded in size and number, and whole whatever happens.
//!
//! ```text
//!   <node>-<UTC>.pcapng.part    being written; only whole blocks are ever appended
//!   <node>-<UTC>.pcapng         finished: fdatasync, then renamed
//! ```
//!
//! Names sort by the time at which they were begun. The oldest are removed before one more would be too many;
//! files of other names are left alone. A write that fails is taken back to the last whole block. What a killed
//! writer left is cut there by the next one, and renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::replay::pcapng::whole_blocks;

const FINISHED: &str = ".pcapng";
const UNFINISHED: &str = ".pcapng.part";

/// Length of a time in a name: 20221231T235959.123456789Z.
const TIME_BYTES: usize = 26;

/// What is kept of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLimits {
    /// Where.
    pub directory: PathBuf,
    /// What names begin with.
    pub node: String,
    /// Bytes of one file, at most.
    pub file_bytes: u64,
    /// Files, the one being written among them, at most.
    pub files: usize,
}

/// What failed, and where.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {path}: {source}")]
pub struct FileError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    fn at(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { step, path, source }
    }
}

/// The file that is being written, and those before it.
#[derive(Debug)]
pub struct Files {
    limits: FileLimits,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    path: PathBuf,
    bytes: u64,
}

impl Files {
    /// None is open yet.
    pub fn new(limits: FileLimits) -> Self {
        Self { limits, open: None }
    }

    /// Finishes what a killed writer left: cuts it behind its last whole block and renames it, or removes it
    /// when there is none. Returns how many files that were.
    pub fn salvage(&self) -> Result<usize, FileError> {
        let left = self.names(UNFINISHED)?;
        for name in &left {
            let path = self.limits.directory.join(name);
            let file = OpenOptions::new().read(true).write(true).open(&path);
            let mut file = file.map_err(FileError::at("open", &path))?;
            let bytes = whole_blocks(&mut file).map_err(FileError::at("read", &path))?;
            if bytes == 0 {
                fs::remove_file(&path).map_err(FileError::at("remove", &path))?;
                continue;
            }
            file.set_len(bytes).map_err(FileError::at("cut", &path))?;
            finish(&file, &path)?;
        }
        Ok(left.len())
    }

    /// Whether a file is open and has room for so many bytes.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.open.as_ref().is_some_and(|open| open.bytes + bytes <= self.limits.file_bytes)
    }

    /// Whether a file is open.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Begins a file at this time, in nanoseconds since 1970, after the oldest have made room for it.
    pub fn begin(&mut self, time_ns: u64) -> Result<(), FileError> {
        debug_assert!(self.open.is_none());
        let finished = self.names(FINISHED)?;
        let kept = self.limits.files.saturating_sub(1);
        for name in finished.iter().take(finished.len().saturating_sub(kept)) {
            let path = self.limits.directory.join(name);
            fs::remove_file(&path).map_err(FileError::at("remove", &path))?;
        }
        let mut stamp_ns = time_ns;
        loop {
            let name = format!("{}-{}", self.limits.node, utc(stamp_ns));
            let is_taken = finished.iter().any(|finished| finished.starts_with(&name));
            let path = self.limits.directory.join(name + UNFINISHED);
            let mut options = OpenOptions::new();
            match options.write(true).create_new(true).mode(0o640).open(&path) {
                Ok(_) if is_taken => {
                    fs::remove_file(&path).map_err(FileError::at("remove", &path))?;
                }
                Ok(file) => {
                    self.open = Some(Open { file, path, bytes: 0 });
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(FileError::at("make", &path)(error)),
            }
            stamp_ns += 1;
        }
    }

    /// Appends whole blocks, or nothing.
    pub fn append(&mut self, blocks: &[u8]) -> Result<(), FileError> {
        let Some(Open { file, path, bytes }) = &mut self.open else { return Ok(()) };
        if let Err(error) = file.write_all(blocks) {
            // As it was before. If not even that can be done, the next writer does it.
            let _ = file.set_len(*bytes).and_then(|()| file.seek(SeekFrom::Start(*bytes)));
            return Err(FileError::at("write to", path)(error));
        }
        *bytes += blocks.len() as u64;
        Ok(())
    }

    /// Finishes the open file, if there is one; without a block there is nothing to keep.
    pub fn finish(&mut self) -> Result<(), FileError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        if open.bytes == 0 {
            return fs::remove_file(&open.path).map_err(FileError::at("remove", &open.path));
        }
        finish(&open.file, &open.path)
    }

    /// Names of our files with this end, oldest first.
    fn names(&self, end: &str) -> Result<Vec<String>, FileError> {
        let directory = &self.limits.directory;
        let entries = fs::read_dir(directory).map_err(FileError::at("read", directory))?;
        let front = format!("{}-", self.limits.node);
        let is_ours = |name: &String| {
            let time = name.strip_prefix(&front).and_then(|rest| rest.strip_suffix(end));
            time.is_some_and(|time| {
                let bytes = time.as_bytes();
                bytes.len() == TIME_BYTES && (bytes[8], bytes[15], bytes[25]) == (b'T', b'.', b'Z')
            })
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(is_ours).collect();
        names.sort_unstable();
        Ok(names)
    }
}

fn finish(file: &File, path: &Path) -> Result<(), FileError> {
    file.sync_data().map_err(FileError::at("sync", path))?;
    fs::rename(path, path.with_extension("")).map_err(FileError::at("rename", path))
}

/// A time in nanoseconds since 1970 as 20221231T235959.123456789Z.
fn utc(time_ns: u64) -> String {
    let (seconds, nanoseconds) = (time_ns / 1_000_000_000, time_ns % 1_000_000_000);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let (mut year, mut day) = (1970, days);
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        (day, month) = (day - length, month + 1);
    }
    let (hours, minutes, seconds) = (rest / 3600, rest / 60 % 60, rest % 60);
    let day = day + 1;
    format!("{year:04}{month:02}{day:02}T{hours:02}{minutes:02}{seconds:02}.{nanoseconds:09}Z")
}

#[cfg(test)]
mod tests {
    use super::super::blocks;
    use super::*;

    fn files(directory: &Path, file_bytes: u64, files: usize) -> Files {
        let limits =
            FileLimits { directory: directory.into(), node: "edge-1".into(), file_bytes, files };
        Files::new(limits)
    }

    fn listed(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn section() -> Vec<u8> {
        let mut block = Vec::new();
        blocks::section(&mut block, "test");
        block
    }

    #[test]
    fn times_are_written_as_people_do() {
        assert_eq!(utc(0), "19700101T000000.000000000Z");
        assert_eq!(utc(951_782_400_000_000_001), "20000229T000000.000000001Z");
        assert_eq!(utc(1_672_531_199_123_456_789), "20221231T235959.123456789Z");
        assert_eq!(utc(4_107_542_399_000_000_000), "21000228T235959.000000000Z");
        assert_eq!(utc(4_107_542_400_000_000_000), "21000301T000000.000000000Z");
    }

    #[test]
    fn the_oldest_make_room_and_other_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        for other in ["edge-10-20220101T000000.000000000Z.pcapng", "edge-1-notes.pcapng", "x"] {
            fs::write(folder.path().join(other), "kept").unwrap();
        }
        let mut files = files(folder.path(), 1 << 20, 3);
        for second in 0..5u64 {
            files.begin(second * 1_000_000_000).unwrap();
            files.append(&section()).unwrap();
            files.finish().unwrap();
        }
        // The same time again is another file.
        files.begin(4_000_000_000).unwrap();
        files.append(&section()).unwrap();
        let ours = listed(folder.path()).into_iter().filter(|name| name.starts_with("edge-1-19"));
        assert_eq!(
            ours.collect::<Vec<_>>(),
            [
                "edge-1-19700101T000003.000000000Z.pcapng",
                "edge-1-19700101T000004.000000000Z.pcapng",
                "edge-1-19700101T000004.000000001Z.pcapng.part",
            ]
        );
        assert_eq!(listed(folder.path()).len(), 6);
    }

    #[test]
    fn what_a_killed_writer_left_is_cut_behind_its_last_whole_block() {
        let folder = tempfile::tempdir().unwrap();
        let path = |number: u32| {
            folder.path().join(format!("edge-1-1970010{number}T000000.000000000Z.pcapng.part"))
        };
        let (section, mut two) = (section(), section());
        blocks::interface(&mut two, 1, "s0", "", "");
        fs::write(path(1), &two[..two.len() - 1]).unwrap();
        fs::write(path(2), &two).unwrap();
        fs::write(path(3), &section[..5]).unwrap();
        fs::write(path(4), "").unwrap();
        let files = files(folder.path(), 1 << 20, 9);
        assert_eq!(files.salvage().unwrap(), 4);
        assert_eq!(listed(folder.path()).len(), 2);
        let read = |number: u32| fs::read(path(number).with_extension("")).unwrap();
        assert_eq!((read(1), read(2)), (section, two));
        assert_eq!(files.salvage().unwrap(), 0);
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let mut files = files(Path::new("/no-such-directory"), 1 << 20, 2);
        assert!(files.salvage().unwrap_err().to_string().contains("/no-such-directory"));
        assert!(files.begin(0).is_err() && !files.is_open());
    }
}
