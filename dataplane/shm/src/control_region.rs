//! The control region: everything the processes of a node tell each other about the node itself.
//!
//! One memfd. `README.md` beside this crate maps it with its writers and readers. The supervisor
//! makes it; workers get a writable descriptor and write only what is theirs; control, `nautilus top`
//! and other readers get a read-only one and see it through [`ControlReader`], which has no way to
//! write.

use std::ffi::CStr;
use std::mem::offset_of;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::{fmt, io};

use crate::attach::CACHES_MAX;
use crate::cache_cell::{CacheCell, CacheIdentity};
use crate::cells::{SupervisorCell, WorkerCell};
use crate::event_log::{EventBatch, EventLog};
use crate::histogram::{HISTOGRAM_BUCKETS, Histogram, HistogramSnapshot};
use crate::kill_switch::{KillSwitch, KillSwitchState};
use crate::metrics::{METRIC_SLOTS, MetricBank, MetricSlots, MetricSnapshot, Owner, table_hash};
use crate::next_hops::{Address, NextHopTable};
use crate::region::{
    Access, REGION_HEADER_BYTES, Region, RegionError, RegionSpec, layout_hash, layout_hash_bytes,
};
use crate::shared::{Padded, Shared};
use crate::spsc::Ring;
use crate::sync::{AtomicU64, Ordering};

/// Worker process slots of a node: active ones, standbys, and room for more queues.
pub const WORKERS_MAX: usize = 16;

/// Metric banks and histogram sets: one a worker slot, then the supervisor's, the front's and the capture
/// process's.
pub const PROCESSES_MAX: usize = WORKERS_MAX + 3;

/// The supervisor's bank.
pub const SUPERVISOR_PROCESS: usize = WORKERS_MAX;

/// The front's bank.
pub const FRONT_PROCESS: usize = WORKERS_MAX + 1;

/// The capture process's bank.
pub const CAPTURE_PROCESS: usize = WORKERS_MAX + 2;

/// Neighbour requests a worker can have open. Too low: packets to new peers go unanswered until the
/// supervisor has caught up. Too high: a flood of spoofed sources keeps it busy longer.
pub const NEIGHBOUR_REQUESTS_MAX: usize = 256;

/// A worker's requests to the supervisor: producer the worker, consumer the supervisor.
pub type NeighbourRequests = Ring<NEIGHBOUR_REQUESTS_MAX, 3>;

/// "NAUTCTRL" in the bytes of memory on a little-endian machine.
pub const CONTROL_MAGIC: u64 = u64::from_le_bytes(*b"NAUTCTRL");

/// Counts deliberate changes of the layout.
pub const CONTROL_LAYOUT_VERSION: u32 = 4;

/// One request: resolve this neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourRequest {
    /// Its address, IPv4 as mapped.
    pub address: Address,
    /// The link it should be on.
    pub ifindex: u32,
}

impl NeighbourRequest {
    /// As it lies in the ring.
    pub fn to_words(self) -> [u64; 3] {
        let value = u128::from_be_bytes(self.address);
        [(value >> 64) as u64, value as u64, self.ifindex.into()]
    }

    /// Any words are a request; whether it makes sense is for the supervisor to check.
    pub fn from_words([high, low, ifindex]: [u64; 3]) -> Self {
        let address = ((u128::from(high) << 64) | u128::from(low)).to_be_bytes();
        Self { address, ifindex: ifindex as u32 }
    }
}

/// The histograms of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HistogramId {
    /// From the receive stamp in XDP to the descriptor given to the TX ring.
    XdpToTx = 0,
    /// From the receive stamp in XDP to the book's record in the cache.
    XdpToBook = 1,
    /// Turns of the run loop that did something.
    BusyTurn = 2,
    /// From a worker's death to its successor's first turn.
    PromotionGap = 3,
    /// Looks for packets that took long although there was nothing else to do.
    Stall = 4,
}

/// One histogram's row; values are nanoseconds, exported in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistogramSpec {
    /// Which.
    pub id: HistogramId,
    /// Prometheus name.
    pub name: &'static str,
    /// Who writes it.
    pub owner: Owner,
    /// One line for an operator, without a full stop.
    pub help: &'static str,
}

