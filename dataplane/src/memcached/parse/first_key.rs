//! The short way through the most common request.

use nautilus_shm::table::KEY_BYTES_MAX;

/// What a text that begins with a `get` asks for first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstKey<'a> {
    /// 1 to 250 bytes above the space.
    pub key: &'a [u8],
    /// Whether the text is `get <key>\r\n` and nothing else, so that [`super::next`] would find one `get` of
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

#[cfg(test)]
mod tests {
    use super::super::{Next, Request, next};
    use super::*;

    #[test]
    fn the_first_key_is_the_key_that_parsing_finds() {
        for key in ["k", "1234567", "12345678", "123456789", "key:000000000001"] {
            let text = format!("get {key}\r\n").into_bytes();
            let first = FirstKey { key: key.as_bytes(), is_all: true };
            assert_eq!(first_key(&text), Some(first));
            let get = Request::Get { keys: &text[3..4 + key.len()], with_version: false };
            assert_eq!(next(&text), Next::Request(get, text.len()));
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
