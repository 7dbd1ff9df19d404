//! The memfd of one cache.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::layout::LAYOUT_NUMBERS;
use super::words::Words;
use crate::clock::monotonic_ns;
use crate::region::{Access, Region, RegionError, RegionSpec, layout_hash};
use crate::sampled_hits::HitRegion;
use crate::sync::AtomicU64;

/// Marks a region as a cache.
pub const CACHE_MAGIC: u64 = u64::from_le_bytes(*b"NE-CACHE");

/// Where the table starts: the second page, so that its cells are aligned to 128 bytes.
const TABLE_OFFSET_BYTES: usize = 4096;

/// A cache's memory: one memfd for the workers that write it and the readers on this host. Owned by
/// the supervisor, which beats its heartbeat; the active worker is the writer of what is inside.
#[derive(Debug)]
pub struct TableRegion {
    region: Region,
    hits: Option<HitRegion>,
}

impl TableRegion {
    /// Reserves `max_memory_mb` MiB, all that the cache will ever use, in transparent huge pages where
    /// the kernel has them ([`Region::collapse`]) and in reserved ones with `huge_pages`. Lay a table out in it with
    /// [`super::TableWriter::create`].
    pub fn create(max_memory_mb: u32, huge_pages: bool) -> Result<Self, RegionError> {
        let bytes = (max_memory_mb.max(1) as usize) << 20;
        let region = Region::create(c"nautilus-cache", &spec(bytes, huge_pages))?;
        if !huge_pages {
            // A look-up is one bucket and one cell anywhere in the table: with small pages each costs
            // a walk of the page table. A table without huge pages is as good, only slower.
            region.collapse();
        }
        region.beat(monotonic_ns())?;
        Ok(Self { region, hits: None })
    }

    /// Maps the cache behind a received descriptor; its size is that of the file.
    pub fn attach(fd: OwnedFd, access: Access) -> Result<Self, RegionError> {
        // Not by name: a process that changed its user cannot look into its own /proc/self/fd.
        let file = File::from(fd);
        let bytes = file.metadata().map_err(RegionError::Examine)?.len() as usize;
        let fd = OwnedFd::from(file);
        let least_bytes = 1 << 20;
        if bytes < least_bytes {
            return Err(RegionError::TooSmall { expected_bytes: least_bytes, actual_bytes: bytes });
        }
        Ok(Self { region: Region::attach(fd, &spec(bytes, false), access)?, hits: None })
    }

    /// With the memory in which readers tell of their hits. It is another memfd: what readers may write is
    /// nothing of the table's.
    pub fn with_hits(self, hits: HitRegion) -> Self {
        Self { hits: Some(hits), ..self }
    }

    /// The descriptor, for a worker.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.region.fd()
    }

    /// A descriptor for readers; see [`Region::reopen_read_only`].
    pub fn reopen_read_only(&self) -> io::Result<OwnedFd> {
        self.region.reopen_read_only()
    }

    /// Says that the region's owner is alive. Owner only, at least every 250 ms: readers detach after
    /// [`super::DETACHED_AGE_NS`].
    pub fn beat(&self, now_ns: u64) -> Result<(), RegionError> {
        self.region.beat(now_ns)
    }

    /// The region under the table.
    pub fn region(&self) -> &Region {
        &self.region
    }
}

/// Changes with any change of a table's layout.
pub fn table_layout_hash() -> u64 {
    layout_hash(&LAYOUT_NUMBERS)
}

pub(super) fn spec(bytes: usize, huge_pages: bool) -> RegionSpec {
    let layout_hash = table_layout_hash();
    RegionSpec { magic: CACHE_MAGIC, layout_version: 2, layout_hash, bytes, huge_pages }
}

impl Words for TableRegion {
    fn words(&self) -> &[AtomicU64] {
        // SAFETY: `TableReader` does not store and loads relaxed only; `TableWriter` refuses memory
        // that is not writable.
        unsafe { self.region.words_unwritten(TABLE_OFFSET_BYTES) }
    }

    fn heartbeat_ns(&self) -> Option<u64> {
        Some(self.region.heartbeat_ns())
    }

    fn writable(&self) -> bool {
        self.region.access() == Access::ReadWrite
    }

    fn sampled_hits(&self) -> Option<&HitRegion> {
        self.hits.as_ref()
    }
}

#[cfg(all(test, not(loom), not(miri)))]
mod tests {
    use std::process::{Command, Stdio};

    use super::super::kill_test::{Random, assert_between, contents};
    use super::super::*;
    use super::*;

