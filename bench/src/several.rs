//! `get` of 32 keys at once, as datagrams and over a stream, every answer checked byte for byte.
//!
//! A request's keys follow from one number, so that its answer is made anew where it is checked instead
//! of being kept. Servers cut an answer into datagrams in two ways: as the protocol's document says (one
//! text in parts of at most 1,392 bytes, numbered 0..n-1), and as memcached does (one datagram a key, each
//! numbered 0 of 1, `END` in the last).

use crate::generator::Traffic;
use crate::generator::stream::StreamTraffic;
use crate::traffic::{HEADER_BYTES, KEY_BYTES, VALUE_BYTES, header, key, value};

/// Keys of one request.
pub const KEYS_TOGETHER: usize = 32;

/// Bytes of one key's part of an answer: line, value, line end.
const ITEM_BYTES: usize = 6 + KEY_BYTES + 8 + VALUE_BYTES + 2;

/// Bytes of a whole answer.
const TEXT_BYTES: usize = KEYS_TOGETHER * ITEM_BYTES + END.len();

/// Text of a datagram that is not the last of a numbered answer.
const PART_BYTES: usize = 1_392;

const PARTS: usize = TEXT_BYTES.div_ceil(PART_BYTES);

const END: &[u8] = b"END\r\n";

/// Which 32 keys a request asks for.
#[derive(Clone, Copy, Debug, Default)]
struct Asked(u64);

impl Asked {
    /// Key numbers below `keys`.
    fn numbers(self, keys: u64) -> impl Iterator<Item = u64> {
        let mut state = self.0;
        (0..KEYS_TOGETHER).map(move |_| step(&mut state) % keys)
    }
}

/// The next state of a xorshift generator.
fn step(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Writes the request line and returns its length.
fn write_request(asked: Asked, keys: u64, out: &mut [u8]) -> usize {
    out[..3].copy_from_slice(b"get");
    let mut at = 3;
    for number in asked.numbers(keys) {
        out[at] = b' ';
        out[at + 1..at + 1 + KEY_BYTES].copy_from_slice(&key(number));
        at += 1 + KEY_BYTES;
    }
    out[at..at + 2].copy_from_slice(b"\r\n");
    at + 2
}

const REQUEST_BYTES: usize = 3 + KEYS_TOGETHER * (1 + KEY_BYTES) + 2;

fn write_item(number: u64, out: &mut [u8]) {
    out[..6].copy_from_slice(b"VALUE ");
    out[6..6 + KEY_BYTES].copy_from_slice(&key(number));
    out[6 + KEY_BYTES..14 + KEY_BYTES].copy_from_slice(b" 0 100\r\n");
    out[14 + KEY_BYTES..][..VALUE_BYTES].copy_from_slice(&value(number));
    out[ITEM_BYTES - 2..ITEM_BYTES].copy_from_slice(b"\r\n");
}

/// The one right answer.
fn write_answer(asked: Asked, keys: u64, out: &mut [u8; TEXT_BYTES]) {
    for (number, item) in asked.numbers(keys).zip(out.chunks_exact_mut(ITEM_BYTES)) {
        write_item(number, item);
    }
    out[TEXT_BYTES - END.len()..].copy_from_slice(END);
}

/// How a server cuts its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Parts of one text, numbered.
    Numbered,
    /// One datagram a key.
    ByKey,
}

/// Bits of a request's number that name its slot; the others count the requests of the slot, so that what is
/// left of an answer that was given up is not taken for the next one's.
const SLOT_BITS: u32 = 6;

/// One request on its way.
#[derive(Clone, Debug)]
struct Slot {
    number: u16,
    asked: Asked,
    text: Box<[u8; TEXT_BYTES]>,
    /// One bit a datagram that is still to come.
    missing: u32,
    right: bool,
}

/// Multi-gets of uniformly random keys as datagrams.
pub struct MultiGet {
    keys: u64,
    state: u64,
    cut: Cut,
    slots: Vec<Slot>,
}

impl MultiGet {
    /// Over the keys `0..keys`, at most `outstanding` at once, which is at most 64.
    pub fn new(keys: u64, seed: u64, cut: Cut, outstanding: u16) -> Self {
        assert!(outstanding <= 1 << SLOT_BITS, "a slot has a name");
        let (text, asked) = (Box::new([0; TEXT_BYTES]), Asked(0));
        let slots = (0..outstanding).map(|slot| Slot {
            // What is on its way from a run before has another number, most likely.
            number: (seed as u16) << SLOT_BITS | slot,
            asked,
            text: text.clone(),
            missing: 0,
            right: false,
        });
        Self { keys, state: seed | 1, cut, slots: slots.collect() }
    }
}

