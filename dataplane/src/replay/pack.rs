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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_of_the_clock_are_ten_printable_characters() {
        let session = session_of_now();
        assert!(session.0.iter().all(u8::is_ascii_alphanumeric), "{session}");
    }
}
