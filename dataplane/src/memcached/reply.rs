//! The text of a hit, and the sum of it that is kept with the value.

use nautilus_shm::table::Hit;

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
pub fn write_value_line(
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
    let line_bytes = write_value_line(key, flags, value.len() as u32, None, &mut line);
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
