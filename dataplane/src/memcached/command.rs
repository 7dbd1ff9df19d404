//! Command lines.
//!
//! Words are divided by spaces only, lines end with a line feed that a carriage return may precede;
//! the data of a storage command ends with both. What is wrong with a line is said as memcached
//! 1.6.18 says it, including which refusals `noreply` silences.

use super::number;
use nautilus_shm::table::KEY_BYTES_MAX;

/// The largest length a storage command may announce (`INT_MAX - 2` in memcached).
const ANNOUNCED_BYTES_MAX: i64 = i32::MAX as i64 - 2;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// `get` or `gets`; at least one key, each of 1 to 250 bytes.
    Get {
        /// The keys, divided by spaces; see [`words`].
        keys: &'a [u8],
        /// Whether to return versions.
        with_version: bool,
    },
    /// `set`
    Set {
        /// 1 to 250 bytes.
        key: &'a [u8],
        /// The client's flags.
        flags: u32,
        /// memcached's expiry time; see [`super::expiry`].
        expiry_seconds: i64,
        /// The value; `None` when it is longer than a datagram can carry.
        value: Option<&'a [u8]>,
        /// Whether to stay silent.
        no_reply: bool,
    },
    /// `delete`
    Delete {
        /// 1 to 250 bytes.
        key: &'a [u8],
        /// Whether to stay silent.
        no_reply: bool,
    },
    /// `version`
    Version,
    /// A line that is answered with an error, unless `no_reply`.
    Refused {
        /// The error.
        refusal: Refusal,
        /// Whether to stay silent.
        no_reply: bool,
    },
}

/// Why a line is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not a command, or with the wrong number of words.
    Unknown,
    /// A number or the length does not parse.
    BadFormat,
    /// A key is longer than 250 bytes.
    KeyTooLong,
    /// `delete` with a word it does not know.
    DeleteUsage,
    /// The data does not end where the line said.
    BadDataChunk,
}

impl Refusal {
    /// The answer.
    pub fn text(self) -> &'static [u8] {
        match self {
            Self::Unknown => b"ERROR\r\n",
            Self::BadFormat | Self::KeyTooLong => b"CLIENT_ERROR bad command line format\r\n",
            Self::DeleteUsage => {
                b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n"
            }
            Self::BadDataChunk => b"CLIENT_ERROR bad data chunk\r\n",
        }
    }
}

/// What stands at the front of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// A request, and the text behind it.
    Command(Command<'a>, &'a [u8]),
    /// Nothing more to answer: the end, an unfinished line or value, or `quit`.
    End,
}

/// The words of a line.
#[inline]
pub fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|&byte| byte == b' ').filter(|word| !word.is_empty())
}

/// Takes the next request off a text.
#[inline]
pub fn next(text: &[u8]) -> Next<'_> {
    let Some(end) = text.iter().position(|&byte| byte == b'\n') else { return Next::End };
    let (line, rest) = (&text[..end], &text[end + 1..]);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut rest_of_line = line;
    let word = take_word(&mut rest_of_line);
    let refused = |refusal| Next::Command(Command::Refused { refusal, no_reply: false }, rest);
    match word {
        b"get" => get(rest_of_line, false, rest),
        b"gets" => get(rest_of_line, true, rest),
        b"set" => set(rest_of_line, rest),
        b"delete" => Next::Command(delete(rest_of_line), rest),
        b"version" => Next::Command(Command::Version, rest),
        b"quit" => Next::End,
        // Not served, but their data must not be taken for commands.
        b"add" | b"replace" | b"append" | b"prepend" | b"cas" => {
            skip_data(words(rest_of_line).nth(3), rest).map_or(Next::End, |rest| {
                let refusal = Refusal::Unknown;
                Next::Command(Command::Refused { refusal, no_reply: false }, rest)
            })
        }
        b"ms" => skip_data(words(rest_of_line).nth(1), rest).map_or(Next::End, |rest| {
            let refusal = Refusal::Unknown;
            Next::Command(Command::Refused { refusal, no_reply: false }, rest)
        }),
        _ => refused(Refusal::Unknown),
    }
}

/// What a text that begins with a `get` asks for first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstKey<'a> {
    /// 1 to 250 bytes above the space.
    pub key: &'a [u8],
    /// Whether the text is `get <key>\r\n` and nothing else, so that [`next`] would find one `get` of
    /// this one key and then the end.
    pub is_all: bool,
}

/// The first key of a text whose first command is a `get`, to look it up ahead. `None` says nothing
/// about the text.
#[inline]
pub fn first_key(text: &[u8]) -> Option<FirstKey<'_>> {
    let keys = text.strip_prefix(b"get ")?;
    let end = first_blank(keys)?;
    let (key, rest) = keys.split_at(end);
    let ends = matches!(rest[0], b' ' | b'\r' | b'\n');
    let valid = ends && (1..=KEY_BYTES_MAX).contains(&end);
    valid.then_some(FirstKey { key, is_all: rest == b"\r\n" })
}

/// Where the first byte up to the space is, looked for eight bytes at a time.
#[inline]
fn first_blank(text: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 0xff;
    let (words, rest) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // The lowest bit set marks the first byte below 0x21; a borrow only spoils those above it.
        let blanks = word.wrapping_sub(ONES * 0x21) & !word & (ONES * 0x80);
        if blanks != 0 {
            return Some(index * 8 + blanks.trailing_zeros() as usize / 8);
        }
    }
    let place = rest.iter().position(|&byte| byte <= b' ')?;
    Some(words.len() * 8 + place)
}

