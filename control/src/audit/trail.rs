//! The files of a trail: opening after whatever happened, appending durably, beginning the next.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::clock::Moment;
use super::key::SigningKey;
use super::record::{self, Body, Entry, Hash, When, hex};
use super::{AuditError, AuditOptions, retention};

/// A wall clock that moved further than this against the one since boot gets a record. Too low: the
/// slewing of a time daemon fills the trail; too high: a step hides.
const CLOCK_STEP_NS: i64 = 500_000_000;

/// The last record: its number and hash. Told to others, it shows later whether anything is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Number of the last record; 0 before the first.
    pub sequence: u64,
    /// Its hash.
    pub hash: Hash,
}

impl std::fmt::Display for Head {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}", self.sequence, hex(&self.hash))
    }
}

/// A trail open for writing.
pub struct Trail {
    options: AuditOptions,
    key: SigningKey,
    id: String,
    _lock: File,
    file: File,
    path: PathBuf,
    length_bytes: u64,
    head: Head,
    unsigned: u64,
    last: Moment,
    unrecorded: u64,
    refusal: String,
    poisoned: Option<String>,
    /// Memory for the next lines.
    spare: Vec<u8>,
}

/// Lines not yet written, and the trail's state after them.
struct Draft {
    bytes: Vec<u8>,
    head: Head,
    unsigned: u64,
}

impl Draft {
    fn push(&mut self, when: &When, body: &Body<'_>) {
        let sequence = self.head.sequence + 1;
        let previous = self.head.hash;
        let hash = record::push_line(&mut self.bytes, &previous, sequence, when, body);
        self.head = Head { sequence, hash };
        self.unsigned += 1;
    }

    fn sign(&mut self, key: &SigningKey, trail: &str, moment: Moment) {
        let head = hex(&self.head.hash);
        let signature = key.sign(trail, self.head.sequence + 1, &moment.text(), &head);
        self.push(&When::of(moment), &Body::Checkpoint { head, signature });
        self.unsigned = 0;
    }
}

