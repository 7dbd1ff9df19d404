//! How a channel gets back what no line brought: by asking a request server, and when that does not help
//! by a snapshot.
//!
//! ```text
//!   a hole older than request_after_ns --> requests (MoldUDP64) --> replies --> arbitration, as from a line
//!        too large, no server, no answer, or books that cannot be believed
//!                                      --> snapshot (GLIMPSE, by the front) --> books, resume at its end
//! ```
//!
//! Policy and bookkeeping: who is asked for what, when again, and when to stop. No I/O, no clock, and
//! nothing is allocated after it was made. Owned by the channel.

pub mod requests;
pub mod snapshot;

use super::arbitration::Arbitration;
use super::held::HeldLimits;
use crate::net::Endpoint;
use requests::{PieceRequest, Requests};
use snapshot::Snapshots;

/// Request servers of one feed, at most.
pub const SERVERS_MAX: usize = 4;

/// How a feed recovers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoverySpec {
    /// Request servers, asked in turns; `None` behind the last.
    pub servers: [Option<Endpoint>; SERVERS_MAX],
    /// Where requests are sent from and replies come to.
    pub from: Endpoint,
    /// Interface, by its place in the node file, that requests leave by.
    pub interface: u16,
    /// Age of a hole from which it is asked for. Too low: what another line is about to bring is asked for as
    /// well. Too high: the channel is suspect longer.
    pub request_after_ns: u64,
    /// How long a reply may take before it is asked for again; twice as long each time.
    pub timeout_ns: u64,
    /// Messages missing before what is held, from which a snapshot is taken instead, if there is one.
    pub messages_max: u64,
    /// What is held of live data meanwhile.
    pub queue: HeldLimits,
    /// Whether snapshots are to be had.
    pub has_snapshot: bool,
}

/// What recovery has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryCounts {
    /// Requests sent.
    pub requests: u64,
    /// Requests without a reply in time.
    pub timeouts: u64,
    /// Replies that brought something asked for.
    pub replies: u64,
    /// Replies that were refused: not from a server, another session, not asked for, or malformed.
    pub refused_replies: u64,
    /// Messages that replies brought first.
    pub recovered_messages: u64,
    /// Times the request servers were given up.
    pub exhausted: u64,
    /// Snapshots asked for.
    pub snapshots: u64,
    /// Snapshots applied.
    pub snapshots_loaded: u64,
    /// Snapshots that failed: refused, too late, malformed, or of another session.
    pub snapshots_failed: u64,
    /// Messages of snapshots.
    pub snapshot_messages: u64,
    /// Packets for which the queue had no room.
    pub queue_dropped: u64,
}

impl RecoveryCounts {
    /// Adds another channel's counts.
    pub fn add(&mut self, other: &Self) {
        // Without `..`: a new count cannot be forgotten here.
        let Self {
            requests,
            timeouts,
            replies,
            refused_replies,
            recovered_messages,
            exhausted,
            snapshots,
            snapshots_loaded,
            snapshots_failed,
            snapshot_messages,
            queue_dropped,
        } = *other;
        self.requests += requests;
        self.timeouts += timeouts;
        self.replies += replies;
        self.refused_replies += refused_replies;
        self.recovered_messages += recovered_messages;
        self.exhausted += exhausted;
        self.snapshots += snapshots;
        self.snapshots_loaded += snapshots_loaded;
        self.snapshots_failed += snapshots_failed;
        self.snapshot_messages += snapshot_messages;
        self.queue_dropped += queue_dropped;
    }
}

/// What can be done about a hole that is too old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cure {
    /// It is being asked for.
    Requests,
    /// Only a snapshot helps.
    Snapshot,
    /// Nothing: it is a gap.
    Nothing,
}

/// Recovery of one channel.
pub struct Recovery {
    spec: RecoverySpec,
    requests: Requests,
    /// The snapshot, if one is being taken or waited for.
    pub snapshots: Snapshots,
    /// What was counted.
    pub counts: RecoveryCounts,
}

impl Recovery {
    /// Nothing is missing yet. `generation` is greater than that of any worker before, so that what was
    /// asked for by another is not taken for this one's.
    pub fn new(spec: RecoverySpec, generation: u64) -> Self {
        let servers = spec.servers.iter().flatten().count();
        Self {
            requests: Requests::new(servers, spec.timeout_ns),
            snapshots: Snapshots::new(generation),
            counts: RecoveryCounts::default(),
            spec,
        }
    }

    /// How the feed recovers.
    pub fn spec(&self) -> &RecoverySpec {
        &self.spec
    }

    /// Forgets what was missing: another session, or a snapshot.
    pub fn forget(&mut self) {
        self.requests.forget();
    }

    /// Nothing is missing, so that the servers may be asked again.
    pub fn forget_exhausted(&mut self) {
        if self.requests.is_exhausted() {
            self.requests.forget();
        }
    }

    /// Whether the servers have been given up.
    pub fn is_exhausted(&self) -> bool {
        self.requests.is_exhausted()
    }

    /// What can be done about the first hole.
    pub fn cure(&self, arbitration: &Arbitration) -> Cure {
        let expected = arbitration.sequencer().expected();
        let missing = arbitration.first_held().map_or(0, |first| first.saturating_sub(expected));
        let can_ask = self.requests.has_servers() && !self.requests.is_exhausted();
        match (can_ask, self.spec.has_snapshot) {
            (true, true) if missing > self.spec.messages_max => Cure::Snapshot,
            (true, _) => Cure::Requests,
            (false, true) => Cure::Snapshot,
            (false, false) => Cure::Nothing,
        }
    }

    /// The next thing to ask for, and whom; `None` when there is nothing more at this time.
    pub fn next_request(
        &mut self,
        now_ns: u64,
        arbitration: &Arbitration,
    ) -> Option<(Endpoint, PieceRequest)> {
        if arbitration.is_frozen() || self.cure(arbitration) != Cure::Requests {
            return None;
        }
        let since_ns = now_ns.saturating_sub(self.spec.request_after_ns);
        let request = self.requests.next(now_ns, since_ns, arbitration, &mut self.counts)?;
        let server = self.spec.servers.iter().flatten().nth(request.server)?;
        self.counts.requests += 1;
        Some((*server, request))
    }

    /// Whether a reply with these messages is of one of the servers and brings what was asked for.
    pub fn admits(&mut self, source: &Endpoint, sequence: u64, next_sequence: u64) -> bool {
        let server = self.spec.servers.iter().flatten().position(|server| server == source);
        match server {
            Some(server) if self.requests.is_awaited(sequence, next_sequence) => {
                self.requests.prefer(server);
                true
            }
            _ => false,
        }
    }

    /// These messages have been applied or are held.
    #[inline]
    pub fn note(&mut self, sequence: u64, next_sequence: u64) {
        self.requests.note(sequence, next_sequence);
    }
}
