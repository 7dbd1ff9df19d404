//! B3: what a receive burst costs the worker in heap allocations and system calls.
//!
//! The worker is the product's, with an allocator that counts; its system calls are counted from
//! outside by the kernel. One node polls the rings alone, one uses preferred busy polling, where each
//! turn makes one `recvfrom`. TX wake-ups (`sendto`, one a TX batch) are counted apart.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use nautilus_control::attach;
use nautilus_control::snapshot::Snapshot;
use nautilus_shm::metrics::table::{LOOPS, LOOPS_IDLE};
use nautilus_tests::lab::binary;

use crate::allocations::MARK;
use crate::clock::{GENERATOR_CORE, pin};
use crate::generator::window::Window;
use crate::run::{Bench, Half};
use crate::stage::{self, Side, Stage};
use crate::syscalls::Syscalls;
use crate::traffic::{Echo, Get, Load};

const ECHO_PORT: u16 = 7_007;
const CACHE_PORT: u16 = 11_211;
const KEYS: u64 = 10_000;

/// Times the keys are stored at most. Too low: a machine that is busy for seconds voids the row.
const LOADS_MAX: u32 = 5;

/// The row.
pub struct B3 {
    stage: Stage,
    run_dirs: [PathBuf; 2],
    duration_ns: u64,
}

/// What one node did in one interval.
struct Cost {
    allocations: f64,
    syscalls: f64,
    wakeups: f64,
    held_share: f64,
}

/// Stores every key; where something is lost on the way, or it takes too long, all of it is stored again: a key
/// that is missing would be a wrong answer later.
fn load(side: &mut Side) -> anyhow::Result<()> {
    let mut load = Load { keys: KEYS };
    let count = load.datagrams();
    let window = Window { outstanding: 16, duration_ns: 10_000_000_000, count, mirrored: false };
    let mut flow = side.flow;
    flow.server.set_port(CACHE_PORT);
    for _ in 0..LOADS_MAX {
        let outcome = window.run(&mut side.wire, &flow, &mut load)?;
        if outcome.wrong == 0 && outcome.lost == 0 && outcome.sent == count {
            return Ok(());
        }
        eprintln!("B3: loaded again: {outcome:?}");
    }
    anyhow::bail!("{KEYS} keys cannot be stored: requests are lost each time")
}

impl B3 {
    /// Starts a node in either mode.
    pub fn set_up(quick: bool) -> anyhow::Result<Self> {
        let supervisor = stage::supervisor()?;
        let worker = binary("nautilus-bench-worker");
        anyhow::ensure!(worker.exists(), "{} is not built", worker.display());
        let worker = format!("[worker]\nprogram = {worker:?}\n");
        let mut stage = Stage::new()?;
        let mut run_dirs = Vec::new();
        for port in ["[port]\n", "[port]\nprefer_busy_poll = true\n"] {
            let number = stage.link(ECHO_PORT)?;
            let run_dir = stage.start_node(number, &supervisor, |file| {
                file.to_toml().replacen("[worker]\n", &worker, 1).replacen("[port]\n", port, 1)
            })?;
            stage.only(number);
            stage.wait_ready(number, &mut Echo { bytes: 64 }, false)?;
            load(stage.side(number))?;
            run_dirs.push(run_dir);
        }
        let run_dirs = run_dirs.try_into().map_err(|_| anyhow::anyhow!("two nodes"))?;
        // Not before: what is started inherits the cores it may use.
        pin(GENERATOR_CORE)?;
        Ok(Self { stage, run_dirs, duration_ns: if quick { 600_000_000 } else { 2_000_000_000 } })
    }