impl Trail {
    /// Opens or begins the trail of a folder; mends what a crash left.
    pub fn open(options: AuditOptions) -> Result<Self, AuditError> {
        let dir = options.dir.clone();
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&dir).map_err(io("making", &dir))?;
        let lock = lock(&dir)?;
        let key = SigningKey::load_or_make(&options.key)?;
        let mut cut = None;
        let mut files = retention::files(&dir)?;
        let mut found = None;
        while let Some((path, first)) = files.pop() {
            let read = read_back(&path, first)?;
            let kept = read.kept_bytes;
            if kept < read.total_bytes {
                cut = Some((retention::name(&path), kept, read.cut.clone()));
            }
            if kept > 0 {
                truncate(&path, kept, read.total_bytes)?;
                found = Some((path, read));
                break;
            }
            // Its first record never came to be, so nothing was ever acknowledged in it.
            std::fs::remove_file(&path).map_err(io("removing", &path))?;
        }
        let moment = Moment::now();
        let (file, path, length_bytes, head, id, same_key) = match found {
            Some((path, read)) => {
                let file = append_to(&path).map_err(io("opening", &path))?;
                let same_key = read.key == key.public();
                (file, path, read.kept_bytes, read.head, read.trail, same_key)
            }
            None => {
                let mut id = [0; 16];
                aws_lc_rs::rand::fill(&mut id).map_err(|_| AuditError::Key {
                    path: options.key.clone(),
                    reason: "no random numbers".into(),
                })?;
                let none = Head { sequence: 0, hash: Hash::default() };
                let id = hex(&id);
                let (file, path, length, head) = begin(&dir, none, &id, &key, moment)?;
                (file, path, length, head, id, true)
            }
        };
        let mut trail = Self {
            options,
            key,
            id,
            _lock: lock,
            file,
            path,
            length_bytes,
            head,
            unsigned: 1,
            last: moment,
            unrecorded: 0,
            refusal: String::new(),
            poisoned: None,
            spare: Vec::new(),
        };
        if !same_key {
            // The key that would sign the end of the old file is not here any more.
            trail.unsigned = 0;
            trail.next_file()?;
        }
        let mut draft = trail.draft();
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        let boot_id = boot_id.unwrap_or_default().trim().to_owned();
        let version = env!("CARGO_PKG_VERSION");
        let when = When::of(moment);
        draft.push(&when, &Body::Start { boot_id, pid: std::process::id(), version });
        if let Some((file, at_bytes, cut)) = &cut {
            let cut_sha256 = hex(&record::sha256(cut));
            let cut_bytes = cut.len() as u64;
            draft.push(&when, &Body::Repair { file, at_bytes: *at_bytes, cut_bytes, cut_sha256 });
        }
        draft.sign(&trail.key, &trail.id, moment);
        trail.write(draft)?;
        Ok(trail)
    }

    /// [`Self::append_each`] of a slice.
    pub fn append(&mut self, entries: &[Entry]) -> Result<Head, AuditError> {
        self.append_each(entries.iter())
    }

    /// Appends all of them or none, durably. On an error nothing of them is in the trail.
    pub fn append_each<'a>(
        &mut self,
        entries: impl ExactSizeIterator<Item = &'a Entry>,
    ) -> Result<Head, AuditError> {
        let count = entries.len() as u64;
        let result = self.try_append(entries);
        if let Err(error) = &result {
            self.unrecorded += count;
            self.refusal = error.to_string();
        }
        result
    }

    fn try_append<'a>(
        &mut self,
        entries: impl Iterator<Item = &'a Entry>,
    ) -> Result<Head, AuditError> {
        if self.length_bytes > self.options.rotate_bytes {
            self.next_file()?;
        }
        let moment = Moment::now();
        let when = When::of(moment);
        let mut draft = self.draft();
        let step_ns = moment.step_ns(self.last);
        if step_ns.abs() > CLOCK_STEP_NS {
            draft.push(&when, &Body::Clock { step_ns });
        }
        if self.unrecorded > 0 {
            let reason = &self.refusal;
            draft.push(&when, &Body::Unrecorded { count: self.unrecorded, reason });
        }
        for entry in entries {
            draft.push(&when, &Body::Action(entry));
        }
        if draft.unsigned >= self.options.checkpoint_records {
            draft.sign(&self.key, &self.id, moment);
        }
        self.write(draft)?;
        self.last = moment;
        self.unrecorded = 0;
        Ok(self.head)
    }

    /// Signs what is not signed yet.
    pub fn checkpoint(&mut self) -> Result<Head, AuditError> {
        if self.unsigned > 0 {
            let mut draft = self.draft();
            draft.sign(&self.key, &self.id, Moment::now());
            self.write(draft)?;
        }
        Ok(self.head)
    }

    /// The last record.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Ends this file with a signature and begins the next with the hash of its end.
    fn next_file(&mut self) -> Result<(), AuditError> {
        self.checkpoint()?;
        let moment = Moment::now();
        let begun = begin(&self.options.dir, self.head, &self.id, &self.key, moment)?;
        (self.file, self.path, self.length_bytes, self.head) = begun;
        self.unsigned = 1;
        while let Some(oldest) = retention::oldest_to_go(&self.options)? {
            let mut draft = self.draft();
            let last_hash = hex(&oldest.last_hash);
            let next_sequence = oldest.next_sequence;
            let body = Body::Pruned { file: &oldest.name, next_sequence, last_hash };
            draft.push(&When::of(moment), &body);
            draft.sign(&self.key, &self.id, moment);
            self.write(draft)?;
            oldest.remove()?;
        }
        Ok(())
    }

    /// Begins with the memory of the draft before.
    fn draft(&mut self) -> Draft {
        let mut bytes = std::mem::take(&mut self.spare);
        bytes.clear();
        Draft { bytes, head: self.head, unsigned: self.unsigned }
    }

    fn write(&mut self, draft: Draft) -> Result<(), AuditError> {
        if let Some(reason) = &self.poisoned {
            return Err(AuditError::Poisoned(reason.clone()));
        }
        if let Err(error) = self.file.write_all(&draft.bytes) {
            // What was half written must not be followed by anything.
            if let Err(worse) = self.file.set_len(self.length_bytes) {
                self.poisoned = Some(worse.to_string());
            }
            return Err(io("writing", &self.path)(error));
        }
        if let Err(error) = self.file.sync_data() {
            self.poisoned = Some(error.to_string());
            return Err(io("flushing", &self.path)(error));
        }
        self.length_bytes += draft.bytes.len() as u64;
        self.head = draft.head;
        self.unsigned = draft.unsigned;
        self.spare = draft.bytes;
        Ok(())
    }
}