/// Every histogram, in the order of [`HistogramId`].
pub const HISTOGRAMS: [HistogramSpec; 5] = [
    HistogramSpec {
        id: HistogramId::XdpToTx,
        name: "nautilus_worker_xdp_to_tx_seconds",
        owner: Owner::Worker,
        help: "From the receive stamp in XDP to the transmit ring, per answered packet",
    },
    HistogramSpec {
        id: HistogramId::XdpToBook,
        name: "nautilus_feed_xdp_to_book_seconds",
        owner: Owner::Worker,
        help: "From the receive stamp in XDP to the published record, per feed packet",
    },
    HistogramSpec {
        id: HistogramId::BusyTurn,
        name: "nautilus_worker_busy_turn_seconds",
        owner: Owner::Worker,
        help: "Turns of the run loop that did something",
    },
    HistogramSpec {
        id: HistogramId::PromotionGap,
        name: "nautilus_supervisor_promotion_gap_seconds",
        owner: Owner::Supervisor,
        help: "From a worker's death to its successor's first turn",
    },
    HistogramSpec {
        id: HistogramId::Stall,
        name: "nautilus_worker_stall_seconds",
        owner: Owner::Worker,
        help: "Looks for packets that took 10 us or more with nothing else to do: somebody else had the core",
    },
];

const HISTOGRAMS_COUNT: usize = HISTOGRAMS.len();

/// The region behind its header.
#[repr(C, align(128))]
#[derive(Debug)]
struct Layout {
    supervisor: SupervisorCell,
    kill_switch: KillSwitch,
    confinements: [Padded<AtomicU64>; PROCESSES_MAX],
    workers: [WorkerCell; WORKERS_MAX],
    caches: [CacheCell; CACHES_MAX],
    metrics: [MetricSlots; PROCESSES_MAX],
    cache_metrics: [[MetricSlots; CACHES_MAX]; PROCESSES_MAX],
    histograms: [[Histogram; HISTOGRAMS_COUNT]; PROCESSES_MAX],
    events: EventLog,
    next_hops: NextHopTable,
    neighbour_requests: [NeighbourRequests; WORKERS_MAX],
}

// SAFETY: repr(C) of shared structures only; padding is never read.
unsafe impl Shared for Layout {}

const LAYOUT_HASH: u64 = {
    let mut hash = table_hash(layout_hash(&[
        size_of::<Layout>() as u64,
        offset_of!(Layout, kill_switch) as u64,
        offset_of!(Layout, confinements) as u64,
        offset_of!(Layout, workers) as u64,
        offset_of!(Layout, caches) as u64,
        offset_of!(Layout, metrics) as u64,
        offset_of!(Layout, cache_metrics) as u64,
        offset_of!(Layout, histograms) as u64,
        offset_of!(Layout, events) as u64,
        offset_of!(Layout, next_hops) as u64,
        offset_of!(Layout, neighbour_requests) as u64,
        METRIC_SLOTS as u64,
        HISTOGRAM_BUCKETS as u64,
    ]));
    let mut index = 0;
    while index < HISTOGRAMS.len() {
        assert!(HISTOGRAMS[index].id as usize == index, "histograms are listed in order");
        hash = layout_hash_bytes(hash, HISTOGRAMS[index].name.as_bytes());
        index += 1;
    }
    hash
};

/// What both sides of a control region agree on.
pub const fn control_spec() -> RegionSpec {
    RegionSpec {
        magic: CONTROL_MAGIC,
        layout_version: CONTROL_LAYOUT_VERSION,
        layout_hash: LAYOUT_HASH,
        bytes: REGION_HEADER_BYTES + size_of::<Layout>(),
        huge_pages: false,
    }
}

/// The control region for those who write parts of it: the supervisor and its workers.
///
/// The handles it gives out borrow it. A process that needs them for as long as it lives leaks the
/// region (`Box::leak`): the mapping then ends with the process.
pub struct ControlRegion(Region);

impl ControlRegion {
    /// Makes the region of a new node.
    pub fn create(name: &CStr) -> Result<Self, RegionError> {
        let region = Self(Region::create(name, &control_spec())?);
        region.0.view::<Layout>(REGION_HEADER_BYTES)?;
        Ok(region)
    }

    /// Attaches a worker, or a supervisor that takes the node over, to a writable descriptor.
    pub fn attach_writer(fd: OwnedFd) -> Result<Self, RegionError> {
        let region = Self(Region::attach(fd, &control_spec(), Access::ReadWrite)?);
        region.0.view::<Layout>(REGION_HEADER_BYTES)?;
        Ok(region)
    }

    /// Attaches a reader; works with a read-only descriptor and with any other.
    pub fn attach_reader(fd: OwnedFd) -> Result<ControlReader, RegionError> {
        ControlReader::attach(fd)
    }

