//! Histories on disk: files of 64-byte records that threads and processes append to.
//!
//! ```text
//!   header  magic, record bytes, 0 ...
//!   record  key | invoke ns | return ns, all ones = never | client 32, path 8, input 8, output 8, 0 |
//!           input value | input version | output value | output version      (little-endian u64)
//! ```
//!
//! Whole records go out in one `write` to a file opened for appending, so logs of several threads
//! and processes may share a file. A log that its process did not live to flush is lost, and with it
//! acknowledged writes: whoever records must outlive the run, or record with [`Recorder::unbuffered`].

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nautilus_shm::clock::monotonic_ns;

use super::operation::{Input, Operation, Output, Returned};

/// Bytes of a record and of the header.
pub const RECORD_BYTES: usize = 64;
const MAGIC: u64 = u64::from_le_bytes(*b"NAUTHIST");
/// Records a log holds before it writes them.
const BUFFERED: usize = 256;
const NEVER: u64 = u64::MAX;
/// No version was told. The store's own versions never get there.
const NO_VERSION: u64 = u64::MAX;

/// Why a history could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not begin as a history does.
    #[error("{}: not a history", path.display())]
    NotAHistory {
        /// Which.
        path: PathBuf,
    },
    /// A record is cut off or says nothing.
    #[error("{}: record {number} is damaged", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Which record, from 0.
        number: usize,
    },
}

/// A history file being written. Cheap to clone; give each thread a [`ClientLog`].
#[derive(Clone, Debug)]
pub struct Recorder {
    file: Arc<File>,
    buffered: usize,
}

impl Recorder {
    /// Appends to the file, which is made with its header if it is not there.
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let file_error = |source| RecordError::File { path: path.to_owned(), source };
        if !path.exists() {
            make(path).map_err(file_error)?;
        }
        let file = OpenOptions::new().append(true).open(path).map_err(file_error)?;
        Ok(Self { file: Arc::new(file), buffered: BUFFERED })
    }

    /// The same, with a system call for every operation: nothing answered is lost with the process.
    pub fn unbuffered(self) -> Self {
        Self { buffered: 1, ..self }
    }

    /// The log of one client, which has at most one operation under way. `path` is printed with it.
    pub fn client(&self, client: u32, path: u8) -> ClientLog {
        ClientLog { recorder: self.clone(), client, path, records: Vec::new() }
    }
}

/// Makes a file of a header alone, in one step: whoever finds the file finds the header in it.
fn make(path: &Path) -> io::Result<()> {
    let mut header = [0; RECORD_BYTES];
    header[..8].copy_from_slice(&MAGIC.to_le_bytes());
    header[8..16].copy_from_slice(&(RECORD_BYTES as u64).to_le_bytes());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
    file.write_all(&header)?;
    match file.persist_noclobber(path) {
        Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => Err(error.error),
        _ => Ok(()),
    }
}

/// What one client did. Written out when full, on [`Self::flush`] and on drop.
#[derive(Debug)]
pub struct ClientLog {
    recorder: Recorder,
    client: u32,
    path: u8,
    records: Vec<u8>,
}

impl ClientLog {
    /// Reads the clock; call it right before the request is sent.
    pub fn begin(&mut self, key: u64, input: Input) -> Pending<'_> {
        let (client, path) = (self.client, self.path);
        let operation = Operation { client, path, key, input, invoke_ns: 0, returned: None };
        let pending = Pending { log: self, operation: Some(operation) };
        pending.stamped()
    }

    /// Adds an operation that was stamped elsewhere.
    pub fn push(&mut self, operation: &Operation) -> io::Result<()> {
        self.records.extend_from_slice(&encode(operation));
        if self.records.len() >= self.recorder.buffered * RECORD_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Writes what is buffered.
    pub fn flush(&mut self) -> io::Result<()> {
        let records = std::mem::take(&mut self.records);
        if records.is_empty() {
            return Ok(());
        }
        let written = (&*self.recorder.file).write(&records)?;
        if written == records.len() {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::WriteZero, "a history was cut off"))
        }
    }
}

impl Drop for ClientLog {
    fn drop(&mut self) {
        if let Err(error) = self.flush() {
            eprintln!("a history is incomplete: {error}");
        }
    }
}

/// An operation under way. Dropped without an answer, its outcome is recorded as unknown.
#[derive(Debug)]
pub struct Pending<'a> {
    log: &'a mut ClientLog,
    operation: Option<Operation>,
}

