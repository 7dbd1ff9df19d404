//! One channel: the packets of its lines in, its records and its state out.
//!
//! ```text
//!  payload -> framing -> lines (what each line brings)
//!                          |
//!  replies --------------> arbitration -> packets in order -> publisher -> Keyspace
//!                          |                                    ^            ^
//!  snapshot, by the front -+------------------------------------+            |
//!                          +-- gap, late join, session roll ---- LiveUntil / Suspect
//! ```
//!
//! The channel is live only while five things hold: the sequencer has no doubt, no hole is older than
//! its limit, no write waits to be tried again, a line has said something current within the silence
//! limit, and its worker runs.
//! Suspect is stored *before* the first record that may be wrong, live *after* the last that makes
//! things right.

mod heal;
mod republish;

use super::Venue;
use super::arbitration::{Arbitration, Offer};
use super::book::{BookLimits, Books};
use super::counters::Counters;
use super::lines::{LineCounts, LineWindows};
use super::moldudp64::{Kind, Packet};
use super::publisher::Publisher;
use super::recovery::{Cure, Recovery, RecoveryCounts};
use super::republish::Republisher;
use super::session::{Outcome, Sequencer, Start, Step};
use crate::app::Keyspace;

pub use heal::SnapshotPiece;

/// How long keys are believed after their worker last renewed them. Housekeeping must come round in
/// less than half of it. Too low: the keys of a worker that sleeps between packets turn suspect. Too
/// high: the prices of a dead worker are believed so long.
pub const LEASE_NS: u64 = 100_000_000;

/// Held packets applied in one go. Too low: what was held takes turns to be current. Too high: a long hole
/// that is filled holds up everything else of its worker.
const HELD_A_TURN: usize = 64;

/// What a channel is.
#[derive(Clone, Copy, Debug)]
pub struct ChannelSpec {
    /// Venue part of its keys.
    pub venue: Venue,
    /// Channel number in the keyspace, 1 to 255; 0 stands for keys that clients own.
    pub channel: u8,
    /// What to do when a session is first seen in its middle.
    pub start: Start,
    /// Silence after which the channel is suspect. MoldUDP64 sends a heartbeat about once a second.
    /// Too low: a late heartbeat turns the keys suspect. Too high: a dead line is believed so long.
    pub silence_limit_ns: u64,
    /// How long a hole in the sequence is held open before it is a gap, at most
    /// [`super::arbitration::HOLD_LIMIT_NS_MAX`]; 0 holds nothing. Too low: reorder, or the other line
    /// being a little behind, turns the keys suspect. Too high: they stand still so long before they do.
    pub hold_limit_ns: u64,
    /// How much its books may hold.
    pub books: BookLimits,
    /// Levels a side that are published under `:depthN`, at most
    /// [`super::record::depth::DEPTH_MAX`]; 0 for no such key.
    pub depth: u8,
}

/// One channel. Written by the worker that owns the session.
pub struct Channel {
    spec: ChannelSpec,
    arbitration: Arbitration,
    lines: LineWindows,
    publisher: Publisher,
    recovery: Option<Recovery>,
    republisher: Option<Republisher>,
    heard_ns: u64,
    begun: bool,
}

/// Why a hole is given up.
#[derive(Clone, Copy)]
enum Reason {
    Late,
    NoRoom,
    SessionOver,
}

impl Channel {
    /// A channel of one line that has heard nothing, see [`Self::with_lines`].
    pub fn new(spec: ChannelSpec) -> Self {
        Self::with_lines(spec, 1)
    }

    /// A channel that has heard nothing on so many lines. Allocates all it will ever need and touches it.
    /// Panics on channel 0, on capacities that [`Books`] refuses, and on a number of lines that
    /// [`LineWindows`] refuses.
    pub fn with_lines(spec: ChannelSpec, lines: usize) -> Self {
        Self::with_recovery(spec, lines, None)
    }