impl Traffic for MultiGet {
    fn request(&mut self, _index: u64, slot: u16, payload: &mut [u8]) -> usize {
        let asked = Asked(step(&mut self.state));
        let datagrams = match self.cut {
            Cut::Numbered => PARTS,
            Cut::ByKey => KEYS_TOGETHER,
        };
        let entry = &mut self.slots[usize::from(slot)];
        entry.asked = asked;
        entry.number = entry.number.wrapping_add(1 << SLOT_BITS);
        write_answer(asked, self.keys, &mut entry.text);
        entry.missing = u32::MAX >> (32 - datagrams);
        entry.right = true;
        header(entry.number, payload);
        HEADER_BYTES + write_request(asked, self.keys, &mut payload[HEADER_BYTES..])
    }

    fn reply(&mut self, payload: &[u8]) -> Option<(u16, bool)> {
        let (&[id0, id1, seq0, seq1, total0, total1, ..], text) =
            payload.split_first_chunk::<HEADER_BYTES>()?;
        let number = u16::from_be_bytes([id0, id1]);
        let (sequence, total) =
            (u16::from_be_bytes([seq0, seq1]), u16::from_be_bytes([total0, total1]));
        let place = number & ((1 << SLOT_BITS) - 1);
        let slot = self.slots.get_mut(usize::from(place)).filter(|slot| slot.number == number)?;
        let (part, right) = match self.cut {
            Cut::Numbered => {
                let start = usize::from(sequence) * PART_BYTES;
                let end = (start + PART_BYTES).min(TEXT_BYTES);
                let right = usize::from(total) == PARTS && slot.text.get(start..end) == Some(text);
                (u32::from(sequence), right)
            }
            Cut::ByKey => {
                // In order, unless something on the way has changed that.
                let expected = slot.missing.trailing_zeros();
                let is = |part: &u32| {
                    let start = *part as usize * ITEM_BYTES;
                    let last = *part as usize + 1 == KEYS_TOGETHER;
                    let end = if last { TEXT_BYTES } else { start + ITEM_BYTES };
                    slot.missing & 1 << part != 0 && slot.text[start..end] == *text
                };
                let parts = 0..KEYS_TOGETHER as u32;
                let part = parts.clone().skip(expected as usize).chain(parts).find(is);
                (part.unwrap_or(expected), part.is_some() && (sequence, total) == (0, 1))
            }
        };
        let bit = 1u32.checked_shl(part).unwrap_or(0);
        slot.right &= right && slot.missing & bit != 0;
        slot.missing &= !bit;
        // What is wrong is so at once: its other parts may never come.
        (slot.missing == 0 || !slot.right).then_some((place, slot.right))
    }
}

/// Multi-gets of uniformly random keys over a stream.
pub struct TextMultiGet {
    keys: u64,
    state: u64,
    answer: Box<[u8; TEXT_BYTES]>,
}

impl TextMultiGet {
    /// Over the keys `0..keys`.
    pub fn new(keys: u64, seed: u64) -> Self {
        Self { keys, state: seed | 1, answer: Box::new([0; TEXT_BYTES]) }
    }
}

impl StreamTraffic for TextMultiGet {
    const ANSWER_BYTES_MAX: usize = TEXT_BYTES;

    fn request(&mut self, out: &mut Vec<u8>) -> u64 {
        let asked = step(&mut self.state);
        let mut line = [0; REQUEST_BYTES];
        write_request(Asked(asked), self.keys, &mut line);
        out.extend_from_slice(&line);
        asked
    }

