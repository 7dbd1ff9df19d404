//! The front in a swap: another one that waits beside the workers that get ready, and takes its place after theirs.

use super::Node;
use crate::supervisor::node::exec::runs;
use crate::supervisor::seat::{Phase, Seat};

impl Node {
    /// Whether the front, if there is one, is of this release and was started by this supervisor.
    fn is_new_front(&self, seat: &Seat) -> bool {
        seat.is_child() && runs(seat.pid, &self.resolved.front_program)
    }

    /// Whether the front has not been exchanged by a swap that was turned back.
    pub(super) fn has_front_of_before(&self) -> bool {
        let leave = self.resources.control.supervisor().life().front_leave();
        let stays =
            |seat: &Seat| seat.generation > leave && runs(seat.pid, &self.resolved.front_program);
        // With another node file it is another front that is wanted.
        self.swap.stale.is_empty()
            && (self.resources.front.is_none() || self.front.seat().is_some_and(stays))
    }

    /// Has a front of this release get ready.
    pub(super) fn prepare_front(&mut self) {
        if self.front.seat().is_some_and(|seat| !self.is_new_front(seat)) {
            let (_, front, reaper, mut context) = self.split();
            front.prepare(&mut context, reaper);
        }
    }

    /// Has the front replaced by one of this release; whether it is new and serves.
    pub(super) fn exchange_front(&mut self) -> bool {
        if self.resources.front.is_none() {
            return true;
        }
        match self.front.seat() {
            Some(seat) if self.is_new_front(seat) => seat.phase == Phase::Serving,
            Some(_) => {
                let (_, front, reaper, mut context) = self.split();
                front.exchange(&mut context, reaper);
                false
            }
            // Started by itself.
            None => false,
        }
    }
}
