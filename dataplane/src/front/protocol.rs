//! Where commands end in a stream, and who executes them: the one place where the front depends on the
//! memcached protocol.
//!
//! A read is executed by the front on shared memory; everything else goes to the worker as it came, with
//! its data, and so do lines that are wrong: the worker knows what memcached says to them. A `gat` of keys
//! of several workers goes to each key by key.

use nautilus_shm::table::{KEY_BYTES_MAX, ReadHit, VALUE_BYTES_MAX};

use crate::memcached::number;
use crate::memcached::parse::words;

/// Longest line of a command that is no `get` (memcached's bound).
const LINE_BYTES_MAX: usize = 2048;

/// Longest line of a `get` of many keys. Too low: clients that ask for thousands of keys are cut off.
/// Too high: a connection holds that much before it is known to be junk.
const GET_LINE_BYTES_MAX: usize = 1 << 20;

/// The largest length a storage command may announce (`INT_MAX - 2` in memcached).
const ANNOUNCED_BYTES_MAX: i64 = i32::MAX as i64 - 2;

/// What is said to a connection beyond `front.max_connections`, before it is closed.
pub const TOO_MANY: &[u8] = b"ERROR Too many open connections\r\n";
/// What is said when the front's memory for commands is used up, before the connection is closed.
pub const NO_MEMORY: &[u8] = b"SERVER_ERROR out of memory reading request\r\n";
/// What is said when a worker took a command and died before it answered.
pub const UNKNOWN_OUTCOME: &[u8] = b"SERVER_ERROR outcome unknown\r\n";
/// What is said to a datagram whose reply is too long.
pub const REPLY_TOO_LARGE: &[u8] = b"SERVER_ERROR reply exceeds 64 datagrams\r\n";
/// The last line of every answer to `get`.
pub const END: &[u8] = b"END\r\n";

/// What stands at the front of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// No whole command.
    Incomplete {
        /// Bytes below which there is none, whatever comes.
        needs: usize,
        /// Bytes at the front that hold no line feed and need not be looked at again.
        searched: usize,
    },
    /// A read of valid keys.
    Get {
        /// Divided by spaces.
        keys: &'a [u8],
        /// `gets`.
        with_version: bool,
        /// Length of the line with its end.
        bytes: usize,
    },
    /// A read of several valid keys that changes when they expire.
    GetAndTouch {
        /// What to ask for.
        touch: Touch<'a>,
        /// Length of the line with its end.
        bytes: usize,
    },
    /// A command for the worker.
    Forward {
        /// Its length with its data.
        bytes: usize,
        /// Bytes behind it that are data nobody wants.
        skip: usize,
    },
    /// The client is done.
    Quit,
    /// A line that does not end. The connection is closed without an answer, as memcached does.
    Endless,
}

/// A `gat` or `gats`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch<'a> {
    /// The command word.
    verb: &'a [u8],
    /// As it came: a valid time.
    expiry: &'a [u8],
    /// Divided by spaces.
    pub keys: &'a [u8],
}

impl<'a> Touch<'a> {
    /// `line` begins with the verb, blanks apart. `None`: wrong, or one key, which is its worker's to answer.
    fn of_several(line: &'a [u8]) -> Option<Self> {
        let mut arguments = words(line);
        let (verb, expiry) = (arguments.next()?, arguments.next()?);
        let mut count = 0;
        let valid = arguments.all(|key| {
            count += 1;
            key.len() <= KEY_BYTES_MAX
        });
        let behind_verb = &line[behind(line, verb)..];
        let keys = &behind_verb[behind(behind_verb, expiry)..];
        let of_several = valid && count > 1 && number::signed(expiry).is_some();
        of_several.then_some(Self { verb, expiry, keys })
    }

