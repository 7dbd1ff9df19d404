//! Packets that came before their turn, in memory taken when the channel is made.
//!
//! ```text
//!   entries   by first message, and by last      bounded by HeldLimits::packets_max
//!      |
//!      v      first block of each
//!   blocks    | 256 B | 256 B | ...              bounded by HeldLimits::bytes_max
//!   links     the block behind each, or the free one behind it
//! ```
//!
//! Owned by one channel's [`super::arbitration::Arbitration`]. Nothing is allocated after it was made.

use std::collections::VecDeque;

/// What may be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldLimits {
    /// Packets at once. Too low: a hole in a burst of small packets is given up before its limit. Too high:
    /// memory, 40 bytes each.
    pub packets_max: usize,
    /// Bytes of packets at once, each rounded up to [`BLOCK_BYTES`]. Too low: a hole in a burst is given up
    /// before its limit. Too high: memory.
    pub bytes_max: usize,
}

impl Default for HeldLimits {
    /// For holes that another line fills: 10 ms of 800 Mbit/s, or as many of the smallest packets.
    fn default() -> Self {
        Self { packets_max: 4096, bytes_max: 4096 * BLOCK_BYTES }
    }
}

/// Bytes are held by so many.
pub const BLOCK_BYTES: usize = 256;

/// No block.
const NONE: u32 = u32::MAX;

/// Longest packet: the longest payload of a UDP datagram.
const PACKET_BYTES_MAX: usize = 65_507;

/// One held packet, without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Number of its first message, or the one it announces.
    pub sequence: u64,
    /// The number that follows its last message; equal to `sequence` for a heartbeat.
    pub next_sequence: u64,
    /// When it was received.
    pub rx_ns: u64,
    /// When the first was received that said something of it.
    seen_ns: u64,
    block: u32,
    bytes: u32,
}

/// Messages that are neither applied nor held, while some behind them are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The first of them.
    pub sequence: u64,
    /// The number that follows the last.
    pub next_sequence: u64,
    /// When the first packet was received that said something of what is directly behind them.
    pub seen_ns: u64,
}

/// What became of a packet that was to be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insert {
    /// It is held.
    Held,
    /// One that is held already says all of it.
    Copy,
    /// There is no room for it.
    NoRoom,
}

/// The store. Written by the worker that owns the channel.
pub struct HeldPackets {
    packets_max: usize,
    entries: VecDeque<Entry>,
    blocks: Box<[u8]>,
    links: Box<[u32]>,
    free: u32,
    free_count: usize,
    /// The packet taken out last.
    taken: Box<[u8]>,
}

impl HeldPackets {
    /// An empty store with all its memory, every page of it written. Panics on limits that would not hold
    /// one packet, or on 2^32 blocks.
    pub fn new(limits: HeldLimits) -> Self {
        let count = limits.bytes_max / BLOCK_BYTES;
        assert!(limits.packets_max > 0 && PACKET_BYTES_MAX.div_ceil(BLOCK_BYTES) <= count);
        assert!(count < NONE as usize, "{count} blocks");
        let link = |block: usize| if block + 1 == count { NONE } else { block as u32 + 1 };
        let mut entries = VecDeque::with_capacity(limits.packets_max);
        // Written once, so that no page is missing when it is needed.
        let entry =
            Entry { sequence: 1, next_sequence: 1, rx_ns: 1, seen_ns: 1, block: NONE, bytes: 0 };
        entries.resize(limits.packets_max, entry);
        entries.clear();
        Self {
            packets_max: limits.packets_max,
            entries,
            blocks: vec![1; count * BLOCK_BYTES].into_boxed_slice(),
            links: (0..count).map(link).collect(),
            free: 0,
            free_count: count,
            taken: vec![1; PACKET_BYTES_MAX].into_boxed_slice(),
        }
    }

    /// How many packets are held.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The one with the lowest sequence number.
    pub fn first(&self) -> Option<&Entry> {
        self.entries.front()
    }

    /// When the earliest was received of those held, and of those they made needless.
    pub fn earliest_seen_ns(&self) -> Option<u64> {
        self.entries.iter().map(|entry| entry.seen_ns).min()
    }

