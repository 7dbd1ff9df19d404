//! What is free in a shard: cells, and groups that are still whole, which long values take as runs.
//!
//! ```text
//!   whole groups --> run of a long value ------------> back
//!        '- no cell is free --> 16 cells --> items --> back, as cells
//! ```
//!
//! A table begins with whole groups only. What has become cells stays cells: there is always room for an
//! item when there are cells enough, wherever they lie, and a long value that finds no run is spread over
//! cells.

use super::intent::Change;
use super::layout::{
    GROUP_CELLS, NIL, S_FREE_CELLS, S_FREE_HEAD, S_FREE_RUNS, S_RUN_HEAD, Shape, Shard, lower,
    pair, upper,
};
use super::probe::link_at;
use super::words::{load, store};
use crate::sync::AtomicU64;

/// The first free cell and the first whole group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Free {
    pub cell: u32,
    pub run: u32,
}

impl Free {
    /// What the lists begin with.
    pub fn of(words: &[AtomicU64], shard: &Shard) -> Self {
        let cell = lower(load(words, shard.base + S_FREE_HEAD));
        Self { cell, run: lower(load(words, shard.base + S_RUN_HEAD)) }
    }
}

/// Makes a new shard's memory free. Its words are zero.
pub(super) fn free_all(words: &[AtomicU64], shard: &Shard) {
    for group in 0..shard.groups {
        let next = if group + 1 < shard.groups { group + 1 } else { NIL };
        store(words, shard.run(group), pair(0, next));
    }
    let first = shard.groups * GROUP_CELLS;
    for cell in first..shard.cells {
        let next = if cell + 1 < shard.cells { cell + 1 } else { NIL };
        store(words, link_at(shard, cell), pair(0, next));
    }
    let head = |first, count| if count > 0 { first } else { NIL };
    store(words, shard.base + S_RUN_HEAD, head(0, shard.groups).into());
    store(words, shard.base + S_FREE_RUNS, shard.groups.into());
    store(words, shard.base + S_FREE_HEAD, head(first, shard.cells - first).into());
    store(words, shard.base + S_FREE_CELLS, (shard.cells - first).into());
}

/// The shape an item of these lengths can be given now; `None`: there is not enough room.
pub(super) fn room_for(
    words: &[AtomicU64],
    shard: &Shard,
    key_bytes: usize,
    value_bytes: usize,
) -> Option<Shape> {
    let free_runs = lower(load(words, shard.base + S_FREE_RUNS));
    let runs = Shape::runs_max(key_bytes, value_bytes).min(free_runs);
    let shape = Shape::with_runs(key_bytes, value_bytes, runs);
    let cells = load(words, shard.base + S_FREE_CELLS);
    let with_groups = cells + u64::from((free_runs - runs) * GROUP_CELLS);
    (u64::from(shape.cells) <= with_groups).then_some(shape)
}

/// Makes whole groups into cells until so many are free, for which there is room.
pub(super) fn have_cells(words: &[AtomicU64], shard: &Shard, cells: u32) {
    while load(words, shard.base + S_FREE_CELLS) < cells.into() {
        let Free { cell: free, run: group } = Free::of(words, shard);
        let next = lower(load(words, shard.run(group)));
        let first = group * GROUP_CELLS;
        for cell in first..first + GROUP_CELLS {
            let next = if cell + 1 < first + GROUP_CELLS { cell + 1 } else { free };
            let at = link_at(shard, cell);
            store(words, at, pair(upper(load(words, at)), next));
        }
        let mut change = Change::new(words);
        change.set(shard.base + S_FREE_HEAD, first.into());
        change.add(shard.base + S_FREE_CELLS, GROUP_CELLS.into());
        change.set(shard.base + S_RUN_HEAD, next.into());
        change.add(shard.base + S_FREE_RUNS, 1_u64.wrapping_neg());
        change.commit(shard);
    }
}
