//! The way to the supervisor: a message on it brings the next tick on, in which it is read.

use std::os::fd::BorrowedFd;

use super::super::ring::Token;
use super::Server;

/// Whose it is when it polls readable; no cache has this place.
pub(super) const SUPERVISOR: Token = Token { index: u32::MAX, generation: 0 };

impl<'a> Server<'a> {
    /// Has a message on this socket bring the next tick on.
    pub fn listen_to(&mut self, supervisor: BorrowedFd<'a>) {
        self.supervisor = Some((supervisor, true));
    }

    /// Nobody is at the other end any more: the poll that is left fires once and is not begun again.
    pub fn listen_no_more(&mut self) {
        self.supervisor = None;
    }

    /// Has the next turn be a tick.
    pub fn tick_soon(&mut self) {
        self.ticked_ns = 0;
    }

    pub(super) fn arm_supervisor(&mut self) {
        if let Some((supervisor, is_unarmed)) = &mut self.supervisor
            && std::mem::take(is_unarmed)
        {
            self.ring.poll(*supervisor, SUPERVISOR);
        }
    }

    pub(super) fn supervisor_speaks(&mut self, armed: bool) {
        if let Some((_, is_unarmed)) = &mut self.supervisor {
            *is_unarmed |= !armed;
            self.tick_soon();
        }
    }
}
