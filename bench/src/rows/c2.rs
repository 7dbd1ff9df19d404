//! C2: 1 % of the packets lost on either line, independently, and reorder on both: books that are wrong, gaps
//! that are not noticed, and what heals without a request. A simulation by a clock of its own
//! (`loss/`): nothing here is a time, so the spin probe has nothing to say.

use crate::loss::World;
use crate::run::{Bench, Half};

/// Messages of a run, so that nine of the long form are more than 50 M.
const MESSAGES: u64 = 5_600_000;
const MESSAGES_QUICK: u64 = 3_600_000;

/// The row.
pub struct C2 {
    messages: u64,
    seed: u64,
}

impl C2 {
    /// Nothing to set up.
    pub fn new(quick: bool) -> Self {
        Self { messages: if quick { MESSAGES_QUICK } else { MESSAGES }, seed: 0x6e61_7574 }
    }
}

impl Bench for C2 {
    fn sides(&self) -> Vec<String> {
        vec!["nautilus".into()]
    }

    fn peer_of(&self, _measure: usize) -> Option<usize> {
        None
    }

    fn half(&mut self, _side: usize) -> anyhow::Result<Half> {
        self.seed = self.seed.wrapping_add(0x9e37_79b9);
        let found = World::new(self.seed, self.messages)?.run()?;
        anyhow::ensure!(found.missing > 0 && found.recovered > 0 && found.checks > 10, "{found:?}");
        let healed = found.missing.saturating_sub(found.recovered) as f64 / found.missing as f64;
        eprintln!(
            "C2: {} messages, {} missing on a line, {} asked for, {} comparisons of all books",
            found.messages, found.missing, found.recovered, found.checks
        );
        let values = [
            found.wrong_books as f64,
            found.undetected_gaps as f64,
            100.0 * healed,
            found.messages as f64,
        ];
        Ok(Half { values: values.into_iter().map(Some).collect(), ..Half::default() })
    }
}
