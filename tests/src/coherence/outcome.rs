//! What a run showed, in print.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::deadlines::Deadlines;
use super::kills::{Kill, Victim, gaps_ns, returns_ns};
use super::measured::Measured;
use super::paths::{Counts, Path};
use crate::history::{Checked, Operation, Output, check};

/// Fewest reads, and changes, by a way that make a run say something of it.
const READS_MIN: u64 = 200;

/// What a run showed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How long clients were at work.
    pub took: Duration,
    /// What they counted.
    pub counts: Counts,
    /// What was seen of values whose time ran out.
    pub deadlines: Deadlines,
    /// What the node counted.
    pub measured: Measured,
    /// Their history, judged.
    pub checked: Checked,
    /// Silences after kills, ascending, nanoseconds: of workers after theirs, of fronts, of workers after
    /// control's.
    pub gaps_ns: [Vec<u64>; 3],
}

impl Outcome {
    pub(super) fn new(
        took: Duration,
        counts: Counts,
        deadlines: Deadlines,
        measured: Measured,
        (kills, probed): (&[Kill], &[Vec<u64>]),
        history: &[Operation],
    ) -> Self {
        let gaps_ns = [
            gaps_ns(probed, kills, Victim::Worker),
            gaps_ns(&[returns_ns(history, Path::Front)], kills, Victim::Front),
            gaps_ns(probed, kills, Victim::Control),
        ];
        let checked = check(history);
        Self { took, counts, deadlines, measured, checked, gaps_ns }
    }

    /// Whether something was seen that no cache may show.
    pub fn is_violated(&self) -> bool {
        let wrong = !self.counts.wrong.is_empty() || !self.deadlines.wrong.is_empty();
        wrong || !self.checked.violations.is_empty()
    }

    /// Why the run shows less than it should; `None` when it is whole.
    pub fn shortcoming(&self) -> Option<String> {
        let [hot, ..] = self.counts.answered;
        if self.measured.evictions > 0 {
            return Some(format!("{} items were evicted", self.measured.evictions));
        }
        if !self.checked.undecided.is_empty() {
            let keys = self.checked.undecided.len();
            return Some(format!("{keys} keys could not be decided: too many unknown outcomes"));
        }
        if self.measured.hot_hits < READS_MIN {
            let (hits, asked) = (self.measured.hot_hits, hot[0]);
            return Some(format!("XDP answered only {hits} of {asked} reads of hot keys"));
        }
        let (workers, fronts) = (self.measured.worker_reads, self.measured.front_reads);
        if workers.min(fronts) < READS_MIN {
            return Some(format!(
                "the node counted {workers} reads of workers, {fronts} of fronts"
            ));
        }
        let [_, [_, over_udp], [_, over_tcp], _, [_, over_rest]] = self.counts.answered;
        if over_udp.min(over_tcp).min(over_rest) < READS_MIN {
            return Some(format!(
                "only {over_udp} changes over UDP, {over_tcp} over TCP, {over_rest} over REST"
            ));
        }
        let few =
            Path::ALL.iter().find(|path| self.counts.answered[**path as usize - 1][0] < READS_MIN);
        few.map(|path| format!("fewer than {READS_MIN} reads by {}", path.name()))
    }

    /// Keys whose history breaks at a miss, and at another answer.
    fn lost_and_stale(&self) -> (usize, usize) {
        let misses = self.checked.violations.iter().filter(|found| {
            let blocked = found.window.blocked.map(|index| found.operations[index]);
            let output = blocked.and_then(|operation| operation.returned).map(|one| one.output);
            matches!(output, Some(Output::Miss | Output::NotFound | Output::NotStored))
        });
        let lost = misses.count();
        (lost, self.checked.violations.len() - lost)
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let &Measured { hot_hits, front_reads, worker_reads, .. } = &self.measured;
        writeln!(
            f,
            "{:.1} s of clients\n{:<4}{:<16}{:>10}{:>10}",
            self.took.as_secs_f64(),
            "path",
            "",
            "reads",
            "changes"
        )?;
        for path in Path::ALL {
            let [reads, changes] = self.counts.answered[path as usize - 1];
            writeln!(f, "{:<4}{:<16}{reads:>10}{changes:>10}", path as u8, path.name())?;
        }
        writeln!(
            f,
            "counted by the node: {hot_hits} answered in XDP, {worker_reads} keys looked up by workers, \
             {front_reads} by fronts"
        )?;
        if !self.measured.dropped.is_empty() {
            writeln!(f, "dropped by the node: {}", self.measured.dropped.join(", "))?;
        }
        for (gaps, who) in self.gaps_ns.iter().zip(["worker", "front", "control"]) {
            let Some(longest) = gaps.last() else { continue };
            let at = |permille: usize| gaps[gaps.len() * permille / 1000] as f64 / 1e6;
            writeln!(
                f,
                "{} {who}s killed: clients without an answer for p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
                gaps.len(),
                at(500),
                at(990),
                *longest as f64 / 1e6
            )?;
        }
        if self.counts.detached > 0 {
            writeln!(f, "{} reads of shared memory found the node silent", self.counts.detached)?;
        }
        writeln!(f, "{}", self.deadlines)?;
        for text in self.counts.wrong.iter().chain(&self.deadlines.wrong) {
            writeln!(f, "WRONG {text}")?;
        }
        write!(f, "{}", self.checked)?;
        let (lost, stale) = self.lost_and_stale();
        writeln!(f, "acknowledged values lost: {lost} keys; stale reads: {stale} keys")
    }
}
