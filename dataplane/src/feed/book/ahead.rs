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
use crate::feed::itch::messages::Trade;
use crate::feed::itch::{OrderMessage, Side};

/// Messages looked ahead at once. Too low: waits that could overlap follow one another. Too high: what
/// the first asked for is evicted before it is used.
pub const AHEAD_MAX: usize = 32;

/// An order to be added is read as one to sell where its side is neither.
fn side(message: &OrderMessage<'_>) -> Side {
    Side::from_code(message.flag()).unwrap_or(Side::Sell)
}

/// Whether a message needs the memory of an order: a trade against none that was shown does not.
fn concerns_book(message: &OrderMessage<'_>) -> bool {
    message.code() != Trade::TYPE
}

impl Books {
    /// Asks for what applying these messages will need. Those behind the first [`AHEAD_MAX`] are not
    /// looked at.
    pub fn look_ahead<'a>(&self, messages: impl Iterator<Item = &'a [u8]> + Clone) {
        let messages =
            messages.take(AHEAD_MAX).filter_map(OrderMessage::view).filter(concerns_book);
        for message in messages.clone() {
            self.orders.prefetch(message.order());
            let book = &self.books[usize::from(message.common().stock_locate)];
            nautilus_shm::prefetch(std::slice::from_ref(book), 0);
            if message.adds() {
                book.ladders[side(&message) as usize].prefetch();
            }
        }
        let mut places = [0; AHEAD_MAX];
        let mut count = 0;
        for message in messages {
            if message.adds() {
                if let Some(level) = self.level_of_new(&message) {
                    self.levels.prefetch(level);
                }
            } else if let Some(place) = self.orders.prefetch_order(message.order()) {
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
    fn level_of_new(&self, message: &OrderMessage<'_>) -> Option<u32> {
        let side = side(message);
        let book = self.book(message.common().stock_locate)?;
        book.ladders[side as usize].guess(key(side, message.price().0))
    }
}