impl Pending<'_> {
    fn stamped(mut self) -> Self {
        if let Some(operation) = &mut self.operation {
            operation.invoke_ns = monotonic_ns();
        }
        self
    }

    /// Reads the clock; call it right after the answer has arrived.
    pub fn end(mut self, output: Output) -> io::Result<()> {
        let returned = Some(Returned { output, at_ns: monotonic_ns() });
        match self.operation.take() {
            Some(operation) => self.log.push(&Operation { returned, ..operation }),
            None => Ok(()),
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(operation) = self.operation.take()
            && let Err(error) = self.log.push(&operation)
        {
            eprintln!("a history is incomplete: {error}");
        }
    }
}

fn encode(operation: &Operation) -> [u8; RECORD_BYTES] {
    let (input, in_value, in_version) = match operation.input {
        Input::Get => (0, 0, 0),
        Input::Set { value } => (1, value, 0),
        Input::Add { value } => (2, value, 0),
        Input::Replace { value } => (3, value, 0),
        Input::Append { piece } => (4, piece, 0),
        Input::Prepend { piece } => (5, piece, 0),
        Input::Cas { value, version } => (6, value, version),
        Input::Incr { delta } => (7, delta, 0),
        Input::Decr { delta } => (8, delta, 0),
        Input::Touch => (9, 0, 0),
        Input::Delete => (10, 0, 0),
        Input::Flush => (11, 0, 0),
    };
    let told = |version: Option<u64>| version.unwrap_or(NO_VERSION);
    let (output, out_value, out_version) = match operation.returned.map(|one| one.output) {
        None => (0, 0, 0),
        Some(Output::Value { value, version }) => (1, value, told(version)),
        Some(Output::Miss) => (2, 0, 0),
        Some(Output::Stored { version }) => (3, 0, told(version)),
        Some(Output::NotStored) => (4, 0, 0),
        Some(Output::Exists) => (5, 0, 0),
        Some(Output::NotFound) => (6, 0, 0),
        Some(Output::Number { value }) => (7, value, 0),
        Some(Output::Touched) => (8, 0, 0),
        Some(Output::Deleted) => (9, 0, 0),
        Some(Output::Flushed) => (10, 0, 0),
        Some(Output::Refused) => (11, 0, 0),
    };
    let who =
        u64::from(operation.client) | u64::from(operation.path) << 32 | input << 40 | output << 48;
    let return_ns = operation.returned.map_or(NEVER, |returned| returned.at_ns);
    let words = [
        operation.key,
        operation.invoke_ns,
        return_ns,
        who,
        in_value,
        in_version,
        out_value,
        out_version,
    ];
    let mut record = [0; RECORD_BYTES];
    for (bytes, word) in record.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    record
}

fn decode(record: &[u8; RECORD_BYTES]) -> Option<Operation> {
    let (words, _) = record.as_chunks::<8>();
    let mut words = words.iter().map(|bytes| u64::from_le_bytes(*bytes));
    let mut word = || words.next();
    let (key, invoke_ns, return_ns, who) = (word()?, word()?, word()?, word()?);
    let (value, version) = (word()?, word()?);
    let [a, b, c, d, path, input, output, 0] = who.to_le_bytes() else { return None };
    let input = match input {
        0 => Input::Get,
        1 => Input::Set { value },
        2 => Input::Add { value },
        3 => Input::Replace { value },
        4 => Input::Append { piece: value },
        5 => Input::Prepend { piece: value },
        6 => Input::Cas { value, version },
        7 => Input::Incr { delta: value },
        8 => Input::Decr { delta: value },
        9 => Input::Touch,
        10 => Input::Delete,
        11 => Input::Flush,
        _ => return None,
    };
    let (value, version) = (word()?, Some(word()?).filter(|&version| version != NO_VERSION));
    let output = match output {
        0 => None,
        1 => Some(Output::Value { value, version }),
        2 => Some(Output::Miss),
        3 => Some(Output::Stored { version }),
        4 => Some(Output::NotStored),
        5 => Some(Output::Exists),
        6 => Some(Output::NotFound),
        7 => Some(Output::Number { value }),
        8 => Some(Output::Touched),
        9 => Some(Output::Deleted),
        10 => Some(Output::Flushed),
        11 => Some(Output::Refused),
        _ => return None,
    };
    let returned = match (output, return_ns) {
        (None, NEVER) => None,
        (Some(output), at_ns) if (invoke_ns..NEVER).contains(&at_ns) => {
            Some(Returned { output, at_ns })
        }
        _ => return None,
    };
    let client = u32::from_le_bytes([a, b, c, d]);
    Some(Operation { client, path, key, input, invoke_ns, returned })
}

