//! Reader of pcapng files: packets in the order of the file, with their interfaces.
//!
//! Source: draft-ietf-opsawg-pcapng. Both byte orders, several sections, any resolution and offset of stamps,
//! enhanced and simple packet blocks; blocks and options of other kinds are skipped. A length that lies is an
//! error that says where. A file that ends inside a block, as one does whose writer was killed or is still
//! writing, ends with the block before, and [`PcapngReader::cut_bytes`] says so.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::pcap::RECORD_BYTES_MAX;
use crate::capture::blocks::{
    BYTE_ORDER, INTERFACE, OPTION_COMMENT, OPTION_DROPPED, OPTION_END, OPTION_PACKET_ID,
    OPTION_STAMP_OFFSET, OPTION_STAMP_RESOLUTION, PACKET, SECTION,
};

/// Longest block accepted: a packet of the longest kind and its options. Too low: files with long comments are
/// refused. Too high: a corrupt length makes the reader allocate it.
const BLOCK_BYTES_MAX: u32 = RECORD_BYTES_MAX + (1 << 20);

/// Interfaces of a section, at most.
const INTERFACES_MAX: usize = 4096;

/// A packet without a stamp and options.
const SIMPLE_PACKET: u32 = 3;

/// What can go wrong with a file. Every variant names it.
#[derive(Debug, thiserror::Error)]
pub enum PcapngError {
    /// The file cannot be opened.
    #[error("{path}: cannot open")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be read.
    #[error("{path}: read failed at byte {offset}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Offset in the file.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// A block does not say what it must.
    #[error("{path}: block at byte {offset}: {problem}")]
    Block {
        /// The file.
        path: PathBuf,
        /// Where the block begins.
        offset: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// An interface of a section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Link type of its packets.
    pub link_type: u16,
    /// Its comments.
    pub comments: Vec<String>,
    /// Bytes of a packet that were kept at most; 0 for all.
    kept_bytes: u32,
    offset_s: i64,
    resolution: Resolution,
}

/// What one step of a stamp is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resolution {
    /// 10^-n seconds.
    Decimal(u32),
    /// 2^-n seconds.
    Binary(u32),
}

impl Default for Resolution {
    fn default() -> Self {
        Self::Decimal(6)
    }
}

impl Interface {
    /// A stamp as nanoseconds since 1970; `None` where it lies before, or beyond 2554.
    fn time_ns(&self, stamp: u64) -> Option<u64> {
        let stamp = i128::from(stamp);
        let time_ns = match self.resolution {
            Resolution::Decimal(digits @ 0..=9) => stamp * 10i128.pow(9 - digits),
            Resolution::Decimal(digits) => stamp / 10i128.checked_pow(digits - 9)?,
            Resolution::Binary(digits) => (stamp * 1_000_000_000) >> digits,
        };
        u64::try_from(time_ns + i128::from(self.offset_s) * 1_000_000_000).ok()
    }
}

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PcapngRecord<'a> {
    /// Nanoseconds since 1970; 0 for a packet without a stamp.
    pub time_ns: u64,
    /// Number of its interface in its section, for [`PcapngReader::interfaces`].
    pub interface: usize,
    /// Length on the wire.
    pub wire_bytes: u32,
    /// Its number, where the file has one.
    pub identity: Option<u64>,
    /// Packets of the interface that were lost before it, as far as the file knows.
    pub dropped: u64,
    /// The captured bytes.
    pub data: &'a [u8],
}

/// What is kept of a packet's block while its bytes are in the buffer.
struct Found {
    time_ns: u64,
    interface: usize,
    wire_bytes: u32,
    identity: Option<u64>,
    dropped: u64,
    start: usize,
    bytes: usize,
}

/// Reads one file, block by block, through one reused buffer.
pub struct PcapngReader<R> {
    input: R,
    path: PathBuf,
    /// Where the block in the buffer begins, and where the next one does.
    start: u64,
    offset: u64,
    big_endian: bool,
    begun: bool,
    cut_bytes: u64,
    looks: u64,
    comments: Vec<String>,
    interfaces: Vec<Interface>,
    block: Vec<u8>,
}

impl PcapngReader<BufReader<File>> {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self, PcapngError> {
        let file = File::open(path)
            .map_err(|source| PcapngError::Open { path: path.to_path_buf(), source })?;
        Ok(Self::new(BufReader::new(file), path))
    }
}

impl<R: Read> PcapngReader<R> {
    /// Reads from `input`; `path` is for messages only.
    pub fn new(input: R, path: &Path) -> Self {
        Self {
            input,
            path: path.to_path_buf(),
            start: 0,
            offset: 0,
            big_endian: false,
            begun: false,
            cut_bytes: 0,
            looks: 0,
            comments: Vec::new(),
            interfaces: Vec::new(),
            block: Vec::new(),
        }
    }

    /// Comments of the present section.
    pub fn comments(&self) -> &[String] {
        &self.comments
    }

    /// Interfaces of the present section, as far as it has been read.
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// Counts sections and interfaces: changes when [`Self::comments`] or [`Self::interfaces`] do.
    pub fn looks(&self) -> u64 {
        self.looks
    }

