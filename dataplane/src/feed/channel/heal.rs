//! The part of a channel that gets back what no line brought.
//!
//! While a hole is open for too long the channel is suspect and goes on holding. Requests fill the hole, and
//! then every message has been applied in order. Where they do not, or where the books cannot be believed
//! for another reason, a snapshot makes them anew: from the moment it is asked for everything is held, and
//! what follows its end is applied to it.

use super::super::moldudp64::{Kind, Messages, Packet, Session};
use super::super::recovery::requests::PieceRequest;
use super::super::recovery::{Cure, RecoverySpec};
use super::super::session::Doubt;
use super::Channel;
use crate::app::Keyspace;
use crate::net::Endpoint;

/// Symbols of a snapshot published in one go. Too low: a channel with thousands of them is suspect longer.
/// Too high: everything else of the worker waits.
const PUBLISHED_A_TURN: usize = 64;

/// A piece of a snapshot, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotPiece<'a> {
    /// The server is about to send it; the session that it is of.
    Begin(Session),
    /// Messages, each behind its length (big-endian, 2 bytes).
    Messages(&'a [u8]),
    /// All of it has come; every message before this number is in it.
    End(u64),
    /// There will be no more of it.
    Failed,
}

impl Channel {
    /// Work that has been waiting: held packets whose turn has come, symbols of a snapshot. Bounded; to be
    /// called every turn of the loop. Returns whether there was some.
    #[inline]
    pub fn turn<K: Keyspace>(&mut self, now_ns: u64, keyspace: &mut K) -> bool {
        let has_work = self.arbitration.has_ready() || self.publisher.has_backlog();
        if has_work {
            self.catch_up(now_ns, keyspace);
        }
        has_work
    }

    fn catch_up<K: Keyspace>(&mut self, now_ns: u64, keyspace: &mut K) {
        if let Some(session) = self.sequencer().session() {
            self.publisher.publish_backlog(PUBLISHED_A_TURN, now_ns, session, keyspace);
        }
        self.take_held(keyspace);
        // What is left may lie behind another hole that is old already.
        self.look_late(now_ns, keyspace);
        self.renew(now_ns, keyspace);
    }

    /// Whether a snapshot is being taken, and everything held meanwhile.
    pub fn is_frozen(&self) -> bool {
        self.arbitration.is_frozen()
    }

    /// How it recovers; `None` where it does not.
    pub fn recovery_spec(&self) -> Option<&RecoverySpec> {
        self.recovery.as_ref().map(|recovery| recovery.spec())
    }

    /// The next thing to ask a request server for: whom, and the session and messages wanted. To be called
    /// until it is `None`.
    pub fn next_request(&mut self, now_ns: u64) -> Option<(Endpoint, Session, PieceRequest)> {
        let session = self.arbitration.sequencer().session()?;
        let (server, request) = self.recovery.as_mut()?.next_request(now_ns, &self.arbitration)?;
        Some((server, session, request))
    }

    /// Takes in what came to the endpoint that requests are sent from.
    pub fn handle_reply<K: Keyspace>(
        &mut self,
        source: &Endpoint,
        rx_ns: u64,
        payload: &[u8],
        keyspace: &mut K,
    ) {
        let session = self.arbitration.sequencer().session();
        let Some(recovery) = &mut self.recovery else { return };
        let packet = Packet::parse(payload).ok().filter(|packet| {
            packet.check().is_ok()
                && matches!(packet.kind, Kind::Messages(_))
                && Some(packet.session) == session
                && recovery.admits(source, packet.sequence, packet.next_sequence())
        });
        let Some(packet) = packet else {
            recovery.counts.refused_replies += 1;
            return;
        };
        recovery.counts.replies += 1;
        let known = self.publisher.counters.duplicate_messages;
        self.take_in(rx_ns, &packet, payload, keyspace);
        let known = self.publisher.counters.duplicate_messages - known;
        if let Some(recovery) = &mut self.recovery {
            let messages = u64::from(packet.message_count());
            recovery.counts.recovered_messages += messages.saturating_sub(known);
        }
        self.take_held(keyspace);
        self.renew(rx_ns, keyspace);
    }

    /// The snapshot that somebody is to fetch: attempt and session. The attempt stays the same until its
    /// first piece has come.
    pub fn snapshot_wanted(&self) -> Option<(u64, Session)> {
        let attempt = self.recovery.as_ref()?.snapshots.wanted()?;
        Some((attempt, self.arbitration.sequencer().session()?))
    }

