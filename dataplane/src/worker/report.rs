//! What a worker tells the rest of the node, and where it writes it.

use nautilus_shm::cells::WorkerCell;
use nautilus_shm::control_region::{ControlRegion, HistogramId};
use nautilus_shm::histogram::Histogram;
use nautilus_shm::ledger::FrameCounts;
use nautilus_shm::metrics::MetricBank;
use nautilus_shm::metrics::labels::{FrameOwner, RxDrop, TxDrop};
use nautilus_shm::metrics::table;

use crate::net::Discard;
use crate::port::PortCounters;

/// The loop's own figures since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Turns.
    pub loops: u64,
    /// Turns that received nothing.
    pub idle_loops: u64,
    /// Nanoseconds in turns that received something.
    pub busy_ns: u64,
    /// Nanoseconds in the others, sleep included.
    pub idle_ns: u64,
    /// Sleeps.
    pub sleeps: u64,
    /// Datagrams nobody serves.
    pub no_application_count: u64,
    /// Publications at which the port's frames did not add up.
    pub frames_lost_count: u64,
}

/// Receives what the loop has to say. Called from the loop: must not allocate, lock or block.
pub trait Report {
    /// The worker was alive at `now_ns`.
    fn beat(&self, now_ns: u64);
    /// The worker sleeps until `until_ns` at the latest; 0 when it is awake again.
    fn asleep_until(&self, until_ns: u64);
    /// One datagram was answered this long after its arrival stamp.
    fn xdp_to_tx(&self, elapsed_ns: u64);
    /// A turn that received something took this long, from the end of the turn before.
    fn busy_turn(&self, elapsed_ns: u64);
    /// Looking for packets took this long, at least [`super::run_loop::STALL_NS_MIN`], and there was nothing
    /// else to do.
    fn stall(&self, elapsed_ns: u64);
    /// The figures as they stand; about every millisecond.
    fn publish(&self, totals: &Totals, port: &PortCounters, frames: FrameCounts);
}

/// Says nothing to nobody: for tests and figures of the loop alone.
impl Report for () {
    fn beat(&self, _now_ns: u64) {}
    fn asleep_until(&self, _until_ns: u64) {}
    fn xdp_to_tx(&self, _elapsed_ns: u64) {}
    fn busy_turn(&self, _elapsed_ns: u64) {}
    fn stall(&self, _elapsed_ns: u64) {}
    fn publish(&self, _totals: &Totals, _port: &PortCounters, _frames: FrameCounts) {}
}

/// Writes into the control region, as the single writer of one worker's cell, metric bank and
/// histograms. Counters start where the predecessor's ended, so that they never fall.
pub struct RegionReport<'a> {
    cell: &'a WorkerCell,
    bank: MetricBank<'a>,
    xdp_to_tx: &'a Histogram,
    busy_turn: &'a Histogram,
    stall: &'a Histogram,
    base: Box<Base>,
}

/// Counters as the predecessor left them.
struct Base {
    totals: Totals,
    rx: [u64; 3],
    tx: [u64; 2],
    rx_dropped: [u64; 5],
    tx_dropped: [u64; 4],
    syscalls: u64,
}

const RX_DROPS: [RxDrop; 5] = [
    RxDrop::Malformed,
    RxDrop::IpChecksum,
    RxDrop::UdpChecksum,
    RxDrop::NoApplication,
    RxDrop::Descriptor,
];
const TX_DROPS: [TxDrop; 4] =
    [TxDrop::NoFrame, TxDrop::NoNeighbour, TxDrop::TooLong, TxDrop::Kernel];

