//! Where the answer to a request goes, piece by piece, and how a line of it is made.

use super::table::ReadTable;
use crate::memcached::number;

/// Takes the pieces of an answer in order. Not one piece: no answer.
pub trait Sink<T: ReadTable> {
    /// Some of the text.
    fn text(&mut self, text: &[u8]);

    /// The bytes of a value that was just found in this table.
    fn value(&mut self, table: &T, value: &T::Value);
}

/// Bytes of a value that are copied at once.
const CHUNK_BYTES: usize = 4096;

/// Gives every piece to a function: answers for a stream.
#[derive(Debug)]
pub struct Stream<F>(pub F);

impl<T: ReadTable, F: FnMut(&[u8])> Sink<T> for Stream<F> {
    fn text(&mut self, text: &[u8]) {
        (self.0)(text);
    }

    fn value(&mut self, table: &T, value: &T::Value) {
        let mut reader = table.reader(value);
        let mut chunk = [0; CHUNK_BYTES];
        loop {
            let count = table.read(&mut reader, &mut chunk);
            if count == 0 {
                return;
            }
            (self.0)(&chunk[..count]);
        }
    }
}

/// Bytes of the longest line: `mg` with a binary key and every flag there is stays below 600.
const LINE_BYTES_MAX: usize = 640;

/// A line being made, on the stack.
pub(super) struct Line {
    bytes: [u8; LINE_BYTES_MAX],
    length: usize,
}

impl Line {
    pub fn new(front: &[u8]) -> Self {
        let mut line = Self { bytes: [0; LINE_BYTES_MAX], length: 0 };
        line.push(front);
        line
    }

    pub fn push(&mut self, text: &[u8]) {
        self.bytes[self.length..self.length + text.len()].copy_from_slice(text);
        self.length += text.len();
    }

    pub fn number(&mut self, value: u64) {
        self.length += number::write(value, &mut self.bytes[self.length..]);
    }

    /// A flag with a number behind it.
    pub fn flag(&mut self, flag: &[u8], value: u64) {
        self.push(flag);
        self.number(value);
    }

    pub fn text(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}
