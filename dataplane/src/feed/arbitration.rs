//! One stream of messages out of what several lines bring of it, and what recovery does.
//!
//! ```text
//!   packet of any line --> in its turn, or a copy ------------------> apply
//!                      \-> ahead of its turn -> held until the hole before it
//!                            is filled by any line, or on request --> apply what was held, in order
//!                            is older than the limit, or no room ---> a gap: suspect; apply what was held
//!                                                with recovery -----> suspect; held on until it is filled
//!   while a snapshot is being taken: everything is held
//! ```
//!
//! The first hole is what counts: the numbers from the next one to apply up to the first packet held. It
//! is as old as the earliest packet held, for every one of them lies behind it. A heartbeat that names a
//! higher number is held like a packet without messages. Time is what the caller says: the stamp of a
//! packet, or the clock of housekeeping. No I/O, and nothing is allocated after it was made.
//!
//! Owned by a channel. After [`Arbitration::offer`] and [`Arbitration::give_up`] it must take what
//! [`Arbitration::next_held`] has, now or in later turns, until that is nothing.

use super::held::{HeldLimits, HeldPackets, Insert, Missing};
use super::moldudp64::{Kind, Packet, Session};
use super::session::{Doubt, Outcome, Sequencer, Start, Step};

/// Longest time a hole may be held open before its channel is suspect. Half a lease of the channel:
/// housekeeping has always renewed the lease for longer than that, so that a hole does not turn a channel
/// suspect before its limit.
pub const HOLD_LIMIT_NS_MAX: u64 = super::channel::LEASE_NS / 2;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It came in its turn.
    Taken(Outcome),
    /// It is ahead, or a snapshot is being taken, and it is held; nothing is to be done with it yet.
    Held,
    /// It is ahead and says nothing that is not held already.
    Copy,
    /// It is to be held and there is no room: give the first hole up and offer it again, or drop it.
    NoRoom,
}

/// A packet that was held and whose turn has come.
#[derive(Debug)]
pub struct Ready<'a> {
    /// When it was received.
    pub rx_ns: u64,
    /// The number that follows its last message.
    pub next_sequence: u64,
    /// How many of its messages had been applied.
    pub duplicate_messages: u64,
    /// What to do with it.
    pub step: Step,
    /// The whole datagram; empty for a heartbeat.
    pub payload: &'a [u8],
}

/// Sequencer and held packets of one channel. Written by the worker that owns it.
pub struct Arbitration {
    sequencer: Sequencer,
    held: HeldPackets,
    hold_limit_ns: u64,
    holds: bool,
    /// A snapshot is being taken.
    frozen: bool,
    /// When the first hole was noticed.
    hole_since_ns: Option<u64>,
    healed_holes: u64,
}

impl Arbitration {
    /// Nothing received. `hold_limit_ns` is at most [`HOLD_LIMIT_NS_MAX`], and more counts as that; with
    /// 0 nothing is held and every hole is a gap at once. With `recovery` holes are held beyond their
    /// limit, in so much memory.
    pub fn new(start: Start, hold_limit_ns: u64, recovery: Option<HeldLimits>) -> Self {
        Self {
            sequencer: Sequencer::new(start),
            held: HeldPackets::new(recovery.unwrap_or_default()),
            hold_limit_ns: hold_limit_ns.min(HOLD_LIMIT_NS_MAX),
            holds: hold_limit_ns != 0 || recovery.is_some(),
            frozen: false,
            hole_since_ns: None,
            healed_holes: 0,
        }
    }

    /// Its sequencing state.
    pub fn sequencer(&self) -> &Sequencer {
        &self.sequencer
    }

    /// See [`Sequencer::distrust`].
    pub fn distrust(&mut self, doubt: Doubt) {
        self.sequencer.distrust(doubt);
    }

    /// See [`Sequencer::wait`].
    pub fn wait(&mut self) {
        self.sequencer.wait();
    }

    /// Believes the books again if nothing before what is held is missing, or not yet for too long.
    pub fn settle(&mut self, now_ns: u64) {
        let is_waiting = self.frozen || self.sequencer.is_joining() || self.is_overdue(now_ns);
        if !is_waiting {
            self.sequencer.recovered();
        }
    }

