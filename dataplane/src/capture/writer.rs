//! From the rings of the workers to blocks, and from blocks to files.
//!
//! ```text
//!   ring of worker n -> record -> block -> batch -> one write of whole blocks -> commit: room for the worker
//! ```
//!
//! What is in a file is given back to the ring only then, so a write that fails, or a writer that dies, loses
//! nothing while the ring has room. A record that was in a file and not given back yet is written once more by
//! the next writer, under the same number.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use nautilus_shm::capture_region::CaptureRegion;
use nautilus_shm::capture_ring::CaptureConsumer;
use nautilus_shm::clock::monotonic_ns;

use super::blocks::{self, InterfaceCounts, LINK_TYPE_ETHERNET, LINK_TYPE_EVENTS, PacketHeader};
use super::files::{FileError, Files};
use super::source::{Section, Source, SourceKind};
use crate::net::{LinkAddress, build, ethernet};
use crate::port::parcel;

/// Bytes of a batch from which it is written. Too low: a system call for a few packets. Too high: the file
/// is behind, and a failed write takes long to be tried again.
const BATCH_BYTES: usize = 256 << 10;

/// Room for the longest record and an interface block in front of it.
const BLOCK_BYTES_MAX: u64 = (72 << 10) + 1024;

/// The smallest file that has room for what it begins and ends with, and packets.
pub const FILE_BYTES_MIN: u64 = 1 << 20;

/// Longest payload that [`build::headers`] takes.
const PAYLOAD_BYTES_MAX: usize = 65_487;

/// MAC addresses of synthesized headers: locally administered, and not one of anybody's.
const SYNTHESIZED_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

/// What a writer knows of its node.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    /// Its id.
    pub node: String,
    /// Names of its interfaces, in the order of the node file.
    pub interfaces: Vec<String>,
    /// Sources that are known before they send: in the first file, too, they stand at its beginning.
    pub expected: Vec<(usize, Source)>,
}

/// What a writer has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Records in files.
    pub records: u64,
    /// Bytes in files.
    pub bytes: u64,
    /// Files begun.
    pub files: u64,
    /// Rings that were damaged.
    pub damaged: u64,
}

/// Writes what the rings of one node hold.
pub struct Writer<'a> {
    region: &'a CaptureRegion,
    consumers: Vec<CaptureConsumer<'a>>,
    facts: NodeFacts,
    files: Files,
    /// Sources by their number in the file.
    sources: Vec<(usize, Source)>,
    numbers: HashMap<(usize, Source), u32>,
    /// `CLOCK_REALTIME - CLOCK_MONOTONIC` of the file.
    offset_ns: u64,
    batch: Vec<u8>,
    batch_records: u64,
    record: Vec<u8>,
    written: Written,
}

impl<'a> Writer<'a> {
    /// Goes on where the writer before stopped, which is dead.
    pub fn new(region: &'a CaptureRegion, facts: NodeFacts, files: Files) -> Self {
        let consumers = (0..region.workers()).map(|worker| region.ring(worker).consumer());
        let mut this = Self {
            region,
            consumers: consumers.collect(),
            files,
            sources: Vec::new(),
            numbers: HashMap::new(),
            offset_ns: 0,
            batch: Vec::with_capacity(BATCH_BYTES + BLOCK_BYTES_MAX as usize),
            batch_records: 0,
            record: Vec::new(),
            written: Written::default(),
            facts,
        };
        for (worker, source) in this.facts.expected.clone() {
            this.number(worker, source);
        }
        this
    }

    /// What it has done.
    pub fn written(&self) -> &Written {
        &self.written
    }

    /// Writes some of what waits; returns whether there was anything. After an error nothing is lost: the same
    /// is read again, and written to another file, by the next call.
    pub fn turn(&mut self) -> Result<bool, FileError> {
        let result = self.fill().and_then(|is_busy| self.write().map(|()| is_busy));
        if result.is_err() {
            self.start_over();
        }
        result
    }

    /// Ends the file that is open, with what was counted.
    pub fn finish(&mut self) -> Result<(), FileError> {
        let result = self.write().and_then(|()| self.end_file());
        if result.is_err() {
            self.start_over();
        }
        result
    }

    fn fill(&mut self) -> Result<bool, FileError> {
        let mut is_busy = false;
        for worker in 0..self.consumers.len() {
            while self.batch.len() < BATCH_BYTES && self.take(worker)? {
                is_busy = true;
            }
        }
        Ok(is_busy)
    }

