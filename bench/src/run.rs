//! The frame of every row: interleaved pairs, the spin probe's rule, samples.
//!
//! ```text
//!   ours peer (twin) | ours peer (twin) | ...      one pair a column
//!        `-- halves whose probes differ more than 2x: the pair is run again, at most 9 times
//! ```

use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;

use crate::probe;
use crate::report::Samples;
use crate::row::Row;

/// Pairs that may be run again in one row.
const RERUNS_MAX: u32 = 9;

/// A quick row starts no pair after this time, so that it ends within a minute.
const QUICK_MAX: Duration = Duration::from_secs(45);

/// What one half of a pair measured.
#[derive(Clone, Debug, Default)]
pub struct Half {
    /// One value a measure that this side has, in the row's order; `None`: not a measure of it.
    pub values: Vec<Option<f64>>,
    /// From the spin probe beside it.
    pub held_share: f64,
    /// Latencies in nanoseconds, where the row has any.
    pub latency: Option<Histogram<u64>>,
    /// Requests without an answer, of how many; a lost one keeps its place in a window for as long
    /// as it is waited for.
    pub lost: Option<(u64, u64)>,
}

/// A row that is set up and can be measured.
pub trait Bench {
    /// Names of the sides, ours first. A second side is the peer of measure `index` when
    /// [`Self::peer_of`] says so.
    fn sides(&self) -> Vec<String>;

    /// Which side the measure is compared with; `None`: it has no peer in this run.
    fn peer_of(&self, measure: usize) -> Option<usize>;

    /// Measures one side once.
    fn half(&mut self, side: usize) -> anyhow::Result<Half>;

    /// What is printed in place of a peer that is not there.
    fn missing(&self) -> Option<String> {
        None
    }
}

/// What a row gave.
#[derive(Debug, Default)]
pub struct Measured {
    /// One entry a measure.
    pub samples: Vec<Samples>,
    /// Every half in the order of running: pair, side, half.
    pub halves: Vec<(u32, usize, Half)>,
    /// Names of the sides.
    pub sides: Vec<String>,
    /// Pairs run again.
    pub reruns: u32,
}

/// Runs a row.
pub fn run(row: &Row, bench: &mut dyn Bench, quick: bool) -> anyhow::Result<Measured> {
    let pairs = if quick { row.quick_pairs } else { row.pairs };
    let sides = bench.sides();
    let mut measured = Measured {
        samples: vec![Samples::default(); row.measure.len()],
        sides: sides.clone(),
        ..Measured::default()
    };
    let start = Instant::now();
    let mut pair = 0;
    while pair < pairs {
        if quick && pair > 0 && start.elapsed() > QUICK_MAX {
            eprintln!("{}: stopped after {pair} pairs: a quick row has a minute", row.id);
            break;
        }
        let mut halves = Vec::with_capacity(sides.len());
        for (side, name) in sides.iter().enumerate() {
            let half = bench.half(side).with_context(|| format!("{}: {name}", row.id))?;
            eprintln!("{}", describe(row, pair, name, &half));
            halves.push(half);
        }
        let first = halves[0].held_share;
        let apart = halves.iter().any(|half| probe::differ(first, half.held_share));
        if apart && measured.reruns < RERUNS_MAX && !(quick && start.elapsed() > QUICK_MAX) {
            measured.reruns += 1;
            eprintln!("{} pair {}: run again, the spin probes differ", row.id, pair + 1);
            continue;
        }
        for (index, samples) in measured.samples.iter_mut().enumerate() {
            let Some(ours) = halves[0].values.get(index).copied().flatten() else { continue };
            samples.ours.push(ours);
            if let Some(side) = bench.peer_of(index)
                && let Some(peer) = halves[side].values.get(index).copied().flatten()
            {
                samples.peer.push(peer);
                samples.peer_name = Some(sides[side].clone());
            }
        }
        let taken = halves.into_iter().enumerate().map(|(side, half)| (pair, side, half));
        measured.halves.extend(taken);
        pair += 1;
    }
    if let Some(missing) = bench.missing() {
        for samples in measured.samples.iter_mut().filter(|samples| samples.peer.is_empty()) {
            samples.peer_name = Some(format!("peer missing: {missing}"));
        }
    }
    Ok(measured)
}

fn describe(row: &Row, pair: u32, name: &str, half: &Half) -> String {
    let values: Vec<String> = row
        .measure
        .iter()
        .zip(&half.values)
        .filter_map(|(measure, value)| {
            Some(format!("{} {:.3} {}", measure.name, (*value)?, measure.unit))
        })
        .collect();
    let held = half.held_share * 100.0;
    let lost =
        half.lost.map_or_else(String::new, |(lost, sent)| format!("; lost {lost} of {sent}"));
    let (id, pair, values) = (&row.id, pair + 1, values.join(", "));
    format!("{id} pair {pair} {name}: {values}{lost}; held > 50 us: {held:.3} %")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::{ROWS_TOML, Rows};

    /// A machine that stalls in the given halves.
    struct Script {
        held: Vec<f64>,
        at: usize,
    }

    impl Bench for Script {
        fn sides(&self) -> Vec<String> {
            vec!["ours".into(), "peer".into()]
        }
        fn peer_of(&self, measure: usize) -> Option<usize> {
            (measure == 0).then_some(1)
        }
        fn half(&mut self, side: usize) -> anyhow::Result<Half> {
            let held_share = self.held.get(self.at).copied().unwrap_or(0.0);
            self.at += 1;
            let value = if side == 0 { 200.0 } else { 100.0 };
            Ok(Half { values: vec![Some(value)], held_share, ..Half::default() })
        }
    }

    fn measure(held: Vec<f64>) -> (Measured, usize) {
        let rows = Rows::parse(ROWS_TOML).unwrap();
        let mut script = Script { held, at: 0 };
        let measured = run(rows.get("A2").unwrap(), &mut script, false).unwrap();
        (measured, script.at)
    }

    #[test]
    fn nine_pairs_interleave() {
        let (measured, halves) = measure(Vec::new());
        assert_eq!((halves, measured.reruns), (18, 0));
        assert_eq!(measured.samples[0].ratios(), vec![2.0; 9]);
        assert!(measured.samples[1].ours.is_empty());
        let order: Vec<usize> = measured.halves.iter().map(|(_, side, _)| *side).collect();
        assert_eq!(order[..4], [0, 1, 0, 1]);
    }

    #[test]
    fn an_uneven_pair_is_run_again_but_not_for_ever() {
        let (measured, halves) = measure(vec![0.0, 0.02]);
        assert_eq!((halves, measured.reruns), (20, 1));
        let (measured, halves) = measure([0.0, 0.02].repeat(50));
        assert_eq!((halves, measured.reruns), (18 + 18, RERUNS_MAX));
        assert_eq!(measured.samples[0].ours.len(), 9);
    }
}
