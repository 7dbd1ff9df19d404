//! How keys and values look on the wire, so that a value says which write it is from and a torn one
//! shows.
//!
//! ```text
//!   piece [.piece ...] piece [.piece ...]      decimal numbers, blanks between; `.7` repeats piece 7
//! ```
//!
//! A value is one piece, and more after `append` and `prepend`. Its repetitions make it as long as
//! wanted. A counter (`incr`, `decr`) is a single number.

use crate::history::value_id;

/// Keys from here on are cold; those below are asked for by everybody for a while.
pub const COLD: u64 = 1 << 32;

/// The key of this number.
pub fn key_text(key: u64) -> String {
    match key.checked_sub(COLD) {
        Some(number) => format!("c{number}"),
        None => format!("h{key}"),
    }
}

/// Whether the key's value is a number that is counted with; such values are never appended to.
pub fn is_counter(key: u64) -> bool {
    key.is_multiple_of(4)
}

/// The value of one piece, about `bytes` long.
pub fn value_text(piece: u64, bytes: usize) -> Vec<u8> {
    let mut text = piece.to_string();
    let again = format!(" .{piece}");
    while text.len() + again.len() <= bytes {
        text += &again;
    }
    text.into_bytes()
}

/// The id of a value; `None` for bytes that nobody wrote in one piece.
pub fn id_of(bytes: &[u8]) -> Option<u64> {
    let mut pieces: Vec<u64> = Vec::new();
    for word in std::str::from_utf8(bytes).ok()?.split_ascii_whitespace() {
        match word.strip_prefix('.') {
            Some(again) if again.parse().ok().as_ref() == pieces.last() => {}
            Some(_) => return None,
            None => pieces.push(word.parse().ok()?),
        }
    }
    (!pieces.is_empty()).then(|| value_id(&pieces))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_known_and_a_torn_one_is_not() {
        let (old, new) = (value_text(1_234_567, 200), value_text(7_654_321, 200));
        assert!((190..=200).contains(&old.len()));
        assert_eq!((id_of(&old), id_of(&new)), (Some(1_234_567), Some(7_654_321)));
        for cut in 1..old.len() {
            let torn = [&old[..cut], &new[cut..]].concat();
            assert_ne!(id_of(&torn), Some(7_654_321), "{cut}");
            assert!(id_of(&torn).is_none_or(|id| id != 1_234_567 || torn == old), "{cut}");
        }
        assert_eq!(id_of(b""), None);
        assert_eq!(id_of(b"124      "), Some(124), "a number that was changed in its place");
    }

    #[test]
    fn pieces_at_either_end_are_followed() {
        let value = [&value_text(1, 20)[..], b" ", &value_text(2, 0)].concat();
        assert_eq!(id_of(&value), Some(value_id(&[1, 2])));
        assert_eq!(id_of(&[b"3 ", &value[..]].concat()), Some(value_id(&[3, 1, 2])));
    }
}
