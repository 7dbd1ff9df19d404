//! What others tell of their hits, counted as uses, and what other workers were asked for as asked for
//! ([`crate::sampled_hits`]).

use super::evict::FREQUENCY_MAX;
use super::hash::KeyHash;
use super::hot::{HotKey, HotSet};
use super::layout::{C_LINK, C_META, Shard, lower};
use super::meta::{Meta, access_is_old, access_of, access_time, generation, link_word};
use super::payload::Cursor;
use super::probe::{Item, buckets, is_item, slot_cell, slot_tag, slots};
use super::reader::TableReader;
use super::words::{Words, load, store};
use super::writer::{TableWriter, shard_of, usable};
use crate::sampled_hits::{FRONT_HIT_RING, HIT_RINGS, WORKER_HIT_RING};
use crate::sync::AtomicU64;

/// Entries that are looked up together. Too low: waits for memory are not overlapped. Too high: requests
/// wait behind them.
const TOGETHER: usize = 16;

/// Entries of one ring among those: nobody's flood takes the places of all others.
const OF_ONE_RING: usize = TOGETHER / 2;

/// One share of entries for so long a time, as the run loop's housekeepings are apart.
const SHARE_NS: u64 = 100_000;

/// Shares at once, after a sleep.
const SHARES_MAX: u64 = 8;

/// How far the rings were read. The writer's own: what was told to a predecessor is nobody's merit now.
#[derive(Debug)]
pub(super) struct Folding {
    tails: [u64; HIT_RINGS],
    first: usize,
    folded_ns: u64,
}

impl Folding {
    pub fn new(memory: &impl Words) -> Self {
        let head = |ring| memory.sampled_hits().map_or(0, |hits| hits.head(ring));
        Self { tails: std::array::from_fn(head), first: 0, folded_ns: 0 }
    }
}

impl<W: Words, H: HotSet> TableWriter<W, H> {
    /// Counts hits that others told of as uses: a bounded number, growing with the time since the last call
    /// as far as a sleep of the run loop. No system call; nothing is written to the readers' memory.
    pub fn fold_sampled(&mut self, now_ns: u64) {
        let since_ns = now_ns.saturating_sub(self.folding.folded_ns);
        self.folding.folded_ns = now_ns;
        for _ in 0..(since_ns / SHARE_NS).clamp(1, SHARES_MAX) {
            if self.fold_share(now_ns) < TOGETHER {
                break;
            }
        }
    }

    fn fold_share(&mut self, now_ns: u64) -> usize {
        let Some(hits) = self.memory.sampled_hits() else { return 0 };
        let mut told = [(0, 0); TOGETHER];
        let mut count = 0;
        for step in 0..HIT_RINGS {
            let ring = (self.folding.first + step) % HIT_RINGS;
            let mut hashes = [0; OF_ONE_RING];
            let room = OF_ONE_RING.min(TOGETHER - count);
            let tail = &mut self.folding.tails[ring];
            let (taken, overrun) = hits.take(ring, tail, &mut hashes[..room]);
            self.counts.sampled_overruns_count += u64::from(overrun);
            for hash in &hashes[..taken] {
                told[count] = (ring, *hash);
                count += 1;
            }
        }
        self.folding.first = (self.folding.first + 1) % HIT_RINGS;
        for (_, hash) in &told[..count] {
            self.prefetch_bucket(KeyHash(*hash));
        }
        for (_, hash) in &told[..count] {
            self.prefetch_cell(KeyHash(*hash));
        }
        for &(ring, hash) in &told[..count] {
            let hash = KeyHash(hash);
            // Every writer of the table sees every entry.
            if !self.owns(hash) {
                continue;
            }
            let used = self.use_by_hash(hash, now_ns);
            let counted = match (used, ring) {
                (None, _) => &mut self.counts.sampled_stray_count,
                (Some(_), FRONT_HIT_RING) => &mut self.counts.sampled_front_count,
                (Some(_), WORKER_HIT_RING) => &mut self.counts.sampled_workers_count,
                (Some(_), _) => &mut self.counts.sampled_readers_count,
            };
            *counted += 1;
            if let Some(cell) = used
                && H::IS_THERE
                && ring == WORKER_HIT_RING
            {
                self.asked_elsewhere(hash, cell, now_ns);
            }
        }
        count
    }

    /// Counts a use of the value whose key has this hash, if there is one that may be used, and returns its
    /// first cell. Any hash will do: only a slot of the table says which cell is an item's.
    fn use_by_hash(&mut self, hash: KeyHash, now_ns: u64) -> Option<u32> {
        let words = self.memory.words();
        let shard = shard_of(&self.shards, hash);
        let item = find_by_hash(words, shard, hash);
        let item = item.filter(|item| usable(words, shard, item, now_ns))?;
        used_if_new(words, shard, &item, now_ns);
        Some(item.cell)
    }

