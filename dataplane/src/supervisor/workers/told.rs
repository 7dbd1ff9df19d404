//! What a pair is told while it serves: changes of the caches, and to make room for a successor.

use std::os::fd::AsFd;

use nautilus_shm::clock::monotonic_ns;

use super::Workers;
use crate::supervisor::handover::{Fds, ToWorker, send};
use crate::supervisor::seat::{Phase, Seat};

impl Workers {
    /// Tells both of a change of the caches.
    pub fn tell(&self, message: &ToWorker, fds: &Fds) {
        for seat in [&self.active, &self.standby].into_iter().flatten() {
            if send(seat.socket(), message, &fds.borrowed()).is_err() {
                // It would serve something else than its successor.
                seat.kill();
            }
        }
    }

    /// Whether the active one, and a standby that waits, have made every change up to this one.
    pub fn have_made(&self, change: u64) -> bool {
        let serves = |seat: &Seat| matches!(seat.phase, Phase::Promoted | Phase::Serving);
        self.active.as_ref().is_some_and(|seat| serves(seat) && seat.changes >= change)
            && self
                .standby
                .as_ref()
                .is_none_or(|seat| seat.phase == Phase::Starting || seat.changes >= change)
    }

    /// Has the active worker finish while the standby is ready to follow.
    pub fn hand_over(&mut self) {
        let Some(seat) = self.active.as_mut().filter(|seat| !seat.is_leaving) else { return };
        seat.is_leaving = true;
        self.killed_ns = monotonic_ns();
        if send(seat.socket().as_fd(), &ToWorker::Drain, &[]).is_err() {
            seat.kill();
        }
    }

    /// Takes the standby out, to be ended.
    pub fn take_standby(&mut self) -> Option<Seat> {
        self.standby.take()
    }

    /// What the last of so many workers said that came to nothing.
    pub fn failure(&self, at_least: u32) -> Option<String> {
        let (count, words) = &self.failures;
        (*count >= at_least).then(|| words.clone())
    }
}
