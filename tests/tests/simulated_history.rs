//! The worker's own loop, the cache, the front's own state machine and same-host readers in one thread:
//! one seed decides what clients ask, what is lost, doubled, reordered and delayed, who reads between
//! which two stores, and at which store the worker dies. What all of them saw must have one order a key.
//!
//! A failing seed is printed and fails again: `NAUTILUS_SIM_SEED=n`. `NAUTILUS_SIM_SEEDS` says how many
//! to run. `cargo test -p nautilus-tests --features kill-points --test simulated_history`.

#[path = "simulated_history/eyes.rs"]
mod eyes;
#[path = "simulated_history/hot.rs"]
mod hot;
#[path = "simulated_history/node.rs"]
mod node;
#[path = "simulated_history/run.rs"]
mod run;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use nautilus_shm::misorder::{Misorder, choose};

use run::{Seen, simulate};

/// Seeds of a usual run.
const SEEDS: u64 = 200;

/// Seeds within which a wrong order must be seen.
const SEEDS_TO_SEE: u64 = 100;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn all_paths_together_are_linearizable_whatever_the_seed() {
    let seeds = match number("NAUTILUS_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("NAUTILUS_SIM_SEEDS").unwrap_or(SEEDS),
    };
    let mut all = Seen::default();
    for seed in seeds.clone() {
        let judged = catch_unwind(|| {
            let (seen, checked) = simulate(seed).unwrap_or_else(|damaged| panic!("{damaged}"));
            assert!(checked.is_linearizable(), "{checked}");
            seen
        });
        let seen = judged.unwrap_or_else(|panic| {
            eprintln!("seed {seed} failed; repeat it with NAUTILUS_SIM_SEED={seed}");
            resume_unwind(panic)
        });
        all.add(&seen);
    }
    println!("{all:?}");
    if seeds.count() > 20 {
        let counts = [
            all.doubled,
            all.deaths,
            all.repairs_cut_short,
            all.fronts,
            all.looks,
            all.busy,
            all.hot_hits,
            all.unanswered as u64,
        ];
        assert!(counts.iter().all(|&count| count > 20), "something never happens: {all:?}");
    }
}

impl Seen {
    fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.unanswered += other.unanswered;
        self.doubled += other.doubled;
        self.deaths += other.deaths;
        self.repairs_cut_short += other.repairs_cut_short;
        self.fronts += other.fronts;
        self.looks += other.looks;
        self.busy += other.busy;
        self.hot_hits += other.hot_hits;
    }
}

#[test]
fn one_seed_is_one_run() {
    let run = |seed| simulate(seed).map(|(seen, _)| seen).unwrap_or_else(|why| panic!("{why}"));
    for seed in [1, 2, 0xdead_beef_0000_0007] {
        assert_eq!(run(seed), run(seed));
    }
    assert_ne!(run(1), run(2));
}

/// How a seed shows that something is wrong.
fn complaint(seed: u64) -> Option<&'static str> {
    match catch_unwind(AssertUnwindSafe(|| simulate(seed))) {
        Ok(Ok((_, checked))) if checked.is_linearizable() => None,
        Ok(Ok(_)) => Some("no order"),
        Ok(Err(_)) => Some("a damaged table"),
        Err(_) => Some("a panic"),
    }
}

#[test]
fn every_wrong_order_is_seen() {
    for wrong in Misorder::ALL {
        choose(Some(wrong));
        let complaints: Vec<_> = (0..SEEDS_TO_SEE).filter_map(complaint).collect();
        choose(None);
        let of = |kind| complaints.iter().filter(|one| **one == kind).count();
        println!(
            "{}: {} of {SEEDS_TO_SEE} seeds: {} without an order, {} damaged tables, {} panics",
            wrong.name(),
            complaints.len(),
            of("no order"),
            of("a damaged table"),
            of("a panic")
        );
        assert!(!complaints.is_empty(), "{}", wrong.name());
        let by_order = wrong == Misorder::Unrecorded || of("no order") > 0;
        assert!(by_order, "{}: the histories do not show it", wrong.name());
    }
}