fn take_word<'a>(line: &mut &'a [u8]) -> &'a [u8] {
    let start = line.iter().position(|&byte| byte != b' ').unwrap_or(line.len());
    let text = &line[start..];
    let end = text.iter().position(|&byte| byte == b' ').unwrap_or(text.len());
    *line = &text[end..];
    &text[..end]
}

fn get<'a>(keys: &'a [u8], with_version: bool, rest: &'a [u8]) -> Next<'a> {
    let mut count = 0;
    let mut too_long = false;
    for key in words(keys) {
        count += 1;
        too_long |= key.len() > KEY_BYTES_MAX;
    }
    let refused = |refusal| Command::Refused { refusal, no_reply: false };
    let command = match (count, too_long) {
        (0, _) => refused(Refusal::Unknown),
        (_, true) => refused(Refusal::KeyTooLong),
        (_, false) => Command::Get { keys, with_version },
    };
    Next::Command(command, rest)
}

fn set<'a>(line: &'a [u8], rest: &'a [u8]) -> Next<'a> {
    let mut arguments = [&b""[..]; 5];
    let mut count = 0;
    for word in words(line) {
        if let Some(argument) = arguments.get_mut(count) {
            *argument = word;
        }
        count += 1;
    }
    if !(4..=5).contains(&count) {
        let refusal = Refusal::Unknown;
        return Next::Command(Command::Refused { refusal, no_reply: false }, rest);
    }
    let no_reply = arguments[count - 1] == b"noreply";
    let refused = |refusal, rest| Next::Command(Command::Refused { refusal, no_reply }, rest);
    let [key, flags, expiry, length, _] = arguments;
    if key.len() > KEY_BYTES_MAX {
        return refused(Refusal::KeyTooLong, rest);
    }
    let numbers = (number::unsigned(flags), number::signed(expiry), number::signed(length));
    let (Some(flags), Some(expiry_seconds), Some(length)) = numbers else {
        return refused(Refusal::BadFormat, rest);
    };
    if !(0..=ANNOUNCED_BYTES_MAX).contains(&length) {
        return refused(Refusal::BadFormat, rest);
    }
    let length = length as usize;
    // memcached keeps the low 32 bits of larger flags.
    let flags = flags as u32;
    if length > nautilus_shm::table::VALUE_BYTES_MAX {
        let value = None;
        let command = Command::Set { key, flags, expiry_seconds, value, no_reply };
        return Next::Command(command, rest.get(length + 2..).unwrap_or(&[]));
    }
    let Some((data, rest)) = rest.split_at_checked(length + 2) else { return Next::End };
    let Some(value) = data.strip_suffix(b"\r\n") else {
        return refused(Refusal::BadDataChunk, rest);
    };
    let command = Command::Set { key, flags, expiry_seconds, value: Some(value), no_reply };
    Next::Command(command, rest)
}

fn delete(line: &[u8]) -> Command<'_> {
    let mut arguments = [&b""[..]; 3];
    let mut count = 0;
    for word in words(line) {
        if let Some(argument) = arguments.get_mut(count) {
            *argument = word;
        }
        count += 1;
    }
    if !(1..=3).contains(&count) {
        return Command::Refused { refusal: Refusal::Unknown, no_reply: false };
    }
    let key = arguments[0];
    let no_reply = count > 1 && arguments[count - 1] == b"noreply";
    // A time of 0 is a leftover that clients still send.
    let zero = arguments[1] == b"0";
    let valid = match count {
        1 => true,
        2 => zero || no_reply,
        _ => zero && no_reply,
    };
    if !valid {
        return Command::Refused { refusal: Refusal::DeleteUsage, no_reply };
    }
    if key.len() > KEY_BYTES_MAX {
        return Command::Refused { refusal: Refusal::KeyTooLong, no_reply };
    }
    Command::Delete { key, no_reply }
}

/// The text behind a value of the announced length. `None`: it is not all there. No length: no data.
fn skip_data<'a>(length: Option<&[u8]>, rest: &'a [u8]) -> Option<&'a [u8]> {
    match length.and_then(number::signed) {
        Some(length @ 0..=ANNOUNCED_BYTES_MAX) => rest.get(length as usize + 2..),
        _ => Some(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_key_is_the_key_that_parsing_finds() {
        for key in ["k", "1234567", "12345678", "123456789", "key:000000000001"] {
            let text = format!("get {key}\r\n").into_bytes();
            let first = FirstKey { key: key.as_bytes(), is_all: true };
            assert_eq!(first_key(&text), Some(first));
            let get = Command::Get { keys: &text[3..4 + key.len()], with_version: false };
            assert_eq!(next(&text), Next::Command(get, &[]));
            for more in [" b\r\n", "\n", "\r\nget b\r\n"] {
                let text = format!("get {key}{more}").into_bytes();
                let first = FirstKey { key: key.as_bytes(), is_all: false };
                assert_eq!(first_key(&text), Some(first));
            }
            for odd in ["\t\r\n", "\0\r\n", ""] {
                assert_eq!(first_key(format!("get {key}{odd}").as_bytes()), None);
            }
        }
        for text in ["get \r\n", "get  k\r\n", "gets k\r\n", "set k 0 0 1\r\n"] {
            assert_eq!(first_key(text.as_bytes()), None);
        }
        let long = format!("get {}\r\n", "k".repeat(KEY_BYTES_MAX + 1));
        assert_eq!(first_key(long.as_bytes()), None);
    }
}