    fn layout(&self) -> &Layout {
        self.0.view(REGION_HEADER_BYTES).expect("checked when it was attached")
    }

    /// The region itself: header, descriptor, reopening for readers.
    pub fn region(&self) -> &Region {
        &self.0
    }

    /// The descriptor, to be passed on to a worker.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd()
    }

    /// A descriptor to be passed on to a reader.
    pub fn reopen_read_only(&self) -> io::Result<OwnedFd> {
        self.0.reopen_read_only()
    }

    /// The cell of a worker slot, below [`WORKERS_MAX`].
    pub fn worker(&self, index: usize) -> &WorkerCell {
        &self.layout().workers[index]
    }

    /// The supervisor's cell.
    pub fn supervisor(&self) -> &SupervisorCell {
        &self.layout().supervisor
    }

    /// The kill switch; the supervisor sets it, publishers obey it.
    pub fn kill_switch(&self) -> &KillSwitch {
        &self.layout().kill_switch
    }

    /// Says what a process, below [`PROCESSES_MAX`], has given up: bits of the sandbox. Single writer: that process, once
    /// before it serves.
    pub fn set_confinement(&self, process: usize, word: u64) {
        self.layout().confinements[process].0.store(word, Ordering::Relaxed);
    }

    /// The metric bank of a process, below [`PROCESSES_MAX`], for that process.
    pub fn metrics(&self, process: usize) -> MetricBank<'_> {
        self.layout().metrics[process].bank()
    }

    /// The cell of a cache's place, below [`CACHES_MAX`].
    pub fn cache(&self, cache: usize) -> &CacheCell {
        &self.layout().caches[cache]
    }

    /// The metric bank that a process, below [`PROCESSES_MAX`], has of a cache's place, below
    /// [`CACHES_MAX`], for that process.
    pub fn cache_metrics(&self, process: usize, cache: usize) -> MetricBank<'_> {
        self.layout().cache_metrics[process][cache].bank()
    }

    /// A histogram of a process, below [`PROCESSES_MAX`], for that process.
    pub fn histogram(&self, process: usize, id: HistogramId) -> &Histogram {
        &self.layout().histograms[process][id as usize]
    }

    /// The event log; the supervisor appends.
    pub fn events(&self) -> &EventLog {
        &self.layout().events
    }

    /// The next-hop table; the supervisor publishes, workers look up.
    pub fn next_hops(&self) -> &NextHopTable {
        &self.layout().next_hops
    }

    /// The request ring of a worker slot, below [`WORKERS_MAX`].
    pub fn neighbour_requests(&self, index: usize) -> &NeighbourRequests {
        &self.layout().neighbour_requests[index]
    }

    /// What a reader would see.
    pub fn snapshot(&self, process: usize) -> MetricSnapshot {
        self.layout().metrics[process].snapshot()
    }
}

impl fmt::Debug for ControlRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ControlRegion").field(&self.0).finish()
    }
}

/// The control region for those who only look.
pub struct ControlReader(Region);

impl ControlReader {
    /// Attaches with a read-only mapping, whatever the descriptor would allow.
    pub fn attach(fd: OwnedFd) -> Result<Self, RegionError> {
        let region = Region::attach(fd, &control_spec(), Access::ReadOnly)?;
        // SAFETY: the reference is dropped at once; this is the check that the layout fits.
        unsafe { region.view_unwritten::<Layout>(REGION_HEADER_BYTES)? };
        Ok(Self(region))
    }

    fn layout(&self) -> &Layout {
        // SAFETY: every method of this type only loads, relaxed, by way of the snapshot and read
        // functions below, and hands out no reference into the mapping.
        let layout = unsafe { self.0.view_unwritten(REGION_HEADER_BYTES) };
        layout.expect("checked when it was attached")
    }

    /// Counts the supervisors that have owned the region.
    pub fn generation(&self) -> u64 {
        self.0.generation()
    }

    /// When the supervisor was last seen alive, `CLOCK_MONOTONIC` nanoseconds.
    pub fn heartbeat_ns(&self) -> u64 {
        self.0.heartbeat_ns()
    }

