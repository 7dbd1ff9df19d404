//! Sessions that no earlier run had; how messages are packed is [`crate::feed::pack`]'s.

use crate::feed::moldudp64::Session;
use std::time::{SystemTime, UNIX_EPOCH};

pub use crate::feed::pack::{MESSAGES_MAX, Packer};

/// A session no earlier run had: the clock in milliseconds, base 36, ten characters.
pub fn session_of_now() -> Session {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut rest = now.as_millis() as u64;
    let mut bytes = [b'0'; 10];
    for byte in bytes.iter_mut().rev() {
        *byte = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[(rest % 36) as usize];
        rest /= 36;
    }
    Session(bytes)
}

/// A session of this name, one to ten printable characters, right-aligned as venues have it.
pub fn session_named(name: &str) -> Result<Session, String> {
    let mut bytes = [b' '; 10];
    let start = bytes.len().checked_sub(name.len()).ok_or("at most ten characters")?;
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("printable ASCII without spaces".into());
    }
    bytes[start..].copy_from_slice(name.as_bytes());
    Ok(Session(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_right_aligned() {
        assert_eq!(session_named("MON1"), Ok(Session(*b"      MON1")));
        assert!(session_named("").is_err() && session_named("a b").is_err());
        assert!(session_named("elevenchars").unwrap_err().contains("at most ten"));
    }

    #[test]
    fn sessions_of_the_clock_are_ten_printable_characters() {
        let session = session_of_now();
        assert!(session.0.iter().all(u8::is_ascii_alphanumeric), "{session}");
    }
}