    /// The same with a way to recover what no line brings. Not of use with [`Start::Any`].
    pub fn with_recovery(spec: ChannelSpec, lines: usize, recovery: Option<Recovery>) -> Self {
        assert!(spec.channel != 0, "channel 0 stands for keys that clients own");
        let queue = recovery.as_ref().map(|recovery| recovery.spec().queue);
        Self {
            arbitration: Arbitration::new(spec.start, spec.hold_limit_ns, queue),
            lines: LineWindows::new(lines),
            publisher: Publisher::new(spec),
            recovery,
            republisher: None,
            heard_ns: 0,
            begun: false,
            spec,
        }
    }

    /// What it is.
    pub fn spec(&self) -> &ChannelSpec {
        &self.spec
    }

    /// Its books.
    pub fn books(&self) -> &Books {
        self.publisher.books()
    }

    /// Its sequencing state.
    pub fn sequencer(&self) -> &Sequencer {
        self.arbitration.sequencer()
    }

    /// Its counts, but for those of its lines.
    pub fn counters(&self) -> &Counters {
        &self.publisher.counters
    }

    /// The counts of its lines, in their order.
    pub fn line_counts(&self) -> impl Iterator<Item = &LineCounts> {
        self.lines.counts()
    }

    /// What recovery counted; `None` without.
    pub fn recovery_counts(&self) -> Option<&RecoveryCounts> {
        self.recovery.as_ref().map(|recovery| &recovery.counts)
    }

    /// How many packets wait for a hole before them to be filled.
    pub fn held_packets(&self) -> usize {
        self.arbitration.held_packets()
    }

    /// Whether its keys may be believed at this instant.
    pub fn is_live(&self, now_ns: u64) -> bool {
        now_ns <= self.publisher.live_until_ns()
    }

    /// Takes the channel over: what another worker published on it is forgotten. Must be called before
    /// this worker serves the first read; the first packet does it if nobody has.
    pub fn begin<K: Keyspace>(&mut self, keyspace: &mut K) {
        self.begun = true;
        keyspace.begin_channel(self.spec.channel);
    }

    /// Takes in one datagram's payload of the first line, captured at `rx_ns`.
    pub fn handle<K: Keyspace>(&mut self, rx_ns: u64, payload: &[u8], keyspace: &mut K) {
        self.handle_from(0, rx_ns, payload, keyspace);
    }

    /// Takes in one datagram's payload of a line, counted from 0, captured at `rx_ns`.
    pub fn handle_from<K: Keyspace>(
        &mut self,
        line: usize,
        rx_ns: u64,
        payload: &[u8],
        keyspace: &mut K,
    ) {
        if !self.begun {
            self.begin(keyspace);
        }
        let counters = &mut self.publisher.counters;
        counters.packets += 1;
        let packet = match Packet::parse(payload).and_then(|packet| packet.check().map(|_| packet))
        {
            Ok(packet) => packet,
            Err(error) => {
                counters.count_malformed(error);
                return;
            }
        };
        if self.arbitration.sequencer().is_stale(&packet) {
            counters.stale_packets += 1;
            return;
        }
        self.look_late(rx_ns, keyspace);
        if self.sequencer().is_of_new_session(&packet) {
            self.begin_session(&packet, keyspace);
        }
        let counters = &mut self.publisher.counters;
        match packet.kind {
            Kind::Heartbeat => counters.heartbeats += 1,
            Kind::EndOfSession => counters.ends += 1,
            Kind::Messages(_) => {}
        }
        self.lines.note(line, packet.sequence, packet.next_sequence());
        self.take_in(rx_ns, &packet, payload, keyspace);
        let was_held = self.take_held(keyspace);
        // A copy of an old packet says nothing about the present.
        let is_current = packet.next_sequence() == self.sequencer().expected();
        if is_current {
            self.heard_ns = rx_ns;
        }
        if is_current || was_held || self.arbitration.hole_deadline_ns().is_some() {
            self.renew(rx_ns, keyspace);
        }
    }