    /// Tells the hot set, as the worker does of a request that came to itself.
    fn asked_elsewhere(&mut self, hash: KeyHash, cell: u32, now_ns: u64) {
        let shard = shard_of(&self.shards, hash);
        let Some(key) = HotKey::of(self.memory.words(), shard, cell) else { return };
        let Some(hit) = self.peek(hash, key.bytes(), now_ns) else { return };
        if self.hot.asked(hash.bits(), key.bytes(), &hit) {
            self.show(key.bytes(), &hit);
        }
    }
}

/// Counts a use where that changes anything.
#[inline]
pub(super) fn used_if_new(words: &[AtomicU64], shard: &Shard, item: &Item, now_ns: u64) {
    let Meta { frequency, fetched, .. } = item.meta;
    let access = access_of(load(words, shard.cell(item.cell) + C_LINK), &item.meta);
    if frequency < FREQUENCY_MAX || !fetched || access_is_old(access, now_ns) {
        used(words, shard, item, now_ns);
    }
}

/// Counts a use.
#[inline]
fn used(words: &[AtomicU64], shard: &Shard, item: &Item, now_ns: u64) {
    let at = shard.cell(item.cell);
    let link = load(words, at + C_LINK);
    let mut access = access_of(link, &item.meta);
    if access_is_old(access, now_ns) {
        access = access_time(now_ns);
        store(words, at + C_LINK, link_word(access, generation(link), lower(link)));
    }
    let frequency = (item.meta.frequency + 1).min(FREQUENCY_MAX);
    let meta = Meta { frequency, fetched: true, access: (access >> 16) as u8, ..item.meta };
    store(words, at + C_META, meta.pack());
}

fn find_by_hash(words: &[AtomicU64], shard: &Shard, hash: KeyHash) -> Option<Item> {
    let (first, second) = buckets(words, shard, hash);
    [Some(first), second].into_iter().flatten().flat_map(|bucket| slots(shard, bucket)).find_map(
        |slot| {
            let word = load(words, slot);
            if slot_tag(word) != hash.tag() || !is_item(word) {
                return None;
            }
            let cell = slot_cell(word);
            let same = KeyHash::of(words, shard, cell) == hash;
            let meta = Meta::unpack(load(words, shard.cell(cell) + C_META));
            same.then_some(Item { cell, meta, value: Cursor::first(shard, cell) })
        },
    )
}

impl<W: Words> TableReader<W> {
    /// Tells the writer that `key` was found, in ring `ring` modulo [`HIT_RINGS`]; nothing where the memory
    /// has no way to. Three stores and a hash.
    #[inline]
    pub fn tell(&self, ring: usize, key: &[u8]) {
        if let Some(hits) = self.memory.sampled_hits() {
            hits.push(ring, KeyHash::new(self.seed, key).bits());
        }
    }
}

#[cfg(all(test, not(loom), not(miri)))]
mod tests {
    use super::super::model_test::put;
    use super::super::*;
    use super::*;
    use crate::clock::monotonic_ns;
    use crate::region::Access;
    use crate::sampled_hits::{HitRegion, READER_HIT_RING};

    /// A table of 1 MiB, a reader of it, and who tells.
    fn table() -> (TableWriter<TableRegion>, TableReader<TableRegion>) {
        let hits = HitRegion::create().unwrap();
        let copy = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
        let region = TableRegion::create(1, false).unwrap();
        let reader = TableRegion::attach(copy(region.fd()), Access::ReadOnly).unwrap();
        let of_worker = HitRegion::attach(copy(hits.fd()), Access::ReadOnly).unwrap();
        let table = TableWriter::create(region.with_hits(of_worker), 1, 5).unwrap();
        (table, TableReader::attach(reader.with_hits(hits)).unwrap())
    }

    fn key(number: u32) -> Vec<u8> {
        format!("key:{number:08}").into_bytes()
    }

    /// Of a hundred keys that only a reader reads while others are written many times over, those that are
    /// left, by whether the writer listens.
    fn left(listens: bool, ring: usize) -> (usize, WriterCounts) {
        let (mut table, reader) = table();
        let now_ns = monotonic_ns();
        let mut out = [0; 64];
        for number in 0..100 {
            put(&mut table, &key(number), b"read by a reader only").unwrap();
        }
        for number in 100..30_000 {
            put(&mut table, &key(number), b"never read").unwrap();
            let read = key(number % 100);
            if reader.get(&read, now_ns, &mut out).is_ok() {
                reader.tell(ring, &read);
            }
            if listens && number % 4 == 0 {
                table.fold_sampled(now_ns);
            }
        }
        assert_eq!(check(table.memory().words()).map(|_| ()), Ok(()));
        let left = (0..100).filter(|&n| reader.get(&key(n), now_ns, &mut out).is_ok()).count();
        (left, table.counts())
    }

    #[test]
    fn keys_that_only_readers_read_outlive_a_storm_of_writes() {
        for (ring, counted) in [(FRONT_HIT_RING, true), (5, false)] {
            let (told, counts) = left(true, ring);
            let (untold, none) = left(false, ring);
            assert!(told >= 95, "{told} of 100 are left");
            assert!(untold <= 5, "{untold} of 100 are left though nobody listened");
            let (front, readers) = (counts.sampled_front_count, counts.sampled_readers_count);
            let (of_ring, of_other) = if counted { (front, readers) } else { (readers, front) };
            assert!(of_ring > 20_000 && of_other == 0, "{counts:?}");
            assert_eq!(none.sampled_front_count + none.sampled_readers_count, 0);
        }
    }

