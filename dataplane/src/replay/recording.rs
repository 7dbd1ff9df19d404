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
        match self.next.insert(worker, number.saturating_add(1)) {
            // What was before the first file is not missing.
            None => true,
            Some(next) if number < next => {
                self.next.insert(worker, next);
                self.found.repeated += 1;
                false
            }
            Some(next) => {
                self.found.missing = self.found.missing.saturating_add(number - next);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::blocks::{self, PacketHeader};

    const FRAMES: Source = Source { kind: SourceKind::Frame, interface: 0, number: 1 };

    /// A file of a node: interface 0 is worker 2's queue, 1 its events, 2 another worker's queue.
    fn file(run: u64, packets: &[(u32, u64)]) -> Vec<u8> {
        let mut out = Vec::new();
        let section = Section { run, offset_ns: 1000 };
        blocks::section(&mut out, &section.comment("edge-1"));
        let ethernet = blocks::LINK_TYPE_ETHERNET;
        blocks::interface(&mut out, ethernet, "eth0", "", &FRAMES.mark(2));
        blocks::interface(&mut out, LINK_TYPE_EVENTS, "", "", &Source::EVENTS.mark(2));
        blocks::interface(&mut out, ethernet, "eth0", "", &FRAMES.mark(3));
        for (interface, identity) in packets {
            let (interface, identity) = (*interface, *identity);
            let header = PacketHeader { interface, time_ns: 1007, identity, dropped: 0 };
            blocks::packet(&mut out, &header, |out| out.push(identity as u8));
        }
        out
    }

    fn read(
        recording: &mut Recording,
        bytes: &[u8],
    ) -> Result<Vec<(u8, u64, bool)>, RecordingError> {
        let mut path = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut path, bytes).unwrap();
        let mut file = recording.open(path.path())?;
        let mut found = Vec::new();
        while let Some(record) = file.next_record()? {
            assert_eq!((record.time_ns, record.stamp_ns), (1007, 7));
            assert!(record.has_events && record.run.is_some());
            let (bytes, is_event) = match record.content {
                Content::Frame(bytes) => (bytes, false),
                Content::Event(bytes) => (bytes, true),
            };
            found.push((record.worker, bytes[0].into(), is_event));
        }
        Ok(found)
    }

    #[test]
    fn what_was_written_twice_comes_once_and_what_is_missing_is_counted() {
        let mut recording = Recording::default();
        let first = read(&mut recording, &file(5, &[(0, 4), (1, 5), (2, 0), (0, 6)])).unwrap();
        let expected = [(2, 4, false), (2, 5, true), (3, 0, false), (2, 6, false)];
        assert_eq!(first, expected);
        assert_eq!(*recording.found(), Found::default());
        // The next file repeats two, and lacks 8 and 9.
        let next = file(5, &[(1, 5), (0, 6), (0, 7), (0, 10), (2, 1)]);
        let next = read(&mut recording, &next).unwrap();
        assert_eq!(next, [(2, 7, false), (2, 10, false), (3, 1, false)]);
        assert_eq!(*recording.found(), Found { repeated: 2, missing: 2, cut: 0 });
        // Another run of the node counts anew; a cut file is read as far as it goes.
        let mut cut = file(6, &[(0, 0), (0, 1)]);
        cut.truncate(cut.len() - 1);
        assert_eq!(read(&mut recording, &cut).unwrap(), [(2, 0, false)]);
        assert_eq!(*recording.found(), Found { repeated: 2, missing: 2, cut: 1 });
        let last = read(&mut recording, &file(6, &[(0, u64::MAX), (0, u64::MAX)])).unwrap();
        assert!(!last.is_empty(), "no number is more than a wrong count");
    }

    #[test]
    fn frames_of_other_links_are_refused_by_name() {
        let mut out = Vec::new();
        blocks::section(&mut out, "another program's");
        blocks::interface(&mut out, 113, "any", "", "");
        let header = PacketHeader { interface: 0, time_ns: 1007, identity: 1, dropped: 0 };
        blocks::packet(&mut out, &header, |out| out.push(1));
        let error = read(&mut Recording::default(), &out).unwrap_err().to_string();
        assert!(error.contains("link type 113, only Ethernet"), "{error}");
    }
}
