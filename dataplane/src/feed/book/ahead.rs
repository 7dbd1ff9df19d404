//! Asking for the memory of several messages before any of it is waited for.
//!
//! ```text
//!   of each message: index line, book  ->  order, level of a new one  ->  level  ->  apply
//! ```
//!
//! What is asked for here is a guess: a message may be malformed, its order unknown, or its memory
//! changed by one before it. Nothing is decided by it but how long [`Books::apply`] waits.

use super::Books;
use super::ladder::key;
use crate::feed::itch::Side;

/// Messages looked ahead at once. Too low: waits that could overlap follow one another. Too high: what
/// the first asked for is evicted before it is used.
pub const AHEAD_MAX: usize = 32;

/// What the front of a message says of its order: an unproven reading.
#[derive(Clone, Copy)]
struct Front {
    code: u8,
    locate: u16,
    reference: u64,
    /// Of an order to be added.
    side: Side,
}

impl Front {
    #[inline(always)]
    fn of(message: &[u8]) -> Option<Self> {
        // The shortest of them is a deletion, and one byte more is the side of an addition.
        let front: &[u8; 19] = message.first_chunk()?;
        let [code, high, low, ..] = *front;
        if !matches!(code, b'A' | b'F' | b'E' | b'C' | b'X' | b'D' | b'U') {
            return None;
        }
        let mut reference = [0; 8];
        reference.copy_from_slice(&front[11..]);
        let locate = u16::from_be_bytes([high, low]);
        let side = if message.get(19) == Some(&b'B') { Side::Buy } else { Side::Sell };
        Some(Self { code, locate, reference: u64::from_be_bytes(reference), side })
    }

    fn adds(&self) -> bool {
        matches!(self.code, b'A' | b'F')
    }
}

impl Books {
    /// Asks for what applying these messages will need. Those behind the first [`AHEAD_MAX`] are not
    /// looked at.
    pub fn look_ahead<'a>(&self, messages: impl Iterator<Item = &'a [u8]> + Clone) {
        let messages = messages.take(AHEAD_MAX);
        for front in messages.clone().filter_map(Front::of) {
            self.orders.prefetch(front.reference);
            let book = &self.books[usize::from(front.locate)];
            nautilus_shm::prefetch(std::slice::from_ref(book), 0);
            if front.adds() {
                book.ladders[front.side as usize].prefetch();
            }
        }
        let mut places = [0; AHEAD_MAX];
        let mut count = 0;
        for message in messages {
            let Some(front) = Front::of(message) else { continue };
            if front.adds() {
                if let Some(level) = self.level_of_new(&front, message) {
                    self.levels.prefetch(level);
                }
            } else if let Some(place) = self.orders.prefetch_order(front.reference) {
                places[count] = place;
                count += 1;
            }
        }
        for &place in &places[..count] {
            self.levels.prefetch(self.orders.get(place).level);
        }
    }

    /// The level that an order to be added would stand in, if it is there and near the top.
    #[inline(always)]
    fn level_of_new(&self, front: &Front, message: &[u8]) -> Option<u32> {
        let message: &[u8; 36] = message.first_chunk()?;
        let price = u32::from_be_bytes([message[32], message[33], message[34], message[35]]);
        let Front { locate, side, .. } = *front;
        self.book(locate)?.ladders[side as usize].guess(key(side, price))
    }
}