    fn cost(&mut self, number: usize) -> anyhow::Result<Cost> {
        self.stage.only(number);
        let run_dir = self.run_dirs[number].clone();
        let pid = active(&run_dir)?.0;
        let all = Syscalls::of(pid, None)?;
        let sends = Syscalls::of(pid, Some(libc::SYS_sendto))?;
        let allocated = self.allocations(number, pid)?;
        // Turns are read before the counters start and after they stop, so that every call counted
        // belongs to a turn counted.
        let before = active(&run_dir)?;
        all.start()?;
        sends.start()?;
        let half_ns = self.duration_ns / 2;
        let window =
            Window { outstanding: 64, duration_ns: half_ns, count: u64::MAX, mirrored: false };
        let side = self.stage.side(number);
        let echo = window.run(&mut side.wire, &side.flow, &mut Echo { bytes: 64 })?;
        let mut flow = side.flow;
        flow.server.set_port(CACHE_PORT);
        let get = window.run(&mut side.wire, &flow, &mut Get::new(KEYS, 11))?;
        sends.stop()?;
        all.stop()?;
        echo.check("echo")?;
        get.check("get")?;
        let after = settled(&run_dir)?;
        anyhow::ensure!(after.0 == pid, "the worker was replaced while it was measured");
        let allocations = self.allocations(number, pid)? - allocated;
        let (all, sends) = (all.count()?, sends.count()?);
        // Only turns that received something are bursts; in preferred busy polling every turn asks
        // the driver, so every turn is one.
        let busy = (after.1 - before.1) - (after.2 - before.2);
        let bursts = if number == 0 { busy } else { after.1 - before.1 };
        anyhow::ensure!(bursts > 1_000, "only {bursts} bursts: the load did not reach the worker");
        eprintln!(
            "B3 side {number}: {bursts} bursts, {allocations} allocations, {all} system calls, \
             {sends} of them sendto"
        );
        let per_burst = |count: u64| count as f64 / bursts as f64;
        Ok(Cost {
            allocations: per_burst(allocations),
            syscalls: per_burst(all - sends),
            wakeups: per_burst(sends),
            held_share: echo.held_share.max(get.held_share),
        })
    }

    /// What the worker's second thread wrote last, after it had time to write again.
    fn allocations(&self, number: usize, pid: u32) -> anyhow::Result<u64> {
        std::thread::sleep(Duration::from_millis(200));
        let log = std::fs::read_to_string(self.stage.log(number))?;
        let mark = format!("worker {pid} {MARK}");
        let count = log.lines().rev().find_map(|line| line.split_once(&mark)?.1.parse().ok());
        count.with_context(|| format!("worker {pid} does not say how often it allocates"))
    }
}

/// Process id, turns and idle turns of the active worker.
fn active(run_dir: &Path) -> anyhow::Result<(u32, u64, u64)> {
    let snapshot = Snapshot::take(&attach::attach(run_dir)?.region);
    let worker = snapshot.active().context("no worker is active")?;
    let metrics = &worker.metrics;
    Ok((worker.identity.pid, metrics.counter(LOOPS), metrics.counter(LOOPS_IDLE)))
}

/// The same once the worker has published its turns again.
fn settled(run_dir: &Path) -> anyhow::Result<(u32, u64, u64)> {
    let (start, first) = (Instant::now(), active(run_dir)?);
    while start.elapsed() < Duration::from_secs(2) {
        let now = active(run_dir)?;
        if now.1 != first.1 {
            return Ok(now);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    anyhow::bail!("the worker publishes no turns")
}

impl Bench for B3 {
    fn sides(&self) -> Vec<String> {
        vec!["nautilus xdp".into()]
    }

    fn peer_of(&self, _measure: usize) -> Option<usize> {
        None
    }

    fn half(&mut self, _side: usize) -> anyhow::Result<Half> {
        let (busy, preferred) = (self.cost(0)?, self.cost(1)?);
        let values = [&busy, &preferred]
            .iter()
            .flat_map(|cost| [cost.allocations, cost.syscalls, cost.wakeups].map(Some))
            .collect();
        let held_share = busy.held_share.max(preferred.held_share);
        Ok(Half { values, held_share, ..Half::default() })
    }
}
