//! Sequencing of one channel: which messages to apply, and whether the books can be believed.
//!
//! ```text
//!             session starts at 1             gap, bad message, no room
//!   (nothing) ---------------------> exact ------------------------------> suspect
//!       |                            |  ^                                      |
//!       |              a hole is old |  | healed                               |
//!       |                            v  |       another session starts at 1    |
//!       |  in mid-session        recovering <------- a snapshot is being taken |
//!       +--> recovering, or suspect (joined late)                              |
//!                                    exact <-----------------------------------+
//! ```
//!
//! Policy. A book by order is exact only if every message since number 1 of its session was applied, or
//! every message since a snapshot. So a session first seen in the middle is *suspect*, a gap makes it
//! suspect, and it stays suspect until a snapshot or another session that starts at number 1. Where
//! recovery is configured a hole is no gap yet: the channel is suspect while it is open too long
//! ([`Doubt::Recovering`]), and exact again once it is filled. After a gap messages are applied all the
//! same: last trades and decoded fields stay current for whoever asks for suspect data.
//! [`Start::Any`] is for replayed captures that begin in mid-session: the late join is then accepted,
//! and every record carries the *partial* flag, because the book lacks what was resting before.
//!
//! A packet ahead of its turn does not come here at once: see [`super::arbitration`].
//!
//! Packets of the session before the present one are late copies and are dropped: without that, one
//! reordered packet would throw the books away.

use super::book::Problem;
use super::moldudp64::{Kind, Packet, Session};

/// What to do with a session that is first seen after its number 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// Suspect until a session is seen from number 1. The default, and the only honest one for a feed.
    #[default]
    Session,
    /// Accept it, with books that hold only what was added since. For replays of captures.
    Any,
}

/// Why the books of a channel cannot be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Nothing has been received.
    NoData,
    /// What is missing is waited for, asked for, or a snapshot is being taken; healed by that.
    Recovering,
    /// The session was first seen after its number 1.
    JoinedLate,
    /// Sequence numbers are missing.
    Gap,
    /// A message in sequence could not be decoded, so what it said is missing.
    Malformed,
    /// The books could not take a message in.
    Book(Problem),
    /// A snapshot ended in its middle, so the books hold a part of it.
    PartialSnapshot,
}

/// What to do with one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Apply the packet's messages after the first `skip`, the first of them with number `sequence`.
    Apply {
        /// How many messages at the front were applied before.
        skip: u16,
        /// Number of the first message to apply.
        sequence: u64,
    },
    /// Nothing to apply: heartbeat, end of session, or a copy of what was applied.
    Nothing,
}

/// What one packet did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Messages that are missing before this packet.
    pub gap_messages: u64,
    /// Messages that had been applied already.
    pub duplicate_messages: u64,
    /// What to do.
    pub step: Step,
}

/// The state of one channel. Written by the worker that owns the session.
#[derive(Clone, Debug)]
pub struct Sequencer {
    start: Start,
    session: Option<Session>,
    previous: Option<Session>,
    expected: u64,
    doubt: Option<Doubt>,
    partial: bool,
    ended: bool,
    /// The session was first seen after its number 1, and nothing of it was applied or given up yet.
    joining: bool,
    run: u64,
}

impl Sequencer {
    /// A channel that has received nothing.
    pub fn new(start: Start) -> Self {
        Self {
            start,
            session: None,
            previous: None,
            expected: 1,
            doubt: Some(Doubt::NoData),
            partial: false,
            ended: false,
            joining: false,
            run: 0,
        }
    }

    /// The present session.
    pub fn session(&self) -> Option<Session> {
        self.session
    }

    /// Number of the next message to apply.
    pub fn expected(&self) -> u64 {
        self.expected
    }

    /// Why the books cannot be believed, `None` when they can.
    pub fn doubt(&self) -> Option<Doubt> {
        self.doubt
    }

    /// Whether a late join was accepted, so that books hold only what was added since.
    pub fn is_partial(&self) -> bool {
        self.partial
    }

