//! Which subscribers want the records of a stock: a word a stock, a bit a subscriber.

use super::super::Symbol;

/// Subscribers there may be: bits of a word.
pub const SUBSCRIBERS_MAX: usize = 64;

#[derive(Clone, Copy)]
struct Row {
    epoch: u32,
    wanted_by: u64,
}

/// The words of all stocks of a session.
pub(super) struct Interest {
    rows: Box<[Row]>,
    /// Which session a row is of: symbols move to other locates with each.
    epoch: u32,
}

impl Interest {
    /// Bytes taken at start.
    pub const BYTES: usize = size_of::<Row>() << 16;

    pub fn new() -> Self {
        // Not zero, so that the pages are written here and not faulted in by the run loop.
        let rows = vec![Row { epoch: u32::MAX, wanted_by: 0 }; 1 << 16].into_boxed_slice();
        Self { rows, epoch: 1 }
    }

    /// Another session begins: nothing is known of any stock.
    pub fn forget(&mut self) {
        self.epoch += 1;
    }

    /// Who wants the records of a stock. `wants` says it of everybody, and is asked where that is not known.
    #[inline]
    pub fn of(&mut self, locate: u16, symbol: Symbol, wants: impl FnOnce(Symbol) -> u64) -> u64 {
        let row = &mut self.rows[usize::from(locate)];
        if row.epoch != self.epoch {
            *row = Row { epoch: self.epoch, wanted_by: wants(symbol) };
        }
        row.wanted_by
    }

    /// Whether one subscriber wants them, which was not known.
    pub fn set(&mut self, locate: u16, place: usize, is_wanted: bool) {
        let row = &mut self.rows[usize::from(locate)];
        let bit = 1 << place;
        row.wanted_by = if is_wanted { row.wanted_by | bit } else { row.wanted_by & !bit };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stock_is_judged_once_a_session() {
        let mut interest = Interest::new();
        let symbol = Symbol::new("AAPL").unwrap();
        assert_eq!(interest.of(7, symbol, |_| 0b101), 0b101);
        assert_eq!(interest.of(7, symbol, |_| panic!("known")), 0b101);
        interest.set(7, 63, true);
        interest.set(7, 0, false);
        assert_eq!(interest.of(7, symbol, |_| panic!("known")), 1 << 63 | 0b100);
        interest.forget();
        assert_eq!(interest.of(7, symbol, |_| 2), 2);
    }
}