fn lock(dir: &Path) -> Result<File, AuditError> {
    let path = dir.join("lock");
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(io("opening", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(AuditError::Busy(dir.into())),
        Err(std::fs::TryLockError::Error(error)) => Err(io("locking", &path)(error)),
    }
}

/// Begins the file that follows `head`, with its first record in it and both on disk.
fn begin(
    dir: &Path,
    head: Head,
    id: &str,
    key: &SigningKey,
    moment: Moment,
) -> Result<(File, PathBuf, u64, Head), AuditError> {
    let sequence = head.sequence + 1;
    let path = dir.join(retention::file_name(sequence));
    let previous = hex(&head.hash);
    let body = Body::File { format: 1, trail: id, previous, key: key.public() };
    let mut line = Vec::new();
    let hash = record::push_line(&mut line, &head.hash, sequence, &When::of(moment), &body);
    let mut options = OpenOptions::new();
    let made =
        options.append(true).create_new(true).mode(0o600).open(&path).and_then(|mut file| {
            file.write_all(&line)?;
            file.sync_all()?;
            File::open(dir)?.sync_all()?;
            Ok(file)
        });
    match made {
        Ok(file) => Ok((file, path, line.len() as u64, Head { sequence, hash })),
        Err(error) => {
            // Half a first record would stand in the way of the next attempt.
            let _ = std::fs::remove_file(&path);
            Err(io("beginning", &path)(error))
        }
    }
}

/// What is in a file: up to where it holds, and what stands behind that.
struct ReadBack {
    head: Head,
    trail: String,
    key: String,
    kept_bytes: u64,
    total_bytes: u64,
    cut: Vec<u8>,
}

fn read_back(path: &Path, first: u64) -> Result<ReadBack, AuditError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
    read.map_err(io("reading", path))?;
    let head = Head { sequence: first.saturating_sub(1), hash: Hash::default() };
    let total_bytes = bytes.len() as u64;
    let (trail, key) = (String::new(), String::new());
    let mut found = ReadBack { head, trail, key, kept_bytes: 0, total_bytes, cut: Vec::new() };
    let mut at = 0;
    while let Some(length) = bytes[at..].iter().position(|byte| *byte == b'\n') {
        let Some((hash, document)) = line_of(&bytes[at..at + length]) else { break };
        let json = &bytes[at + 65..at + length];
        if at == 0 {
            let text = |key: &str| document[key].as_str().unwrap_or_default().to_owned();
            let previous = record::from_hex(text("previous").as_bytes()).unwrap_or_default();
            (found.head.hash, found.trail, found.key) = (previous, text("trail"), text("key"));
        }
        let fits = record::chained(&found.head.hash, json) == hash
            && document["sequence"] == found.head.sequence + 1;
        if !fits {
            return Err(AuditError::Altered { path: path.into(), at_bytes: at as u64 });
        }
        found.head = Head { sequence: found.head.sequence + 1, hash };
        at += length + 1;
    }
    // A crash leaves a piece of the last write. Whole records behind what does not fit are no crash.
    let rest = &bytes[at..];
    if rest.split(|byte| *byte == b'\n').skip(1).any(|line| line_of(line).is_some()) {
        return Err(AuditError::Altered { path: path.into(), at_bytes: at as u64 });
    }
    found.kept_bytes = at as u64;
    found.cut = rest.to_vec();
    Ok(found)
}

/// Hash and document of a line without its end.
fn line_of(line: &[u8]) -> Option<(Hash, serde_json::Value)> {
    let hash = record::from_hex(line.get(..64)?)?;
    let json = line.get(64..)?.strip_prefix(b" ")?;
    Some((hash, serde_json::from_slice(json).ok()?))
}

fn append_to(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().append(true).open(path)
}

fn truncate(path: &Path, kept: u64, total: u64) -> Result<(), AuditError> {
    if kept == total {
        return Ok(());
    }
    let cut = OpenOptions::new().write(true).open(path).and_then(|file| {
        file.set_len(kept)?;
        file.sync_all()
    });
    cut.map_err(io("cutting", path))
}

/// An error about a file.
pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> AuditError {
    move |source| AuditError::Io { doing, path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_and_work_that_was_refused_get_records() {
        let folder = tempfile::tempdir().unwrap();
        let options = AuditOptions::of(folder.path().join("audit"));
        let mut trail = Trail::open(options.clone()).unwrap();
        trail.append(&[]).unwrap();
        let text = |trail: &Trail| std::fs::read_to_string(&trail.path).unwrap();
        assert!(!text(&trail).contains("\"kind\":\"clock\""));
        // As if the wall clock had gone back by an hour since.
        trail.last.wall_ns += 3_600_000_000_000;
        trail.append(&[]).unwrap();
        let found = text(&trail);
        let step = found.split("\"step_ns\":").nth(1).unwrap().split('}').next().unwrap();
        let step_ns: i64 = step.parse().unwrap();
        assert!((step_ns + 3_600_000_000_000).abs() < CLOCK_STEP_NS, "{step_ns}");

        (trail.unrecorded, trail.refusal) = (3, "the disk is full".into());
        trail.append(&[]).unwrap();
        trail.append(&[]).unwrap();
        let found = text(&trail);
        let told = "\"kind\":\"unrecorded\",\"count\":3,\"reason\":\"the disk is full\"";
        assert_eq!(found.matches(told).count(), 1, "{found}");
    }
}