    /// XDP has dropped a copy of so many messages, all applied, that came on a line: it counts as if it had
    /// come here.
    pub fn count_dropped_copy(&mut self, line: usize, sequence: u64, messages: u16) {
        self.lines.note_dropped(line, sequence, sequence.saturating_add(messages.into()));
        let counters = &mut self.publisher.counters;
        counters.packets += 1;
        counters.duplicate_packets += 1;
        counters.duplicate_messages += u64::from(messages);
    }

    /// The same of a copy that was of the session before by the time it is counted.
    pub fn count_dropped_stale(&mut self) {
        self.publisher.counters.packets += 1;
        self.publisher.counters.stale_packets += 1;
    }

    /// Gives up a hole whose limit is over, renews the channel's lease and tries failed writes again.
    pub fn housekeeping<K: Keyspace>(&mut self, now_ns: u64, keyspace: &mut K) {
        let Some(session) = self.sequencer().session() else { return };
        self.look_late(now_ns, keyspace);
        self.publisher.retry(now_ns, session, keyspace);
        self.heal(now_ns, keyspace);
        self.renew(now_ns, keyspace);
    }

    /// Another session begins.
    fn begin_session<K: Keyspace>(&mut self, packet: &Packet<'_>, keyspace: &mut K) {
        self.forget_recovery();
        // What is held is of the session that is over, and must not wait for its like.
        loop {
            while self.take_held(keyspace) {}
            if !self.give_up(Reason::SessionOver, keyspace) {
                break;
            }
        }
        self.republish_session(packet.session);
        self.lines.begin(packet.sequence);
        self.arbitration.begin(packet.session, packet.sequence);
        let partial = self.arbitration.sequencer().is_partial();
        self.publisher.begin_session(partial, keyspace);
    }

    /// Applies a packet of the present session, or holds it.
    fn take_in<K: Keyspace>(
        &mut self,
        rx_ns: u64,
        packet: &Packet<'_>,
        payload: &[u8],
        keyspace: &mut K,
    ) {
        let offer = loop {
            match self.arbitration.offer(rx_ns, packet, payload) {
                // Room comes back: what is held behind the hole leaves.
                Offer::NoRoom if self.makes_room(keyspace) => {}
                offer => break offer,
            };
        };
        let counters = &mut self.publisher.counters;
        let messages = u64::from(packet.message_count());
        match offer {
            Offer::Taken(outcome) => self.take(rx_ns, packet, outcome, keyspace),
            Offer::Held => counters.held_packets += 1,
            Offer::NoRoom => {
                if let Some(recovery) = &mut self.recovery {
                    recovery.counts.queue_dropped += 1;
                }
                return;
            }
            Offer::Copy => {
                counters.duplicate_messages += messages;
                counters.duplicate_packets += u64::from(messages != 0);
            }
        }
        if let Some(recovery) = &mut self.recovery {
            recovery.note(packet.sequence, packet.next_sequence());
        }
    }

    /// Does what is to be done with a packet that came in its turn.
    fn take<K: Keyspace>(
        &mut self,
        rx_ns: u64,
        packet: &Packet<'_>,
        outcome: Outcome,
        keyspace: &mut K,
    ) {
        let counters = &mut self.publisher.counters;
        counters.duplicate_messages += outcome.duplicate_messages;
        if outcome.duplicate_messages != 0 && outcome.step == Step::Nothing {
            counters.duplicate_packets += 1;
        }
        if outcome.gap_messages != 0 {
            counters.add_gap(outcome.gap_messages);
        }
        if let Step::Apply { skip, sequence } = outcome.step {
            if let Some(republisher) = &mut self.republisher {
                republisher.take(rx_ns, packet, skip, sequence);
            }
            if let Some(doubt) = self.publisher.apply(packet, skip, sequence) {
                self.arbitration.distrust(doubt);
            }
        }
        if self.sequencer().doubt().is_some() {
            self.publisher.set_suspect(keyspace);
        }
        self.publisher.publish(rx_ns, packet.session, keyspace);
    }

