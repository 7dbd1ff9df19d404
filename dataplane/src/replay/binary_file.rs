//! Reader and writer of NASDAQ BinaryFILE: each message behind its length, two bytes, big-endian.
//!
//! Source: NASDAQ "BinaryFILE Format Specification" 1.00. The specification gives length 0 to the end
//! of the session. Simulated files exist in which *every* length is 0; there the message type gives
//! the size. The reader tells the two apart by what follows: a zero length at the end of the file
//! ends the session, before a known message type it is a blank length.

use crate::feed::itch::length_of;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What can go wrong with a file. Every variant names it.
#[derive(Debug, thiserror::Error)]
pub enum BinaryFileError {
    /// The file cannot be read.
    #[error("{path}: cannot read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file ends inside a message.
    #[error("{path}: truncated in message {message} at byte {offset}, {missing} bytes missing")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Message number, from 1.
        message: u64,
        /// Offset of the message's length in the file.
        offset: usize,
        /// How many bytes are missing.
        missing: usize,
    },
    /// A blank length before a type whose size is not known.
    #[error(
        "{path}: message {message} at byte {offset} has no length and unknown type {code:#04x}"
    )]
    UnknownSize {
        /// The file.
        path: PathBuf,
        /// Message number, from 1.
        message: u64,
        /// Offset of the message's length in the file.
        offset: usize,
        /// The type byte.
        code: u8,
    },
}

/// The messages of one file, held in memory.
pub struct BinaryFile {
    path: PathBuf,
    bytes: Vec<u8>,
    offset: usize,
    message: u64,
}

impl BinaryFile {
    /// Reads a file whole.
    pub fn open(path: &Path) -> Result<Self, BinaryFileError> {
        let bytes = std::fs::read(path)
            .map_err(|source| BinaryFileError::Read { path: path.to_path_buf(), source })?;
        Ok(Self::from_bytes(bytes, path))
    }

    /// Reads from memory; `path` is for messages only.
    pub fn from_bytes(bytes: Vec<u8>, path: &Path) -> Self {
        Self { path: path.to_path_buf(), bytes, offset: 0, message: 0 }
    }

    /// The next message, or `None` at the end of the session or of the file.
    pub fn next_message(&mut self) -> Result<Option<&[u8]>, BinaryFileError> {
        let offset = self.offset;
        let rest = &self.bytes[offset..];
        self.message += 1;
        let message = self.message;
        let (length, body) = match rest {
            [] => return Ok(None),
            [_] => return Err(self.truncated(offset, 1)),
            [0, 0] => return Ok(None),
            [0, 0, code, ..] => match length_of(*code) {
                Some(length) => (length, &rest[2..]),
                None => {
                    let (path, code) = (self.path.clone(), *code);
                    return Err(BinaryFileError::UnknownSize { path, message, offset, code });
                }
            },
            [high, low, ..] => (usize::from(u16::from_be_bytes([*high, *low])), &rest[2..]),
        };
        if body.len() < length {
            return Err(self.truncated(offset, length - body.len()));
        }
        self.offset = offset + 2 + length;
        Ok(Some(&self.bytes[offset + 2..self.offset]))
    }

    fn truncated(&self, offset: usize, missing: usize) -> BinaryFileError {
        let (path, message) = (self.path.clone(), self.message);
        BinaryFileError::Truncated { path, message, offset, missing }
    }
}

/// Appends one message, at most 65,535 bytes, with its length.
pub fn write_message(out: &mut impl Write, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    out.write_all(&length.to_be_bytes())?;
    out.write_all(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> BinaryFile {
        BinaryFile::from_bytes(bytes.to_vec(), Path::new("test.itch"))
    }

    #[test]
    fn true_and_blank_lengths_are_read() {
        let mut bytes = Vec::new();
        write_message(&mut bytes, b"S0123456789O").unwrap();
        bytes.extend_from_slice(b"\0\0S0123456789Q");
        bytes.extend_from_slice(b"\0\x03new");
        bytes.extend_from_slice(b"\0\0");
        let mut file = file(&bytes);
        assert_eq!(file.next_message().unwrap(), Some(&b"S0123456789O"[..]));
        assert_eq!(file.next_message().unwrap(), Some(&b"S0123456789Q"[..]));
        assert_eq!(file.next_message().unwrap(), Some(&b"new"[..]));
        assert_eq!(file.next_message().unwrap(), None);
    }

    #[test]
    fn truncated_and_unknown_messages_are_clear_errors() {
        for (bytes, text) in [
            (&b"\0"[..], "test.itch: truncated in message 1 at byte 0, 1 bytes missing"),
            (b"\0\x05four", "test.itch: truncated in message 1 at byte 0, 1 bytes missing"),
            (b"\0\0S012", "test.itch: truncated in message 1 at byte 0, 8 bytes missing"),
            (b"\0\0z012", "test.itch: message 1 at byte 0 has no length and unknown type 0x7a"),
        ] {
            assert_eq!(file(bytes).next_message().unwrap_err().to_string(), text);
        }
    }
}
