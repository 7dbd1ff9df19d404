//! The few letters that tell one run's names from another's.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::str::FromStr;

/// Letters in an id. Too few: two runs collide; too many: an interface name (15 bytes) has no room
/// left for what it is.
const LETTERS: usize = 6;

const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// One run of a lab or a test; part of every namespace, file and process name it makes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RunId([u8; LETTERS]);

impl RunId {
    /// A fresh id, drawn by chance: 2^30 of them.
    pub fn draw() -> Self {
        let mut bits = RandomState::new().build_hasher().finish();
        Self([0; LETTERS].map(|_| {
            let letter = ALPHABET[(bits % 32) as usize];
            bits /= 32;
            letter
        }))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("the alphabet is ASCII")
    }

    /// What every namespace of this run starts with.
    pub fn prefix(&self) -> String {
        format!("ne{self}-")
    }
}

/// The text is not an id.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a run id")]
pub struct NotARunId(String);

impl FromStr for RunId {
    type Err = NotARunId;

    fn from_str(text: &str) -> Result<Self, NotARunId> {
        let letters: [u8; LETTERS] =
            text.as_bytes().try_into().map_err(|_| NotARunId(text.to_owned()))?;
        if letters.iter().all(|letter| ALPHABET.contains(letter)) {
            return Ok(Self(letters));
        }
        Err(NotARunId(text.to_owned()))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_survive_text() {
        let ids: std::collections::HashSet<RunId> = (0..100).map(|_| RunId::draw()).collect();
        assert!(ids.len() > 98);
        for id in ids {
            assert_eq!(id.to_string().parse::<RunId>().unwrap(), id);
        }
        for text in ["", "../../", "abcdefg", "ABCDEF"] {
            assert!(text.parse::<RunId>().is_err(), "{text}");
        }
    }
}
