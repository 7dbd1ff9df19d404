//! A wire between two namespaces that harms packets: `nautilus-fault` in a namespace of its own.
//!
//! ```text
//!   first (a.0: a.1) ───veth─── in [ne<run>-<name>-wire: nautilus-fault] out ───veth─── second (b.0: b.1)
//! ```
//!
//! Forward is from the first to the second. Each far end needs an XDP program, or nothing that is redirected
//! arrives there; [`Wire::pass_on_first`] and [`Wire::pass_on_second`] attach one where no other will be.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::{End, LabError, NetNs, Process, RunId, VethPair, at, binary};
use crate::wait::wait_until;

/// How long the programs may take to be loaded and attached.
const CONNECTED_MAX: Duration = Duration::from_secs(15);

/// Names of its interfaces, inside.
const IN: &str = "in";
const OUT: &str = "out";

/// A connected wire. Dropping it cuts it.
#[derive(Debug)]
pub struct Wire {
    process: Process,
    first: VethPair,
    second: VethPair,
    namespace: Arc<NetNs>,
    name: String,
    faults: PathBuf,
    log: PathBuf,
}

/// What became of a line's packets, as `nautilus-fault --json` says it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct WireLine {
    /// Its name in the fault file.
    pub name: String,
    /// Came.
    pub received: u64,
    /// Went on, each once.
    pub passed: u64,
    /// Lost on purpose.
    pub lost: u64,
    /// Bursts of losses.
    pub bursts: u64,
    /// Had one bit turned.
    pub corrupted: u64,
    /// Went on twice.
    pub duplicated: u64,
    /// Were overtaken.
    pub reordered: u64,
    /// Were held.
    pub held: u64,
    /// Found no room to be held in.
    pub queue_full: u64,
    /// Were not let go of before the end.
    pub waiting: u64,
    /// Shortest time that one was held.
    pub held_ns_min: u64,
    /// All of them together by their number.
    pub held_ns_mean: u64,
    /// Longest.
    pub held_ns_max: u64,
}

/// A number for each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Ways<T> {
    /// From the first to the second.
    pub forward: T,
    /// From the second to the first.
    pub back: T,
}

/// What became of all packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct WireReport {
    /// By line, in the file's order.
    pub lines: Vec<WireLine>,
    /// Packets of no line.
    pub others: Ways<u64>,
    /// Packets that the interface a way leads to did not take.
    pub undelivered: Ways<Option<u64>>,
}

impl Wire {
    /// Connects interface `a.1` of namespace `a.0` with `b.1` of `b.0`, both of which it makes, and harms what
    /// passes as the file `faults` says. What the program says is appended to `log`.
    pub fn connect(
        run: RunId,
        name: &str,
        a: (&Arc<NetNs>, &str),
        b: (&Arc<NetNs>, &str),
        faults: &Path,
        log: PathBuf,
    ) -> Result<Self, LabError> {
        let namespace = Arc::new(NetNs::create(run, &format!("{name}-wire"))?);
        // Its own kernel says nothing.
        namespace.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        let first = VethPair::create(a, (&namespace, IN))?;
        let second = VethPair::create(b, (&namespace, OUT))?;
        let process = start(run, &namespace, faults, &log)?;
        let (name, faults) = (name.to_owned(), faults.to_owned());
        let mut wire = Self { process, first, second, namespace, name, faults, log };
        wire.wait_connected()?;
        Ok(wire)
    }

    fn wait_connected(&mut self) -> Result<(), LabError> {
        let mut said = String::new();
        let waited = wait_until("the wire connects", CONNECTED_MAX, || {
            said = std::fs::read_to_string(&self.log).unwrap_or_default();
            said.contains("are connected") || self.process.ended().is_some()
        });
        if waited.is_err() || self.process.ended().is_some() {
            return Err(self.problem(said.trim()));
        }
        Ok(())
    }

    fn problem(&self, said: &str) -> LabError {
        LabError::Wire { name: self.name.clone(), problem: said.to_owned() }
    }

    /// Attaches a program that passes everything to the first far end.
    pub fn pass_on_first(&mut self) -> Result<(), LabError> {
        self.first.pass_on(End::First)
    }

    /// The same at the second far end.
    pub fn pass_on_second(&mut self) -> Result<(), LabError> {
        self.second.pass_on(End::First)
    }

    /// The link to the first far end.
    pub fn first(&self) -> &VethPair {
        &self.first
    }

    /// The link to the second.
    pub fn second(&self) -> &VethPair {
        &self.second
    }

    /// Its fault file.
    pub fn faults(&self) -> &Path {
        &self.faults
    }

    /// Where the program runs.
    pub fn namespace(&self) -> &Arc<NetNs> {
        &self.namespace
    }

    /// The program.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Cuts the wire and says what became of its packets.
    pub fn cut(&mut self) -> Result<WireReport, LabError> {
        let status = self.process.terminate();
        let said = at(&self.log, std::fs::read_to_string(&self.log))?;
        let last = said.lines().last().unwrap_or_default();
        match serde_json::from_str(last) {
            Ok(report) if status.success() => Ok(report),
            _ => Err(self.problem(&format!("{status}: {}", said.trim()))),
        }
    }
}

fn start(run: RunId, namespace: &NetNs, faults: &Path, log: &Path) -> Result<Process, LabError> {
    let faults = faults.to_string_lossy();
    let arguments = ["--in", IN, "--out", OUT, "--file", &*faults, "--json"];
    Process::start(run, namespace, binary("nautilus-fault"), arguments, log)
}
