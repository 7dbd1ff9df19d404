//! Reader of classic pcap files.
//!
//! Source: draft-ietf-opsawg-pcap. Both byte orders, microsecond and nanosecond stamps; pcapng and
//! the patched variants are refused by name. A file that ends inside a record is an error that says
//! where, never a shorter packet.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

/// Longest record accepted. Too low: jumbo captures are refused. Too high: a corrupt length makes the
/// reader allocate it. 256 KiB is the limit tcpdump itself uses.
pub const RECORD_BYTES_MAX: u32 = 262_144;

/// Link type of Ethernet frames (`LINKTYPE_ETHERNET`).
pub const LINK_TYPE_ETHERNET: u32 = 1;

/// What can go wrong with a capture file. Every variant names the file.
#[derive(Debug, thiserror::Error)]
pub enum PcapError {
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
    /// The first four bytes are not those of a classic pcap file.
    #[error("{path}: not a classic pcap file ({what})")]
    NotPcap {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        what: String,
    },
    /// A version other than 2.
    #[error("{path}: pcap version {major}.{minor}, only 2.x is known")]
    Version {
        /// The file.
        path: PathBuf,
        /// Major version.
        major: u16,
        /// Minor version.
        minor: u16,
    },
    /// The file ends inside a header or a packet.
    #[error(
        "{path}: truncated in {part} of record {record}, {missing} bytes missing at byte {offset}"
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// `file header`, `header` or `packet`.
        part: &'static str,
        /// Record number, from 1; 0 for the file header.
        record: u64,
        /// Offset in the file where it ends.
        offset: u64,
        /// How many bytes are missing.
        missing: usize,
    },
    /// A record length beyond [`RECORD_BYTES_MAX`].
    #[error("{path}: record {record} claims {bytes} bytes (at most {RECORD_BYTES_MAX})")]
    RecordTooLong {
        /// The file.
        path: PathBuf,
        /// Record number, from 1.
        record: u64,
        /// The claimed length.
        bytes: u32,
    },
}

/// One captured packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Nanoseconds since 1970 (UTC).
    pub time_ns: u64,
    /// Length on the wire; more than `data.len()` when the capture cut the packet.
    pub wire_bytes: u32,
    /// The captured bytes.
    pub data: &'a [u8],
}

/// Reads one file, record by record, through one reused buffer.
pub struct PcapReader<R> {
    input: R,
    path: PathBuf,
    big_endian: bool,
    fraction_ns: u64,
    link_type: u32,
    offset: u64,
    record: u64,
    buffer: Vec<u8>,
}

impl PcapReader<BufReader<File>> {
    /// Opens a file and reads its header.
    pub fn open(path: &Path) -> Result<Self, PcapError> {
        let file = File::open(path)
            .map_err(|source| PcapError::Open { path: path.to_path_buf(), source })?;
        Self::new(BufReader::new(file), path)
    }
}

impl<R: Read> PcapReader<R> {
    /// Reads the file header from `input`; `path` is for messages only.
    pub fn new(input: R, path: &Path) -> Result<Self, PcapError> {
        let mut reader = Self {
            input,
            path: path.to_path_buf(),
            big_endian: false,
            fraction_ns: 0,
            link_type: 0,
            offset: 0,
            record: 0,
            buffer: Vec::new(),
        };
        let mut header = [0; 24];
        let got = reader.fill(&mut header)?;
        let magic = [header[0], header[1], header[2], header[3]];
        (reader.big_endian, reader.fraction_ns) = match magic {
            _ if got < 4 => return Err(reader.not_pcap(format!("only {got} bytes long"))),
            [0xd4, 0xc3, 0xb2, 0xa1] => (false, 1000),
            [0x4d, 0x3c, 0xb2, 0xa1] => (false, 1),
            [0xa1, 0xb2, 0xc3, 0xd4] => (true, 1000),
            [0xa1, 0xb2, 0x3c, 0x4d] => (true, 1),
            [0x0a, 0x0d, 0x0d, 0x0a] => {
                return Err(reader.not_pcap("pcapng; convert with `editcap -F pcap`".into()));
            }
            [a, b, c, d] => {
                return Err(reader.not_pcap(format!("magic {a:02x}{b:02x}{c:02x}{d:02x}")));
            }
        };
        if got < header.len() {
            return Err(reader.truncated("file header", header.len() - got));
        }
        let (major, minor) = (reader.u16(&header[4..6]), reader.u16(&header[6..8]));
        if major != 2 {
            return Err(PcapError::Version { path: reader.path, major, minor });
        }
        // The upper half of the word says whether a frame check sequence was captured.
        reader.link_type = reader.u32(&header[20..24]) & 0xffff;
        Ok(reader)
    }

    /// Link type of the frames, [`LINK_TYPE_ETHERNET`] for most.
    pub fn link_type(&self) -> u32 {
        self.link_type
    }

    /// The next record, or `None` at the end of the file.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, PcapError> {
        let mut header = [0; 16];
        self.record += 1;
        match self.fill(&mut header)? {
            0 => return Ok(None),
            16 => {}
            got => return Err(self.truncated("header", 16 - got)),
        }
        let seconds = u64::from(self.u32(&header[..4]));
        let fraction = u64::from(self.u32(&header[4..8]));
        let bytes = self.u32(&header[8..12]);
        let wire_bytes = self.u32(&header[12..16]);
        if bytes > RECORD_BYTES_MAX {
            let path = self.path.clone();
            return Err(PcapError::RecordTooLong { path, record: self.record, bytes });
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(bytes as usize, 0);
        let got = self.fill(&mut buffer)?;
        self.buffer = buffer;
        if got < bytes as usize {
            return Err(self.truncated("packet", bytes as usize - got));
        }
        let time_ns = seconds * 1_000_000_000 + fraction * self.fraction_ns;
        Ok(Some(Record { time_ns, wire_bytes, data: &self.buffer }))
    }

