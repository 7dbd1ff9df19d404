//! What the rows ask: echoes, and memcached over UDP.

use crate::generator::Traffic;
use crate::generator::stream::StreamTraffic;

/// Bytes of the memcached UDP frame header: request id, sequence, total, reserved.
pub(crate) const HEADER_BYTES: usize = 8;

/// Bytes of every key.
pub const KEY_BYTES: usize = 16;

/// Bytes of every value.
pub const VALUE_BYTES: usize = 100;

/// Keys of one loading datagram: what stays below 1,400 bytes.
const KEYS_PER_LOAD: u64 = 8;

/// What an echo of ours carries after its slot.
const ECHO_MARK: &[u8] = b"nauech";

/// Echo of a fixed size; the first bytes name slot and request.
pub struct Echo {
    /// UDP payload, at least 16.
    pub bytes: usize,
}

impl Traffic for Echo {
    fn request(&mut self, index: u64, slot: u16, payload: &mut [u8]) -> usize {
        payload[..2].copy_from_slice(&slot.to_be_bytes());
        payload[2..8].copy_from_slice(ECHO_MARK);
        payload[8..16].copy_from_slice(&index.to_be_bytes());
        payload[16..self.bytes].fill(slot as u8);
        self.bytes
    }

    fn reply(&mut self, payload: &[u8]) -> Option<(u16, bool)> {
        let slot = u16::from_be_bytes(*payload.first_chunk::<2>()?);
        let right = payload.len() == self.bytes
            && payload.get(2..8) == Some(ECHO_MARK)
            && payload.get(16..).is_some_and(|rest| rest.iter().all(|b| *b == slot as u8));
        Some((slot, right))
    }
}

/// The key of a number: 16 bytes.
pub fn key(number: u64) -> [u8; KEY_BYTES] {
    let mut key = *b"key:000000000000";
    let mut rest = number;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// The value of a key: the key over and over.
pub fn value(number: u64) -> [u8; VALUE_BYTES] {
    let key = key(number);
    std::array::from_fn(|at| key[at % KEY_BYTES])
}

pub(crate) fn header(slot: u16, payload: &mut [u8]) {
    payload[..HEADER_BYTES].copy_from_slice(&[0, 0, 0, 0, 0, 1, 0, 0]);
    payload[..2].copy_from_slice(&slot.to_be_bytes());
}

/// `get` of uniformly random keys, each answer checked byte for byte against what was loaded.
pub struct Get {
    keys: u64,
    state: u64,
    asked: Vec<u64>,
}

impl Get {
    /// Over the keys `0..keys`.
    pub fn new(keys: u64, seed: u64) -> Self {
        Self { keys, state: seed | 1, asked: vec![0; 1 << 16] }
    }
}

impl Traffic for Get {
    fn request(&mut self, _index: u64, slot: u16, payload: &mut [u8]) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let number = self.state % self.keys;
        self.asked[usize::from(slot)] = number;
        header(slot, payload);
        let text = &mut payload[HEADER_BYTES..];
        text[..4].copy_from_slice(b"get ");
        text[4..4 + KEY_BYTES].copy_from_slice(&key(number));
        text[4 + KEY_BYTES..6 + KEY_BYTES].copy_from_slice(b"\r\n");
        HEADER_BYTES + 6 + KEY_BYTES
    }

    fn reply(&mut self, payload: &[u8]) -> Option<(u16, bool)> {
        let slot = u16::from_be_bytes(*payload.first_chunk::<2>()?);
        let number = self.asked[usize::from(slot)];
        let text = payload.get(HEADER_BYTES..)?;
        let right = is_item(number, text);
        Some((slot, right))
    }
}

/// `get` of uniformly random keys over a stream, each answer checked byte for byte.
pub struct TextGet {
    keys: u64,
    state: u64,
}

impl TextGet {
    /// Over the keys `0..keys`.
    pub fn new(keys: u64, seed: u64) -> Self {
        Self { keys, state: seed | 1 }
    }
}

impl StreamTraffic for TextGet {
    const ANSWER_BYTES_MAX: usize = VALUE_BYTES + 256;

