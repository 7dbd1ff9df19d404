//! What the front counts, and how it gets into its metric bank.

use nautilus_shm::attach::CACHES_MAX;
use nautilus_shm::metrics::labels::{ConnectionEnd, Label, ServedSnapshot, SnapshotEnd};
use nautilus_shm::metrics::{MetricBank, table};

use super::link::LinkCounts;

/// Plain numbers since the process started; see [`table`] for what each means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Counts {
    pub connections: u64,
    pub accepted: u64,
    pub ended: [u64; ConnectionEnd::ALL.len()],
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub held_bytes: u64,
    /// Hits and misses by place of the cache.
    pub reads: [(u64, u64); CACHES_MAX],
    pub forbidden: u64,
    pub link: LinkCounts,
    pub datagrams: u64,
    pub dropped_datagrams: u64,
    pub syscalls: u64,
    pub snapshots: [u64; SnapshotEnd::ALL.len()],
    pub served_snapshots: [u64; ServedSnapshot::ALL.len()],
}

impl Counts {
    /// Counts the end of a connection.
    pub fn end(&mut self, reason: ConnectionEnd) {
        self.ended[reason.index()] += 1;
    }

    /// Adds what is more than in `before` to the bank, whose counters go on over the front's death;
    /// `bank_of` gives the bank of a cache's place.
    pub fn publish<'a>(
        &self,
        before: &Self,
        bank: &MetricBank<'_>,
        bank_of: impl Fn(usize) -> MetricBank<'a>,
    ) {
        for (place, (now, then)) in self.reads.iter().zip(&before.reads).enumerate() {
            // A cache that took the place of another begins anew.
            let more = |now: u64, then: u64| now.checked_sub(then).unwrap_or(now);
            let bank = bank_of(place);
            bank.add(table::FRONT_HITS, more(now.0, then.0));
            bank.add(table::FRONT_MISSES, more(now.1, then.1));
        }
        // A cache that is gone takes its part with it.
        bank.add(table::FRONT_FORBIDDEN, self.forbidden.saturating_sub(before.forbidden));
        bank.set(table::FRONT_CONNECTIONS, self.connections);
        bank.set(table::FRONT_HELD_BYTES, self.held_bytes);
        for reason in ConnectionEnd::ALL {
            let more = self.ended[reason.index()] - before.ended[reason.index()];
            bank.add(table::FRONT_ENDED.of(*reason), more);
        }
        for end in SnapshotEnd::ALL {
            let more = self.snapshots[end.index()] - before.snapshots[end.index()];
            bank.add(table::FRONT_SNAPSHOTS.of(*end), more);
        }
        for end in ServedSnapshot::ALL {
            let more = self.served_snapshots[end.index()] - before.served_snapshots[end.index()];
            bank.add(table::FRONT_SERVED_SNAPSHOTS.of(*end), more);
        }
        for (counter, now, then) in [
            (table::FRONT_ACCEPTED, self.accepted, before.accepted),
            (table::FRONT_RX_BYTES, self.rx_bytes, before.rx_bytes),
            (table::FRONT_TX_BYTES, self.tx_bytes, before.tx_bytes),
            (table::FRONT_FORWARDED, self.link.forwarded, before.link.forwarded),
            (table::FRONT_UNKNOWN, self.link.unknown, before.link.unknown),
            (table::FRONT_WAKES, self.link.wakes, before.link.wakes),
            (table::FRONT_STALE_ANSWERS, self.link.stale, before.link.stale),
            (table::FRONT_DATAGRAMS, self.datagrams, before.datagrams),
            (table::FRONT_DROPPED_DATAGRAMS, self.dropped_datagrams, before.dropped_datagrams),
            (table::FRONT_SYSCALLS, self.syscalls, before.syscalls),
        ] {
            bank.add(counter, now - then);
        }
    }
}
