//! All ways to a node's cache at once, judged as one history.
//!
//! ```text
//!   writers (UDP, TCP, REST)                          +-- XDP, hot keys --+
//!   readers, every way ----+--> node in a lab of its -+-- worker ---------+--> cache table
//!   kills (worker, front, -+    own, hot set, front   +-- front, TCP -----+
//!        | control)                                   +-- shared memory --+
//!        |                        control, REST ------+-- both of these --+
//!        +--> one history file, one clock --> check: one order a key
//! ```
//!
//! Nothing is evicted and no deadline falls into the run, so a miss after an acknowledged write is a
//! violation like a stale value. How many reads XDP answered is told by the program's own counter.
//! `nautilus-coherence` is this as a command; owner of the lab it starts.

mod ask;
mod clients;
mod deadlines;
mod kills;
mod measured;
mod outcome;
mod paths;
mod rest;
mod tcp;
pub mod text;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::panic::resume_unwind;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::history::{self, Recorder};
use crate::lab::node_file::CACHE_PORT;
use crate::lab::{Folder, Lab, RunId, attach};
use crate::wait::wait_until;

pub use ask::{Answer, Ask, FAR_SECONDS, Form};
pub use deadlines::Deadlines;
pub use kills::{Kill, Victim};
pub use measured::Measured;
pub use outcome::Outcome;
pub use paths::{Counts, Path, Place};
pub use tcp::Connection;

use clients::Run;
use measured::Counted;
use paths::{Paths, Ways};

/// Memory of the cache, for everything a run can write.
const MEMORY_MB: u32 = 128;

/// Clients that change keys, and by which way.
const WRITERS: [Path; 6] =
    [Path::Worker, Path::Front, Path::Worker, Path::Front, Path::Rest, Path::Rest];

/// Clients that read by every way.
const READERS: u32 = 4;

/// Flows of the probe to one of several workers: which worker a flow comes to is the kernel's choice.
const FLOWS_A_WORKER: usize = 4;

/// How long the node has to come up, all ways of it.
const READY_MAX: Duration = Duration::from_secs(20);

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How long clients are at work, at least.
    pub duration: Duration,
    /// Workers of the node, a queue each; they divide the keys.
    pub workers: u32,
    /// Workers and fronts to be killed meanwhile; the run is as long as they take.
    pub kills: u32,
    /// Of every choice a client makes.
    pub seed: u64,
}

/// Starts a node, turns the clients on it, and judges what they saw. The history is left in the file
/// `history`, which must not be there yet. `stop` ends the run early, and well.
pub fn run(
    plan: &Plan,
    run: RunId,
    history_file: &FilePath,
    stop: &AtomicBool,
) -> anyhow::Result<Outcome> {
    let folder = Arc::new(Folder::create(run)?);
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
    let mut lab = Lab::start(folder, run, 1, |_, _, file| {
        file.cache_memory_mb = MEMORY_MB;
        (file.workers, file.queues) = (plan.workers, plan.workers);
        Ok(())
    })?;
    lab.start_control()?;
    let node = &lab.nodes()[0];
    let socket = lab.control_socket();
    let cache = SocketAddr::new(node.member.address.v4().into(), CACHE_PORT);
    let place = Place { cache, run_dir: &node.run_dir, control: &socket };
    let region = attach(&node.run_dir)?;
    wait_until("the front serves", READY_MAX, || {
        lab.client().namespace.run(|| Connection::open(cache).is_ok())
    })?;
    let recorder = Recorder::open(history_file)?;
    let all = (0..WRITERS.len() as u32 + READERS + 1)
        .map(|number| lab.client().namespace.run(|| Paths::open(&place, &recorder, number)));
    let mut all = all.collect::<anyhow::Result<Vec<Paths>>>()?;
    let mut last = all.pop().expect("one for the end");
    let mut ways = lab.client().namespace.run(|| Ways::open(&place))?;
    let clients = Run {
        begin: Instant::now(),
        stop: false.into(),
        flushes: plan.kills == 0,
        flushes_count: 0.into(),
    };
    let before = Counted::of(&region);
    let flows = if plan.workers == 1 { 1 } else { FLOWS_A_WORKER * plan.workers as usize };
    let (mut counts, deadlines, killed, probed) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0_u32..)
            .zip(all)
            .map(|(number, paths)| {
                let (run, namespace) = (&clients, &lab.client().namespace);
                let seed = plan.seed ^ u64::from(number) << 32;
                let work = move || {
                    let _inside = namespace.enter().expect("the lab's own namespace");
                    match WRITERS.get(number as usize) {
                        Some(way) => {
                            clients::write_on(run, paths, seed, u64::from(number) + 1, *way)
                        }
                        None => clients::read_on(run, paths, seed),
                    }
                };
                scope.spawn(work)
            })
            .collect();
        let deadlines = scope.spawn(|| {
            let look = || deadlines::look_on(&clients, &mut ways, plan.seed);
            lab.client().namespace.run(look)
        });
        let probe = (plan.kills > 0).then(|| {
            scope.spawn(|| lab.client().namespace.run(|| kills::probe(cache, flows, &clients.stop)))
        });
        let killed = match lab.control() {
            Some(control) => {
                kills::kill_on(&node.run_dir, control, plan.workers, plan.kills, plan.seed)
            }
            None => Ok(Vec::new()),
        };
        while clients.begin.elapsed() < plan.duration && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
        clients.stop.store(true, Ordering::Relaxed);
        let mut counts = Counts::default();
        for thread in threads {
            counts.add(thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        let probed = probe.map(|probe| probe.join().unwrap_or_else(|panic| resume_unwind(panic)));
        let deadlines = deadlines.join().unwrap_or_else(|panic| resume_unwind(panic));
        (counts, deadlines, killed, probed.unwrap_or_else(|| Ok(Vec::new())))
    });
    let took = clients.begin.elapsed();
    // The supervisor copies the program's counters now and then.
    std::thread::sleep(Duration::from_millis(300));
    let measured = before.until(&Counted::of(&region));
    lab.client().namespace.run(|| clients::read_all(&clients, &mut last));
    counts.add(last.into_counts());
    let (killed, probed) = (killed?, probed?);
    drop(lab);
    let history = history::read(history_file)?;
    Ok(Outcome::new(took, counts, deadlines, measured, (&killed, &probed), &history))
}
