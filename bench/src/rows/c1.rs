//! C1: ITCH 5.0 decoded, and kept as books by order: ours, `itch5` with a plain book of std maps, and
//! `itchy`, which only decodes.

use std::hint::black_box;
use std::time::Instant;

use crate::clock::{GENERATOR_CORE, SERVER_CORE, cores, pin, use_cores};
use crate::itch::day::Day;
use crate::itch::plain_book::PlainBook;
use crate::itch::{BookSum, Sum, ours, theirs};
use crate::probe::Beside;
use crate::run::{Bench, Half};

/// Sides, in the order they run; then the measures.
const OURS: usize = 0;
const ITCH5: usize = 1;
const ITCHY: usize = 2;
const MEASURES: usize = 3;
const DECODE_OVER_ITCH5: usize = 0;
const DECODE_OVER_ITCHY: usize = 1;
const BOOK: usize = 2;

/// Types that `itchy` 0.3.4 does not know: it panics.
const UNKNOWN_TO_ITCHY: &[u8] = b"hO";

/// The row.
pub struct C1 {
    whole: Day,
    decoded: Day,
    sum: Option<Sum>,
    book: Option<BookSum>,
}

impl C1 {
    /// Generates the day.
    pub fn set_up(quick: bool) -> anyhow::Result<Self> {
        let messages = if quick { 4_000_000 } else { 8_000_000 };
        let whole = Day::generate(0x17c4, messages, &[])?;
        let decoded = Day::generate(0x17c4, messages, UNKNOWN_TO_ITCHY)?;
        Ok(Self { whole, decoded, sum: None, book: None })
    }

    /// Runs once over the day that is decoded only; the sum must be that of every other side.
    fn decode(&mut self, decode: impl Fn(&Day) -> anyhow::Result<Sum>) -> anyhow::Result<f64> {
        let begin = Instant::now();
        let sum = decode(black_box(&self.decoded))?;
        let elapsed = begin.elapsed();
        let expected = *self.sum.get_or_insert(sum);
        anyhow::ensure!(sum == expected, "decoded {sum:?}, another side {expected:?}");
        Ok(elapsed.as_nanos() as f64 / self.decoded.messages as f64)
    }

    /// The same for the books.
    fn keep(&mut self, keep: impl FnOnce(&Day) -> anyhow::Result<u64>) -> anyhow::Result<f64> {
        let begin = Instant::now();
        let problems = keep(black_box(&self.whole))?;
        let elapsed = begin.elapsed();
        anyhow::ensure!(problems == 0, "{problems} messages of a day without fault had a problem");
        Ok(elapsed.as_nanos() as f64 / self.whole.messages as f64)
    }

    fn check(&mut self, found: BookSum) -> anyhow::Result<()> {
        let expected = *self.book.get_or_insert(found);
        anyhow::ensure!(found == expected, "books of {found:?}, another side {expected:?}");
        Ok(())
    }

    fn measure(&mut self, side: usize) -> anyhow::Result<Vec<Option<f64>>> {
        let mut values = vec![None; MEASURES];
        match side {
            OURS => {
                let decode = self.decode(ours::decode)?;
                values[DECODE_OVER_ITCH5] = Some(decode);
                values[DECODE_OVER_ITCHY] = Some(decode);
                let mut books = ours::books();
                values[BOOK] = Some(self.keep(|day| ours::keep(day, &mut books))?);
                self.check(ours::sum(&books))?;
            }
            ITCH5 => {
                values[DECODE_OVER_ITCH5] = Some(self.decode(theirs::decode_itch5)?);
                let mut book = PlainBook::default();
                values[BOOK] = Some(self.keep(|day| book.keep(day))?);
                self.check(book.sum())?;
            }
            _ => values[DECODE_OVER_ITCHY] = Some(self.decode(theirs::decode_itchy)?),
        }
        Ok(values)
    }
}

impl Bench for C1 {
    fn sides(&self) -> Vec<String> {
        vec!["nautilus".into(), "itch5 0.1.5, plain book".into(), "itchy 0.3.4".into()]
    }

    fn peer_of(&self, measure: usize) -> Option<usize> {
        Some(if measure == DECODE_OVER_ITCHY { ITCHY } else { ITCH5 })
    }

    fn half(&mut self, side: usize) -> anyhow::Result<Half> {
        let before = cores()?;
        let beside = Beside::start(GENERATOR_CORE);
        pin(SERVER_CORE)?;
        let values = self.measure(side);
        use_cores(&before)?;
        let held_share = beside.stop();
        Ok(Half { values: values?, held_share, ..Half::default() })
    }
}