    /// Whether the end of the session has been announced.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Loses trust in the present session for a reason found while applying it. The first reason stays,
    /// but for one that recovery would heal.
    pub fn distrust(&mut self, doubt: Doubt) {
        if !self.is_exact_so_far() {
            return;
        }
        self.doubt = Some(doubt);
    }

    /// Waits for what is missing: suspect until [`Self::recovered`].
    pub fn wait(&mut self) {
        self.doubt.get_or_insert(Doubt::Recovering);
    }

    /// What was missing has been applied.
    pub fn recovered(&mut self) {
        if self.doubt == Some(Doubt::Recovering) {
            self.doubt = None;
        }
    }

    /// Whether every message before [`Self::expected`] was applied, though some behind it may be missing.
    pub fn is_exact_so_far(&self) -> bool {
        matches!(self.doubt, None | Some(Doubt::Recovering))
    }

    /// The books are those of a snapshot, in which every message before `next_sequence` is included; what
    /// follows is still to be applied.
    pub fn resume(&mut self, next_sequence: u64) {
        self.run += 1;
        self.expected = next_sequence;
        self.joining = false;
        self.partial = false;
        self.doubt = Some(Doubt::Recovering);
    }

    /// Takes in a packet of the present session that passed [`Packet::check`].
    pub fn accept(&mut self, packet: &Packet<'_>) -> Outcome {
        debug_assert_eq!(self.session, Some(packet.session));
        let mut outcome = Outcome { gap_messages: 0, duplicate_messages: 0, step: Step::Nothing };
        if packet.sequence > self.expected {
            outcome.gap_messages = self.skip_to(packet.sequence);
        }
        match packet.kind {
            Kind::Heartbeat => {}
            Kind::EndOfSession => self.end(),
            Kind::Messages(_) => {
                let (duplicates, step) = self.advance(packet.sequence, packet.next_sequence());
                outcome.duplicate_messages = duplicates;
                outcome.step = step;
            }
        }
        outcome
    }

    /// Whether a packet belongs to a session that has not been seen.
    pub fn is_of_new_session(&self, packet: &Packet<'_>) -> bool {
        self.session != Some(packet.session) && self.previous != Some(packet.session)
    }

    /// Whether a packet belongs to the session before the present one.
    pub fn is_stale(&self, packet: &Packet<'_>) -> bool {
        self.session != Some(packet.session) && self.previous == Some(packet.session)
    }

    /// Whether a packet of the present session leaves a hole before it.
    pub fn is_ahead(&self, packet: &Packet<'_>) -> bool {
        self.session == Some(packet.session) && packet.sequence > self.expected
    }

    /// Changes whenever numbers are left out: with a session, with what is given up, with a snapshot.
    pub fn run(&self) -> u64 {
        self.run
    }

    /// Whether the session was first seen after its number 1 and what is before is still waited for.
    pub fn is_joining(&self) -> bool {
        self.joining
    }

    /// The end of the present session has been announced.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Gives up what is missing before `sequence`, which is ahead, and returns how many messages that is:
    /// 0 where a session is joined late, which is no gap in it.
    pub fn skip_to(&mut self, sequence: u64) -> u64 {
        debug_assert!(sequence > self.expected);
        let is_joining = std::mem::take(&mut self.joining);
        self.run += 1;
        let gap_messages = if is_joining { 0 } else { sequence - self.expected };
        self.distrust(if is_joining { Doubt::JoinedLate } else { Doubt::Gap });
        self.expected = sequence;
        gap_messages
    }

    /// Goes on by the messages `sequence..next_sequence` of a packet that is not ahead. Returns how many
    /// of them had been applied, and what to do with the rest.
    pub fn advance(&mut self, sequence: u64, next_sequence: u64) -> (u64, Step) {
        debug_assert!(sequence <= self.expected);
        // A packet has fewer than 2^16 messages.
        let count = next_sequence - sequence;
        let skip = (self.expected - sequence).min(count) as u16;
        if u64::from(skip) == count {
            return (count, Step::Nothing);
        }
        let step = Step::Apply { skip, sequence: self.expected };
        self.expected = next_sequence;
        self.joining = false;
        (u64::from(skip), step)
    }