    /// Puts one record of a worker into the batch; `false` when there is none.
    fn take(&mut self, worker: usize) -> Result<bool, FileError> {
        if self.consumers[worker].is_empty() {
            return Ok(false);
        }
        let reserve = (self.sources.len() as u64 + 1) * blocks::STATISTICS_BYTES as u64;
        if !self.files.has_room(self.batch.len() as u64 + BLOCK_BYTES_MAX + reserve) {
            self.write()?;
            self.end_file()?;
            self.begin_file()?;
        }
        let captured = match self.consumers[worker].next(&mut self.record) {
            Ok(Some(captured)) => captured,
            Ok(None) => return Ok(false),
            Err(_) => {
                self.written.damaged += 1;
                return Ok(true);
            }
        };
        let Some(source) = Source::from_identity(captured.identity) else {
            self.written.damaged += 1;
            return Ok(true);
        };
        let interface = match self.numbers.get(&(worker, source)) {
            Some(number) => *number,
            None => {
                let number = self.number(worker, source);
                let facts = &self.facts;
                describe(&mut self.batch, facts, worker, source);
                number
            }
        };
        let header = PacketHeader {
            interface,
            time_ns: captured.stamp_ns.wrapping_add(self.offset_ns),
            identity: captured.sequence,
            dropped: captured.dropped,
        };
        let record = &self.record;
        blocks::packet(&mut self.batch, &header, |out| match source.kind {
            SourceKind::Frame | SourceKind::Events => out.extend_from_slice(record),
            SourceKind::Datagram | SourceKind::SentOn => synthesize(record, out),
        });
        self.batch_records += 1;
        Ok(true)
    }

    fn number(&mut self, worker: usize, source: Source) -> u32 {
        let number = self.sources.len() as u32;
        self.sources.push((worker, source));
        self.numbers.insert((worker, source), number);
        number
    }

    /// Writes the batch and gives the rings what is in it.
    fn write(&mut self) -> Result<(), FileError> {
        if !self.batch.is_empty() {
            self.files.append(&self.batch)?;
        }
        // Also what was nonsense, and is in no file.
        self.consumers.iter_mut().for_each(CaptureConsumer::commit);
        self.written.bytes += self.batch.len() as u64;
        self.written.records += self.batch_records;
        self.batch.clear();
        self.batch_records = 0;
        Ok(())
    }

    /// Begins a file with its section and every source that is known.
    fn begin_file(&mut self) -> Result<(), FileError> {
        let realtime = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let realtime_ns = realtime.as_nanos() as u64;
        self.offset_ns = realtime_ns.wrapping_sub(monotonic_ns());
        self.files.begin(realtime_ns)?;
        self.written.files += 1;
        let section = Section { run: self.region.run(), offset_ns: self.offset_ns };
        let comment = section.comment(&self.facts.node);
        blocks::section(&mut self.batch, &comment);
        for (worker, source) in &self.sources {
            describe(&mut self.batch, &self.facts, *worker, *source);
        }
        self.write()
    }

    fn end_file(&mut self) -> Result<(), FileError> {
        if !self.files.is_open() {
            return Ok(());
        }
        let time_ns = monotonic_ns().wrapping_add(self.offset_ns);
        for (number, (worker, source)) in (0..).zip(&self.sources) {
            let identity = source.identity();
            let mut counts = self.region.ring(*worker).counts();
            let Some(counts) = counts.find(|counts| counts.identity == identity) else { continue };
            let counts = InterfaceCounts {
                interface: number,
                received: counts.captured + counts.dropped,
                dropped: counts.dropped,
                delivered: counts.captured,
            };
            blocks::statistics(&mut self.batch, time_ns, &counts);
        }
        self.write()?;
        self.files.finish()
    }

    /// After an error: what is in no file is read again, and the file that failed is left as it is.
    fn start_over(&mut self) {
        self.batch.clear();
        self.batch_records = 0;
        self.consumers.iter_mut().for_each(CaptureConsumer::rewind);
        // What can be said was said with the first error.
        let _ = self.files.finish();
    }
}

/// The block of a source.
fn describe(out: &mut Vec<u8>, facts: &NodeFacts, worker: usize, source: Source) {
    let known = facts.interfaces.get(usize::from(source.interface));
    let (link_type, name) = match source.kind {
        SourceKind::Events => (LINK_TYPE_EVENTS, format!("worker{worker}-events")),
        _ => (LINK_TYPE_ETHERNET, known.cloned().unwrap_or_default()),
    };
    blocks::interface(out, link_type, &name, &source.describe(worker), &source.mark(worker));
}

/// Appends a frame around a datagram that had none; nothing for a record that is not one.
fn synthesize(record: &[u8], out: &mut Vec<u8>) {
    let Some(datagram) = parcel::read(record) else { return };
    let (from, to) = (datagram.source, datagram.destination);
    // Longer ones cannot come: they would not fit an IP packet.
    if from.is_v4() != to.is_v4() || datagram.payload.len() > PAYLOAD_BYTES_MAX {
        return;
    }
    let vlans = datagram.link.vlans;
    let start = out.len();
    out.resize(start + build::header_bytes(vlans, to.is_v4()), 0);
    out.extend_from_slice(datagram.payload);
    let link = LinkAddress {
        destination: ethernet::group_address(&to).unwrap_or(SYNTHESIZED_MAC),
        source: SYNTHESIZED_MAC,
        vlans,
    };
    build::headers(&mut out[start..], &link, &from, &to);
}

#[cfg(test)]
mod tests;