    /// Reads until `out` is full or the file ends, and returns how many bytes that gave.
    fn fill(&mut self, out: &mut [u8]) -> Result<usize, PcapError> {
        let mut got = 0;
        while got < out.len() {
            match self.input.read(&mut out[got..]) {
                Ok(0) => break,
                Ok(bytes) => {
                    got += bytes;
                    self.offset += bytes as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let path = self.path.clone();
                    return Err(PcapError::Read { path, offset: self.offset, source });
                }
            }
        }
        Ok(got)
    }

    fn not_pcap(self, what: String) -> PcapError {
        PcapError::NotPcap { path: self.path, what }
    }

    fn truncated(&self, part: &'static str, missing: usize) -> PcapError {
        let (path, record, offset) = (self.path.clone(), self.record, self.offset);
        PcapError::Truncated { path, part, record, offset, missing }
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

/// The 24 bytes a nanosecond, little-endian file of Ethernet frames begins with.
pub fn file_header() -> [u8; 24] {
    let mut header = [0; 24];
    header[..4].copy_from_slice(&0xa1b2_3c4d_u32.to_le_bytes());
    header[4..6].copy_from_slice(&2u16.to_le_bytes());
    header[6..8].copy_from_slice(&4u16.to_le_bytes());
    header[16..20].copy_from_slice(&RECORD_BYTES_MAX.to_le_bytes());
    header[20..].copy_from_slice(&LINK_TYPE_ETHERNET.to_le_bytes());
    header
}

/// The 16 bytes in front of a packet of `bytes` bytes, for a file begun with [`file_header`].
pub fn record_header(time_ns: u64, bytes: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&((time_ns / 1_000_000_000) as u32).to_le_bytes());
    header[4..8].copy_from_slice(&((time_ns % 1_000_000_000) as u32).to_le_bytes());
    header[8..12].copy_from_slice(&bytes.to_le_bytes());
    header[12..].copy_from_slice(&bytes.to_le_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(bytes: &[u8]) -> Result<PcapReader<&[u8]>, PcapError> {
        PcapReader::new(bytes, Path::new("test.pcap"))
    }

    /// A file of one packet `[9, 9, 9]` stamped 5 s and 7 units.
    fn file(magic: u32, big_endian: bool) -> Vec<u8> {
        let words = [magic, 0, 0, 0, 65_535, 1, 5, 7, 3, 60];
        let mut bytes = Vec::new();
        for (index, word) in words.into_iter().enumerate() {
            match (index, big_endian) {
                (1, true) => bytes.extend_from_slice(&[0, 2, 0, 4]),
                (1, false) => bytes.extend_from_slice(&[2, 0, 4, 0]),
                (_, true) => bytes.extend_from_slice(&word.to_be_bytes()),
                (_, false) => bytes.extend_from_slice(&word.to_le_bytes()),
            }
        }
        bytes.extend_from_slice(&[9; 3]);
        bytes
    }

    #[test]
    fn four_forms_are_read() {
        for (magic, unit_ns) in [(0xa1b2_c3d4, 1000), (0xa1b2_3c4d, 1)] {
            for big_endian in [false, true] {
                let bytes = file(magic, big_endian);
                let mut reader = reader(&bytes).unwrap();
                assert_eq!(reader.link_type(), LINK_TYPE_ETHERNET);
                let record = reader.next_record().unwrap().unwrap();
                assert_eq!(record.time_ns, 5_000_000_000 + 7 * unit_ns);
                assert_eq!((record.wire_bytes, record.data), (60, &[9; 3][..]));
                assert!(reader.next_record().unwrap().is_none());
            }
        }
    }

    #[test]
    fn every_truncation_is_a_clear_error() {
        let whole = file(0xa1b2_c3d4, false);
        for length in 0..whole.len() {
            let result = reader(&whole[..length])
                .and_then(|mut reader| reader.next_record().map(|record| record.is_some()));
            match result {
                Ok(any) => assert!(!any && length == 24, "{length}"),
                Err(error) => assert!(error.to_string().starts_with("test.pcap: "), "{error}"),
            }
        }
        let error = reader(&whole[..41]).unwrap().next_record().unwrap_err();
        assert_eq!(
            error.to_string(),
            "test.pcap: truncated in packet of record 1, 2 bytes missing at byte 41"
        );
    }

    #[test]
    fn other_formats_are_refused_by_name() {
        let error = reader(&[0x0a, 0x0d, 0x0d, 0x0a]).err().unwrap().to_string();
        assert!(error.contains("pcapng"), "{error}");
        let error = reader(b"GIF89a").err().unwrap().to_string();
        assert!(error.contains("47494638"), "{error}");
        let mut huge = file(0xa1b2_c3d4, false);
        huge[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
        let error = reader(&huge).unwrap().next_record().unwrap_err();
        assert!(matches!(error, PcapError::RecordTooLong { record: 1, bytes: u32::MAX, .. }));
    }

    #[test]
    fn written_headers_are_read_back() {
        let mut bytes = file_header().to_vec();
        bytes.extend_from_slice(&record_header(1_234_567_890_123_456_789, 2));
        bytes.extend_from_slice(&[1, 2]);
        let mut reader = reader(&bytes).unwrap();
        let record = reader.next_record().unwrap().unwrap();
        assert_eq!(record.time_ns, 1_234_567_890_123_456_789);
        assert_eq!(record.data, [1, 2]);
    }
}