/// The operations of one file.
pub fn read(path: &Path) -> Result<Vec<Operation>, RecordError> {
    let bytes = std::fs::read(path)
        .map_err(|source| RecordError::File { path: path.to_owned(), source })?;
    let (records, rest) = bytes.as_chunks::<RECORD_BYTES>();
    let header = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    if header(0) != Some(MAGIC) || header(8) != Some(RECORD_BYTES as u64) || records.is_empty() {
        return Err(RecordError::NotAHistory { path: path.to_owned() });
    }
    let damaged = |number| RecordError::Damaged { path: path.to_owned(), number };
    if !rest.is_empty() {
        return Err(damaged(records.len() - 1));
    }
    let records = records[1..].iter().enumerate();
    records.map(|(number, record)| decode(record).ok_or_else(|| damaged(number))).collect()
}

/// The operations of several files of one run on one host.
pub fn read_all(paths: &[PathBuf]) -> Result<Vec<Operation>, RecordError> {
    let mut history = Vec::new();
    for path in paths {
        history.extend(read(path)?);
    }
    Ok(history)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u64 = 0xfeed;

    fn file(folder: &tempfile::TempDir) -> PathBuf {
        folder.path().join("a.history")
    }

    #[test]
    fn what_is_recorded_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let inputs = [
            Input::Get,
            Input::Set { value: 1 },
            Input::Add { value: 2 },
            Input::Replace { value: 3 },
            Input::Append { piece: 4 },
            Input::Prepend { piece: 5 },
            Input::Cas { value: 6, version: 7 },
            Input::Incr { delta: 8 },
            Input::Decr { delta: 9 },
            Input::Touch,
            Input::Delete,
            Input::Flush,
        ];
        let outputs = [
            Output::Value { value: 1, version: None },
            Output::Value { value: 1, version: Some(2) },
            Output::Miss,
            Output::Stored { version: Some(3) },
            Output::NotStored,
            Output::Exists,
            Output::NotFound,
            Output::Number { value: 4 },
            Output::Touched,
            Output::Deleted,
            Output::Flushed,
            Output::Refused,
        ];
        let mut log = Recorder::open(&file(&folder)).unwrap().client(3, 2);
        for (input, output) in inputs.into_iter().zip(outputs) {
            log.begin(KEY, input).end(output).unwrap();
        }
        drop(log.begin(KEY, Input::Delete));
        drop(log);
        let history = read(&file(&folder)).unwrap();
        assert_eq!(history.len(), inputs.len() + 1);
        for (operation, (input, output)) in history.iter().zip(inputs.into_iter().zip(outputs)) {
            assert_eq!((operation.client, operation.path, operation.key), (3, 2, KEY));
            assert_eq!(operation.input, input);
            let returned = operation.returned.unwrap();
            assert_eq!(returned.output, output);
            assert!(returned.at_ns >= operation.invoke_ns && operation.invoke_ns > 0);
        }
        let last = history.last().unwrap();
        assert_eq!((last.input, last.returned), (Input::Delete, None));
    }

    #[test]
    fn threads_share_a_file_and_lose_nothing() {
        const EACH: u64 = 3_000;
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for client in 0..4 {
                let path = file(&folder);
                scope.spawn(move || {
                    let mut log = Recorder::open(&path).unwrap().client(client, 0);
                    for value in 0..EACH {
                        let output = Output::Stored { version: None };
                        log.begin(value, Input::Set { value }).end(output).unwrap();
                    }
                });
            }
        });
        let history = read_all(&[file(&folder)]).unwrap();
        assert_eq!(history.len(), 4 * EACH as usize);
        for client in 0..4 {
            let own = history.iter().filter(|operation| operation.client == client);
            assert!(own.map(|operation| operation.key).eq(0..EACH), "client {client}");
        }
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(&folder);
        let mut log = Recorder::open(&path).unwrap().unbuffered().client(0, 0);
        log.begin(1, Input::Touch).end(Output::Touched).unwrap();
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(whole.len(), 2 * RECORD_BYTES);
        assert_eq!(read(&path).unwrap().len(), 1);
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read(&path).unwrap_err().to_string()
        };
        assert!(refused(&whole[..100]).contains("record 0 is damaged"));
        assert!(refused(b"no history").contains("not a history"));
        // Kinds, padding, an answer without a time, a return before the call.
        for (at, byte) in [(29, 12), (30, 12), (31, 1), (30, 0), (22, 0)] {
            let mut bytes = whole.clone();
            bytes[RECORD_BYTES + at] = byte;
            let changed = bytes != whole;
            let refused = std::fs::write(&path, &bytes).is_ok() && read(&path).is_err();
            assert!(refused || !changed, "byte {at} = {byte}");
        }
    }
}
