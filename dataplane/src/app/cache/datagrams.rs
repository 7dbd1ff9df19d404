//! Answers as datagrams: one whose text is made in place, or several that are cut from pieces.

use nautilus_shm::table::{Hit, HotSet, TableWriter, ValueReader, Words};

use super::sink::Sink;
use super::table::SharedTable;
use crate::memcached::FrameHeader;
use crate::memcached::frame::{FRAME_HEADER_BYTES, FRAME_TEXT_BYTES_MAX, REPLY_FRAMES_MAX};
use crate::net::checksum;
use crate::port::{Filled, Path, Transmit};

/// Bytes of the longest reply.
pub(super) const REPLY_TEXT_BYTES_MAX: usize = REPLY_FRAMES_MAX * FRAME_TEXT_BYTES_MAX;

/// Values of one reply: each has at least one byte of its own and the 15 of `VALUE k 0 1` and the line
/// ends.
const VALUES_MAX: usize = REPLY_TEXT_BYTES_MAX / 16;

/// Where one answer goes.
pub(super) struct Reply<'a, T> {
    pub tx: &'a mut T,
    pub path: Path,
    pub header: FrameHeader,
}

impl<T: Transmit> Reply<'_, T> {
    /// Sends one datagram. What the port cannot send, it counts.
    #[inline]
    pub fn frame<F: Into<Filled>>(
        &mut self,
        sequence: u16,
        total: u16,
        write: impl FnOnce(&mut [u8]) -> F,
    ) {
        let header = self.header.reply(sequence, total);
        let _ = self.tx.send(&self.path, |out| {
            out[..FRAME_HEADER_BYTES].copy_from_slice(&header);
            let text = &mut out[FRAME_HEADER_BYTES..][..FRAME_TEXT_BYTES_MAX];
            let Filled { bytes, sum } = write(text).into();
            let with_header = |sum: u16| checksum::fold(checksum::add(sum.into(), &header));
            Filled { bytes: FRAME_HEADER_BYTES + bytes, sum: sum.map(with_header) }
        });
    }

    pub fn line(&mut self, text: &[u8]) {
        self.frame(0, 1, |out| {
            out[..text.len()].copy_from_slice(text);
            text.len()
        });
    }
}

/// The pieces of one answer until its length is known. Allocated for the longest reply; what would go
/// beyond that is only counted.
pub(super) struct Pieces {
    text: Vec<u8>,
    /// Values, and how much of the text stands before each.
    values: Vec<(usize, ValueReader)>,
    bytes: usize,
}

impl Pieces {
    pub fn new() -> Self {
        Self {
            text: Vec::with_capacity(REPLY_TEXT_BYTES_MAX),
            values: Vec::with_capacity(VALUES_MAX),
            bytes: 0,
        }
    }

    pub fn clear(&mut self) {
        self.text.clear();
        self.values.clear();
        self.bytes = 0;
    }

    /// Datagrams that the answer takes; 0 for no answer.
    pub fn datagrams(&self) -> usize {
        self.bytes.div_ceil(FRAME_TEXT_BYTES_MAX)
    }

    /// Sends the answer in as many datagrams as it needs, numbered from 0. It must not be longer than
    /// [`REPLY_TEXT_BYTES_MAX`].
    pub fn send<W: Words, H: HotSet>(
        &mut self,
        table: &TableWriter<W, H>,
        reply: &mut Reply<'_, impl Transmit>,
    ) {
        let total = self.datagrams();
        let mut place = Place { text: 0, value: 0 };
        for sequence in 0..total {
            reply.frame(sequence as u16, total as u16, |out| self.fill(&mut place, table, out));
        }
    }

    /// Fills `out` with the next bytes; returns how many there were.
    fn fill<W: Words, H: HotSet>(
        &mut self,
        place: &mut Place,
        table: &TableWriter<W, H>,
        out: &mut [u8],
    ) -> usize {
        let mut at = 0;
        while at < out.len() {
            let next = self.values.get_mut(place.value);
            let text_end = next.as_ref().map_or(self.text.len(), |(before, _)| *before);
            let text = &self.text[place.text..text_end];
            if !text.is_empty() {
                let count = text.len().min(out.len() - at);
                out[at..at + count].copy_from_slice(&text[..count]);
                place.text += count;
                at += count;
                continue;
            }
            let Some((_, value)) = next else { break };
            at += table.read(value, &mut out[at..]);
            if value.left_bytes() == 0 {
                place.value += 1;
            }
        }
        at
    }

    fn add(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.bytes <= REPLY_TEXT_BYTES_MAX
    }
}

/// How far an answer is sent.
struct Place {
    text: usize,
    value: usize,
}

impl<W: Words, H: HotSet> Sink<TableWriter<W, H>> for Pieces {
    fn text(&mut self, text: &[u8]) {
        if self.add(text.len()) {
            self.text.extend_from_slice(text);
        }
    }

    fn value(&mut self, table: &TableWriter<W, H>, hit: &Hit) {
        if hit.value_bytes > 0 && self.add(hit.value_bytes as usize) {
            self.values.push((self.text.len(), table.value(hit)));
        }
    }
}

/// Values of another worker's shard: copied at once, for the next look-up takes their place.
impl<W: Words> Sink<SharedTable<W>> for Pieces {
    fn text(&mut self, text: &[u8]) {
        if self.add(text.len()) {
            self.text.extend_from_slice(text);
        }
    }

    fn value(&mut self, table: &SharedTable<W>, value: &usize) {
        if self.add(*value) {
            self.text.extend_from_slice(table.bytes(*value));
        }
    }
}

#[cfg(test)]
mod tests {
    use nautilus_shm::sync::AtomicU64;
    use nautilus_shm::table::{Mutation, Op, heap_words};

    use super::*;

    type Table = TableWriter<Box<[AtomicU64]>>;

    #[test]
    fn an_answer_that_cannot_be_sent_takes_no_memory() {
        let mut table: Table = TableWriter::create(heap_words(1 << 20), 1, 1).unwrap();
        let hash = table.hash(b"k");
        table.apply(hash, &Mutation::new(b"k", Op::Set(b"v")), 1).unwrap();
        let hit = table.get(hash, b"k", 1).unwrap();
        let mut pieces = Pieces::new();
        let capacities = (pieces.text.capacity(), pieces.values.capacity());
        for _ in 0..2 {
            pieces.clear();
            for _ in 0..VALUES_MAX {
                Sink::<Table>::text(&mut pieces, &[b'x'; 15]);
                pieces.value(&table, &hit);
            }
            assert_eq!(pieces.datagrams(), REPLY_FRAMES_MAX);
            for _ in 0..100_000 {
                Sink::<Table>::text(&mut pieces, &[b'x'; 15]);
                pieces.value(&table, &hit);
            }
            assert_eq!((pieces.text.capacity(), pieces.values.capacity()), capacities);
            assert!(pieces.datagrams() > REPLY_FRAMES_MAX);
        }
    }
}
