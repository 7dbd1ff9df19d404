//! Where the versions of a new table begin.

use super::layout::S_VERSION;
use super::words::{Words, store};
use super::writer::TableWriter;

impl<W: Words, H> TableWriter<W, H> {
    /// Has the next value of every shard carry the version after `version`. For a table that is still
    /// empty, before it is published. A table that begins at the time does not repeat the versions of
    /// the one before it, so that a `cas` with an old version fails, and who waits for a change of
    /// version sees one.
    pub fn begin_versions(&mut self, version: u64) {
        for shard in &self.shards {
            store(self.memory.words(), shard.base + S_VERSION, version);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::*;

    #[test]
    fn the_first_value_follows_the_beginning() {
        let mut table = model_test::small_table(64, 2);
        table.begin_versions(1 << 50);
        assert_eq!(model_test::put(&mut table, b"a", b"1"), Ok((1 << 50) + 1));
        assert_eq!(model_test::put(&mut table, b"a", b"2"), Ok((1 << 50) + 2));
        check(table.memory()).unwrap();
    }
}