    #[test]
    fn a_reader_of_another_mapping_reads_and_cannot_write() {
        let region = TableRegion::create(1, false).unwrap();
        let fd = region.reopen_read_only().unwrap();
        let mut table = TableWriter::create(region, 1, 1).unwrap();
        let reader = TableRegion::attach(fd, Access::ReadOnly).unwrap();
        let reader = TableReader::attach(reader).unwrap();
        let now_ns = monotonic_ns();
        model_test::put(&mut table, b"key", b"value").unwrap();
        let mut out = [0; 8];
        assert_eq!(reader.get(b"key", now_ns, &mut out).unwrap().value_bytes, 5);
        assert_eq!(&out[..5], b"value");
        let late_ns = now_ns + DETACHED_AGE_NS + 1_000_000;
        assert_eq!(reader.get(b"key", late_ns, &mut out), Err(ReadError::Detached));
        table.memory().beat(late_ns).unwrap();
        assert!(reader.get(b"key", late_ns, &mut out).is_ok());
        let fd = table.memory().reopen_read_only().unwrap();
        let read_only = TableRegion::attach(fd, Access::ReadOnly).unwrap();
        assert_eq!(TableWriter::attach(read_only).err(), Some(LayoutError::ReadOnly));
    }

    const CHILD_SEED: &str = "NAUTILUS_TABLE_CHILD_SEED";
    const STEPS: u64 = 4000;

    fn keys() -> Vec<Vec<u8>> {
        (0..900).map(|key| format!("key{key}").into_bytes()).collect()
    }

    /// The steps of a seed. Values of up to 8,000 bytes fill the one-MiB table many times over.
    fn steps(seed: u64) -> impl Iterator<Item = kill_test::Step> {
        let keys = keys();
        let mut random = Random(seed);
        (0..STEPS).map(move |_| random.step(&keys, 8000))
    }

    /// The killed process: runs the steps on the region that is its standard input and says so.
    #[test]
    #[ignore = "the process that the next test starts and kills"]
    fn child() {
        use std::io::Write;
        use std::os::fd::AsFd;
        let Ok(seed) = std::env::var(CHILD_SEED) else { return };
        let fd = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
        let region = TableRegion::attach(fd, Access::ReadWrite).unwrap();
        let mut table = TableWriter::attach(region).unwrap();
        let mut out = std::io::stderr();
        let stores = seed.parse::<u64>().unwrap().wrapping_mul(0x9e37_79b9) % 400_000;
        let outcome = crate::sync::kill_after(stores, || {
            for step in steps(seed.parse().unwrap()) {
                step.run(&mut table);
                out.write_all(b"+").unwrap();
            }
        });
        if outcome == crate::sync::Outcome::Killed {
            // SAFETY: a signal to this process; nothing of it runs any more.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        }
    }

    #[test]
    fn a_process_killed_with_sigkill_loses_nothing_it_acknowledged() {
        use std::io::Read;
        let rounds = std::env::var("NAUTILUS_TABLE_KILLS").map_or(24, |text| text.parse().unwrap());
        let region = TableRegion::create(1, false).unwrap();
        let owner =
            TableRegion::attach(region.fd().try_clone_to_owned().unwrap(), Access::ReadWrite);
        drop(TableWriter::create(region, 1, 1).unwrap());
        let region = owner.unwrap();
        let keys = keys();
        let copy = |words: &[AtomicU64]| -> Box<[AtomicU64]> {
            words
                .iter()
                .map(|word| AtomicU64::new(word.load(crate::sync::Ordering::Relaxed)))
                .collect()
        };
        let mut killed = 0;
        for seed in 1..=rounds {
            let mut model = TableWriter::attach(copy(region.words())).unwrap();
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--ignored", "--exact", "--nocapture", "table::region::tests::child"])
                .env(CHILD_SEED, seed.to_string())
                .stdin(region.fd().try_clone_to_owned().unwrap())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut stderr = child.stderr.take().unwrap();
            if seed % 2 == 0 {
                // At a time of nobody's choice; the odd ones stop at a chosen store.
                std::thread::sleep(std::time::Duration::from_micros(3_000 + seed * 977 % 9_000));
                child.kill().unwrap();
            }
            let status = child.wait().unwrap();
            killed += u64::from(!status.success());
            let mut acknowledged = Vec::new();
            stderr.read_to_end(&mut acknowledged).unwrap();
            assert!(acknowledged.iter().all(|&byte| byte == b'+'), "the child failed");
            let mut steps = steps(seed);
            for step in steps.by_ref().take(acknowledged.len()) {
                step.run(&mut model);
            }
            let repaired =
                TableRegion::attach(region.fd().try_clone_to_owned().unwrap(), Access::ReadWrite);
            drop(TableWriter::attach(repaired.unwrap()).unwrap());
            if let Err(error) = check(region.words()) {
                panic!("seed {seed}, {} steps: {error}", acknowledged.len());
            }
            // The region's heartbeat is not this test's subject.
            let words = copy(region.words());
            let before = contents(model.memory(), &keys);
            let Some(step) = steps.next() else { continue };
            let evictions = model.counts().evictions_count;
            step.run(&mut model);
            let evicts = model.counts().evictions_count > evictions;
            let after = contents(model.memory(), &keys);
            assert_between(step.key(), (&before, &contents(&words, &keys), &after), evicts);
        }
        assert!(killed * 2 >= rounds, "{killed} of {rounds} children were killed");
    }
}
