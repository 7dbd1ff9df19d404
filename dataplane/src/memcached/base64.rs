//! Base64 keys of the meta protocol (RFC 4648 section 4), as forgiving as memcached 1.6.18: characters
//! outside the alphabet are skipped, and what follows the padding is not looked at.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Bytes that the longest key of 250 characters decodes to.
pub const DECODED_BYTES_MAX: usize = 250 / 4 * 3;

/// Characters that encode a key of that length.
pub const ENCODED_BYTES_MAX: usize = 250 / 4 * 4;

fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        b'=' => Some(0),
        _ => None,
    }
}

/// Decodes to the front of `out` and returns the length, 1 or more. `None`: not base64, or nothing.
pub fn decode(text: &[u8], out: &mut [u8; DECODED_BYTES_MAX]) -> Option<usize> {
    let known = text.iter().filter(|&&byte| sextet(byte).is_some()).count();
    if known % 4 != 0 || known / 4 * 3 > DECODED_BYTES_MAX {
        return None;
    }
    let (mut group, mut count, mut padding, mut length) = (0u32, 0, 0, 0);
    for &byte in text {
        let Some(bits) = sextet(byte) else { continue };
        group = group << 6 | u32::from(bits);
        padding += usize::from(byte == b'=');
        count += 1;
        if count % 4 != 0 {
            continue;
        }
        let [_, bytes @ ..] = group.to_be_bytes();
        out[length..length + 3].copy_from_slice(&bytes);
        if padding > 2 {
            return None;
        }
        length += 3 - padding;
        if padding > 0 {
            break;
        }
        group = 0;
    }
    (length > 0).then_some(length)
}

/// Encodes to the front of `out` and returns the length.
pub fn encode(bytes: &[u8], out: &mut [u8; ENCODED_BYTES_MAX]) -> usize {
    let mut length = 0;
    for chunk in bytes.chunks(3) {
        let mut group = [0; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let group = u32::from_be_bytes(group);
        for place in 0..4 {
            let sextet = group >> (18 - 6 * place) & 63;
            let padding = place > chunk.len();
            out[length] = if padding { b'=' } else { ALPHABET[sextet as usize] };
            length += 1;
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> Option<Vec<u8>> {
        let mut out = [0; DECODED_BYTES_MAX];
        decode(text.as_bytes(), &mut out).map(|length| out[..length].to_vec())
    }

    #[test]
    fn keys_are_decoded_as_memcached_does() {
        for (text, bytes) in [
            ("aGVsbG8=", "hello"),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("aGV!sbG8=", "hello"),
            ("aGVsbG8=xxxx", "hello"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(decoded(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        for text in ["", "!", "a", "aGVsbG8", "====", "A===", "aGVsbG8=x"] {
            assert_eq!(decoded(text), None, "{text}");
        }
        assert_eq!(decoded(&"QUJD".repeat(62)).unwrap().len(), DECODED_BYTES_MAX);
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for length in 1..=DECODED_BYTES_MAX {
            let bytes: Vec<u8> = (0..length).map(|at| (at * 37 + length) as u8).collect();
            let mut text = [0; ENCODED_BYTES_MAX];
            let count = encode(&bytes, &mut text);
            assert_eq!(count, length.div_ceil(3) * 4);
            let text = std::str::from_utf8(&text[..count]).unwrap();
            assert_eq!(decoded(text).as_deref(), Some(&bytes[..]));
        }
    }
}
