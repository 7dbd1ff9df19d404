//! The text of a hit, whole or cut into frames.

use nautilus_shm::table::{Hit, TableWriter, ValueReader, Words};

use super::number;
use crate::net::checksum;

/// The last line of every answer to `get`.
pub const END: &[u8] = b"END\r\n";

/// Bytes of the longest line before a value.
pub const VALUE_LINE_BYTES_MAX: usize = 6 + 250 + 3 * (1 + number::DIGITS_MAX) + 2;

/// Bytes of the line before a value.
pub fn value_line_bytes(key: &[u8], hit: &Hit, with_version: bool) -> usize {
    let version = if with_version { 1 + number::digits(hit.version) } else { 0 };
    let numbers = number::digits(hit.flags.into()) + number::digits(hit.value_bytes.into());
    6 + key.len() + 2 + numbers + version + 2
}

/// Writes `VALUE <key> <flags> <bytes> [<version>]\r\n` and returns its length, at most
/// [`VALUE_LINE_BYTES_MAX`].
#[inline]
pub fn write_value_line(key: &[u8], hit: &Hit, with_version: bool, out: &mut [u8]) -> usize {
    let version = with_version.then_some(hit.version);
    write_line(key, hit.flags, hit.value_bytes, version, out)
}

#[inline]
pub(crate) fn write_line(
    key: &[u8],
    flags: u32,
    value_bytes: u32,
    version: Option<u64>,
    out: &mut [u8],
) -> usize {
    out[..6].copy_from_slice(b"VALUE ");
    let mut at = 6;
    copy_short(key, &mut out[at..]);
    at += key.len();
    for value in [Some(flags.into()), Some(value_bytes.into()), version] {
        let Some(value) = value else { continue };
        out[at] = b' ';
        at += 1 + number::write(value, &mut out[at + 1..]);
    }
    out[at..at + 2].copy_from_slice(b"\r\n");
    at + 2
}

/// Copies a key to the front of `out` without a call: eight bytes at a time, the last eight may
/// overlap.
#[inline]
fn copy_short(key: &[u8], out: &mut [u8]) {
    let out = &mut out[..key.len()];
    let (Some(last), Some(out_last)) = (key.last_chunk::<8>(), out.last_chunk_mut::<8>()) else {
        for (to, from) in out.iter_mut().zip(key) {
            *to = *from;
        }
        return;
    };
    *out_last = *last;
    let (words, _) = key.as_chunks::<8>();
    let (out_words, _) = out.as_chunks_mut::<8>();
    for (to, from) in out_words.iter_mut().zip(words) {
        *to = *from;
    }
}

/// The folded sum of the whole answer to a `get` of this one key, `VALUE` to `END`, as it stands at an
/// even place of a datagram. Kept with the value, so that answering does not add it up again.
pub fn text_sum(key: &[u8], flags: u32, value: &[u8]) -> u16 {
    let mut line = [0; VALUE_LINE_BYTES_MAX];
    let line_bytes = write_line(key, flags, value.len() as u32, None, &mut line);
    let mut sum = 0;
    let mut odd = false;
    for part in [&line[..line_bytes], value, b"\r\nEND\r\n"] {
        let of_part = checksum::fold(checksum::add(0, part));
        // A part at an odd place has its bytes in the other halves of the words.
        let of_part = if odd { of_part.swap_bytes() } else { of_part };
        sum = checksum::join(sum, of_part.into());
        odd ^= part.len() % 2 == 1;
    }
    checksum::fold(sum)
}

/// A hit and where its key stands in the request.
#[derive(Clone, Copy, Debug)]
pub struct KeyHit {
    /// The value.
    pub hit: Hit,
    /// Offset of the key in the command's keys.
    pub key_offset: u32,
    /// Length of the key.
    pub key_bytes: u8,
}

/// Which part of a hit's text is next.
enum Part {
    Line,
    Value(ValueReader),
    End,
}

/// Writes the answer to a `get` piece by piece.
pub struct ReplyText<'a> {
    keys: &'a [u8],
    hits: &'a [KeyHit],
    with_version: bool,
    part: Part,
    /// Bytes of the current part that are written already.
    offset: usize,
}

impl<'a> ReplyText<'a> {
    /// The text of these hits, then `END`.
    pub fn new(keys: &'a [u8], hits: &'a [KeyHit], with_version: bool) -> Self {
        Self { keys, hits, with_version, part: Part::Line, offset: 0 }
    }

    /// Fills `out` with the next bytes; returns how many there were.
    pub fn fill<W: Words>(&mut self, table: &TableWriter<W>, out: &mut [u8]) -> usize {
        let mut at = 0;
        while at < out.len() {
            let Some((first, later)) = self.hits.split_first() else {
                at += self.copy(END, &mut out[at..]);
                break;
            };
            match &mut self.part {
                Part::Line => {
                    let start = first.key_offset as usize;
                    let key = &self.keys[start..start + usize::from(first.key_bytes)];
                    let mut line = [0; VALUE_LINE_BYTES_MAX];
                    let bytes = write_value_line(key, &first.hit, self.with_version, &mut line);
                    at += self.copy(&line[..bytes], &mut out[at..]);
                    if self.offset == bytes {
                        self.turn(Part::Value(table.value(&first.hit)));
                    }
                }
                Part::Value(reader) => {
                    at += table.read(reader, &mut out[at..]);
                    if reader.left_bytes() == 0 {
                        self.turn(Part::End);
                    }
                }
                Part::End => {
                    at += self.copy(b"\r\n", &mut out[at..]);
                    if self.offset == 2 {
                        self.hits = later;
                        self.turn(Part::Line);
                    }
                }
            }
        }
        at
    }

    fn turn(&mut self, part: Part) {
        self.part = part;
        self.offset = 0;
    }

    fn copy(&mut self, text: &[u8], out: &mut [u8]) -> usize {
        let text = &text[self.offset..];
        let count = text.len().min(out.len());
        out[..count].copy_from_slice(&text[..count]);
        self.offset += count;
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_the_whole_answer() {
        for key_bytes in [1, 2, 7, 8, 9, 16, 249, 250] {
            for value_bytes in [0, 1, 2, 9, 10, 64, 99, 1_000, 1_001] {
                for flags in [0, 9, 10, u32::MAX] {
                    let key: Vec<u8> = (0..key_bytes).map(|n| b'!' + n % 90).collect();
                    let value: Vec<u8> = (0..value_bytes).map(|n| (n * 37 + 11) as u8).collect();
                    let text = [
                        b"VALUE ".to_vec(),
                        key.clone(),
                        format!(" {flags} {value_bytes}\r\n").into_bytes(),
                        value.clone(),
                        b"\r\nEND\r\n".to_vec(),
                    ]
                    .concat();
                    let sum = checksum::fold(checksum::add(0, &text));
                    assert_eq!(text_sum(&key, flags, &value), sum, "{key_bytes} {value_bytes}");
                }
            }
        }
    }
}
