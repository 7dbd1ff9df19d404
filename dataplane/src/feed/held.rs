//! Packets that came before their turn, in memory taken when the channel is made.
//!
//! ```text
//!   entries   sorted by sequence number                     bounded by HELD_PACKETS_MAX
//!      |
//!      v      bytes, appended; when the half in use is full, what is still held moves
//!   halves    | in use ...            | the other ... |     bounded by HELD_BYTES_MAX
//! ```
//!
//! Owned by one channel's [`super::arbitration::Arbitration`]. Nothing is allocated after it was made.

use std::collections::VecDeque;

/// Packets held at once. Too low: a hole in a burst of small packets is given up before its limit. Too
/// high: memory, and a longer search for each packet that is held.
pub const HELD_PACKETS_MAX: usize = 4096;

/// Bytes of packets held at once: 5 ms of 800 Mbit/s. Too low: a hole in a burst is given up before its
/// limit. Too high: every channel takes four times as much memory, and what a late packet sets free is
/// applied in one go that delays what comes behind it.
pub const HELD_BYTES_MAX: usize = 512 << 10;

/// Twice what may be held, so that a move is paid for by as many bytes appended since the last one.
const HALF_BYTES: usize = 2 * HELD_BYTES_MAX;

const _: () = assert!(u16::MAX as usize <= HELD_BYTES_MAX, "an empty store takes any datagram");

/// One held packet, without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Number of its first message, or the one it announces.
    pub sequence: u64,
    /// The number that follows its last message; equal to `sequence` for a heartbeat.
    pub next_sequence: u64,
    /// When it was received.
    pub rx_ns: u64,
    offset: u32,
    bytes: u32,
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
    entries: VecDeque<Entry>,
    halves: [Box<[u8]>; 2],
    half: usize,
    /// Bytes appended to the half in use, and how many of them are still held.
    appended: usize,
    live: usize,
}

impl Default for HeldPackets {
    /// An empty store with all its memory, every page of it written.
    fn default() -> Self {
        let half = || vec![1; HALF_BYTES].into_boxed_slice();
        Self {
            entries: VecDeque::with_capacity(HELD_PACKETS_MAX),
            halves: [half(), half()],
            half: 0,
            appended: 0,
            live: 0,
        }
    }
}

impl HeldPackets {
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

    /// When the earliest of those held was received.
    pub fn earliest_rx_ns(&self) -> Option<u64> {
        self.entries.iter().map(|entry| entry.rx_ns).min()
    }

