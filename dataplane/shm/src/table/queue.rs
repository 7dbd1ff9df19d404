//! The two queues of a shard as doubly linked lists over the cells' links.
//!
//! ```text
//!   ends word: newest 32 | oldest 32        links word: newer 32 | older 32
//!   newest -> older -> ... -> oldest, which is evicted next
//! ```

use super::intent::Change;
use super::layout::{
    C_META, NIL, S_MAIN_CELLS, S_MAIN_ENDS, S_SMALL_CELLS, S_SMALL_ENDS, Shard, lower, pair, upper,
};
use super::meta::Meta;

/// Which queue an item is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// New items.
    Small = 1,
    /// Items that were asked for while in the small queue, or soon after they left it.
    Main = 2,
}

impl Queue {
    pub fn of(meta: Meta) -> Self {
        if meta.queue == Self::Small as u8 { Self::Small } else { Self::Main }
    }

    pub fn ends(self, shard: &Shard) -> usize {
        shard.base + if self == Self::Small { S_SMALL_ENDS } else { S_MAIN_ENDS }
    }

    pub fn cells(self, shard: &Shard) -> usize {
        shard.base + if self == Self::Small { S_SMALL_CELLS } else { S_MAIN_CELLS }
    }
}

/// The ends word of an empty queue.
pub(super) const EMPTY: u64 = pair(NIL, NIL);

impl Change<'_> {
    fn set_newer(&mut self, shard: &Shard, queue: Queue, cell: u32, newer: u32) {
        // Beyond the oldest item lies the "oldest" half of the ends word.
        let at = if cell == NIL { queue.ends(shard) } else { shard.links(cell) };
        let word = self.get(at);
        let word = if cell == NIL { pair(upper(word), newer) } else { pair(newer, lower(word)) };
        self.set(at, word);
    }

    fn set_older(&mut self, shard: &Shard, queue: Queue, cell: u32, older: u32) {
        let at = if cell == NIL { queue.ends(shard) } else { shard.links(cell) };
        let word = self.get(at);
        let word = if cell == NIL { pair(older, lower(word)) } else { pair(upper(word), older) };
        self.set(at, word);
    }

    /// Puts an item at the new end and counts its cells there.
    pub fn push(&mut self, shard: &Shard, queue: Queue, cell: u32, cells: u32) {
        let newest = upper(self.get(queue.ends(shard)));
        self.set(shard.links(cell), pair(NIL, newest));
        self.set_newer(shard, queue, newest, cell);
        self.set_older(shard, queue, NIL, cell);
        self.add(queue.cells(shard), cells.into());
    }

    /// Takes an item out of its queue.
    pub fn unlink(&mut self, shard: &Shard, queue: Queue, cell: u32, cells: u32) {
        let links = self.get(shard.links(cell));
        self.set_older(shard, queue, upper(links), lower(links));
        self.set_newer(shard, queue, lower(links), upper(links));
        self.add(queue.cells(shard), u64::from(cells).wrapping_neg());
    }

    /// Lets `new` take the place of `old` in its queue.
    pub fn swap(&mut self, shard: &Shard, queue: Queue, old: (u32, u32), new: (u32, u32)) {
        let links = self.get(shard.links(old.0));
        self.set(shard.links(new.0), links);
        self.set_older(shard, queue, upper(links), new.0);
        self.set_newer(shard, queue, lower(links), new.0);
        self.add(queue.cells(shard), u64::from(new.1).wrapping_sub(old.1.into()));
    }

    /// Moves an item to the new end of `to` with this frequency.
    pub fn requeue(&mut self, shard: &Shard, to: Queue, cell: u32, cells: u32, frequency: u8) {
        let at = shard.cell(cell) + C_META;
        let meta = Meta::unpack(self.get(at));
        self.unlink(shard, Queue::of(meta), cell, cells);
        self.push(shard, to, cell, cells);
        self.set(at, Meta { queue: to as u8, frequency, ..meta }.pack());
    }
}
