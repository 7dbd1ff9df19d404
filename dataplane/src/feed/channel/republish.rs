//! The part of a channel that gives out again what it has applied.

use super::super::moldudp64::Session;
use super::super::republish::show::{Show, ShowCounts, ShowStanding};
use super::super::republish::{RepublishCounts, RepublishSpec, Republisher, Standing};
use super::Channel;
use crate::port::{Datagram, SendError, Transmit};
use nautilus_shm::front_region::SnapshotMessage;

impl Channel {
    /// The same channel, giving out again what it applies. Allocates what that needs.
    pub fn republishing(self, spec: RepublishSpec) -> Self {
        Self { republisher: Some(Republisher::new(spec)), ..self }
    }

    /// What was given out again; `None` where nothing is.
    pub fn republish_counts(&self) -> Option<RepublishCounts> {
        self.republisher.as_ref().map(Republisher::counts)
    }

    /// How it is given out; `None` where it is not.
    pub fn republish_spec(&self) -> Option<&RepublishSpec> {
        self.republisher.as_ref().map(Republisher::spec)
    }

    /// Takes in what came to the endpoint of requests for what it gives out.
    pub fn take_request(&mut self, datagram: &Datagram<'_>) {
        if let Some(republisher) = &mut self.republisher {
            republisher.take_request(datagram);
        }
    }

    /// Sends what is due of what was applied, and answers requests for it. Bounded; to be called after each burst
    /// and at housekeeping. The error is what the port said of a packet, which is tried again.
    #[inline]
    pub fn republish(&mut self, now_ns: u64, tx: &mut impl Transmit) -> Result<(), SendError> {
        if self.republisher.is_none() {
            return Ok(());
        }
        let standing = self.standing(now_ns);
        self.republisher.as_mut().map_or(Ok(()), |own| own.send(now_ns, &standing, tx))
    }

    /// In place of [`Self::republish`] while the kill switch is on.
    #[inline]
    pub fn fall_silent(&mut self) {
        if let Some(republisher) = &mut self.republisher {
            republisher.fall_silent();
        }
    }

    /// The same channel, showing its books to those who take snapshots of this node. Allocates what that needs.
    pub fn showing(mut self) -> Self {
        self.publisher.show = Some(Box::new(Show::new(self.spec.channel)));
        self
    }

    /// The front wants the books, under this attempt of its own.
    pub fn want_books(&mut self, attempt: u64) {
        if let Some(show) = &mut self.publisher.show {
            show.want(attempt);
        }
    }

    /// Shows some of the books that the front wants; `push` hands over a piece or says that there is no room.
    /// Bounded; to be called every turn of the loop. Returns whether somebody wants them.
    #[inline]
    pub fn show_books(&mut self, push: impl FnMut(&SnapshotMessage<'_>) -> bool) -> bool {
        let Self { publisher, arbitration, .. } = self;
        publisher.show(
            || {
                let sequencer = arbitration.sequencer();
                let is_exact = sequencer.is_exact_so_far()
                    && !sequencer.is_joining()
                    && !sequencer.is_partial()
                    && !arbitration.is_frozen();
                let session = sequencer.session().filter(|_| is_exact);
                ShowStanding { session, next_sequence: sequencer.expected() }
            },
            push,
        )
    }

    /// What was shown; `None` where nothing is.
    pub fn show_counts(&self) -> Option<ShowCounts> {
        self.publisher.show.as_ref().map(|show| show.counts())
    }

    /// Another session begins.
    pub(super) fn republish_session(&mut self, session: Session) {
        let standing = self.standing(self.heard_ns);
        if let Some(republisher) = &mut self.republisher {
            republisher.begin_session(session, &standing);
        }
    }

    fn standing(&self, now_ns: u64) -> Standing {
        let sequencer = self.arbitration.sequencer();
        let is_whole = !self.arbitration.is_frozen()
            && !sequencer.is_joining()
            && self.arbitration.hole_deadline_ns().is_none();
        Standing {
            next_sequence: sequencer.expected(),
            is_current: is_whole
                && now_ns <= self.heard_ns.saturating_add(self.spec.silence_limit_ns),
            has_ended: is_whole && sequencer.has_ended() && self.arbitration.held_packets() == 0,
        }
    }
}
