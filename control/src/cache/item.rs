//! One item as it was read, and what its bytes say if a feed published them.

use nautilus_client::Look;

/// Layout version of a feed's records (`dataplane/src/feed/README.md`).
const RECORD_VERSION: u16 = 1;

/// Bytes of a record up to the end of its capture time.
const RECORD_FRONT_BYTES: usize = 24;

/// An item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The value.
    pub bytes: Vec<u8>,
    /// Rises with every change of the key.
    pub version: u64,
    /// Since its capture if it is a feed's record, else since it was stored; microseconds.
    pub age_us: u64,
    /// Milliseconds until it ends, rounded up; none if it does not.
    pub expires_ms: Option<u64>,
    /// Number of the exchange's message that it comes from; none for what no feed publishes.
    pub source_sequence: Option<u64>,
    /// Its feed has a gap, is silent, or its worker is dead.
    pub is_suspect: bool,
}

impl Item {
    /// The item that a look has found, with its value.
    pub fn of(look: &Look, bytes: Vec<u8>) -> Self {
        let record = if look.value.channel == 0 { None } else { record_front(&bytes) };
        let since_us = record.map_or(look.written_us, |(_, capture_ns)| capture_ns / 1_000);
        let left_ns = look.value.expiry_ns.saturating_sub(look.now_ns);
        Self {
            version: look.value.version,
            age_us: (look.now_ns / 1_000).saturating_sub(since_us),
            expires_ms: (look.value.expiry_ns != 0).then(|| left_ns.div_ceil(1_000_000)),
            source_sequence: record.map(|(sequence, _)| sequence),
            is_suspect: look.is_suspect,
            bytes,
        }
    }
}

/// Source sequence and capture time of a record; `None` for what is none.
fn record_front(bytes: &[u8]) -> Option<(u64, u64)> {
    let (front, _) = bytes.split_first_chunk::<RECORD_FRONT_BYTES>()?;
    let [first, sequence, capture_ns] = front.as_chunks::<8>().0 else { return None };
    let version = u16::from_le_bytes([first[0], first[1]]);
    let length = u16::from_le_bytes([first[2], first[3]]);
    let is_record = version == RECORD_VERSION && usize::from(length) == bytes.len();
    is_record.then(|| (u64::from_le_bytes(*sequence), u64::from_le_bytes(*capture_ns)))
}

#[cfg(test)]
mod tests {
    use nautilus_client::Value;

    use super::*;

    fn look(channel: u8, expiry_ns: u64) -> Look {
        let value = Value { value_bytes: 0, flags: 0, version: 7, expiry_ns, channel };
        Look { value, written_us: 4_000, now_ns: 10_000_001, is_suspect: channel != 0 }
    }

    #[test]
    fn ages_and_deadlines_are_told_from_the_moment_of_the_read() {
        let item = Item::of(&look(0, 12_000_002), b"v".to_vec());
        assert_eq!((item.version, item.age_us, item.expires_ms), (7, 6_000, Some(3)));
        assert_eq!((item.source_sequence, item.is_suspect), (None, false));
        assert_eq!(Item::of(&look(0, 0), Vec::new()).expires_ms, None);
    }

    #[test]
    fn a_record_says_where_it_comes_from_and_others_do_not() {
        let mut record = vec![0; 40];
        record[..2].copy_from_slice(&RECORD_VERSION.to_le_bytes());
        record[2..4].copy_from_slice(&40_u16.to_le_bytes());
        record[8..16].copy_from_slice(&99_u64.to_le_bytes());
        record[16..24].copy_from_slice(&9_000_000_u64.to_le_bytes());
        let item = Item::of(&look(3, 0), record.clone());
        assert_eq!((item.source_sequence, item.age_us, item.is_suspect), (Some(99), 1_000, true));
        let of_client = Item::of(&look(0, 0), record.clone());
        assert_eq!((of_client.source_sequence, of_client.age_us), (None, 6_000));
        for wrong in [&record[..39], &record[..23], b""] {
            assert_eq!(Item::of(&look(3, 0), wrong.to_vec()).source_sequence, None);
        }
    }
}
