//! Values that say which key and which write they belong to, so that a reader can tell a wrong, torn
//! or mixed one from a right one.

use std::fmt::Write;

/// Bytes of every value.
pub const VALUE_BYTES: usize = 96;

/// The value of write `version` to `key`: both spelled out, then a pattern drawn from them to the end.
pub fn value(key: &str, version: u64) -> Vec<u8> {
    let mut text = format!("{key}={version};");
    // Knuth's multiplicative generator, seeded by key and version.
    let mut state = key.bytes().fold(version ^ 0x9e37_79b9_7f4a_7c15, |state, byte| {
        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(byte.into())
    });
    while text.len() < VALUE_BYTES {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        write!(text, "{:08x}", state >> 32).expect("a string takes everything");
    }
    text.truncate(VALUE_BYTES);
    text.into_bytes()
}

/// Which write to `key` wrote `bytes`; None when none did.
pub fn version_of(key: &str, bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let version = text.strip_prefix(key)?.strip_prefix('=')?.split(';').next()?.parse().ok()?;
    (value(key, version) == bytes).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_known_by_its_bytes_and_a_torn_one_is_not() {
        let (old, new) = (value("own:1", 7), value("own:1", 8));
        assert_eq!(version_of("own:1", &old), Some(7));
        assert_eq!(version_of("own:2", &old), None);
        for cut in 9..VALUE_BYTES {
            let torn = [&old[..cut], &new[cut..]].concat();
            assert_eq!(
                version_of("own:1", &torn),
                if torn == old { Some(7) } else { None },
                "{cut}"
            );
        }
    }
}
