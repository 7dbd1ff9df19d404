//! Decimal numbers in command lines, values and replies, without allocation.

/// What C's `isspace` says in the usual locale. A word has no spaces, a stored value may.
const fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ')
}

/// A number at the front of a word: its sign and its digits' value, as C's `strto...` reads it. What
/// may follow is white space, and behind it anything; a NUL ends the text.
fn front(word: &[u8]) -> Option<(bool, u64)> {
    let start = word.iter().position(|&byte| !is_space(byte))?;
    let word = &word[start..];
    let (negative, digits) = match word.split_first()? {
        (b'-', digits) => (true, digits),
        (b'+', digits) => (false, digits),
        _ => (false, word),
    };
    let mut value = None;
    for &byte in digits {
        if !byte.is_ascii_digit() {
            if !is_space(byte) && byte != 0 {
                return None;
            }
            break;
        }
        let before = value.unwrap_or(0u64);
        value = Some(before.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?);
    }
    Some((negative, value?))
}

/// Parses what memcached's `safe_strtol` accepts of a word.
pub fn signed(word: &[u8]) -> Option<i64> {
    match front(word)? {
        (true, value) => 0i64.checked_sub_unsigned(value),
        (false, value) => i64::try_from(value).ok(),
    }
}

/// Parses what memcached's `safe_strtoull` accepts of a word: a negative number only if it comes out
/// as one that is not too large.
pub fn unsigned(word: &[u8]) -> Option<u64> {
    match front(word)? {
        (false, value) => Some(value),
        (true, value) => {
            let value = value.wrapping_neg();
            (value <= i64::MAX as u64).then_some(value)
        }
    }
}

/// Digits of the largest `u64`.
pub const DIGITS_MAX: usize = 20;

/// How many digits a number has.
pub fn digits(value: u64) -> usize {
    value.checked_ilog10().map_or(1, |power| power as usize + 1)
}

/// Writes a number at the front of `out` and returns its length.
#[inline]
pub fn write(mut value: u64, out: &mut [u8]) -> usize {
    let count = digits(value);
    for place in out[..count].iter_mut().rev() {
        *place = b'0' + (value % 10) as u8;
        value /= 10;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_written_as_c_does() {
        for (word, value) in [("0", 0), ("-1", -1), ("+5", 5), ("007", 7)] {
            assert_eq!(signed(word.as_bytes()), Some(value), "{word}");
        }
        for (word, value) in [(" 1", 1), ("1\t", 1), ("\t-1\rx", -1), ("5\0x", 5), ("-0", 0)] {
            assert_eq!(signed(word.as_bytes()), Some(value), "{word}");
        }
        assert_eq!(signed(b"-9223372036854775808"), Some(i64::MIN));
        for word in ["", "+", "-", "++1", "+-1", "1a", "0x1", " ", "9999999999999999999999"] {
            assert_eq!(signed(word.as_bytes()), None, "{word}");
        }
        assert_eq!(unsigned(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(unsigned(b"18446744073709551616"), None);
        assert_eq!(unsigned(b"-1"), None);
        assert_eq!(unsigned(b"-0"), Some(0));
        assert_eq!(unsigned(b"-18446744073709551615"), Some(1));
        for value in [0, 9, 10, 99, 100, 12_345, u64::MAX] {
            let mut out = [0; DIGITS_MAX];
            let count = write(value, &mut out);
            assert_eq!(std::str::from_utf8(&out[..count]).unwrap(), value.to_string());
        }
    }
}