    /// Writes the command that asks for one key.
    pub fn write(&self, key: &[u8], out: &mut Vec<u8>) {
        out.clear();
        for part in [self.verb, b" ", self.expiry, b" ", key, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
}

/// Looks at the next command of `text`, whose first `searched` bytes are known to hold no line feed.
#[inline]
pub fn next(text: &[u8], searched: usize) -> Next<'_> {
    let Some(end) = line_feed(text, searched) else {
        let blanks = text.iter().take_while(|byte| **byte == b' ').count();
        let word = &text[blanks..];
        let is_get = blanks <= 100 && (word.starts_with(b"get ") || word.starts_with(b"gets "));
        let longest = if is_get { GET_LINE_BYTES_MAX } else { LINE_BYTES_MAX };
        if text.len() > longest {
            return Next::Endless;
        }
        return Next::Incomplete { needs: text.len() + 1, searched: text.len() };
    };
    let bytes = end + 1;
    let line = text[..end].strip_suffix(b"\r").unwrap_or(&text[..end]);
    if let Some(keys) = line.strip_prefix(b"get ") {
        return read(keys, false, bytes);
    }
    let mut rest = words(line);
    let data = match rest.next() {
        Some(b"gets") => return read(&line[line.len().min(behind(line, b"gets"))..], true, bytes),
        Some(b"get") => return read(&line[line.len().min(behind(line, b"get"))..], false, bytes),
        Some(b"quit") => return Next::Quit,
        Some(b"gat" | b"gats") => {
            return match Touch::of_several(line) {
                Some(touch) => Next::GetAndTouch { touch, bytes },
                None => Next::Forward { bytes, skip: 0 },
            };
        }
        Some(b"set") => set_data(rest),
        Some(b"add" | b"replace" | b"append" | b"prepend" | b"cas") => data(rest.nth(3)),
        Some(b"ms") => data(rest.nth(1)),
        _ => None,
    };
    match data {
        None => Next::Forward { bytes, skip: 0 },
        Some(data) if data > VALUE_BYTES_MAX => Next::Forward { bytes, skip: data + 2 },
        Some(data) if text.len() < bytes + data + 2 => {
            // The line is whole, but it may be cut out again only from where it begins.
            Next::Incomplete { needs: bytes + data + 2, searched: 0 }
        }
        Some(data) => Next::Forward { bytes: bytes + data + 2, skip: 0 },
    }
}

/// Where the words behind the command word begin.
fn behind(line: &[u8], word: &[u8]) -> usize {
    line.iter().take_while(|byte| **byte == b' ').count() + word.len()
}

#[inline]
fn line_feed(text: &[u8], searched: usize) -> Option<usize> {
    const ONES: u64 = u64::MAX / 0xff;
    let start = searched.min(text.len());
    let (eights, rest) = text[start..].as_chunks::<8>();
    for (index, eight) in eights.iter().enumerate() {
        let differs = u64::from_le_bytes(*eight) ^ (ONES * u64::from(b'\n'));
        // The lowest bit set marks the first zero byte; a borrow only spoils those above it.
        let zeros = differs.wrapping_sub(ONES) & !differs & (ONES * 0x80);
        if zeros != 0 {
            return Some(start + index * 8 + zeros.trailing_zeros() as usize / 8);
        }
    }
    let place = rest.iter().position(|byte| *byte == b'\n')?;
    Some(text.len() - rest.len() + place)
}

#[inline]
fn read(keys: &[u8], with_version: bool, bytes: usize) -> Next<'_> {
    let mut count = 0;
    let valid = words(keys).all(|key| {
        count += 1;
        key.len() <= KEY_BYTES_MAX
    });
    if valid && count > 0 {
        Next::Get { keys, with_version, bytes }
    } else {
        Next::Forward { bytes, skip: 0 }
    }
}

/// The data of a `set` that the worker takes for one.
fn set_data<'a>(arguments: impl Iterator<Item = &'a [u8]>) -> Option<usize> {
    let mut first = [&b""[..]; 5];
    let mut count = 0;
    for argument in arguments {
        if let Some(place) = first.get_mut(count) {
            *place = argument;
        }
        count += 1;
    }
    let [key, flags, expiry, length, _] = first;
    let valid = (4..=5).contains(&count)
        && key.len() <= KEY_BYTES_MAX
        && number::unsigned(flags).is_some()
        && number::signed(expiry).is_some();
    if valid { data(Some(length)) } else { None }
}

fn data(length: Option<&[u8]>) -> Option<usize> {
    let length = number::signed(length?)?;
    (0..=ANNOUNCED_BYTES_MAX).contains(&length).then_some(length as usize)
}

/// The next key of `keys` from `at` on, and where the one behind it begins.
#[inline]
pub fn next_key(keys: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let start = at + keys.get(at..)?.iter().position(|byte| *byte != b' ')?;
    let length = keys[start..].iter().position(|byte| *byte == b' ');
    let end = length.map_or(keys.len(), |length| start + length);
    Some((&keys[start..end], end))
}