    /// The same with held packets whose turn has come, some at a time. Returns whether there was one.
    fn take_held<K: Keyspace>(&mut self, keyspace: &mut K) -> bool {
        let mut count = 0;
        let healed_before = self.arbitration.healed_holes();
        while count < HELD_A_TURN
            && let Some(ready) = self.arbitration.next_held()
        {
            count += 1;
            self.publisher.counters.duplicate_messages += ready.duplicate_messages;
            let (rx_ns, next_sequence) = (ready.rx_ns, ready.next_sequence);
            // It was checked before it was held.
            if let (Step::Apply { skip, sequence }, Ok(packet)) =
                (ready.step, Packet::parse(ready.payload))
            {
                let session = packet.session;
                if let Some(republisher) = &mut self.republisher {
                    republisher.take(rx_ns, &packet, skip, sequence);
                }
                if let Some(doubt) = self.publisher.apply(&packet, skip, sequence) {
                    self.arbitration.distrust(doubt);
                    self.publisher.set_suspect(keyspace);
                }
                self.publisher.publish(rx_ns, session, keyspace);
            }
            if next_sequence == self.sequencer().expected() {
                self.heard_ns = self.heard_ns.max(rx_ns);
            }
        }
        self.publisher.counters.healed_holes += self.arbitration.healed_holes() - healed_before;
        count > 0
    }

    /// Does what is to be done with a hole whose limit is over: with recovery the channel is suspect until it
    /// is filled, without it is a gap.
    fn look_late<K: Keyspace>(&mut self, now_ns: u64, keyspace: &mut K) {
        while self.arbitration.is_overdue(now_ns) {
            if self.can_heal() {
                self.arbitration.wait();
                self.publisher.set_suspect(keyspace);
                return;
            }
            if !self.give_up(Reason::Late, keyspace) {
                return;
            }
        }
    }

    /// Makes room for a packet that is to be held, if it is worth it.
    fn makes_room<K: Keyspace>(&mut self, keyspace: &mut K) -> bool {
        if self.take_held(keyspace) {
            return true;
        }
        match self.recovery.as_ref().map(|recovery| recovery.cure(&self.arbitration)) {
            // It comes again, when it is asked for.
            Some(Cure::Requests) if !self.arbitration.is_frozen() => false,
            None | Some(Cure::Nothing) if !self.arbitration.is_frozen() => {
                self.give_up(Reason::NoRoom, keyspace)
            }
            // What is youngest is what a snapshot goes on with.
            _ => {
                if let Some(recovery) = &mut self.recovery {
                    recovery.counts.queue_dropped += 1;
                }
                self.arbitration.drop_oldest()
            }
        }
    }

    /// Declares the first hole a gap, if there is one, and applies what was held behind it.
    fn give_up<K: Keyspace>(&mut self, reason: Reason, keyspace: &mut K) -> bool {
        let Some(gap_messages) = self.arbitration.give_up() else { return false };
        let counters = &mut self.publisher.counters;
        // 0: not a gap in the session, but that its beginning was missed.
        if gap_messages != 0 {
            counters.add_gap(gap_messages);
        }
        match reason {
            Reason::Late => counters.late_holes += 1,
            Reason::NoRoom => counters.full_holes += 1,
            Reason::SessionOver => counters.session_holes += 1,
        }
        self.publisher.set_suspect(keyspace);
        self.take_held(keyspace);
        true
    }

    fn renew<K: Keyspace>(&mut self, now_ns: u64, keyspace: &mut K) {
        self.arbitration.settle(now_ns);
        if self.sequencer().doubt().is_some() {
            return;
        }
        let silent_ns = self.heard_ns.saturating_add(self.spec.silence_limit_ns);
        let deadline_ns = self.arbitration.hole_deadline_ns();
        self.publisher.renew(now_ns, silent_ns, deadline_ns, keyspace);
    }
}
