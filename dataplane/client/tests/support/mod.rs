//! A node in this process: the supervisor's own answers over a real socket and a real memory, and the
//! writer of its table in the test's hand. No namespaces, no privilege.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nautilus_dataplane::supervisor::attach::{
    Access, Answer, Readers, Reply, cache_answer, hits_answer,
};
use nautilus_dataplane::supervisor::run_dir::RunDir;
use nautilus_shm::attach::{Ask, SUPERVISOR_SOCKET};
use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::region;
use nautilus_shm::sampled_hits::HitRegion;
use nautilus_shm::table::{ApplyError, Mutation, Op, TableRegion, TableWriter};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub const CACHE: &str = "quotes";

pub struct Host {
    pub table: TableWriter<TableRegion>,
    folder: tempfile::TempDir,
    memory: Arc<Mutex<TableRegion>>,
    beats: Arc<AtomicBool>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    megabytes: u32,
    versions: u64,
}

fn memory(megabytes: u32, versions: u64) -> (TableRegion, TableWriter<TableRegion>) {
    let region = TableRegion::create(megabytes, false).unwrap();
    let copy = region.fd().try_clone_to_owned().unwrap();
    let copy = TableRegion::attach(copy, region::Access::ReadWrite).unwrap();
    let hits = HitRegion::create().unwrap();
    let of_worker = hits.fd().try_clone_to_owned().unwrap();
    let of_worker = HitRegion::attach(of_worker, region::Access::ReadOnly).unwrap();
    let (region, copy) = (region.with_hits(hits), copy.with_hits(of_worker));
    let mut table = TableWriter::create(copy, 1, monotonic_ns()).unwrap();
    table.begin_versions(versions);
    (region, table)
}

impl Host {
    pub fn start(megabytes: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let run_dir = RunDir::take(&folder.path().join("run")).unwrap();
        let listener = run_dir.listen(&run_dir.path().join(SUPERVISOR_SOCKET), 0o666).unwrap();
        let uid = nix::unistd::geteuid().as_raw();
        let access =
            Access { control_uid: 0, own_uid: uid, caches: vec![(CACHE.into(), Vec::new())] };
        let mut readers = Readers::new(listener, access, 1);
        let versions = 1 << 40;
        let (region, table) = memory(megabytes, versions);
        let memory = Arc::new(Mutex::new(region));
        let (beats, ends) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let shared = (memory.clone(), beats.clone(), ends.clone());
        let thread = std::thread::spawn(move || {
            let (memory, beats, ends) = shared;
            while !ends.load(Ordering::Relaxed) {
                let ready: Vec<bool> = {
                    let (listener, connections) = readers.fds();
                    let mut fds: Vec<PollFd<'_>> = std::iter::once(listener)
                        .chain(connections)
                        .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
                        .collect();
                    poll(&mut fds, PollTimeout::from(5_u8)).unwrap();
                    fds.iter().map(|fd| fd.any().unwrap()).collect()
                };
                let memory = memory.lock().unwrap();
                for index in (1..ready.len()).rev().filter(|index| ready[*index]) {
                    readers.answer(index - 1, |ask, _| match ask {
                        Ask::Cache(name) => cache_answer(name, Some(&memory)).map(Reply::Give),
                        Ask::Hits(name) => hits_answer(name, Some(&memory)).map(Reply::Give),
                        _ => Ok(Reply::Give(Answer::default())),
                    });
                }
                if ready[0] {
                    readers.accept();
                }
                if beats.load(Ordering::Relaxed) {
                    memory.beat(monotonic_ns()).unwrap();
                }
            }
            run_dir.clear();
        });
        Self { table, folder, memory, beats, ends, thread: Some(thread), megabytes, versions }
    }

    pub fn run_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    pub fn put(&mut self, key: &[u8], value: &[u8]) -> u64 {
        self.put_as(key, value, 0)
    }

    /// Channel 0 is the clients'.
    pub fn put_as(&mut self, key: &[u8], value: &[u8], channel: u8) -> u64 {
        self.put_until(key, value, channel, 0)
    }

    pub fn put_until(&mut self, key: &[u8], value: &[u8], channel: u8, expiry_ns: u64) -> u64 {
        let set = Mutation { flags: 7, expiry_ns, channel, ..Mutation::new(key, Op::Set(value)) };
        self.apply(&set).unwrap()
    }

    pub fn delete(&mut self, key: &[u8]) {
        self.apply(&Mutation::new(key, Op::Delete)).unwrap();
    }

    fn apply(&mut self, mutation: &Mutation<'_>) -> Result<u64, ApplyError> {
        self.table.apply(self.table.hash(mutation.key), mutation, monotonic_ns())
    }

    /// Its supervisor falls silent long ago, or is heard again.
    pub fn set_alive(&self, alive: bool) {
        self.beats.store(alive, Ordering::Relaxed);
        // After the loop, which may be between the look at `beats` and its beat.
        let memory = self.memory.lock().unwrap();
        memory.beat(if alive { monotonic_ns() } else { 0 }).unwrap();
    }

    /// The node starts anew: another memory, whose versions begin as the supervisor has them begin.
    pub fn start_anew(&mut self) {
        self.set_alive(false);
        self.versions += 1 << 30;
        let (region, table) = memory(self.megabytes, self.versions);
        region.beat(monotonic_ns()).unwrap();
        *self.memory.lock().unwrap() = region;
        self.table = table;
        self.beats.store(true, Ordering::Relaxed);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The folder of the libraries that this test's build made.
pub fn library_folder() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let deps = program.parent().unwrap();
    assert!(deps.join("libnautilus_client.so").exists(), "{} has no library", deps.display());
    deps.to_owned()
}

/// Polls until `predicate` holds.
pub fn wait_until(what: &str, mut predicate: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while !predicate() {
        assert!(std::time::Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A folder of this package.
pub fn package(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
