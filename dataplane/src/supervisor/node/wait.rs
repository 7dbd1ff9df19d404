//! The supervisor's one sleep, and what wakes it.

use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Node, NodeError, TICK_MS};
use crate::supervisor::seat::Seat;
use crate::supervisor::workers::Workers;

/// Longest sleep while a thread is waited for. Too low: the supervisor takes time from it; too high: whoever asked
/// waits for a tick on top.
const THREAD_MS: u16 = 5;

/// Descriptors of the supervisor itself in [`Node::poll`].
const OWN_FDS: usize = 3;

impl Node {
    /// Sleeps and handles what woke it; `true` when told to stop.
    pub(super) fn wait(&mut self) -> Result<bool, NodeError> {
        let ready = self.poll()?;
        let (own, rest) = ready.split_at(OWN_FDS);
        let (seats, readers) = rest.split_at(2 * (2 * self.workers.len() + 3));
        let [signal, changed, asked] = own else { return Ok(false) };
        // The death of a worker comes before everything else: packets wait.
        let (all, front, reaper, mut context) = self.split();
        let (of_workers, of_others) = seats.split_at(seats.len() - 6);
        let (of_front, of_others) = of_others.split_at(2);
        let (of_capture, of_next) = of_others.split_at(2);
        let pairs = all.iter_mut().zip(of_workers.chunks_exact(4));
        for (workers, ready) in pairs {
            let &[active_dead, active_said, standby_dead, standby_said] = ready else { continue };
            if active_said && !active_dead {
                workers.heard(&context, true);
            }
            if standby_said && !standby_dead {
                workers.heard(&context, false);
            }
            // A death promotes the standby, whose own is known by the number of its seat.
            let standby = workers.standby.as_ref().map(|seat| seat.pid);
            if active_dead {
                workers.active_died(&mut context);
            }
            if standby_dead && workers.standby.as_ref().map(|seat| seat.pid) == standby {
                workers.standby_died(&context);
            }
        }
        match of_front {
            [true, _] => front.died(&context, reaper),
            [false, true] => front.heard(&context),
            _ => {}
        }
        match of_next {
            [true, _] => front.next_died(&context, reaper),
            [false, true] => front.heard_next(&context),
            _ => {}
        }
        self.hear_capture(of_capture);
        if *changed {
            self.follow_changes();
        }
        for index in (0..readers.len()).rev().filter(|index| readers[*index]) {
            self.answer(index);
        }
        if *asked {
            self.readers.accept();
        }
        Ok(*signal && matches!(self.signals.read_signal(), Ok(Some(_))))
    }

    fn hear_capture(&mut self, ready: &[bool]) {
        let mut capture = std::mem::take(&mut self.capture);
        let (_, _, reaper, context) = self.split();
        match ready {
            [true, _] => capture.died(&context, reaper),
            [false, true] => capture.heard(&context),
            _ => {}
        }
        self.capture = capture;
    }

    /// Sleeps; which descriptors are ready: our own, then pidfd and messages of both seats of each worker, of
    /// the front, of the capture process and of a front that waits, then the readers'.
    fn poll(&mut self) -> Result<Vec<bool>, NodeError> {
        let seats = self.workers.iter().flat_map(|workers| [&workers.active, &workers.standby]);
        let seats = seats.map(Option::as_ref).chain([
            self.front.seat(),
            self.capture.seat(),
            self.front.next(),
        ]);
        let (listener, readers) = self.readers.fds();
        let mut fds: Vec<Option<BorrowedFd<'_>>> =
            vec![Some(self.signals.as_fd()), Some(self.changes.as_fd()), Some(listener)];
        for seat in seats {
            fds.push(seat.map(Seat::pidfd));
            fds.push(seat.and_then(Seat::messages));
        }
        fds.extend(readers.map(Some));
        let absent = self.signals.as_fd();
        let mut polled: Vec<PollFd<'_>> =
            fds.iter().map(|fd| PollFd::new(fd.unwrap_or(absent), PollFlags::POLLIN)).collect();
        let binds = self.workers.iter().any(Workers::awaits_binding);
        let tick_ms = match (binds, self.swap.is_looking() || self.probing.is_some()) {
            (true, _) => 1,
            // What a thread has found wakes nobody.
            (false, true) => THREAD_MS,
            (false, false) => TICK_MS,
        };
        match poll(&mut polled, PollTimeout::from(tick_ms)) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(NodeError::System("poll", errno)),
        }
        let is_ready = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
        Ok(fds.iter().zip(&polled).map(|(fd, polled)| fd.is_some() && is_ready(polled)).collect())
    }
}
