//! One line of a trail, read strictly: `HASH JSON`, where HASH is 64 lower-case hexadecimal digits.

use serde_json::{Map, Value};

/// A line whose form is right. Whether it belongs here is for the chain to say.
pub(super) struct Line<'a> {
    /// What the line says its hash is.
    pub hash: [u8; 32],
    /// The bytes that are hashed.
    pub json: &'a [u8],
    /// The same, read.
    pub fields: Map<String, Value>,
}

impl<'a> Line<'a> {
    /// A line without its end.
    pub fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let (front, rest) = bytes.split_at_checked(64).ok_or("too short for a record")?;
        let front = std::str::from_utf8(front).map_err(|_| "no hash at its front")?;
        let hash = digits(front).ok_or("no hash at its front")?;
        let json = rest.strip_prefix(b" ").ok_or("no space behind its hash")?;
        let fields = serde_json::from_slice(json).map_err(|error| format!("no record: {error}"))?;
        Ok(Self { hash, json, fields })
    }

    /// A field that is a number.
    pub fn number(&self, key: &str) -> Result<i64, String> {
        self.fields.get(key).and_then(Value::as_i64).ok_or_else(|| format!("no number {key}"))
    }

    /// A field that is a text.
    pub fn text(&self, key: &str) -> Result<&str, String> {
        self.fields.get(key).and_then(Value::as_str).ok_or_else(|| format!("no text {key}"))
    }
}

/// The bytes of lower-case hexadecimal text of exactly `N` bytes.
pub(super) fn digits<const N: usize>(text: &str) -> Option<[u8; N]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    let mut digits = text.bytes();
    for byte in &mut bytes {
        *byte = value(digits.next()?)? << 4 | value(digits.next()?)?;
    }
    digits.next().is_none().then_some(bytes)
}
