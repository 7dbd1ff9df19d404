//! The state file: what `init` changed and what was there before, one JSON line a record, durable
//! before the change it speaks of.
//!
//! ```text
//!   intended (old bytes, new value) -> the write -> became (bytes read back) | refused
//!   ... fini, in reverse ...                        restored
//! ```
//!
//! A kill between any two of these leaves a file from which `fini` restores: an intended change
//! without its `became` is restored whatever it reads. A last line without its end was never
//! durable, so its change was never made: it is cut off. Writer: the one process that holds the lock.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::address::Address;
use super::knob::Kind;
use super::machine::Machine;
use super::plan::Step;

/// Where the state of the running machine lies unless said otherwise.
pub const DEFAULT_STATE: &str = "/var/lib/nautilus/host.state";
/// Where the id of a boot is read.
pub const BOOT_ID: &str = "proc/sys/kernel/random/boot_id";
/// Version of the records.
const VERSION: u32 = 1;
/// Longest file believed: some thousand changes of some hundred bytes.
const STATE_BYTES_MAX: u64 = 16 << 20;

/// Why the state file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file operation.
    #[error("{path}: {step}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another init or fini runs.
    #[error("{0}: another init or fini is at work")]
    Busy(PathBuf),
    /// Others could have written it.
    #[error("{0}: belongs to another user or others may write it; its values are not trusted")]
    Unsafe(PathBuf),
    /// A line that is no record.
    #[error("{path}: line {line} is no record of this version: {why}; nothing was touched")]
    Record {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// It speaks of another machine or tree.
    #[error("{path}: holds the state of {found}, not of {wanted}")]
    Root {
        /// The file.
        path: PathBuf,
        /// What it speaks of.
        found: String,
        /// What was asked for.
        wanted: String,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case", deny_unknown_fields)]
enum Record {
    Opened {
        version: u32,
        root: String,
        boot_id: String,
    },
    Intended {
        id: usize,
        knob: String,
        label: String,
        address: String,
        kind: Kind,
        old: String,
        restore: String,
        new: String,
    },
    Became {
        id: usize,
        now: String,
    },
    Refused {
        id: usize,
    },
    Restored {
        id: usize,
        how: String,
    },
}

/// A change that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The change.
    pub step: Step,
    /// What it read afterwards; `None` when that was never written down.
    pub became: Option<Vec<u8>>,
    /// It was refused, or has been undone.
    pub is_settled: bool,
}

/// The open file.
#[derive(Debug)]
pub struct State {
    path: PathBuf,
    file: Flock<File>,
    entries: Vec<Entry>,
    boot_id: String,
}

impl State {
    /// Opens the file for a machine, whose root is named so. One of an earlier boot is begun anew, and true is
    /// returned with it: what it would undo went with that boot.
    pub fn of_machine(
        machine: &Machine,
        path: &Path,
        root: &str,
    ) -> Result<(Self, bool), StateError> {
        let boot_id = machine.text(BOOT_ID).unwrap_or_default();
        let state = Self::open(path, root, &boot_id)?;
        if state.is_of_boot(&boot_id) {
            return Ok((state, false));
        }
        state.remove()?;
        Ok((Self::open(path, root, &boot_id)?, true))
    }

    /// Opens the file, or makes it. `boot_id` is the machine's; a file of an earlier boot is
    /// returned with [`Self::is_of_this_boot`] false.
    pub fn open(path: &Path, root: &str, boot_id: &str) -> Result<Self, StateError> {
        let at = |step| move |source| StateError::File { path: path.into(), step, source };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(at("making its folder"))?;
        }
        let file = std::fs::OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc_nofollow())
            .open(path)
            .map_err(at("opening"))?;
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| StateError::Busy(path.into()))?;
        let ours = file.metadata().map_err(at("looking at it"))?;
        // Removed by a fini between opening and locking: what is written to it would be lost.
        match std::fs::metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => {}
            _ => return Err(StateError::Busy(path.into())),
        }
        if ours.uid() != nix::unistd::geteuid().as_raw() || ours.mode() & 0o022 != 0 {
            return Err(StateError::Unsafe(path.into()));
        }
        let mut state =
            Self { path: path.into(), file, entries: Vec::new(), boot_id: String::new() };
        if !state.load(root)? {
            let opened =
                Record::Opened { version: VERSION, root: root.into(), boot_id: boot_id.into() };
            state.append(&opened)?;
            state.boot_id = boot_id.into();
            sync_folder(path).map_err(at("making it durable"))?;
        }
        Ok(state)
    }

    /// Whether it speaks of the boot with this id: settings do not outlive one.
    pub fn is_of_boot(&self, boot_id: &str) -> bool {
        self.boot_id == boot_id
    }

    /// Reads the records; false for an empty file.
    fn load(&mut self, root: &str) -> Result<bool, StateError> {
        let path = self.path.clone();
        let at = |step| {
            let path = path.clone();
            move |source| StateError::File { path, step, source }
        };
        let mut bytes = Vec::new();
        let read = (&mut *self.file).take(STATE_BYTES_MAX).read_to_end(&mut bytes);
        read.map_err(at("reading"))?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if whole < bytes.len() {
            self.file.set_len(whole as u64).map_err(at("cutting an unfinished line"))?;
            self.file.seek(SeekFrom::End(0)).map_err(at("seeking"))?;
            self.file.sync_data().map_err(at("making it durable"))?;
        }
        let lines = bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let mut opened = false;
        for (index, line) in lines.enumerate() {
            let file = path.clone();
            let wrong = |why| StateError::Record { path: file, line: index + 1, why };
            let record = match serde_json::from_slice(line) {
                Ok(record) => record,
                Err(error) => return Err(wrong(error.to_string())),
            };
            match (index, record) {
                (0, Record::Opened { version: VERSION, root: found, boot_id }) => {
                    if found != root {
                        let (path, wanted) = (self.path.clone(), root.to_owned());
                        return Err(StateError::Root { path, found, wanted });
                    }
                    self.boot_id = boot_id;
                    opened = true;
                }
                (0, _) => return Err(wrong("it must say what it belongs to".into())),
                (_, record) => self.take(record).map_err(wrong)?,
            }
        }
        Ok(opened)
    }

    fn take(&mut self, record: Record) -> Result<(), String> {
        match record {
            Record::Opened { .. } => return Err("a second beginning".into()),
            Record::Intended { id, knob, label, address, kind, old, restore, new } => {
                if id != self.entries.len() {
                    return Err(format!("change {id} stands where {} belongs", self.entries.len()));
                }
                let address = Address::of_text(&address).ok_or("no place that may be written")?;
                let old = of_hex(&old).ok_or("no hexadecimal")?;
                let step = Step { knob, label, address, kind, old, restore, new };
                self.entries.push(Entry { step, became: None, is_settled: false });
            }
            Record::Became { id, now } => {
                let now = of_hex(&now).ok_or("no hexadecimal")?;
                self.entry(id)?.became = Some(now);
            }
            Record::Refused { id } | Record::Restored { id, .. } => {
                self.entry(id)?.is_settled = true;
            }
        }
        Ok(())
    }

    fn entry(&mut self, id: usize) -> Result<&mut Entry, String> {
        self.entries.get_mut(id).ok_or_else(|| format!("there is no change {id}"))
    }

    /// Changes that have not been undone: for each place its number, the first, and the last.
    pub fn standing(&self) -> Vec<(usize, &Entry, &Entry)> {
        let mut standing: Vec<(usize, &Entry, &Entry)> = Vec::new();
        for (id, entry) in self.entries.iter().enumerate().filter(|(_, entry)| !entry.is_settled) {
            let same =
                standing.iter_mut().find(|(_, first, _)| first.step.address == entry.step.address);
            match same {
                Some((_, _, last)) => *last = entry,
                None => standing.push((id, entry, entry)),
            }
        }
        standing
    }

    /// Writes down what is about to be changed; durable when it returns.
    pub fn intend(&mut self, step: &Step) -> Result<usize, StateError> {
        let id = self.entries.len();
        self.append(&Record::Intended {
            id,
            knob: step.knob.clone(),
            label: step.label.clone(),
            address: step.address.to_string(),
            kind: step.kind,
            old: hex(&step.old),
            restore: step.restore.clone(),
            new: step.new.clone(),
        })?;
        self.entries.push(Entry { step: step.clone(), became: None, is_settled: false });
        Ok(id)
    }

    /// Writes down what a change became.
    pub fn became(&mut self, id: usize, now: &[u8]) -> Result<(), StateError> {
        self.append(&Record::Became { id, now: hex(now) })?;
        self.entries[id].became = Some(now.to_vec());
        Ok(())
    }

    /// Writes down that a change was refused and nothing is different.
    pub fn refused(&mut self, id: usize) -> Result<(), StateError> {
        self.append(&Record::Refused { id })?;
        self.entries[id].is_settled = true;
        Ok(())
    }

    /// Writes down that every change of a place is undone.
    pub fn restored(&mut self, address: &Address, how: &str) -> Result<(), StateError> {
        // From the last to the first: cut short, the first value still stands.
        for id in (0..self.entries.len()).rev() {
            let entry = &self.entries[id];
            if entry.step.address == *address && !entry.is_settled {
                self.append(&Record::Restored { id, how: how.into() })?;
                self.entries[id].is_settled = true;
            }
        }
        Ok(())
    }

    fn append(&mut self, record: &Record) -> Result<(), StateError> {
        let path = self.path.clone();
        let at = |step| move |source| StateError::File { path, step, source };
        // Strings and numbers of ours: always a line.
        let line = serde_json::to_string(record).unwrap_or_default() + "\n";
        self.file.write_all(line.as_bytes()).map_err(at.clone()("writing"))?;
        self.file.sync_data().map_err(at("making it durable"))
    }

    /// Removes the file: nothing is left to undo.
    pub fn remove(self) -> Result<(), StateError> {
        let at = |step| {
            let path = self.path.clone();
            move |source| StateError::File { path, step, source }
        };
        std::fs::remove_file(&self.path).map_err(at("removing"))?;
        sync_folder(&self.path).map_err(at("making its removal durable"))
    }
}

fn libc_nofollow() -> i32 {
    nix::fcntl::OFlag::O_NOFOLLOW.bits()
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn of_hex(text: &str) -> Option<Vec<u8>> {
    if text.len() % 2 == 1 || !text.is_ascii() {
        return None;
    }
    let pair = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).ok();
    (0..text.len()).step_by(2).map(pair).collect()
}