    fn request(&mut self, out: &mut Vec<u8>) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let number = self.state % self.keys;
        out.extend_from_slice(b"get ");
        out.extend_from_slice(&key(number));
        out.extend_from_slice(b"\r\n");
        number
    }

    fn is_answer(&mut self, number: u64, text: &[u8]) -> bool {
        is_item(number, text)
    }
}

/// The commands that store the keys `0..keys`, the last of them answered.
pub fn stores(keys: u64) -> Vec<u8> {
    let mut text = Vec::new();
    for number in 0..keys {
        text.extend_from_slice(b"set ");
        text.extend_from_slice(&key(number));
        text.extend_from_slice(format!(" 0 0 {VALUE_BYTES}").as_bytes());
        text.extend_from_slice(if number + 1 < keys { b" noreply\r\n" } else { b"\r\n" });
        text.extend_from_slice(&value(number));
        text.extend_from_slice(b"\r\n");
    }
    text
}

fn is_item(number: u64, text: &[u8]) -> bool {
    text.len() == 6 + KEY_BYTES + 8 + VALUE_BYTES + 2 + 5
        && text.starts_with(b"VALUE ")
        && text[6..6 + KEY_BYTES] == key(number)
        && text[6 + KEY_BYTES..].starts_with(b" 0 100\r\n")
        && text[14 + KEY_BYTES..][..VALUE_BYTES] == value(number)
        && text.ends_with(b"\r\nEND\r\n")
}

/// Stores every key, several to a datagram; the last of a datagram is answered.
pub struct Load {
    /// Keys `0..keys` are stored.
    pub keys: u64,
}

impl Load {
    /// Datagrams it takes.
    pub fn datagrams(&self) -> u64 {
        self.keys.div_ceil(KEYS_PER_LOAD)
    }
}

impl Traffic for Load {
    fn request(&mut self, index: u64, slot: u16, payload: &mut [u8]) -> usize {
        header(slot, payload);
        let mut at = HEADER_BYTES;
        let first = index * KEYS_PER_LOAD;
        let last = (first + KEYS_PER_LOAD).min(self.keys);
        for number in first..last {
            let tail: &[u8] =
                if number + 1 == last { b" 0 0 100\r\n" } else { b" 0 0 100 noreply\r\n" };
            for part in [b"set ", &key(number)[..], tail, &value(number), b"\r\n"] {
                payload[at..at + part.len()].copy_from_slice(part);
                at += part.len();
            }
        }
        at
    }

    fn reply(&mut self, payload: &[u8]) -> Option<(u16, bool)> {
        let slot = u16::from_be_bytes(*payload.first_chunk::<2>()?);
        Some((slot, payload.get(HEADER_BYTES..) == Some(b"STORED\r\n")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_right_only_byte_for_byte() {
        let mut get = Get::new(1_000_000, 7);
        let mut request = [0; 100];
        let length = get.request(0, 513, &mut request);
        let asked = &request[12..28];
        assert_eq!(&request[..length][..8], &[2, 1, 0, 0, 0, 1, 0, 0]);
        let number: u64 = std::str::from_utf8(&asked[4..]).unwrap().parse().unwrap();
        let mut reply = vec![2, 1, 0, 0, 0, 1, 0, 0];
        reply.extend(b"VALUE ");
        reply.extend(asked);
        reply.extend(b" 0 100\r\n");
        reply.extend(value(number));
        reply.extend(b"\r\nEND\r\n");
        assert_eq!(get.reply(&reply), Some((513, true)));
        for at in 8..reply.len() {
            reply[at] ^= 1;
            assert_eq!(get.reply(&reply), Some((513, false)), "byte {at}");
            reply[at] ^= 1;
        }
        assert_eq!(get.reply(b"\x02\x01\0\0\0\x01\0\0END\r\n"), Some((513, false)));
        assert_eq!(get.reply(&[2]), None);
    }

    #[test]
    fn loading_names_every_key_once_and_fits_a_datagram() {
        let mut load = Load { keys: 20 };
        assert_eq!(load.datagrams(), 3);
        let mut all = String::new();
        for index in 0..3 {
            let mut payload = [0; 1_700];
            let length = load.request(index, 0, &mut payload);
            assert!(length <= 1_400, "{length}");
            all += std::str::from_utf8(&payload[8..length]).unwrap();
        }
        assert_eq!(all.matches("set key:").count(), 20);
        assert_eq!(all.matches("noreply").count(), 17);
    }
}