    /// Bytes behind the last whole block; 0 before the end was reached, and for a whole file.
    pub fn cut_bytes(&self) -> u64 {
        self.cut_bytes
    }

    /// The next packet, or `None` at the end.
    pub fn next_record(&mut self) -> Result<Option<PcapngRecord<'_>>, PcapngError> {
        while let Some(kind) = self.next_block()? {
            let found = match kind {
                INTERFACE => {
                    self.interface()?;
                    None
                }
                PACKET => Some(self.packet()?),
                SIMPLE_PACKET => Some(self.simple_packet()?),
                _ => None,
            };
            if let Some(found) = found {
                return Ok(Some(PcapngRecord {
                    time_ns: found.time_ns,
                    interface: found.interface,
                    wire_bytes: found.wire_bytes,
                    identity: found.identity,
                    dropped: found.dropped,
                    data: &self.block[found.start..found.start + found.bytes],
                }));
            }
        }
        Ok(None)
    }

    /// Reads one whole block into the buffer, without its type and both lengths; a section's is looked at.
    fn next_block(&mut self) -> Result<Option<u32>, PcapngError> {
        self.start = self.offset;
        let mut head = [0; 12];
        let got = self.fill(&mut head[..8])?;
        if got < 8 {
            return self.cut(got);
        }
        let is_section = head[..4] == SECTION.to_le_bytes();
        if is_section {
            let got = self.fill(&mut head[8..])?;
            if got < 4 {
                return self.cut(8 + got);
            }
            self.big_endian = match head[8..] {
                [0x4d, 0x3c, 0x2b, 0x1a] => false,
                [0x1a, 0x2b, 0x3c, 0x4d] => true,
                _ => return Err(self.wrong("a section without the byte-order magic 1a2b3c4d")),
            };
        } else if !self.begun {
            return Err(self.wrong("not a pcapng file: it does not begin with a section"));
        }
        let (kind, bytes) = (self.u32(&head[..4]), self.u32(&head[4..8]));
        let least = if is_section { 28 } else { 12 };
        if bytes < least || !bytes.is_multiple_of(4) {
            return Err(self.wrong("a length that cannot be"));
        }
        if bytes > BLOCK_BYTES_MAX {
            return Err(self.wrong("longer than a block may be"));
        }
        let mut block = std::mem::take(&mut self.block);
        block.clear();
        let head_bytes = if is_section { 12 } else { 8 };
        block.resize(bytes as usize - 8, 0);
        block[..head_bytes - 8].copy_from_slice(&head[8..head_bytes]);
        let got = self.fill(&mut block[head_bytes - 8..]);
        self.block = block;
        let (got, wanted) = (got?, bytes as usize - head_bytes);
        if got < wanted {
            return self.cut(head_bytes + got);
        }
        if self.u32(&self.block[bytes as usize - 12..]) != bytes {
            return Err(self.wrong("two lengths that differ"));
        }
        self.block.truncate(bytes as usize - 12);
        if is_section {
            self.section()?;
        }
        self.offset += u64::from(bytes);
        Ok(Some(kind))
    }

    fn cut(&mut self, bytes: usize) -> Result<Option<u32>, PcapngError> {
        self.cut_bytes = bytes as u64;
        Ok(None)
    }

    fn section(&mut self) -> Result<(), PcapngError> {
        let major = self.u16(&self.block[4..6]);
        if major != 1 {
            return Err(self.wrong("a version other than 1"));
        }
        self.begun = true;
        self.looks += 1;
        self.interfaces.clear();
        let mut comments = Vec::new();
        self.options(16, |code, value, _| {
            if code == OPTION_COMMENT {
                comments.push(String::from_utf8_lossy(value).into_owned());
            }
        })?;
        self.comments = comments;
        Ok(())
    }

    fn interface(&mut self) -> Result<(), PcapngError> {
        if self.block.len() < 8 {
            return Err(self.wrong("too short for an interface"));
        }
        if self.interfaces.len() == INTERFACES_MAX {
            return Err(self.wrong("more interfaces than a section may have"));
        }
        let mut interface = Interface {
            link_type: self.u16(&self.block[..2]),
            kept_bytes: self.u32(&self.block[4..8]),
            ..Interface::default()
        };
        let mut is_fine = true;
        self.options(8, |code, value, big_endian| match code {
            OPTION_COMMENT => {
                interface.comments.push(String::from_utf8_lossy(value).into_owned());
            }
            OPTION_STAMP_RESOLUTION => match value {
                // More digits than any clock has: what is left of a stamp would be nothing.
                [digits @ 0..=36] => interface.resolution = Resolution::Decimal((*digits).into()),
                [digits @ 128..=191] => {
                    interface.resolution = Resolution::Binary(u32::from(digits & 0x7f));
                }
                _ => is_fine = false,
            },
            OPTION_STAMP_OFFSET => match u64_of(value, big_endian) {
                Some(offset) => interface.offset_s = offset as i64,
                None => is_fine = false,
            },
            _ => {}
        })?;
        if !is_fine {
            return Err(self.wrong("stamps of a resolution or offset that cannot be"));
        }
        self.interfaces.push(interface);
        self.looks += 1;
        Ok(())
    }

    fn packet(&mut self) -> Result<Found, PcapngError> {
        let Some((header, _)) = self.block.split_first_chunk::<20>() else {
            return Err(self.wrong("too short for a packet"));
        };
        let interface = self.u32(&header[..4]) as usize;
        let stamp = u64::from(self.u32(&header[4..8])) << 32 | u64::from(self.u32(&header[8..12]));
        let (bytes, wire_bytes) = (self.u32(&header[12..16]), self.u32(&header[16..20]));
        let options = 20 + (bytes as usize).next_multiple_of(4);
        if bytes > RECORD_BYTES_MAX || options > self.block.len() {
            return Err(self.wrong("a packet longer than its block"));
        }
        let Some(known) = self.interfaces.get(interface) else {
            return Err(self.wrong("a packet of an interface that is not there"));
        };
        let Some(time_ns) = known.time_ns(stamp) else {
            return Err(self.wrong("a stamp that cannot be"));
        };
        let (mut identity, mut dropped) = (None, 0);
        self.options(options, |code, value, big_endian| match code {
            OPTION_PACKET_ID => identity = u64_of(value, big_endian),
            OPTION_DROPPED => dropped = u64_of(value, big_endian).unwrap_or(0),
            _ => {}
        })?;
        let bytes = bytes as usize;
        Ok(Found { time_ns, interface, wire_bytes, identity, dropped, start: 20, bytes })
    }

    fn simple_packet(&mut self) -> Result<Found, PcapngError> {
        let Some((header, data)) = self.block.split_first_chunk::<4>() else {
            return Err(self.wrong("too short for a packet"));
        };
        let Some(known) = self.interfaces.first() else {
            return Err(self.wrong("a packet of an interface that is not there"));
        };
        let wire_bytes = self.u32(header);
        let kept = if known.kept_bytes == 0 { u32::MAX } else { known.kept_bytes };
        let bytes = wire_bytes.min(kept) as usize;
        if bytes > data.len() {
            return Err(self.wrong("a packet longer than its block"));
        }
        let (time_ns, interface, identity, dropped) = (0, 0, None, 0);
        Ok(Found { time_ns, interface, wire_bytes, identity, dropped, start: 4, bytes })
    }

    /// Gives each option of the block from `at` on; a list may end with the block.
    fn options(
        &self,
        mut at: usize,
        mut give: impl FnMut(u16, &[u8], bool),
    ) -> Result<(), PcapngError> {
        while let Some(head) = self.block.get(at..at + 4) {
            let (code, bytes) = (self.u16(&head[..2]), usize::from(self.u16(&head[2..])));
            if code == OPTION_END {
                break;
            }
            let Some(value) = self.block.get(at + 4..at + 4 + bytes) else {
                return Err(self.wrong("an option longer than its block"));
            };
            give(code, value, self.big_endian);
            at += 4 + bytes.next_multiple_of(4);
        }
        Ok(())
    }

    /// Reads until `out` is full or the file ends, and returns how many bytes that gave.
    fn fill(&mut self, out: &mut [u8]) -> Result<usize, PcapngError> {
        let mut got = 0;
        while got < out.len() {
            match self.input.read(&mut out[got..]) {
                Ok(0) => break,
                Ok(bytes) => got += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let path = self.path.clone();
                    return Err(PcapngError::Read { path, offset: self.offset, source });
                }
            }
        }
        Ok(got)
    }

    fn wrong(&self, problem: &'static str) -> PcapngError {
        PcapngError::Block { path: self.path.clone(), offset: self.start, problem }
    }

    fn u16(&self, bytes: &[u8]) -> u16 {
        let bytes = [bytes[0], bytes[1]];
        if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    fn u32(&self, bytes: &[u8]) -> u32 {
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }
}

fn u64_of(value: &[u8], big_endian: bool) -> Option<u64> {
    let bytes: [u8; 8] = value.try_into().ok()?;
    Some(if big_endian { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) })
}

/// How many bytes of a little-endian file are whole blocks, by the lengths at both of their ends alone.
pub fn whole_blocks(file: &mut (impl Read + Seek)) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    let mut at = 0;
    let mut word_at = |at: u64| -> io::Result<u32> {
        let mut word = [0; 4];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut word)?;
        Ok(u32::from_le_bytes(word))
    };
    while at + 12 <= end {
        let bytes = word_at(at + 4)?;
        let is_first = at == 0;
        if !bytes.is_multiple_of(4)
            || bytes < 12
            || at + u64::from(bytes) > end
            || word_at(at + u64::from(bytes) - 4)? != bytes
            || (is_first && (word_at(0)?, word_at(8)?) != (SECTION, BYTE_ORDER))
        {
            break;
        }
        at += u64::from(bytes);
    }
    Ok(at)
}

#[cfg(test)]
mod tests;