    /// How many packets are held.
    pub fn held_packets(&self) -> usize {
        self.held.len()
    }

    /// Holes that were filled.
    pub fn healed_holes(&self) -> u64 {
        self.healed_holes
    }

    /// The last instant at which the first hole may be filled without a doubt; `None` without a hole.
    pub fn hole_deadline_ns(&self) -> Option<u64> {
        self.hole_since_ns.map(|since_ns| since_ns.saturating_add(self.hold_limit_ns))
    }

    /// Whether that instant is over.
    pub fn is_overdue(&self, now_ns: u64) -> bool {
        self.hole_deadline_ns().is_some_and(|deadline_ns| deadline_ns < now_ns)
    }

    /// See [`HeldPackets::missing_from`]; never before the next message to apply.
    pub fn missing_from(&self, sequence: u64) -> Result<Missing, u64> {
        self.held.missing_from(sequence.max(self.sequencer.expected()))
    }

    /// Number of the first message held, or announced by what is held.
    pub fn first_held(&self) -> Option<u64> {
        self.held.first().map(|entry| entry.sequence)
    }

    /// Another session begins with a packet of this number; nothing of the one before is held.
    pub fn begin(&mut self, session: Session, sequence: u64) {
        debug_assert!(self.held.is_empty());
        self.frozen = false;
        self.hole_since_ns = None;
        self.sequencer.begin(session, sequence, self.holds);
    }

    /// From here on everything is held, for a snapshot is being taken.
    pub fn freeze(&mut self) {
        self.frozen = true;
        self.sequencer.wait();
    }

    /// Whether everything is held.
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// No snapshot is being taken any more, and what is held is applied in its turn.
    pub fn thaw(&mut self) {
        self.frozen = false;
    }

    /// The snapshot has come, with every message before `next_sequence` in it.
    pub fn resume(&mut self, next_sequence: u64) {
        self.frozen = false;
        self.sequencer.resume(next_sequence);
        self.hole_since_ns = self
            .held
            .first()
            .filter(|first| first.sequence > next_sequence)
            .and_then(|_| self.held.earliest_seen_ns());
    }

    /// Whether the turn of a held packet has come.
    pub fn has_ready(&self) -> bool {
        !self.frozen && self.first_held().is_some_and(|first| first <= self.sequencer.expected())
    }

    /// Forgets the oldest packet held, to have room for the youngest.
    pub fn drop_oldest(&mut self) -> bool {
        self.held.pop_first().is_some()
    }

    /// Takes in a packet of the present session that passed [`Packet::check`]; `payload` is the datagram it
    /// was parsed from.
    pub fn offer(&mut self, rx_ns: u64, packet: &Packet<'_>, payload: &[u8]) -> Offer {
        let is_ahead = self.holds && self.sequencer.is_ahead(packet);
        if !is_ahead && !self.frozen {
            return Offer::Taken(self.sequencer.accept(packet));
        }
        let payload = match packet.kind {
            Kind::Messages(_) => payload,
            Kind::Heartbeat => &[],
            Kind::EndOfSession => {
                self.sequencer.end();
                &[]
            }
        };
        match self.held.insert(rx_ns, packet.sequence, packet.next_sequence(), payload) {
            Insert::Held => {
                let is_hole =
                    self.first_held().is_some_and(|first| first > self.sequencer.expected());
                if is_hole && !self.frozen {
                    let since_ns = self.hole_since_ns.unwrap_or(rx_ns);
                    self.hole_since_ns = Some(since_ns.min(rx_ns));
                }
                Offer::Held
            }
            Insert::Copy => Offer::Copy,
            Insert::NoRoom => Offer::NoRoom,
        }
    }

    /// Declares the first hole a gap and returns how many messages it lacks; `None` without a hole.
    pub fn give_up(&mut self) -> Option<u64> {
        let sequence = self.held.first()?.sequence;
        self.hole_since_ns = None;
        if sequence <= self.sequencer.expected() {
            return None;
        }
        Some(self.sequencer.skip_to(sequence))
    }

