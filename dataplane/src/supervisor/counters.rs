//! Counters the kernel keeps, copied into the supervisor's metric bank.
//!
//! The counters of the steering program live as long as the node and are mirrored. Those of a socket
//! begin at zero with every rebind, so what they grew by is added: a metric never falls.

use std::os::fd::AsFd;

use nautilus_ebpf::{HotHits, Steering};
use nautilus_shm::attach::CACHES_MAX;
use nautilus_shm::control_region::{ControlRegion, SUPERVISOR_PROCESS};
use nautilus_shm::metrics::labels::{Label, XdpVerdict};
use nautilus_shm::metrics::table as metrics;
use nautilus_shm::metrics::{Counter, MetricBank};

use super::resources::Resources;
use crate::xsk::{Statistics, statistics};

/// In the order of [`values`].
const COUNTERS: [Counter; 5] = [
    metrics::FILL_RING_EMPTY,
    metrics::RX_RING_FULL,
    metrics::RX_KERNEL_DROPPED,
    metrics::TX_INVALID_DESCRIPTORS,
    metrics::TX_RING_EMPTY,
];

/// What [`COUNTERS`] show of one socket.
pub type Counted = [u64; COUNTERS.len()];

fn values(statistics: &Statistics, zero_copy: bool) -> Counted {
    // In copy mode the kernel counts a packet that found the fill ring empty as dropped, too
    // (`__xsk_rcv`); with zero copy an empty fill ring is met by the driver, not by a packet.
    let twice = if zero_copy { 0 } else { statistics.fill_ring_empty_count };
    [
        statistics.fill_ring_empty_count,
        statistics.rx_ring_full_count,
        statistics.rx_dropped_count.saturating_sub(twice),
        statistics.tx_invalid_count,
        statistics.tx_ring_empty_count,
    ]
}

/// Copies all of them. A counter that cannot be read now is read the next time.
pub fn copy(resources: &mut Resources, zero_copy: bool) {
    if let Some(steering) = &resources.steering {
        copy_verdicts(steering, &resources.control.metrics(SUPERVISOR_PROCESS));
    }
    if let Some(hits) = &resources.hot_hits {
        copy_hot_hits(hits, &resources.control);
    }
    let bank = resources.control.metrics(SUPERVISOR_PROCESS);
    for queue in resources.interfaces.iter_mut().flat_map(|opened| opened.queues.iter_mut()) {
        let Ok(now) = statistics(queue.fds.socket.as_fd()) else { continue };
        let now = values(&now, zero_copy);
        for (place, counter) in COUNTERS.into_iter().enumerate() {
            bank.add(counter, now[place].saturating_sub(queue.counted[place]));
            queue.counted[place] = queue.counted[place].max(now[place]);
        }
    }
}

/// Begins after a take-over. What the last supervisor copied of these sockets is in the bank
/// already; what they counted while there was none is not. Only after a rebind the bank has more
/// than the sockets show, and that last part cannot be told from the rest: it is left out.
pub fn adopt(resources: &mut Resources, zero_copy: bool) {
    let bank = resources.control.metrics(SUPERVISOR_PROCESS);
    let mut sum = Counted::default();
    for queue in resources.interfaces.iter_mut().flat_map(|opened| opened.queues.iter_mut()) {
        let Ok(now) = statistics(queue.fds.socket.as_fd()) else { continue };
        queue.counted = values(&now, zero_copy);
        for (total, value) in sum.iter_mut().zip(queue.counted) {
            *total += value;
        }
    }
    for (counter, total) in COUNTERS.into_iter().zip(sum) {
        bank.mirror(counter, bank.counter(counter).max(total));
    }
}

/// The program counts by the place of a cache, from 0 when the cache is made ([`HotHits::begin_cache`]): a
/// supervisor that finds it has nothing to remember.
fn copy_hot_hits(hits: &HotHits, control: &ControlRegion) {
    for place in 0..CACHES_MAX {
        let bank = control.cache_metrics(SUPERVISOR_PROCESS, place);
        bank.mirror(metrics::CACHE_HOT_HITS, hits.of_cache(place as u16));
    }
}

fn copy_verdicts(steering: &Steering, bank: &MetricBank<'_>) {
    let Ok(tallies) = steering.verdicts() else { return };
    for (verdict, tally) in XdpVerdict::ALL.iter().zip(tallies.as_slice()) {
        bank.mirror(metrics::XDP_PACKETS.of(*verdict), tally.packet_count);
        bank.mirror(metrics::XDP_BYTES.of(*verdict), tally.byte_count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_without_a_frame_is_counted_once() {
        let statistics =
            Statistics { rx_dropped_count: 7, fill_ring_empty_count: 5, ..Statistics::default() };
        assert_eq!(values(&statistics, false), [5, 0, 2, 0, 0]);
        assert_eq!(values(&statistics, true), [5, 0, 7, 0, 0]);
    }
}