    /// Copies a packet with the messages `sequence..next_sequence` in. A heartbeat has no payload.
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
        let bytes = payload.len();
        if self.entries.len() == HELD_PACKETS_MAX || self.live + bytes > HELD_BYTES_MAX {
            return Insert::NoRoom;
        }
        if self.appended + bytes > HALF_BYTES {
            self.move_over();
        }
        let offset = self.appended;
        self.halves[self.half][offset..offset + bytes].copy_from_slice(payload);
        self.appended += bytes;
        self.live += bytes;
        let (offset, bytes) = (offset as u32, bytes as u32);
        self.entries.insert(place, Entry { sequence, next_sequence, rx_ns, offset, bytes });
        Insert::Held
    }

    /// Takes the first out. Its bytes stay where they are until the next [`Self::insert`].
    pub fn pop_first(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.live -= entry.bytes as usize;
        if self.entries.is_empty() {
            self.appended = 0;
        }
        Some(entry)
    }

    /// The bytes of the packet taken out last.
    pub fn payload(&self, entry: &Entry) -> &[u8] {
        &self.halves[self.half][entry.offset as usize..][..entry.bytes as usize]
    }

    /// Moves what is held to the other half, where it leaves at least as much room as it takes.
    fn move_over(&mut self) {
        let [lower, upper] = &mut self.halves;
        let (from, to) = if self.half == 0 { (lower, upper) } else { (upper, lower) };
        self.appended = 0;
        for entry in &mut self.entries {
            let (start, bytes) = (entry.offset as usize, entry.bytes as usize);
            to[self.appended..self.appended + bytes].copy_from_slice(&from[start..start + bytes]);
            entry.offset = self.appended as u32;
            self.appended += bytes;
        }
        self.half ^= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(held: &mut HeldPackets) -> Option<(u64, Vec<u8>)> {
        let entry = held.pop_first()?;
        Some((entry.sequence, held.payload(&entry).to_vec()))
    }

    #[test]
    fn packets_leave_by_sequence_with_their_bytes() {
        let mut held = HeldPackets::default();
        for (rx_ns, sequence) in [(7, 30), (8, 10), (9, 20)] {
            assert_eq!(held.insert(rx_ns, sequence, sequence + 5, &[sequence as u8]), Insert::Held);
        }
        assert_eq!((held.len(), held.earliest_rx_ns()), (3, Some(7)));
        assert_eq!(taken(&mut held), Some((10, vec![10])));
        assert_eq!(taken(&mut held), Some((20, vec![20])));
        assert_eq!(taken(&mut held), Some((30, vec![30])));
        assert_eq!((taken(&mut held), held.earliest_rx_ns()), (None, None));
    }

    #[test]
    fn what_a_held_packet_says_is_not_held_again() {
        let mut held = HeldPackets::default();
        held.insert(1, 10, 15, b"a");
        for (sequence, next) in [(10, 15), (11, 15), (10, 12), (10, 10), (15, 15)] {
            assert_eq!(held.insert(2, sequence, next, b""), Insert::Copy, "{sequence}..{next}");
        }
        assert_eq!(held.insert(2, 12, 16, b"b"), Insert::Held, "one message more");
        assert_eq!(held.insert(2, 16, 16, b""), Insert::Copy);
        assert_eq!(held.insert(2, 17, 17, b""), Insert::Held, "an announcement further on");
        assert_eq!(held.len(), 3);
    }

    #[test]
    fn room_is_bounded_by_packets_and_by_bytes_and_comes_back() {
        let mut held = HeldPackets::default();
        let packets = HELD_PACKETS_MAX as u64;
        for sequence in (1..=packets).rev() {
            assert_eq!(held.insert(1, 2 * sequence, 2 * sequence + 1, b"x"), Insert::Held);
        }
        assert_eq!(held.insert(1, 1, 2, b"x"), Insert::NoRoom);
        assert_eq!(taken(&mut held).unwrap().0, 2);
        assert_eq!(held.insert(1, 1, 2, b"x"), Insert::Held);
        while held.pop_first().is_some() {}

        let kibibyte = [0; 1 << 10];
        for sequence in 0..HELD_BYTES_MAX as u64 / 1024 {
            assert_eq!(held.insert(1, 2 * sequence, 2 * sequence + 1, &kibibyte), Insert::Held);
        }
        assert_eq!(held.insert(1, 1, 2, b"x"), Insert::NoRoom);
        assert_eq!(held.insert(1, 4097, 4097, b""), Insert::Held, "a heartbeat takes no bytes");
    }

    #[test]
    fn bytes_survive_that_the_halves_are_changed() {
        let mut held = HeldPackets::default();
        let payload = |sequence: u64| vec![sequence as u8; 1 + (sequence as usize * 37) % 1400];
        let mut next = 1;
        // Never empty, so that room comes back by moving alone: 20,000 packets are ten halves.
        for sequence in 1..=20_000 {
            let inserted = held.insert(sequence, sequence, sequence + 1, &payload(sequence));
            assert_eq!(inserted, Insert::Held);
            if held.len() > 200 {
                assert_eq!(taken(&mut held), Some((next, payload(next))));
                next += 1;
            }
        }
        assert_eq!(held.earliest_rx_ns(), Some(next));
    }
}