    /// Takes whatever is asked for three times.
    #[derive(Default)]
    struct Third {
        asked: Vec<Vec<u8>>,
        shown: Vec<(Vec<u8>, Vec<u8>)>,
    }

    impl HotSet for Third {
        const IS_THERE: bool = true;
        fn holds(&self, _: &[u8]) -> bool {
            false
        }
        fn asked(&mut self, _: u64, key: &[u8], _: &Hit) -> bool {
            self.asked.push(key.to_vec());
            self.asked.iter().filter(|asked| *asked == key).count() == 3
        }
        fn housekeeping(&mut self, _: u64) {}
        fn next_used(&mut self) -> Option<HotKey> {
            None
        }
        fn publish(&mut self, key: &[u8], value: &HotValue<'_>) {
            self.shown.push((key.to_vec(), value.value.to_vec()));
        }
        fn empty(&mut self, _: &[u8]) {}
        fn set_channel(&mut self, _: u8, _: u64) {}
        fn set_channel_epoch(&mut self, _: u8, _: u64) {}
        fn set_flush_epoch(&mut self, _: u64) {}
        fn set_valid_until(&mut self, _: u64) {}
    }

    #[test]
    fn only_what_other_workers_are_asked_for_turns_hot() {
        let hits = HitRegion::create().unwrap();
        let of_worker =
            HitRegion::attach(hits.fd().try_clone_to_owned().unwrap(), Access::ReadWrite).unwrap();
        let region = TableRegion::create(1, false).unwrap();
        let reader = region.fd().try_clone_to_owned().unwrap();
        let reader = TableRegion::attach(reader, Access::ReadOnly).unwrap().with_hits(hits);
        let memory = region.with_hits(of_worker);
        let mut table = TableWriter::create_with(memory, 1, 5, Third::default()).unwrap();
        let reader = TableReader::attach(reader).unwrap();
        for key in [&b"worker"[..], b"reader", b"front"] {
            let set = Mutation::new(key, Op::Set(b"value"));
            table.apply(table.hash(key), &set, 1).unwrap();
        }
        for _ in 0..5 {
            for (ring, key) in [
                (WORKER_HIT_RING, &b"worker"[..]),
                (READER_HIT_RING, b"reader"),
                (FRONT_HIT_RING, b"front"),
            ] {
                reader.tell(ring, key);
            }
            // Of a key that is not there.
            reader.tell(WORKER_HIT_RING, b"nothing");
            table.fold_sampled(1);
        }
        let counts = table.counts();
        let counted = [
            counts.sampled_workers_count,
            counts.sampled_readers_count,
            counts.sampled_front_count,
        ];
        assert_eq!((counted, counts.sampled_stray_count), ([5, 5, 5], 5));
        let Third { asked, shown } = table.hot_mut();
        assert_eq!(*asked, vec![b"worker".to_vec(); 5]);
        assert_eq!(*shown, [(b"worker".to_vec(), b"value".to_vec())]);
    }

    #[test]
    fn any_entry_leaves_the_table_whole() {
        let (mut table, reader) = table();
        for number in 0..2_000 {
            // Of several cells: most cells are none of an item's first.
            put(&mut table, &key(number), &[b'v'; 300]).unwrap();
        }
        let mut state = 9_u64;
        let hits = reader.memory.sampled_hits().unwrap();
        for number in 0..200_000_u64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let own = KeyHash::new(5, &key(number as u32 % 3_000)).bits();
            let hash = match number % 4 {
                0 => state,
                // Right bucket and tag, and another hash; the hash of a key that was evicted.
                1 => own ^ 1 << 20,
                2 => own,
                _ => number,
            };
            hits.push(number as usize, hash);
            if number % 8 == 0 {
                table.fold_sampled(1);
            }
        }
        assert!(table.counts().sampled_stray_count > 1_000);
        assert_eq!(check(table.memory().words()).map(|_| ()), Ok(()));
        let mut out = [0; 300];
        let whole = (0..2_000).filter(|&n| reader.get(&key(n), 1, &mut out).is_ok());
        assert!(whole.count() > 1_000 && out == [b'v'; 300]);
    }

    #[test]
    fn a_flood_in_one_ring_leaves_room_for_the_others() {
        let (mut table, reader) = table();
        put(&mut table, b"mine", b"v").unwrap();
        for _ in 0..1_000 {
            let hits = reader.memory.sampled_hits().unwrap();
            (0..20).for_each(|_| hits.push(3, 1));
            reader.tell(4, b"mine");
            table.fold_sampled(1);
        }
        assert!(table.counts().sampled_readers_count >= 900, "{:?}", table.counts());
        assert!(table.counts().sampled_overruns_count > 0);
    }
}
