//! What was captured, out of files of either format: every packet once, in the order in which it was handled.
//!
//! A capture of a node ([`crate::capture`]) says of every packet which worker saw it and the exact stamp that
//! worker had; files of other hands are of one worker, number 0. What a writer that died had written twice
//! comes once. Packets that are missing are counted.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use super::pcap::{LINK_TYPE_ETHERNET, PcapError, PcapReader};
use super::pcapng::{Interface, PcapngError, PcapngReader};
use crate::capture::blocks::{LINK_TYPE_EVENTS, SECTION};
use crate::capture::source::{Section, Source, SourceKind};

/// What can go wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// One of classic pcap.
    #[error(transparent)]
    Pcap(#[from] PcapError),
    /// One of pcapng.
    #[error(transparent)]
    Pcapng(#[from] PcapngError),
    /// Frames that are not of Ethernet.
    #[error("{path}: link type {link_type}, only Ethernet (1) can be replayed")]
    LinkType {
        /// The file.
        path: PathBuf,
        /// Its link type.
        link_type: u32,
    },
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// A frame.
    Frame(&'a [u8]),
    /// An event of a node's capture, see [`crate::capture::event`].
    Event(&'a [u8]),
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded<'a> {
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// The stamp that the worker had (`CLOCK_MONOTONIC`); of other hands' files `time_ns`.
    pub stamp_ns: u64,
    /// Which worker.
    pub worker: u8,
    /// The run of the node that it is of, if it is of one.
    pub run: Option<u64>,
    /// Whether what else moved that node's feeds was captured as well.
    pub has_events: bool,
    /// What it is.
    pub content: Content<'a>,
}

/// What was found beside the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Records that were in the files twice.
    pub repeated: u64,
    /// Records that workers saw and that are not in the files.
    pub missing: u64,
    /// Files whose end was cut.
    pub cut: u64,
}

/// Several files as one.
#[derive(Debug, Default)]
pub struct Recording {
    /// The run of the node that the files are of, and the next number of each worker.
    run: Option<u64>,
    next: HashMap<u8, u64>,
    found: Found,
}

enum Reader {
    Pcap(PcapReader<BufReader<File>>),
    Pcapng(PcapngReader<BufReader<File>>),
}

/// One of the files.
pub struct RecordedFile<'a> {
    recording: &'a mut Recording,
    path: PathBuf,
    reader: Reader,
    /// Of the present section, and what of its interfaces is known.
    section: Option<Section>,
    sources: Vec<Option<(u8, Source)>>,
    has_events: bool,
    /// How much of the file's structure that is.
    looked_at: u64,
    /// Bytes of the present record.
    data: Vec<u8>,
}

fn source_of(interface: &Interface) -> Option<(u8, Source)> {
    interface.comments.iter().find_map(|comment| Source::from_mark(comment))
}

fn is_of_events((_, source): &(u8, Source)) -> bool {
    source.kind == SourceKind::Events
}

/// A record without its bytes.
struct Kept {
    time_ns: u64,
    stamp_ns: u64,
    worker: u8,
    is_event: bool,
}

impl Recording {
    /// What was found beside the records so far.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// Opens the next file.
    pub fn open(&mut self, path: &Path) -> Result<RecordedFile<'_>, RecordingError> {
        let opened = |source| PcapError::Open { path: path.to_path_buf(), source };
        let mut magic = [0; 4];
        let got = File::open(path).and_then(|mut file| file.read(&mut magic)).map_err(opened)?;
        let reader = match got == 4 && magic == SECTION.to_le_bytes() {
            true => Reader::Pcapng(PcapngReader::open(path)?),
            false => {
                let reader = PcapReader::open(path)?;
                if reader.link_type() != LINK_TYPE_ETHERNET {
                    let (path, link_type) = (path.to_path_buf(), reader.link_type());
                    return Err(RecordingError::LinkType { path, link_type });
                }
                Reader::Pcap(reader)
            }
        };
        Ok(RecordedFile {
            recording: self,
            path: path.to_path_buf(),
            reader,
            section: None,
            sources: Vec::new(),
            has_events: false,
            looked_at: 0,
            data: Vec::new(),
        })
    }

    /// Whether a record is to be looked at; counts what is not there.
    fn admits(&mut self, run: u64, worker: u8, number: u64) -> bool {
        if self.run != Some(run) {
            self.run = Some(run);
            self.next.clear();
        }
        match self.next.insert(worker, number + 1) {
            // What was before the first file is not missing.
            None => true,
            Some(next) if number < next => {
                self.next.insert(worker, next);
                self.found.repeated += 1;
                false
            }
            Some(next) => {
                self.found.missing += number - next;
                true
            }
        }
    }
}

impl RecordedFile<'_> {
    /// The next record, `None` at the end.
    pub fn next_record(&mut self) -> Result<Option<Recorded<'_>>, RecordingError> {
        let Some(kept) = self.read()? else { return Ok(None) };
        let Kept { time_ns, stamp_ns, worker, is_event } = kept;
        let data = self.data.as_slice();
        let content = if is_event { Content::Event(data) } else { Content::Frame(data) };
        let (run, has_events) = (self.section.map(|section| section.run), self.has_events);
        Ok(Some(Recorded { time_ns, stamp_ns, worker, run, has_events, content }))
    }

    fn read(&mut self) -> Result<Option<Kept>, RecordingError> {
        let reader = match &mut self.reader {
            Reader::Pcapng(reader) => reader,
            Reader::Pcap(reader) => {
                let Some(record) = reader.next_record()? else { return Ok(None) };
                self.data.clear();
                self.data.extend_from_slice(record.data);
                let time_ns = record.time_ns;
                return Ok(Some(Kept { time_ns, stamp_ns: time_ns, worker: 0, is_event: false }));
            }
        };
        loop {
            let Some(record) = reader.next_record()? else {
                self.recording.found.cut += u64::from(reader.cut_bytes() > 0);
                return Ok(None);
            };
            let (time_ns, interface) = (record.time_ns, record.interface);
            let identity = record.identity;
            self.data.clear();
            self.data.extend_from_slice(record.data);
            if self.looked_at != reader.looks() {
                self.looked_at = reader.looks();
                self.section =
                    reader.comments().iter().find_map(|comment| Section::from_comment(comment));
                self.sources = reader.interfaces().iter().map(source_of).collect();
                self.has_events = self.sources.iter().flatten().any(is_of_events);
            }
            let link_type = reader.interfaces()[interface].link_type;
            let (worker, is_event) = match self.sources[interface] {
                Some((worker, source)) => (worker, source.kind == SourceKind::Events),
                None => (0, false),
            };
            let wanted = if is_event { LINK_TYPE_EVENTS } else { LINK_TYPE_ETHERNET as u16 };
            if link_type != wanted {
                let (path, link_type) = (self.path.clone(), link_type.into());
                return Err(RecordingError::LinkType { path, link_type });
            }
            let Some(section) = self.section else {
                return Ok(Some(Kept { time_ns, stamp_ns: time_ns, worker, is_event }));
            };
            let is_new =
                identity.is_none_or(|number| self.recording.admits(section.run, worker, number));
            if is_new {
                let stamp_ns = time_ns.wrapping_sub(section.offset_ns);
                return Ok(Some(Kept { time_ns, stamp_ns, worker, is_event }));
            }
        }
    }
}
