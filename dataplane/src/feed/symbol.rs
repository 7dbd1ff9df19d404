//! Names that end up in a key: the venue from the configuration, the symbol from the wire.

use std::fmt;

/// Longest venue name, that of every id.
pub const VENUE_BYTES_MAX: usize = 63;

/// A stock symbol as ITCH carries it: eight bytes, left-justified, padded with spaces. The bytes come
/// from the wire and may be anything until [`Self::name`] has said otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Symbol(pub [u8; 8]);

impl Symbol {
    /// A symbol from at most eight bytes of text, padded.
    pub fn new(text: &str) -> Option<Self> {
        let mut bytes = [b' '; 8];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Self(bytes))
    }

    /// The eight bytes without trailing spaces.
    pub fn trimmed(&self) -> &[u8] {
        let length = self.0.iter().rposition(|&byte| byte != b' ').map_or(0, |last| last + 1);
        &self.0[..length]
    }

    /// The name to use in a key, or `None` when a cache key cannot hold it: empty, or with a byte that
    /// is not printable ASCII or is a space.
    pub fn name(&self) -> Option<&[u8]> {
        let name = self.trimmed();
        (!name.is_empty() && name.iter().all(u8::is_ascii_graphic)).then_some(name)
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.trimmed().escape_ascii())
    }
}

impl fmt::Debug for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Symbol({self})")
    }
}

/// The venue part of a key: 1 to 63 bytes of `[a-z0-9_.-]`, the first a letter or a digit.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Venue {
    bytes: [u8; VENUE_BYTES_MAX],
    length: u8,
}

impl Venue {
    /// A venue of this name, or `None` when the name is not one.
    pub fn new(name: &str) -> Option<Self> {
        let first = name.bytes().next()?;
        let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let allowed = |byte: u8| alphanumeric(byte) || matches!(byte, b'_' | b'.' | b'-');
        if !alphanumeric(first) || !name.bytes().all(allowed) {
            return None;
        }
        let mut bytes = [0; VENUE_BYTES_MAX];
        bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        Some(Self { bytes, length: name.len() as u8 })
    }

    /// The name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl fmt::Display for Venue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

impl fmt::Debug for Venue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Venue({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_a_key_can_hold_are_names() {
        assert_eq!(Symbol(*b"YCBD-A  ").name(), Some(&b"YCBD-A"[..]));
        assert_eq!(Symbol(*b"ABCDEFGH").name(), Some(&b"ABCDEFGH"[..]));
        for bad in [*b"        ", *b"A B     ", *b"A\0      ", *b"A\r\n     ", *b"\xff       "] {
            assert_eq!(Symbol(bad).name(), None, "{bad:?}");
        }
        assert_eq!(Symbol::new("AAPL"), Some(Symbol(*b"AAPL    ")));
        assert_eq!(Symbol::new("NINEBYTES"), None);
    }

    #[test]
    fn venues_are_short_and_lower_case() {
        assert_eq!(Venue::new("nasdaq").unwrap().as_bytes(), b"nasdaq");
        for bad in ["", "NASDAQ", "a:b", "with space", "-a", &"x".repeat(64)] {
            assert_eq!(Venue::new(bad), None, "{bad}");
        }
    }
}