    /// The first messages from number `from` on that are missing before something held; or the number up to
    /// which everything is held, or nothing beyond it known.
    pub fn missing_from(&self, from: u64) -> Result<Missing, u64> {
        let mut sequence = from;
        // The entries before this one begin at `from` or earlier, and the last of them reaches furthest.
        let place = self.entries.partition_point(|entry| entry.sequence <= from);
        for entry in self.entries.range(place.saturating_sub(1)..) {
            if entry.sequence > sequence {
                let next_sequence = entry.sequence;
                return Ok(Missing { sequence, next_sequence, seen_ns: entry.seen_ns });
            }
            sequence = sequence.max(entry.next_sequence);
        }
        Err(sequence)
    }

    /// Copies a packet with the messages `sequence..next_sequence` in, and forgets those that say nothing
    /// beside it. A heartbeat has no payload.
    pub fn insert(
        &mut self,
        rx_ns: u64,
        sequence: u64,
        next_sequence: u64,
        payload: &[u8],
    ) -> Insert {
        let place = self.entries.partition_point(|entry| entry.sequence <= sequence);
        let before = place.checked_sub(1).and_then(|place| self.entries.get(place));
        if before.is_some_and(|before| next_sequence <= before.next_sequence) {
            return Insert::Copy;
        }
        let blocks = payload.len().div_ceil(BLOCK_BYTES);
        let fits = payload.len() <= PACKET_BYTES_MAX && blocks <= self.free_count;
        if self.entries.len() == self.packets_max || !fits {
            return Insert::NoRoom;
        }
        let (mut place, mut seen_ns) = (place, rx_ns);
        let is_covered =
            |entry: &Entry| entry.sequence >= sequence && entry.next_sequence <= next_sequence;
        while place > 0 && is_covered(&self.entries[place - 1]) {
            place -= 1;
            seen_ns = seen_ns.min(self.forget(place));
        }
        while self.entries.get(place).is_some_and(is_covered) {
            seen_ns = seen_ns.min(self.forget(place));
        }
        let block = self.put(payload);
        let bytes = payload.len() as u32;
        self.entries.insert(place, Entry { sequence, next_sequence, rx_ns, seen_ns, block, bytes });
        Insert::Held
    }

    /// Takes the first out. Its bytes stay at hand until the next one is taken.
    pub fn pop_first(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        let mut block = entry.block;
        for piece in self.taken[..entry.bytes as usize].chunks_mut(BLOCK_BYTES) {
            let at = block as usize;
            piece.copy_from_slice(&self.blocks[at * BLOCK_BYTES..][..piece.len()]);
            block = std::mem::replace(&mut self.links[at], self.free);
            self.free = at as u32;
            self.free_count += 1;
        }
        Some(entry)
    }

    /// The bytes of the packet taken out last.
    pub fn payload(&self, entry: &Entry) -> &[u8] {
        &self.taken[..entry.bytes as usize]
    }

    /// Forgets one, and says when it was seen first.
    fn forget(&mut self, place: usize) -> u64 {
        let Some(entry) = self.entries.remove(place) else { return u64::MAX };
        let mut block = entry.block;
        for _ in 0..(entry.bytes as usize).div_ceil(BLOCK_BYTES) {
            let at = block as usize;
            block = std::mem::replace(&mut self.links[at], self.free);
            self.free = at as u32;
            self.free_count += 1;
        }
        entry.seen_ns
    }

