//! One day of a venue: the flow's commands through the engine, one step after the other.

use super::engine::{Engine, Tape};
use super::flow::{Flow, FlowError, FlowSpec};
use crate::feed::itch::Nanoseconds;

/// The day. Written by the thread that publishes it.
pub struct Day {
    engine: Engine,
    flow: Flow,
    /// Directory messages, until the first event of the day has been sent.
    directory: Tape,
    sent: u64,
    rejected: u64,
    now: Nanoseconds,
}

impl Day {
    /// A day from its start on.
    pub fn new(spec: FlowSpec) -> Result<Self, FlowError> {
        let mut flow = Flow::new(spec)?;
        let mut directory = Tape::default();
        let now = flow.now(0);
        let engine = Engine::new(&flow.stocks(), now, &mut directory);
        Ok(Self { engine, flow, directory, sent: 0, rejected: 0, now })
    }

    /// The engine, between two steps.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Messages given so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Commands that the engine rejected so far: what flow meets when it breaks a trade twice or
    /// replaces an order of a closed stock.
    pub fn rejected(&self) -> u64 {
        self.rejected
    }

    /// Exchange time of the last step.
    pub fn now(&self) -> Nanoseconds {
        self.now
    }

    /// Puts the messages of the next command that has some into `tape`; `false` when the day is over.
    pub fn step(&mut self, tape: &mut Tape) -> bool {
        tape.clear();
        while tape.is_empty() {
            let Some(command) = self.flow.next_command(&self.engine, self.sent) else {
                return false;
            };
            self.now = self.flow.now(self.sent);
            match self.engine.apply(&command, self.now, tape) {
                Ok(reply) => self.flow.note(reply, &self.engine),
                Err(_) => self.rejected += 1,
            }
        }
        // The directory follows the start of messages.
        self.directory.messages().for_each(|message| tape.push(message));
        self.directory.clear();
        self.sent += tape.len() as u64;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::book::{BookLimits, Books};
    use crate::feed::itch::{Message, Side};
    use std::collections::BTreeMap;

    fn day(seed: u64, symbols: u16, messages: u64) -> Day {
        Day::new(FlowSpec { seed, symbols, messages, rate: 100_000 }).unwrap()
    }

    fn bytes(mut day: Day) -> Vec<u8> {
        let (mut tape, mut bytes) = (Tape::default(), Vec::new());
        while day.step(&mut tape) {
            tape.messages().for_each(|message| bytes.extend_from_slice(message));
        }
        bytes
    }

    #[test]
    fn the_same_seed_is_the_same_day() {
        let first = bytes(day(7, 5, 5_000));
        assert_eq!(first, bytes(day(7, 5, 5_000)));
        assert_ne!(first, bytes(day(8, 5, 5_000)));
    }

    #[test]
    fn a_day_is_what_a_venue_sends_and_the_books_follow_it() {
        let mut day = day(3, 20, 60_000);
        let limits = BookLimits { orders_max: 1 << 14, levels_max: 1 << 14, hash_seed: 1 };
        let (mut books, mut tape) = (Books::new(limits), Tape::default());
        let (mut counts, mut last) = (BTreeMap::new(), Nanoseconds(0));
        let mut order = Vec::new();
        while day.step(&mut tape) {
            for bytes in tape.messages() {
                let message = Message::decode(bytes).unwrap();
                assert_eq!(books.apply(&message).1, None, "{message:?}");
                assert!(message.common().timestamp >= last);
                last = message.common().timestamp;
                *counts.entry(message.code()).or_insert(0u64) += 1;
                if let Message::SystemEvent(event) = message {
                    order.push(event.event_code().0);
                }
            }
            assert_eq!(books.order_count() as usize, day.engine().order_count());
        }
        assert_eq!(order, b"OSQMEC");
        assert_eq!(day.sent(), counts.values().sum::<u64>());
        assert!((60_000..61_000).contains(&day.sent()), "{}", day.sent());
        let engine = day.engine();
        for locate in 1..=engine.stock_count() {
            for side in [Side::Buy, Side::Sell] {
                let read = books.levels(locate, side).map(|l| (l.price, l.shares, l.orders));
                let kept = engine.book(locate).levels(side);
                let kept = kept.map(|level| (level.price, level.shares, level.orders));
                assert_eq!(read.collect::<Vec<_>>(), kept.collect::<Vec<_>>());
            }
        }
        assert!(engine.order_count() > 1_000, "{}", engine.order_count());
        // A day has everything, in about these proportions.
        let share = |code: u8| counts.get(&code).copied().unwrap_or(0) * 1_000 / day.sent();
        for code in *b"SRHYAFECXDUQIB" {
            assert!(counts.contains_key(&code), "{} {counts:?}", char::from(code));
        }
        assert!((350..500).contains(&(share(b'A') + share(b'F'))), "{counts:?}");
        assert!((200..450).contains(&share(b'D')), "{counts:?}");
        assert!((40..200).contains(&share(b'E')), "{counts:?}");
        assert!((30..150).contains(&share(b'U')), "{counts:?}");
    }

    #[test]
    fn impossible_days_are_refused() {
        let new =
            |symbols, messages, rate| Day::new(FlowSpec { seed: 1, symbols, messages, rate }).err();
        assert_eq!(new(0, 1, 1), Some(FlowError::Symbols));
        assert_eq!(new(1, 0, 1), Some(FlowError::Messages));
        assert_eq!(new(1, 1 << 40, 1), Some(FlowError::Messages));
        assert_eq!(new(1, 1, 0), Some(FlowError::Rate));
        assert_eq!(new(1, 1, 1), None);
    }

    #[test]
    fn one_stock_and_few_messages_are_a_day_too() {
        for seed in 0..50 {
            let mut day = day(seed, 1, 1);
            let mut tape = Tape::default();
            while day.step(&mut tape) {}
            assert!(day.sent() > 10);
        }
    }
}
