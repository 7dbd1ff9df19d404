//! Hits and misses before a worker's death, while the feed was suspect, and after.

use std::time::{Duration, Instant};

/// Answers of one phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// With a value.
    pub hits: u64,
    /// Without.
    pub misses: u64,
}

impl Answers {
    fn count(&mut self, hit: bool) {
        if hit {
            self.hits += 1;
        } else {
            self.misses += 1;
        }
    }
}

/// Answers about market data, told apart by what the feed was when they came.
///
/// A successor cannot know what it missed: every record of the feed is suspect, and a miss, from the
/// kill until the feed's next session.
#[derive(Clone, Copy, Debug, Default)]
pub struct Phases {
    /// Before the kill.
    pub before: Answers,
    /// From the kill to the last answer before the next session's first hit.
    pub suspect: Answers,
    /// From the next session's first hit on.
    pub after: Answers,
    /// From the kill to the next session's first hit; None while there was none.
    pub suspect_for: Option<Duration>,
}

impl Phases {
    /// Counts one answer that came at `now`, of which `killed` says when the worker was killed. A hit
    /// before the first miss after the kill was answered before it, or by the last session's record.
    pub fn count(&mut self, killed: Option<Instant>, now: Instant, hit: bool) {
        match killed.filter(|killed| *killed <= now) {
            None => self.before.count(hit),
            Some(_) if self.suspect_for.is_some() => self.after.count(hit),
            Some(killed) if hit && self.suspect.misses > 0 => {
                self.suspect_for = Some(now - killed);
                self.after.count(hit);
            }
            Some(_) => self.suspect.count(hit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_belongs_to_one_phase() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut phases = Phases::default();
        phases.count(None, at(1), true);
        phases.count(None, at(2), false);
        let killed = Some(at(10));
        // Came before the kill, counted after it.
        phases.count(killed, at(9), true);
        // Answered by the worker that was killed.
        phases.count(killed, at(10), true);
        for ms in 11..14 {
            phases.count(killed, at(ms), false);
        }
        assert_eq!(phases.suspect_for, None);
        for ms in 14..20 {
            phases.count(killed, at(ms), ms != 15);
        }
        assert_eq!(phases.before, Answers { hits: 2, misses: 1 });
        assert_eq!(phases.suspect, Answers { hits: 1, misses: 3 });
        assert_eq!(phases.after, Answers { hits: 5, misses: 1 });
        assert_eq!(phases.suspect_for, Some(Duration::from_millis(4)));
    }
}
