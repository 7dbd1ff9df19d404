//! The requests about a node as a whole, and the answer to a probe.

use super::{AttachError, CACHE_NAME_BYTES, REQUEST_BYTES, Request, Verb, cache_name, word};

/// Longest time a node may be drained, in milliseconds. Whoever asks waits that long.
pub const DRAIN_MS_MAX: u32 = 240_000;

/// Longest time a node is probed, in milliseconds.
pub const PROBE_MS_MAX: u32 = 120_000;

/// In place of a release's name: the programs that the node was started with.
pub const HOST_RELEASE: &str = "@host";

/// Bytes of the answer to a probe.
pub const PROBED_BYTES: usize = 32;

/// The packet of [`Verb::Drain`]: the eight bytes of a [`Request`], then the milliseconds (u32) until
/// connections that are left are closed.
pub fn drain_request(within_ms: u32) -> Vec<u8> {
    [&Request { verb: Verb::Drain }.encode()[..], &within_ms.to_le_bytes()].concat()
}

/// The packet of [`Verb::Probe`]: the eight bytes of a [`Request`], then its milliseconds (u32).
pub fn probe_request(period_ms: u32) -> Vec<u8> {
    [&Request { verb: Verb::Probe }.encode()[..], &period_ms.to_le_bytes()].concat()
}

/// The packet of [`Verb::Swap`]: the eight bytes of a [`Request`], then the name of the release padded with
/// zeros, as the id of a cache.
pub fn swap_request(release: &str) -> Vec<u8> {
    [&Request { verb: Verb::Swap }.encode()[..], &cache_name(release)].concat()
}

/// The packet of [`Verb::Exchange`], made as that of [`Verb::Swap`].
pub fn exchange_request(release: &str) -> Vec<u8> {
    [&Request { verb: Verb::Exchange }.encode()[..], &cache_name(release)].concat()
}

/// The name in a padded field: zeros end it, and nothing follows them.
pub(super) fn name_in(field: &[u8]) -> Result<&str, AttachError> {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    if end == CACHE_NAME_BYTES || field[end..].iter().any(|&byte| byte != 0) {
        return Err(AttachError::Text);
    }
    std::str::from_utf8(&field[..end]).map_err(|_| AttachError::Text)
}

/// What a probe measured: from the receive stamp in XDP to the transmit ring, in nanoseconds. All u64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probed {
    /// Answers that were timed.
    pub samples: u64,
    /// Median.
    pub p50_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// 99.9th percentile.
    pub p999_ns: u64,
}

impl Probed {
    /// The payload.
    pub fn encode(&self) -> [u8; PROBED_BYTES] {
        let mut bytes = [0; PROBED_BYTES];
        let words = [self.samples, self.p50_ns, self.p99_ns, self.p999_ns];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads a payload of exactly [`PROBED_BYTES`].
    pub fn decode(payload: &[u8]) -> Result<Self, AttachError> {
        if payload.len() != PROBED_BYTES {
            return Err(AttachError::Payload { said: PROBED_BYTES, found: payload.len() });
        }
        let at =
            |offset| u64::from(word(payload, offset)) | u64::from(word(payload, offset + 4)) << 32;
        Ok(Self { samples: at(0), p50_ns: at(8), p99_ns: at(16), p999_ns: at(24) })
    }
}

const _: () = assert!(REQUEST_BYTES == 8, "the head of every request");

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::Ask;
    use super::*;

    #[test]
    fn requests_are_read_as_they_were_written_and_nothing_else_is() {
        for (verb, ask) in [(Verb::Start, Ask::Start), (Verb::Park, Ask::Park)] {
            assert_eq!(Ask::decode(&Request { verb }.encode()), Ok(ask));
        }
        assert_eq!(Ask::decode(&Request { verb: Verb::Resume }.encode()), Ok(Ask::Resume));
        assert_eq!(Ask::decode(&Request { verb: Verb::Settle }.encode()), Ok(Ask::Settle));
        assert_eq!(Ask::decode(&drain_request(1500)), Ok(Ask::Drain(1500)));
        assert_eq!(Ask::decode(&probe_request(7)), Ok(Ask::Probe(7)));
        assert_eq!(Ask::decode(&swap_request("r-2")), Ok(Ask::Swap("r-2")));
        assert_eq!(Ask::decode(&swap_request("")), Ok(Ask::Swap("")));
        assert_eq!(Ask::decode(&exchange_request("r-2")), Ok(Ask::Exchange("r-2")));
        for whole in [drain_request(1), probe_request(1), swap_request("r"), exchange_request("r")]
        {
            assert!(Ask::decode(&whole[..whole.len() - 1]).is_err());
        }
        let mut hidden = swap_request("r");
        hidden[20] = b'x';
        assert_eq!(Ask::decode(&hidden), Err(AttachError::Text));
        assert!(Ask::decode(&swap_request(&"r".repeat(64))).is_err(), "no end");
    }

    #[test]
    fn a_measurement_survives_the_wire() {
        let probed = Probed { samples: 1, p50_ns: 2 << 40, p99_ns: 3, p999_ns: u64::MAX };
        assert_eq!(Probed::decode(&probed.encode()), Ok(probed));
        assert!(Probed::decode(&[0; 31]).is_err());
    }
}
