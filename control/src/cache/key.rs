//! Keys of items.

use nautilus_client::KEY_BYTES_MAX;

/// A key: 1 to 250 bytes of any value.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl Key {
    /// A key, if it is one.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (1..=KEY_BYTES_MAX).contains(&bytes.len()).then(|| Self(bytes.to_vec()))
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Key({})", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_1_to_250_bytes() {
        for (bytes, is_one) in [(0, false), (1, true), (250, true), (251, false)] {
            assert_eq!(Key::new(&vec![0; bytes]).is_some(), is_one, "{bytes}");
        }
    }
}