    /// Takes in a piece of a snapshot. One of an attempt that nobody waits for is ignored.
    pub fn take_snapshot<K: Keyspace>(
        &mut self,
        attempt: u64,
        now_ns: u64,
        piece: SnapshotPiece<'_>,
        keyspace: &mut K,
    ) {
        let Some(recovery) = &mut self.recovery else { return };
        if !recovery.snapshots.hear(attempt, now_ns) {
            return;
        }
        let session = self.arbitration.sequencer().session();
        let is_loading = recovery.snapshots.is_loading();
        let is_taken = match piece {
            SnapshotPiece::Begin(of)
                if !is_loading && session.is_some_and(|own| own.is_same(&of)) =>
            {
                recovery.snapshots.begin();
                self.publisher.begin_snapshot(keyspace);
                true
            }
            SnapshotPiece::Messages(blocks) if is_loading => {
                let mut is_fine = true;
                for block in Messages::of_blocks(blocks) {
                    recovery.counts.snapshot_messages += 1;
                    is_fine &=
                        block.is_ok_and(|bytes| self.publisher.apply_one(0, bytes).is_none());
                }
                is_fine
            }
            SnapshotPiece::End(next_sequence) if is_loading && next_sequence > 0 => {
                recovery.counts.snapshots_loaded += 1;
                recovery.snapshots.end(now_ns);
                recovery.forget();
                self.publisher.end_snapshot(next_sequence);
                self.arbitration.resume(next_sequence);
                true
            }
            _ => false,
        };
        if !is_taken {
            self.fail_snapshot(now_ns);
        }
    }

    /// Whether there is a way to heal a hole whose limit is over.
    pub(super) fn can_heal(&self) -> bool {
        self.recovery
            .as_ref()
            .is_some_and(|recovery| recovery.cure(&self.arbitration) != Cure::Nothing)
    }

    /// Another session makes an end of it.
    pub(super) fn forget_recovery(&mut self) {
        if let Some(recovery) = &mut self.recovery {
            recovery.forget();
            recovery.snapshots.forget();
        }
        self.arbitration.thaw();
    }

    /// Asks for a snapshot where only that helps, and gives up one that does not come.
    pub(super) fn heal<K: Keyspace>(&mut self, now_ns: u64, keyspace: &mut K) {
        let Some(recovery) = &mut self.recovery else { return };
        if recovery.snapshots.is_silent(now_ns) {
            self.fail_snapshot(now_ns);
            return;
        }
        if self.arbitration.held_packets() == 0 && !self.arbitration.is_frozen() {
            recovery.forget_exhausted();
        }
        if self.sequencer().doubt().is_none() {
            if let Some(recovery) = &mut self.recovery {
                recovery.snapshots.settle();
            }
            return;
        }
        if self.needs_snapshot(now_ns) {
            self.ask_for_snapshot(now_ns, keyspace);
        }
    }

    fn needs_snapshot(&self, now_ns: u64) -> bool {
        let Some(recovery) = &self.recovery else { return false };
        let is_open_too_long = self.arbitration.is_overdue(now_ns)
            && recovery.cure(&self.arbitration) == Cure::Snapshot;
        recovery.spec().has_snapshot
            && !recovery.snapshots.is_open()
            && (self.arbitration.is_frozen()
                || is_open_too_long
                || !self.sequencer().is_exact_so_far())
    }

    fn ask_for_snapshot<K: Keyspace>(&mut self, now_ns: u64, keyspace: &mut K) {
        let Some(recovery) = &mut self.recovery else { return };
        if recovery.snapshots.ask(now_ns) {
            recovery.counts.snapshots += 1;
            self.arbitration.freeze();
            self.publisher.set_suspect(keyspace);
        }
    }

    fn fail_snapshot(&mut self, now_ns: u64) {
        let Some(recovery) = &mut self.recovery else { return };
        if recovery.snapshots.is_loading() {
            self.arbitration.distrust(Doubt::PartialSnapshot);
        }
        recovery.snapshots.fail(now_ns);
        recovery.counts.snapshots_failed += 1;
    }

    /// A number that changes with whatever [`Self::housekeeping`], [`Self::turn`] or [`Self::next_request`] did
    /// to the channel, but for the lease of its keys: a call that leaves it as it was need not be made again to
    /// get the same records.
    pub fn effects(&self) -> u64 {
        let counters = self.counters();
        let mut hasher = Fingerprint::default();
        let doubt = match self.sequencer().doubt() {
            None => 0,
            Some(Doubt::Recovering) => 1,
            Some(_) => 2,
        };
        for number in [
            counters.published,
            counters.publish_failures,
            counters.suspects,
            counters.gaps,
            counters.late_holes + counters.full_holes + counters.session_holes,
            self.sequencer().expected(),
            self.held_packets() as u64,
            self.arbitration.hole_deadline_ns().unwrap_or(0),
            u64::from(self.is_frozen()),
            doubt,
        ] {
            hasher.add(number);
        }
        if let Some(recovery) = &self.recovery {
            let counts = &recovery.counts;
            for number in [
                counts.requests,
                counts.timeouts,
                counts.exhausted,
                counts.snapshots,
                counts.snapshots_failed,
                counts.queue_dropped,
                u64::from(recovery.is_exhausted()),
                recovery.snapshots.pause_ns(),
            ] {
                hasher.add(number);
            }
        }
        hasher.0
    }
}

/// FNV-1a over whole numbers.
struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    fn add(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x100_0000_01b3).rotate_left(29);
    }
}
