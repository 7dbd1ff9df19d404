//! A change of one item in the words of the front, and what its answer says.

use super::key::Key;

/// Longest key that the front takes in base64: 250 characters of it.
const BASE64_KEY_BYTES_MAX: usize = 186;

/// Longest line an answer may have.
pub const ANSWER_BYTES_MAX: usize = 1024;

/// When a change is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Whatever is there.
    Always,
    /// Only if nothing is there.
    Absent,
    /// Only if something is there.
    Present,
    /// Only if what is there has this version.
    Version(u64),
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It was done; the version of what was stored.
    Done(Option<u64>),
    /// What was asked for is not there, or there already.
    NotStored,
    /// Another version is there.
    Exists,
    /// The key is not there.
    NotFound,
    /// The value is longer than the cache takes. What was there is gone.
    TooLarge,
    /// There is no memory for it.
    NoMemory,
    /// A feed publishes the key.
    FeedOwned,
    /// The cache is gone.
    NoCache,
    /// A worker died over it: it may have been done.
    Unknown,
    /// Anything else: it was not done.
    Refused(String),
}

/// Why a key cannot be written.
pub const KEY_RULE: &str =
    "a key with spaces or control characters has at most 186 bytes where it is written";

/// The command that stores a value; `None` for a key that no command can carry.
pub fn store(
    key: &Key,
    value: &[u8],
    ttl_ms: Option<u64>,
    condition: Condition,
) -> Option<Vec<u8>> {
    let (word, flag) = key_word(key)?;
    let mut command = b"ms ".to_vec();
    command.extend_from_slice(&word);
    command.extend_from_slice(format!(" {} c{flag}", value.len()).as_bytes());
    if let Some(ttl_ms) = ttl_ms {
        command.extend_from_slice(format!(" @t{ttl_ms}").as_bytes());
    }
    match condition {
        Condition::Always => {}
        Condition::Absent => command.extend_from_slice(b" ME"),
        Condition::Present => command.extend_from_slice(b" MR"),
        Condition::Version(version) => {
            command.extend_from_slice(format!(" C{version}").as_bytes());
        }
    }
    command.extend_from_slice(b"\r\n");
    command.extend_from_slice(value);
    command.extend_from_slice(b"\r\n");
    Some(command)
}

/// The command that deletes a key, of this version if one is named.
pub fn delete(key: &Key, version: Option<u64>) -> Option<Vec<u8>> {
    let (word, flag) = key_word(key)?;
    let mut command = b"md ".to_vec();
    command.extend_from_slice(&word);
    command.extend_from_slice(flag.as_bytes());
    if let Some(version) = version {
        command.extend_from_slice(format!(" C{version}").as_bytes());
    }
    command.extend_from_slice(b"\r\n");
    Some(command)
}

/// Reads the one line of an answer, without its end.
pub fn reply(line: &[u8]) -> Reply {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut words = line.split(|byte| *byte == b' ');
    let refused = || Reply::Refused(shown(line));
    match words.next() {
        Some(b"HD") => {
            let version = words.find_map(|word| word.strip_prefix(b"c"));
            let version = version.and_then(|word| std::str::from_utf8(word).ok()?.parse().ok());
            Reply::Done(version)
        }
        Some(b"NS") => Reply::NotStored,
        Some(b"EX") => Reply::Exists,
        Some(b"NF") => Reply::NotFound,
        _ => match line.strip_prefix(b"SERVER_ERROR ") {
            Some(b"object too large for cache") => Reply::TooLarge,
            Some(b"key belongs to a feed") => Reply::FeedOwned,
            Some(b"no such cache") => Reply::NoCache,
            Some(b"outcome unknown") => Reply::Unknown,
            Some(text) if text.starts_with(b"out of memory storing") => Reply::NoMemory,
            _ => refused(),
        },
    }
}

fn shown(line: &[u8]) -> String {
    String::from_utf8_lossy(line).chars().filter(|c| !c.is_control()).take(200).collect()
}

/// The key as a word of a command, and the flag that says so if it stands in base64.
fn key_word(key: &Key) -> Option<(Vec<u8>, &'static str)> {
    let bytes = key.bytes();
    if bytes.iter().all(|byte| *byte > b' ' && *byte != 0x7f) {
        return Some((bytes.to_vec(), ""));
    }
    (bytes.len() <= BASE64_KEY_BYTES_MAX).then(|| (base64(bytes), " b"))
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let word = three.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - three.len()));
        for place in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * place)) as usize & 63];
            text.push(if place > three.len() { b'=' } else { digit });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(bytes: &[u8]) -> Key {
        Key::new(bytes).unwrap()
    }

    #[test]
    fn changes_are_put_in_the_words_of_the_front() {
        let text = |command: Option<Vec<u8>>| String::from_utf8(command.unwrap()).unwrap();
        let (k, space) = (key(b"k"), key(b"a b"));
        assert_eq!(text(store(&k, b"v\r\n", None, Condition::Always)), "ms k 3 c\r\nv\r\n\r\n");
        let absent = store(&space, b"", Some(1500), Condition::Absent);
        assert_eq!(text(absent), "ms YSBi 0 c b @t1500 ME\r\n\r\n");
        assert_eq!(text(store(&k, b"", None, Condition::Version(9))), "ms k 0 c C9\r\n\r\n");
        assert_eq!(text(store(&k, b"", None, Condition::Present)), "ms k 0 c MR\r\n\r\n");
        assert_eq!(text(delete(&k, None)), "md k\r\n");
        assert_eq!(text(delete(&space, Some(9))), "md YSBi b C9\r\n");
        assert_eq!(base64(b"\xff"), b"/w==");
        assert_eq!(base64(b"\xff\0"), b"/wA=");
        assert_eq!(delete(&key(&[0; 187]), None), None);
        assert!(delete(&key(&[0; 186]), None).unwrap().len() <= 3 + 250 + 2 + 2);
        assert!(delete(&key(&[b'k'; 250]), None).is_some());
    }

    #[test]
    fn answers_say_what_was_done() {
        for (line, said) in [
            (&b"HD c17\r"[..], Reply::Done(Some(17))),
            (b"HD", Reply::Done(None)),
            (b"NS", Reply::NotStored),
            (b"EX c0", Reply::Exists),
            (b"NF", Reply::NotFound),
            (b"SERVER_ERROR outcome unknown\r", Reply::Unknown),
            (b"SERVER_ERROR no such cache\r", Reply::NoCache),
            (b"SERVER_ERROR out of memory storing object\r", Reply::NoMemory),
            (b"SERVER_ERROR object too large for cache\r", Reply::TooLarge),
            (b"SERVER_ERROR key belongs to a feed\r", Reply::FeedOwned),
            (b"ERROR\x1b", Reply::Refused("ERROR".into())),
            (b"", Reply::Refused(String::new())),
        ] {
            assert_eq!(reply(line), said, "{}", line.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn no_key_breaks_its_line(bytes in prop::collection::vec(any::<u8>(), 1..=250)) {
            let Some(command) = delete(&key(&bytes), Some(1)) else {
                prop_assert!(bytes.len() > BASE64_KEY_BYTES_MAX);
                return Ok(());
            };
            prop_assert_eq!(command.iter().filter(|byte| **byte == b'\n').count(), 1);
            let spaces = command.iter().filter(|byte| **byte == b' ').count();
            prop_assert!(spaces == 2 || spaces == 3);
        }

        #[test]
        fn any_bytes_are_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = reply(&bytes);
        }
    }
}
