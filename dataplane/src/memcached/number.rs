//! Decimal numbers in command lines and replies, without allocation.

/// Parses what C's `strtoll` accepts of a whole word: an optional sign and digits.
pub fn signed(word: &[u8]) -> Option<i64> {
    let digits = word.strip_prefix(b"+").unwrap_or(word);
    if word.len() > digits.len() && digits.first().is_some_and(|byte| b"+-".contains(byte)) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Parses an unsigned number with an optional plus sign.
pub fn unsigned(word: &[u8]) -> Option<u64> {
    let digits = word.strip_prefix(b"+").unwrap_or(word);
    if word.len() > digits.len() && digits.first().is_some_and(|byte| b"+-".contains(byte)) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
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
        for word in ["", "+", "-", "++1", "+-1", "1a", "0x1", " 1", "9999999999999999999999"] {
            assert_eq!(signed(word.as_bytes()), None, "{word}");
        }
        assert_eq!(unsigned(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(unsigned(b"-1"), None);
        for value in [0, 9, 10, 99, 100, 12_345, u64::MAX] {
            let mut out = [0; DIGITS_MAX];
            let count = write(value, &mut out);
            assert_eq!(std::str::from_utf8(&out[..count]).unwrap(), value.to_string());
        }
    }
}