/// Writes one found item as memcached does.
#[inline]
pub fn write_item(key: &[u8], hit: &ReadHit, with_version: bool, value: &[u8], out: &mut Vec<u8>) {
    let mut line = [0; 3 * (1 + number::DIGITS_MAX) + 2];
    let mut at = 0;
    let version = with_version.then_some(hit.version);
    for value in [Some(hit.flags.into()), Some(value.len() as u64), version] {
        let Some(value) = value else { continue };
        line[at] = b' ';
        at += 1 + number::write(value, &mut line[at + 1..]);
    }
    line[at..at + 2].copy_from_slice(b"\r\n");
    out.reserve(6 + key.len() + at + 2 + value.len() + 2 + END.len());
    out.extend_from_slice(b"VALUE ");
    out.extend_from_slice(key);
    out.extend_from_slice(&line[..at + 2]);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes the command that asks the worker for one key.
pub fn write_get(key: &[u8], with_version: bool, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(if with_version { b"gets " } else { b"get " });
    out.extend_from_slice(key);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORWARDED: &[(&str, usize)] = &[
        ("set k 0 0 3\r\nabc\r\nrest", 18),
        ("set k 0 0 0 noreply\r\n\r\n", 23),
        ("set k 0 0\r\nabc", 11),
        ("set k x 0 3\r\nabc\r\n", 13),
        ("set k 0 0 -1\r\nabc\r\n", 14),
        ("cas k 0 0 3 99\r\nabc\r\n", 21),
        ("ms k 2 T0\r\nhi\r\n", 15),
        ("delete k\r\n", 10),
        ("get\r\n", 5),
        ("gets \r\n", 7),
        ("\r\n", 2),
        ("\n", 1),
        ("nonsense", 0),
    ];

    #[test]
    fn commands_end_where_the_worker_thinks_they_end() {
        for &(text, bytes) in FORWARDED {
            let expected = if bytes == 0 {
                Next::Incomplete { needs: text.len() + 1, searched: text.len() }
            } else {
                Next::Forward { bytes, skip: 0 }
            };
            assert_eq!(next(text.as_bytes(), 0), expected, "{text:?}");
        }
        let get = |keys, with_version, bytes| Next::Get { keys, with_version, bytes };
        assert_eq!(next(b"get a\r\nget b\r\n", 0), get(&b"a"[..], false, 7));
        assert_eq!(next(b"gets  a b\n", 0), get(b"  a b", true, 10));
        assert_eq!(next(b" get a\n", 0), get(b" a", false, 7));
        assert_eq!(next(b"quit\r\n", 0), Next::Quit);
        assert_eq!(next(b"quit now\r\n", 0), Next::Quit, "as memcached does");
        assert_eq!(next(b"set k 0 0 3\r\nab", 0), Next::Incomplete { needs: 18, searched: 0 });
        // One byte short of its end: the line feed must be found again.
        assert_eq!(next(b"set k 0 0 3\r\nabc\r", 0), Next::Incomplete { needs: 18, searched: 0 });
        let large = format!("set k 0 0 {}\r\n", VALUE_BYTES_MAX + 1);
        let expected = Next::Forward { bytes: large.len(), skip: VALUE_BYTES_MAX + 3 };
        assert_eq!(next(large.as_bytes(), 0), expected);
    }

    #[test]
    fn a_gat_of_several_keys_is_taken_apart_and_put_together() {
        let Next::GetAndTouch { touch, bytes: 20 } = next(b" gats  -1 a  bc  d\r\nx", 0) else {
            panic!("it is one")
        };
        assert_eq!(touch.keys, b" a  bc  d");
        let mut command = b"old".to_vec();
        touch.write(b"bc", &mut command);
        assert_eq!(command, b"gats -1 bc\r\n");
        let long = format!("gat 1 a {}\r\n", "k".repeat(KEY_BYTES_MAX + 1));
        for others in ["gat\r\n", "gat 1\r\n", "gat 1 a\r\n", "gat x a b\r\n", &long] {
            let forwarded = Next::Forward { bytes: others.len(), skip: 0 };
            assert_eq!(next(others.as_bytes(), 0), forwarded, "{others}");
        }
    }

    #[test]
    fn lines_without_an_end_are_bounded() {
        let junk = vec![0x80; LINE_BYTES_MAX + 1];
        assert_eq!(
            next(&junk[1..], 0),
            Next::Incomplete { needs: LINE_BYTES_MAX + 1, searched: LINE_BYTES_MAX }
        );
        assert_eq!(next(&junk, 0), Next::Endless);
        let mut keys = b"get ".to_vec();
        keys.resize(GET_LINE_BYTES_MAX, b'k');
        assert_eq!(
            next(&keys, 0),
            Next::Incomplete { needs: keys.len() + 1, searched: keys.len() }
        );
        keys.push(b'k');
        assert_eq!(next(&keys, 0), Next::Endless);
    }

    #[test]
    fn a_line_feed_is_found_wherever_it_is() {
        for length in 0..40 {
            let mut text = vec![b'\x0b'; length];
            assert_eq!(line_feed(&text, 0), None);
            for place in 0..length {
                text[place] = b'\n';
                for searched in 0..=place {
                    assert_eq!(line_feed(&text, searched), Some(place), "{length} {searched}");
                }
                text[place] = b'\x8a';
            }
        }
    }

    #[test]
    fn keys_are_walked_from_any_place() {
        let keys = b" a  bc ";
        let (key, at) = next_key(keys, 0).unwrap();
        assert_eq!((key, at), (&b"a"[..], 2));
        let (key, at) = next_key(keys, at).unwrap();
        assert_eq!((key, at), (&b"bc"[..], 6));
        assert_eq!(next_key(keys, at), None);
    }
}
