//! What a channel has applied, said to the steering program, which drops copies of it (`ebpf/src/feed.h`).
//!
//! ```text
//!   burst: take_in --> channel handles and publishes --> say
//!            ^                                            |
//!            records of what was dropped   <- XDP <-------+  session, from..next
//! ```
//!
//! What was dropped is counted before the packets of a burst, so that no window has moved on meanwhile, and
//! what was applied is said after their records are in the cache. Only a run without a hole is said: from
//! message 1 on while the channel is exact, and after a gap or a late join from where the channel stood when that was
//! noticed; copies of what lies before are the channel's to judge. While a snapshot is being taken nothing is.
//!
//! Owned and written by the worker that owns the channel; the steering program reads it.

use nautilus_ebpf::{FeedRecord, FeedSlot};

use super::channel::Channel;
use super::moldudp64::Session;

/// The run that was said last; while a snapshot is being taken an empty one.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Said {
    session: Session,
    run: u64,
    next: u64,
    is_frozen: bool,
}

/// One feed's slot in the steering program's map.
pub struct Applied {
    slot: FeedSlot,
    said: Option<Said>,
    /// Records of this version and later are of the present session.
    session_version: u64,
    /// Those before this one were another worker's to count.
    own_version: u64,
}

impl Applied {
    /// Has said nothing; [`Self::begin`] must come before anything else.
    pub fn new(slot: FeedSlot) -> Self {
        Self { slot, said: None, session_version: u64::MAX, own_version: u64::MAX }
    }

    /// Takes the slot over: from now on nothing is dropped because of what a predecessor had applied.
    pub fn begin(&mut self) {
        self.slot.retract();
        self.said = None;
        (self.session_version, self.own_version) = (self.slot.version(), self.slot.version());
    }

    /// Counts what was dropped since the last call on the channel's lines.
    #[inline]
    pub fn take_in(&mut self, channel: &mut Channel) {
        let (session_version, own_version) = (self.session_version, self.own_version);
        self.slot.drain(|FeedRecord { version, sequence, message_count, line }| {
            if version >= session_version {
                channel.count_dropped_copy(line.into(), sequence, message_count);
            } else if version >= own_version {
                channel.count_dropped_stale();
            }
        });
    }

    /// Says what the channel has applied. For the end of a burst, when its records are published.
    #[inline]
    pub fn say(&mut self, channel: &Channel) {
        let sequencer = channel.sequencer();
        let Some(session) = sequencer.session() else { return };
        // The snapshot may end before what was applied, and then copies of that are wanted.
        let is_frozen = channel.is_frozen();
        let (run, next) = (sequencer.run(), sequencer.expected());
        let said = Said { session, run, next, is_frozen };
        if self.said == Some(said) {
            return;
        }
        let before = self.said.replace(said);
        let goes_on = before.is_some_and(|before| {
            (before.run, before.is_frozen, is_frozen) == (said.run, false, false)
        });
        if goes_on {
            self.slot.advance(said.next);
            return;
        }
        // Only then was everything from the session's first message on.
        let is_exact = sequencer.doubt().is_none() && !sequencer.is_partial() && !is_frozen;
        self.slot.publish(session.0, if is_exact { 1 } else { said.next }, said.next);
        if before.is_none_or(|before| before.session != session) {
            self.session_version = self.slot.version();
        }
    }
}