    /// Copies bytes into free blocks, of which there are enough; returns the first.
    fn put(&mut self, payload: &[u8]) -> u32 {
        let first = self.free;
        let mut last = None;
        for piece in payload.chunks(BLOCK_BYTES) {
            let at = self.free as usize;
            self.blocks[at * BLOCK_BYTES..][..piece.len()].copy_from_slice(piece);
            self.free = self.links[at];
            self.free_count -= 1;
            last = Some(at);
        }
        match last {
            Some(at) => {
                self.links[at] = NONE;
                first
            }
            None => NONE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn held() -> HeldPackets {
        HeldPackets::new(HeldLimits::default())
    }

    fn taken(held: &mut HeldPackets) -> Option<(u64, Vec<u8>)> {
        let entry = held.pop_first()?;
        Some((entry.sequence, held.payload(&entry).to_vec()))
    }

    #[test]
    fn packets_leave_by_sequence_with_their_bytes() {
        let mut held = held();
        for (rx_ns, sequence) in [(7, 30), (8, 10), (9, 20)] {
            assert_eq!(held.insert(rx_ns, sequence, sequence + 5, &[sequence as u8]), Insert::Held);
        }
        assert_eq!((held.len(), held.earliest_seen_ns()), (3, Some(7)));
        assert_eq!(taken(&mut held), Some((10, vec![10])));
        assert_eq!(taken(&mut held), Some((20, vec![20])));
        assert_eq!(taken(&mut held), Some((30, vec![30])));
        assert_eq!((taken(&mut held), held.earliest_seen_ns()), (None, None));
    }

    #[test]
    fn what_a_held_packet_says_is_not_held_again() {
        let mut held = held();
        held.insert(1, 10, 15, b"a");
        for (sequence, next) in [(10, 15), (11, 15), (10, 12), (10, 10), (15, 15)] {
            assert_eq!(held.insert(2, sequence, next, b""), Insert::Copy, "{sequence}..{next}");
        }
        assert_eq!(held.insert(2, 12, 16, b"b"), Insert::Held, "one message more");
        assert_eq!(held.len(), 2);
        assert_eq!(held.insert(2, 9, 16, b"c"), Insert::Held);
        assert_eq!((held.len(), held.first().unwrap().rx_ns), (1, 2), "it says what both did");
        assert_eq!(held.earliest_seen_ns(), Some(1), "and what is behind them is missing as long");
        assert_eq!(held.insert(2, 16, 16, b""), Insert::Copy);
        assert_eq!(held.insert(2, 17, 17, b""), Insert::Held, "an announcement further on");
        assert_eq!(held.len(), 2);
    }

    #[test]
    fn room_is_bounded_by_packets_and_by_bytes_and_comes_back() {
        let limits = HeldLimits::default();
        let mut held = held();
        let packets = limits.packets_max as u64;
        for sequence in (1..=packets).rev() {
            let inserted = held.insert(1, 2 * sequence, 2 * sequence + 1, b"");
            assert_eq!(inserted, Insert::Held);
        }
        assert_eq!(held.insert(1, 1, 2, b"x"), Insert::NoRoom);
        assert_eq!(taken(&mut held).unwrap().0, 2);
        assert_eq!(held.insert(1, 1, 2, b"x"), Insert::Held);
        while held.pop_first().is_some() {}

        let kibibyte = [0; 1 << 10];
        let room = limits.bytes_max as u64 / 1024;
        for round in 0..3 {
            for sequence in 0..room {
                let inserted = held.insert(1, 2 * sequence, 2 * sequence + 1, &kibibyte);
                assert_eq!(inserted, Insert::Held, "round {round}");
            }
            assert_eq!(held.insert(1, 2 * room, 2 * room + 1, b"x"), Insert::NoRoom);
            let inserted = held.insert(1, 4097, 4097, b"");
            assert_eq!(inserted, Insert::Held, "a heartbeat takes no bytes");
            while held.pop_first().is_some() {}
        }
    }

    #[test]
    fn bytes_survive_a_long_life_of_the_store() {
        let mut held = held();
        let payload = |sequence: u64| vec![sequence as u8; (sequence as usize * 37) % 1400];
        let mut next = 1;
        // Never empty: 20,000 packets go many times through all blocks.
        for sequence in 1..=20_000 {
            let inserted = held.insert(sequence, sequence, sequence + 1, &payload(sequence));
            assert_eq!(inserted, Insert::Held);
            if held.len() > 200 {
                assert_eq!(taken(&mut held), Some((next, payload(next))));
                next += 1;
            }
        }
        assert_eq!(held.earliest_seen_ns(), Some(next));
        assert_eq!(held.insert(1, 30_000, 30_001, &[0; PACKET_BYTES_MAX + 1]), Insert::NoRoom);
    }

    proptest! {
        #[test]
        fn what_is_missing_is_what_is_not_held(
            packets in proptest::collection::vec((1_u64..60, 0_u64..6), 0..30),
            from in 1_u64..60,
        ) {
            let mut held = held();
            let mut numbers = BTreeSet::new();
            let mut known = 0;
            for (sequence, count) in packets {
                if held.insert(7, sequence, sequence + count, b"x") == Insert::Held {
                    known = known.max(sequence + count);
                }
                numbers.extend(sequence..sequence + count);
            }
            // A packet that announces names the number before which all exist.
            let mut expected = from;
            while numbers.contains(&expected) {
                expected += 1;
            }
            match held.missing_from(from) {
                Ok(missing) => {
                    prop_assert_eq!(missing.sequence, expected);
                    prop_assert!(missing.next_sequence <= known);
                    for number in missing.sequence..missing.next_sequence {
                        prop_assert!(!numbers.contains(&number), "{} is held", number);
                    }
                }
                Err(end) => prop_assert_eq!((end, end), (from.max(known), expected)),
            }
        }
    }
}