    fn is_answer(&mut self, number: u64, text: &[u8]) -> bool {
        if text.len() != TEXT_BYTES {
            return false;
        }
        write_answer(Asked(number), self.keys, &mut self.answer);
        self.answer[..] == *text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: u64 = 1_000_000;

    /// The keys of the next request in a slot, and its number.
    fn asked(get: &mut MultiGet, slot: u16) -> (Vec<Vec<u8>>, u16) {
        let mut payload = [0; 1_400];
        let bytes = get.request(0, slot, &mut payload);
        assert_eq!(bytes, HEADER_BYTES + REQUEST_BYTES);
        let number = u16::from_be_bytes([payload[0], payload[1]]);
        assert_eq!(number % 64, slot);
        assert_eq!(payload[2..8], [[0, 0], [0, 1], [0, 0]].concat());
        let line = payload[8..bytes].strip_suffix(b"\r\n").unwrap();
        let words: Vec<Vec<u8>> = line.split(|&b| b == b' ').map(<[u8]>::to_vec).collect();
        assert_eq!((&words[0][..], words.len()), (&b"get"[..], 1 + KEYS_TOGETHER));
        (words[1..].to_vec(), number)
    }

    fn item(key: &[u8]) -> Vec<u8> {
        let number = std::str::from_utf8(&key[4..]).unwrap().parse().unwrap();
        [b"VALUE ", key, b" 0 100\r\n", &value(number), b"\r\n"].concat()
    }

    fn datagram(slot: u16, sequence: u16, total: u16, text: &[u8]) -> Vec<u8> {
        let head = [slot.to_be_bytes(), sequence.to_be_bytes(), total.to_be_bytes(), [0, 0]];
        [&head.concat(), text].concat()
    }

    #[test]
    fn a_numbered_answer_is_right_when_every_part_is_in_any_order() {
        let mut get = MultiGet::new(KEYS, 5, Cut::Numbered, 4);
        let (keys, id) = asked(&mut get, 3);
        let text = [keys.iter().flat_map(|key| item(key)).collect(), END.to_vec()].concat();
        let parts: Vec<&[u8]> = text.chunks(PART_BYTES).collect();
        let total = parts.len() as u16;
        for sequence in [2, 0, 3] {
            let part = datagram(id, sequence, total, parts[usize::from(sequence)]);
            assert_eq!(get.reply(&part), None);
        }
        assert_eq!(get.reply(&datagram(id, 1, total, parts[1])), Some((3, true)));
        for (sequence, total, part) in [
            (1, total, parts[0]),
            (0, total + 1, parts[0]),
            (0, total, &parts[0][1..]),
            (9, total, parts[0]),
            (40, total, b""),
        ] {
            let (_, next) = asked(&mut get, 3);
            assert_eq!(get.reply(&datagram(id, 0, total, parts[0])), None, "the one before");
            assert_eq!(get.reply(&datagram(next, sequence, total, part)), Some((3, false)));
        }
        assert_eq!(get.reply(&datagram(id + 1, 0, total, parts[0])), None, "nobody's");
    }

    #[test]
    fn an_answer_by_key_is_right_when_every_key_is() {
        let mut get = MultiGet::new(KEYS, 6, Cut::ByKey, 1);
        let (keys, id) = asked(&mut get, 0);
        let text = |at: usize| {
            let end: &[u8] = if at + 1 == KEYS_TOGETHER { END } else { b"" };
            [&item(&keys[at])[..], end].concat()
        };
        for at in (0..KEYS_TOGETHER).filter(|&at| at != 7) {
            assert_eq!(get.reply(&datagram(id, 0, 1, &text(at))), None, "{at}");
        }
        assert_eq!(get.reply(&datagram(id, 0, 1, &text(7))), Some((0, true)));
        let (keys, id) = asked(&mut get, 0);
        assert_eq!(get.reply(&datagram(id, 0, 1, &item(&keys[0]))), None);
        assert_eq!(get.reply(&datagram(id, 0, 1, &item(&keys[0]))), Some((0, false)), "twice");
        let (_, id) = asked(&mut get, 0);
        assert_eq!(get.reply(&datagram(id, 0, 1, END)), Some((0, false)), "all missed");
    }

    #[test]
    fn a_stream_asks_and_knows_the_same_answer() {
        let mut get = TextMultiGet::new(KEYS, 9);
        let mut line = Vec::new();
        let number = get.request(&mut line);
        let line = line.strip_suffix(b"\r\n").unwrap();
        let mut answer: Vec<u8> = line.split(|&b| b == b' ').skip(1).flat_map(item).collect();
        answer.extend(END);
        assert!(get.is_answer(number, &answer));
        for at in [0, 7, 40, 2_000, answer.len() - 1] {
            answer[at] ^= 1;
            assert!(!get.is_answer(number, &answer), "byte {at}");
            answer[at] ^= 1;
        }
        assert!(!get.is_answer(number, END));
    }
}