    /// Another session begins with a packet of this number. One that is joined after its number 1 `waits`
    /// for what is before, or does not.
    pub fn begin(&mut self, session: Session, sequence: u64, waits: bool) {
        self.run += 1;
        self.previous = self.session;
        self.session = Some(session);
        self.ended = false;
        self.partial = sequence != 1 && self.start == Start::Any;
        self.joining = sequence != 1 && self.start == Start::Session && waits;
        (self.expected, self.doubt) = match (sequence, self.start) {
            (1, _) | (_, Start::Any) => (sequence, None),
            (_, Start::Session) if self.joining => (1, Some(Doubt::Recovering)),
            // A channel that joins late has no gap before it, only a late join.
            (_, Start::Session) => (sequence, Some(Doubt::JoinedLate)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::moldudp64::{COUNT_END_OF_SESSION, HEADER_BYTES, write_header};
    use super::*;

    const MONDAY: Session = Session(*b"000000MON1");
    const TUESDAY: Session = Session(*b"000000TUE1");

    fn feed(line: &mut Sequencer, session: Session, sequence: u64, count: u16) -> Outcome {
        let mut bytes = [0; HEADER_BYTES];
        write_header(&mut bytes, session, sequence, count);
        let packet = Packet::parse(&bytes).unwrap();
        if line.is_of_new_session(&packet) {
            line.begin(session, sequence, false);
        }
        line.accept(&packet)
    }

    #[test]
    fn a_session_seen_whole_is_exact() {
        let mut line = Sequencer::new(Start::Session);
        assert_eq!(line.doubt(), Some(Doubt::NoData));
        let outcome = feed(&mut line, MONDAY, 1, 3);
        assert_eq!(outcome.step, Step::Apply { skip: 0, sequence: 1 });
        assert_eq!(feed(&mut line, MONDAY, 4, 0).step, Step::Nothing);
        assert_eq!(feed(&mut line, MONDAY, 4, 1).step, Step::Apply { skip: 0, sequence: 4 });
        feed(&mut line, MONDAY, 5, COUNT_END_OF_SESSION);
        assert_eq!((line.doubt(), line.has_ended(), line.expected()), (None, true, 5));
    }

    #[test]
    fn a_heartbeat_alone_starts_a_session_at_one() {
        let mut line = Sequencer::new(Start::Session);
        feed(&mut line, MONDAY, 1, 0);
        assert_eq!((line.doubt(), line.session()), (None, Some(MONDAY)));
    }

    #[test]
    fn copies_are_skipped_to_the_message() {
        let mut line = Sequencer::new(Start::Session);
        feed(&mut line, MONDAY, 1, 10);
        let copy = feed(&mut line, MONDAY, 3, 8);
        assert_eq!((copy.duplicate_messages, copy.step), (8, Step::Nothing));
        let overlap = feed(&mut line, MONDAY, 9, 5);
        assert_eq!(overlap.duplicate_messages, 2);
        assert_eq!(overlap.step, Step::Apply { skip: 2, sequence: 11 });
        assert_eq!((line.expected(), line.doubt()), (14, None));
    }

    #[test]
    fn a_gap_is_suspect_until_another_session_starts_at_one() {
        let mut line = Sequencer::new(Start::Session);
        feed(&mut line, MONDAY, 1, 10);
        let outcome = feed(&mut line, MONDAY, 14, 1);
        assert_eq!(outcome.gap_messages, 3);
        assert_eq!(outcome.step, Step::Apply { skip: 0, sequence: 14 });
        assert_eq!(line.doubt(), Some(Doubt::Gap));
        // What was missing comes late, and the same session starts over: neither heals.
        feed(&mut line, MONDAY, 11, 3);
        feed(&mut line, MONDAY, 1, 1);
        assert_eq!(line.doubt(), Some(Doubt::Gap));
        feed(&mut line, TUESDAY, 1, 1);
        assert_eq!(line.doubt(), None);
    }

    #[test]
    fn heartbeat_and_end_of_session_reveal_a_lost_tail() {
        for count in [0, COUNT_END_OF_SESSION] {
            let mut line = Sequencer::new(Start::Session);
            feed(&mut line, MONDAY, 1, 10);
            assert_eq!(feed(&mut line, MONDAY, 12, count).gap_messages, 1);
            assert_eq!(line.doubt(), Some(Doubt::Gap));
        }
    }

    #[test]
    fn joining_late_is_suspect_unless_the_configuration_allows_it() {
        let mut line = Sequencer::new(Start::Session);
        let outcome = feed(&mut line, MONDAY, 500, 2);
        assert_eq!(outcome.gap_messages, 0);
        assert_eq!(outcome.step, Step::Apply { skip: 0, sequence: 500 });
        assert_eq!(line.doubt(), Some(Doubt::JoinedLate));
        assert!(!line.is_partial());

        let mut line = Sequencer::new(Start::Any);
        feed(&mut line, MONDAY, 500, 2);
        assert_eq!((line.doubt(), line.is_partial()), (None, true));
        feed(&mut line, TUESDAY, 1, 2);
        assert_eq!((line.doubt(), line.is_partial()), (None, false));
        feed(&mut line, TUESDAY, 9, 2);
        assert_eq!(line.doubt(), Some(Doubt::Gap));
    }

    #[test]
    fn a_packet_of_the_session_before_does_not_bring_it_back() {
        let mut line = Sequencer::new(Start::Session);
        feed(&mut line, MONDAY, 1, 2);
        feed(&mut line, TUESDAY, 1, 2);
        let mut bytes = [0; HEADER_BYTES];
        write_header(&mut bytes, MONDAY, 3, 1);
        let late = Packet::parse(&bytes).unwrap();
        assert!(line.is_stale(&late) && !line.is_of_new_session(&late) && !line.is_ahead(&late));
        assert_eq!((line.session(), line.expected()), (Some(TUESDAY), 3));
    }

    #[test]
    fn a_session_that_waits_for_its_first_messages_is_exact_once_it_has_them() {
        let mut line = Sequencer::new(Start::Session);
        line.begin(MONDAY, 14, true);
        assert_eq!((line.expected(), line.doubt()), (1, Some(Doubt::Recovering)));
        assert_eq!(feed(&mut line, MONDAY, 1, 13).step, Step::Apply { skip: 0, sequence: 1 });
        line.recovered();
        assert_eq!((line.expected(), line.doubt()), (14, None));

        line.begin(TUESDAY, 14, true);
        assert_eq!(line.skip_to(14), 0, "a late join is no gap");
        line.recovered();
        assert_eq!(line.doubt(), Some(Doubt::JoinedLate));
        assert_eq!(line.skip_to(15), 1);
    }

    #[test]
    fn a_snapshot_heals_what_waiting_does_not() {
        let mut line = Sequencer::new(Start::Session);
        feed(&mut line, MONDAY, 1, 2);
        line.wait();
        assert!(line.is_exact_so_far());
        line.distrust(Doubt::Malformed);
        line.wait();
        line.recovered();
        assert_eq!((line.doubt(), line.is_exact_so_far()), (Some(Doubt::Malformed), false));
        line.resume(40);
        assert_eq!((line.expected(), line.doubt()), (40, Some(Doubt::Recovering)));
        assert_eq!(feed(&mut line, MONDAY, 38, 4).step, Step::Apply { skip: 2, sequence: 40 });
        line.recovered();
        assert_eq!(line.doubt(), None);
    }

    #[test]
    fn the_first_doubt_is_kept() {
        let mut line = Sequencer::new(Start::Session);
        feed(&mut line, MONDAY, 1, 2);
        line.distrust(Doubt::Malformed);
        feed(&mut line, MONDAY, 9, 1);
        assert_eq!(line.doubt(), Some(Doubt::Malformed));
    }
}