    /// A worker slot, below [`WORKERS_MAX`].
    pub fn worker(&self, index: usize) -> WorkerView<'_> {
        WorkerView(&self.layout().workers[index])
    }

    /// The supervisor.
    pub fn supervisor(&self) -> SupervisorView<'_> {
        SupervisorView(&self.layout().supervisor)
    }

    /// What the kill switch was set to last.
    pub fn kill_switch(&self) -> Result<KillSwitchState, crate::seqlock::WriterBusy> {
        self.layout().kill_switch.state()
    }

    /// Since when a process, below [`PROCESSES_MAX`], obeys the kill switch as it is; see [`KillSwitch::obeyed_ns`].
    pub fn kill_switch_obeyed_ns(&self, process: usize) -> Option<u64> {
        self.layout().kill_switch.obeyed_ns(process)
    }

    /// What a process, below [`PROCESSES_MAX`], says that it has given up; 0 if it said nothing.
    pub fn confinement(&self, process: usize) -> u64 {
        self.layout().confinements[process].0.load(Ordering::Relaxed)
    }

    /// The metrics of a process, below [`PROCESSES_MAX`].
    pub fn metrics(&self, process: usize) -> MetricSnapshot {
        self.layout().metrics[process].snapshot()
    }

    /// What the supervisor says of a cache's place, below [`CACHES_MAX`].
    pub fn cache(&self, cache: usize) -> Result<CacheIdentity, crate::seqlock::WriterBusy> {
        self.layout().caches[cache].identity()
    }

    /// The metrics that a process, below [`PROCESSES_MAX`], has of a cache's place, below
    /// [`CACHES_MAX`].
    pub fn cache_metrics(&self, process: usize, cache: usize) -> MetricSnapshot {
        self.layout().cache_metrics[process][cache].snapshot()
    }

    /// A histogram of a process, below [`PROCESSES_MAX`].
    pub fn histogram(&self, process: usize, id: HistogramId) -> HistogramSnapshot {
        self.layout().histograms[process][id as usize].snapshot()
    }

    /// Events from sequence `next` on; begin with 0 and go on with [`EventBatch::next`].
    pub fn events(&self, next: u64) -> EventBatch {
        self.layout().events.read_from(next)
    }

    /// The next-hop table as it was published last.
    pub fn next_hops(&self) -> Result<crate::next_hops::Mirror, crate::seqlock::WriterBusy> {
        self.layout().next_hops.mirror()
    }

    /// Neighbour requests of a worker slot that the supervisor has not taken yet.
    pub fn neighbour_requests_backlog(&self, index: usize) -> u64 {
        self.layout().neighbour_requests[index].backlog()
    }
}

impl fmt::Debug for ControlReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ControlReader").field(&self.0).finish()
    }
}

/// A worker cell that can only be read.
#[derive(Clone, Copy, Debug)]
pub struct WorkerView<'a>(&'a WorkerCell);

impl WorkerView<'_> {
    /// What the supervisor says about the process.
    pub fn identity(&self) -> Result<crate::cells::WorkerIdentity, crate::seqlock::WriterBusy> {
        self.0.identity()
    }

    /// What the process says about itself.
    pub fn pulse(&self) -> crate::cells::WorkerPulse {
        self.0.pulse()
    }
}

/// The supervisor's cell, only to be read.
#[derive(Clone, Copy, Debug)]
pub struct SupervisorView<'a>(&'a SupervisorCell);

impl SupervisorView<'_> {
    /// Process, generation and node id.
    pub fn identity(&self) -> Result<crate::cells::SupervisorIdentity, crate::seqlock::WriterBusy> {
        self.0.identity()
    }

    /// State of interface `index`; `None` when the node has no such interface.
    pub fn interface(
        &self,
        index: usize,
    ) -> Result<Option<crate::cells::InterfaceState>, crate::seqlock::WriterBusy> {
        self.0.interface(index)
    }

    /// When the supervisor was last seen alive; 0 before the first beat.
    pub fn heartbeat_ns(&self) -> u64 {
        self.0.heartbeat_ns()
    }

    /// The last gap in service; 0 if there was none.
    pub fn last_gap_ns(&self) -> u64 {
        self.0.last_gap_ns()
    }

    /// Whether the node has been set up.
    pub fn is_serving(&self) -> bool {
        self.0.is_serving()
    }

    /// Where the node is in its life.
    pub fn phase(&self) -> crate::life::NodePhase {
        self.0.life().phase()
    }

    /// When a draining node closes its last connections; 0 for one that takes clients.
    pub fn drain_until_ns(&self) -> u64 {
        self.0.life().drain_until_ns()
    }

    /// What the node runs.
    pub fn release(&self) -> Result<crate::life::Release, crate::seqlock::WriterBusy> {
        self.0.life().release()
    }
}