    /// The same for a hole whose limit is over.
    pub fn give_up_late(&mut self, now_ns: u64) -> Option<u64> {
        self.hole_deadline_ns().filter(|deadline_ns| *deadline_ns < now_ns)?;
        self.give_up()
    }

    /// Takes out the next held packet whose turn has come.
    pub fn next_held(&mut self) -> Option<Ready<'_>> {
        if self.frozen {
            return None;
        }
        let first = *self.held.first()?;
        if first.sequence > self.sequencer.expected() {
            // What remains lies behind another hole, which is as old as the earliest of it.
            self.hole_since_ns = self.hole_since_ns.or_else(|| self.held.earliest_seen_ns());
            return None;
        }
        self.healed_holes += u64::from(self.hole_since_ns.take().is_some());
        self.held.pop_first();
        let (duplicate_messages, step) =
            self.sequencer.advance(first.sequence, first.next_sequence);
        Some(Ready {
            rx_ns: first.rx_ns,
            next_sequence: first.next_sequence,
            duplicate_messages,
            step,
            payload: self.held.payload(&first),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::moldudp64::{COUNT_END_OF_SESSION, HEADER_BYTES, Session, write_header};
    use super::*;

    const MONDAY: Session = Session(*b"000000MON1");
    const LIMIT_NS: u64 = 1_000;

    fn started() -> Arbitration {
        let mut arbitration = Arbitration::new(Start::Session, LIMIT_NS, None);
        arbitration.begin(MONDAY, 1);
        offer(&mut arbitration, 0, 1, 9);
        arbitration
    }

    /// Offers a packet of one-byte messages and returns what came of it and what was ready then, each as
    /// (first message to apply, next).
    fn offer(
        arbitration: &mut Arbitration,
        rx_ns: u64,
        sequence: u64,
        count: u16,
    ) -> (Offer, Vec<(u64, u64)>) {
        let mut header = [0; HEADER_BYTES];
        write_header(&mut header, MONDAY, sequence, count);
        let mut bytes = header.to_vec();
        if count != COUNT_END_OF_SESSION {
            bytes.extend((0..count).flat_map(|_| [0, 1, 7]));
        }
        let packet = Packet::parse(&bytes).unwrap();
        packet.check().unwrap();
        (arbitration.offer(rx_ns, &packet, &bytes), ready(arbitration))
    }

    fn ready(arbitration: &mut Arbitration) -> Vec<(u64, u64)> {
        let mut taken = Vec::new();
        while let Some(ready) = arbitration.next_held() {
            let Step::Apply { skip, sequence } = ready.step else { continue };
            let packet = Packet::parse(ready.payload).unwrap();
            assert_eq!(packet.sequence + u64::from(skip), sequence);
            assert_eq!(packet.next_sequence(), ready.next_sequence);
            taken.push((sequence, ready.next_sequence));
        }
        taken
    }

    fn state(arbitration: &Arbitration) -> (u64, Option<Doubt>, Option<u64>) {
        let sequencer = arbitration.sequencer();
        (sequencer.expected(), sequencer.doubt(), arbitration.hole_deadline_ns())
    }

    #[test]
    fn what_fills_the_hole_sets_free_what_was_held() {
        let mut arbitration = started();
        assert_eq!(offer(&mut arbitration, 10, 14, 2), (Offer::Held, vec![]));
        assert_eq!(offer(&mut arbitration, 11, 12, 2), (Offer::Held, vec![]));
        assert_eq!(offer(&mut arbitration, 12, 14, 1), (Offer::Copy, vec![]));
        assert_eq!(state(&arbitration), (10, None, Some(10 + LIMIT_NS)));
        // The last instant counts, and an overlap is applied once.
        assert_eq!(arbitration.give_up_late(10 + LIMIT_NS), None);
        let (taken, freed) = offer(&mut arbitration, 10 + LIMIT_NS, 10, 3);
        assert!(matches!(taken, Offer::Taken(outcome) if outcome.gap_messages == 0));
        assert_eq!(freed, [(13, 14), (14, 16)]);
        assert_eq!(state(&arbitration), (16, None, None));
        assert_eq!((arbitration.healed_holes(), arbitration.held_packets()), (1, 0));
    }

    #[test]
    fn every_hole_has_a_limit_of_its_own() {
        let mut arbitration = started();
        offer(&mut arbitration, 10, 12, 1);
        offer(&mut arbitration, 500, 15, 1);
        let (_, freed) = offer(&mut arbitration, 600, 10, 2);
        assert_eq!(freed, [(12, 13)]);
        assert_eq!(state(&arbitration), (13, None, Some(500 + LIMIT_NS)));
        assert_eq!(arbitration.give_up_late(500 + LIMIT_NS), None);
        assert_eq!(arbitration.give_up_late(501 + LIMIT_NS), Some(2));
        assert_eq!(ready(&mut arbitration), [(15, 16)]);
        assert_eq!(state(&arbitration), (16, Some(Doubt::Gap), None));
        assert_eq!(arbitration.healed_holes(), 1);
        assert_eq!(arbitration.give_up(), None);
    }

    #[test]
    fn a_heartbeat_and_an_end_of_session_open_a_hole() {
        for count in [0, COUNT_END_OF_SESSION] {
            let mut arbitration = started();
            assert_eq!(offer(&mut arbitration, 10, 12, count), (Offer::Held, vec![]));
            assert_eq!(arbitration.sequencer().has_ended(), count != 0);
            assert_eq!(state(&arbitration), (10, None, Some(10 + LIMIT_NS)));
            let (_, freed) = offer(&mut arbitration, 20, 10, 2);
            assert_eq!((freed, state(&arbitration)), (vec![], (12, None, None)));
            offer(&mut arbitration, 30, 13, count);
            assert_eq!(arbitration.give_up_late(31 + LIMIT_NS), Some(1));
            assert_eq!(ready(&mut arbitration), []);
            assert_eq!(state(&arbitration), (13, Some(Doubt::Gap), None));
        }
    }

    #[test]
    fn a_full_store_gives_the_first_hole_up() {
        let mut arbitration = started();
        for index in 0..HeldLimits::default().packets_max as u64 {
            assert_eq!(offer(&mut arbitration, 10, 20 + 2 * index, 1).0, Offer::Held);
        }
        let beyond = 20 + 2 * HeldLimits::default().packets_max as u64;
        assert_eq!(offer(&mut arbitration, 10, beyond, 1), (Offer::NoRoom, vec![]));
        assert_eq!(state(&arbitration).1, None);
        assert_eq!(arbitration.give_up(), Some(10));
        assert_eq!(ready(&mut arbitration), [(20, 21)]);
        assert_eq!(offer(&mut arbitration, 10, beyond, 1).0, Offer::Held);
        assert_eq!(state(&arbitration), (21, Some(Doubt::Gap), Some(10 + LIMIT_NS)));
    }

    #[test]
    fn the_last_sequence_numbers_and_instants_do_not_wrap() {
        let mut arbitration = started();
        assert_eq!(offer(&mut arbitration, u64::MAX, u64::MAX - 1, 1).0, Offer::Held);
        assert_eq!(offer(&mut arbitration, u64::MAX, u64::MAX, 0).0, Offer::Copy);
        assert_eq!(arbitration.give_up_late(u64::MAX), None);
        assert_eq!(arbitration.give_up(), Some(u64::MAX - 1 - 10));
        assert_eq!(ready(&mut arbitration), [(u64::MAX - 1, u64::MAX)]);
        let (last, _) = offer(&mut arbitration, u64::MAX, u64::MAX, 0);
        assert!(matches!(last, Offer::Taken(Outcome { gap_messages: 0, .. })));
    }

    #[test]
    fn without_a_limit_a_hole_is_a_gap_at_once() {
        let mut arbitration = Arbitration::new(Start::Session, 0, None);
        arbitration.begin(MONDAY, 1);
        offer(&mut arbitration, 0, 1, 9);
        let (taken, _) = offer(&mut arbitration, 0, 12, 1);
        assert!(matches!(taken, Offer::Taken(Outcome { gap_messages: 2, .. })));
        assert_eq!(state(&arbitration), (13, Some(Doubt::Gap), None));
    }
}