impl<'a> RegionReport<'a> {
    /// The report of worker `index` of this region.
    ///
    /// # Panics
    /// When there is no such worker.
    pub fn new(region: &'a ControlRegion, index: usize) -> Self {
        let bank = region.metrics(index);
        let base = Box::new(Base {
            totals: Totals {
                loops: bank.counter(table::LOOPS),
                idle_loops: bank.counter(table::LOOPS_IDLE),
                busy_ns: bank.counter(table::BUSY_NS),
                idle_ns: bank.counter(table::IDLE_NS),
                sleeps: bank.counter(table::SLEEPS),
                no_application_count: 0,
                frames_lost_count: bank.counter(table::FRAMES_LOST),
            },
            rx: [table::RX_PACKETS, table::RX_BYTES, table::RX_UNSTAMPED_PACKETS]
                .map(|counter| bank.counter(counter)),
            tx: [table::TX_PACKETS, table::TX_BYTES].map(|counter| bank.counter(counter)),
            rx_dropped: RX_DROPS.map(|reason| bank.counter(table::RX_DROPPED_PACKETS.of(reason))),
            tx_dropped: TX_DROPS.map(|reason| bank.counter(table::TX_DROPPED_PACKETS.of(reason))),
            syscalls: bank.counter(table::SYSCALLS),
        });
        Self {
            cell: region.worker(index),
            bank,
            xdp_to_tx: region.histogram(index, HistogramId::XdpToTx),
            busy_turn: region.histogram(index, HistogramId::BusyTurn),
            stall: region.histogram(index, HistogramId::Stall),
            base,
        }
    }
}

impl Report for RegionReport<'_> {
    #[inline]
    fn beat(&self, now_ns: u64) {
        self.cell.beat(now_ns);
    }

    #[inline]
    fn asleep_until(&self, until_ns: u64) {
        self.cell.set_asleep_until(until_ns);
    }

    #[inline]
    fn xdp_to_tx(&self, elapsed_ns: u64) {
        self.xdp_to_tx.record(elapsed_ns);
    }

    #[inline]
    fn busy_turn(&self, elapsed_ns: u64) {
        self.busy_turn.record(elapsed_ns);
    }

    #[cold]
    fn stall(&self, elapsed_ns: u64) {
        self.stall.record(elapsed_ns);
    }

    fn publish(&self, totals: &Totals, port: &PortCounters, frames: FrameCounts) {
        let (bank, base) = (&self.bank, &self.base);
        self.cell.set_totals(totals.loops, totals.busy_ns, totals.idle_ns);
        bank.mirror(table::LOOPS, base.totals.loops + totals.loops);
        bank.mirror(table::LOOPS_IDLE, base.totals.idle_loops + totals.idle_loops);
        bank.mirror(table::BUSY_NS, base.totals.busy_ns + totals.busy_ns);
        bank.mirror(table::IDLE_NS, base.totals.idle_ns + totals.idle_ns);
        bank.mirror(table::SLEEPS, base.totals.sleeps + totals.sleeps);
        let syscalls = totals.sleeps + port.tx_wakeup_count + port.rx_wakeup_count;
        bank.mirror(table::SYSCALLS, base.syscalls + syscalls);
        bank.mirror(table::FRAMES_LOST, base.totals.frames_lost_count + totals.frames_lost_count);

        bank.mirror(table::RX_PACKETS, base.rx[0] + port.received_count);
        bank.mirror(table::RX_BYTES, base.rx[1] + port.received_bytes);
        bank.mirror(table::RX_UNSTAMPED_PACKETS, base.rx[2] + port.unstamped_count);
        bank.mirror(table::TX_PACKETS, base.tx[0] + port.sent_count);
        bank.mirror(table::TX_BYTES, base.tx[1] + port.sent_bytes);

        let discarded = |reason: Discard| port.discarded_count[reason as usize];
        let checksums = [discarded(Discard::IpChecksum), discarded(Discard::UdpChecksum)];
        let all: u64 = port.discarded_count.iter().sum();
        let malformed = all - checksums[0] - checksums[1];
        let values = [
            malformed,
            checksums[0],
            checksums[1],
            totals.no_application_count,
            port.refused_descriptor_count,
        ];
        for ((reason, before), value) in RX_DROPS.into_iter().zip(base.rx_dropped).zip(values) {
            bank.mirror(table::RX_DROPPED_PACKETS.of(reason), before + value);
        }
        let values = [
            port.no_frame_count,
            port.no_neighbour_count,
            port.too_long_count,
            port.send_error_count,
        ];
        for ((reason, before), value) in TX_DROPS.into_iter().zip(base.tx_dropped).zip(values) {
            bank.mirror(table::TX_DROPPED_PACKETS.of(reason), before + value);
        }
        for (owner, count) in [
            (FrameOwner::Free, frames.free),
            (FrameOwner::Held, frames.held),
            (FrameOwner::Rx, frames.rx),
            (FrameOwner::Tx, frames.tx),
        ] {
            bank.set(table::FRAMES.of(owner), count.into());
        }
    }
}
