//! Which application gets which datagram: by destination port, without copying or allocating.

use std::os::fd::BorrowedFd;

use super::run_loop::Clock;
use crate::app::App;
use crate::limits::BURST_DATAGRAMS_MAX;
use crate::net::Endpoint;
use crate::port::{Burst, Datagram, Filled, Path, SendError, Transmit};

/// Applications of one worker, at most.
pub const APPS_MAX: usize = 32;

/// The applications of a worker, numbered from 0 to below [`APPS_MAX`].
pub trait Apps {
    /// Which application serves this destination.
    fn route(&self, destination: &Endpoint) -> Option<usize>;
    /// A burst is about to be handled, whole. Same rules as [`App::handle`].
    #[inline]
    fn seen(&mut self, _burst: &impl Burst) {}
    /// [`App::handle`] of application `app`; `burst` holds only datagrams routed to it, in the
    /// order in which they arrived.
    fn handle(&mut self, app: usize, now_ns: u64, burst: &impl Burst, tx: &mut impl Transmit);
    /// [`App::housekeeping`] of all.
    fn housekeeping(&mut self, now_ns: u64, tx: &mut impl Transmit);

    /// Does a bounded piece of the work that came by another way than the port, every turn; returns how
    /// many pieces that were. Same rules as [`App::handle`].
    #[inline]
    fn other_work(&mut self, _clock: &impl Clock, _tx: &mut impl Transmit) -> usize {
        0
    }

    /// Announces a sleep until `until_ns` to those who bring such work. `false`: there is some, the
    /// worker must not sleep.
    #[inline]
    fn sleeps(&mut self, _until_ns: u64) -> bool {
        true
    }

    /// The worker is awake again.
    #[inline]
    fn woke(&mut self) {}

    /// Becomes readable when there is such work for a sleeping worker.
    #[inline]
    fn wake_descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// No application: the end of a list.
impl Apps for () {
    fn route(&self, _destination: &Endpoint) -> Option<usize> {
        None
    }

    fn handle(&mut self, _: usize, _: u64, _: &impl Burst, _: &mut impl Transmit) {}

    fn housekeeping(&mut self, _: u64, _: &mut impl Transmit) {}
}

/// An application and the UDP ports it serves.
#[derive(Clone, Debug)]
pub struct Served<A> {
    /// Destination ports, host order; a few.
    pub ports: Vec<u16>,
    /// The application.
    pub app: A,
}

/// A list of applications: `(Some(first), (Some(second), ()))`. `None` keeps a place empty.
impl<A: App, R: Apps> Apps for (Option<Served<A>>, R) {
    #[inline]
    fn route(&self, destination: &Endpoint) -> Option<usize> {
        match &self.0 {
            Some(served) if served.ports.contains(&destination.port) => Some(0),
            _ => self.1.route(destination).map(|app| app + 1),
        }
    }

    #[inline]
    fn handle(&mut self, app: usize, now_ns: u64, burst: &impl Burst, tx: &mut impl Transmit) {
        match (&mut self.0, app.checked_sub(1)) {
            (Some(served), None) => served.app.handle(now_ns, burst, tx),
            (None, None) => {}
            (_, Some(rest)) => self.1.handle(rest, now_ns, burst, tx),
        }
    }

    fn housekeeping(&mut self, now_ns: u64, tx: &mut impl Transmit) {
        if let Some(served) = &mut self.0 {
            served.app.housekeeping(now_ns, tx);
        }
        self.1.housekeeping(now_ns, tx);
    }
}

/// Some datagrams of a burst.
struct Selection<'a, B> {
    burst: &'a B,
    indices: [u8; BURST_DATAGRAMS_MAX],
    count: usize,
}

impl<B: Burst> Burst for Selection<'_, B> {
    fn len(&self) -> usize {
        self.count
    }

    #[inline]
    fn get(&self, index: usize) -> Datagram<'_> {
        self.burst.get(usize::from(self.indices[..self.count][index]))
    }
}

/// Counts what an application sends.
struct Counting<'a, T> {
    tx: &'a mut T,
    sent: usize,
}

impl<T: Transmit> Transmit for Counting<'_, T> {
    #[inline]
    fn send<F: Into<Filled>>(
        &mut self,
        path: &Path,
        write: impl FnOnce(&mut [u8]) -> F,
    ) -> Result<(), SendError> {
        let result = self.tx.send(path, write);
        self.sent += usize::from(result.is_ok());
        result
    }
}

/// What became of a burst. Kept from burst to burst: clearing it would cost an idle turn more than
/// all else.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dispatched {
    /// Datagrams nobody serves.
    pub no_application: usize,
    rx_ns: [u64; BURST_DATAGRAMS_MAX],
    answered: usize,
}

impl Dispatched {
    /// Arrival stamps of the datagrams of those applications that answered.
    pub fn answered_rx_ns(&self) -> &[u64] {
        &self.rx_ns[..self.answered]
    }

    /// Forgets the burst before.
    #[inline]
    pub fn clear(&mut self) {
        (self.no_application, self.answered) = (0, 0);
    }
}

/// Gives each datagram of a burst to its application, and says in `dispatched` what became of them.
#[inline]
pub fn dispatch(
    apps: &mut impl Apps,
    now_ns: u64,
    burst: &impl Burst,
    tx: &mut impl Transmit,
    dispatched: &mut Dispatched,
) {
    const NOBODY: u8 = u8::MAX;
    dispatched.clear();
    let count = burst.len().min(BURST_DATAGRAMS_MAX);
    let mut routes = [NOBODY; BURST_DATAGRAMS_MAX];
    let mut present = 0u32;
    for (index, route) in routes[..count].iter_mut().enumerate() {
        match apps.route(&burst.get(index).destination) {
            Some(app) if app < APPS_MAX => {
                *route = app as u8;
                present |= 1 << app;
            }
            _ => dispatched.no_application += 1,
        }
    }
    while present != 0 {
        let app = present.trailing_zeros() as u8;
        present &= present - 1;
        let mut selection = Selection { burst, indices: [0; BURST_DATAGRAMS_MAX], count: 0 };
        for (index, _) in routes[..count].iter().enumerate().filter(|(_, route)| **route == app) {
            selection.indices[selection.count] = index as u8;
            selection.count += 1;
        }
        let mut counting = Counting { tx: &mut *tx, sent: 0 };
        apps.handle(usize::from(app), now_ns, &selection, &mut counting);
        if counting.sent > 0 {
            for index in 0..selection.count {
                dispatched.rx_ns[dispatched.answered] = selection.get(index).rx_ns;
                dispatched.answered += 1;
            }
        }
    }
}
