//! The one loop of a worker. Everything a packet meets on its way through is called from here.
//!
//! ```text
//!        +--> poll --> handle, other work --> flush --> housekeeping --+
//!        |                                                             |
//!        +--------------------- sleep (adaptive, interrupt) <----------+
//! ```
//!
//! **poll** takes at most one burst from the port. When it returns, the ring's consumer index is
//! published: whatever happens from here on, a packet of the burst is not handled a second time.
//! Packets that hold no datagram were counted and dropped in here. No system call, but for exactly
//! one `recvfrom` a socket where busy polling is preferred. Then the clock is read, once.
//!
//! **handle** gives each datagram to the application of its destination port, all of one
//! application together and in order, then gives the burst's frames back. What a node captures is copied
//! into a ring before (`Apps::seen`). Applications may read the
//! burst, write their own state, and queue datagrams. They may not allocate, lock, log, enter the
//! kernel, or keep a reference into the burst.
//!
//! Then comes **other work**, what front and other workers left in their rings: a few pieces a turn, each
//! with the time read after it was taken. Answers to the front go into a ring, what other workers answer
//! leaves through the port. With several workers a sleeping one is woken for what it was sent, by one
//! `write` at the end of the turn.
//!
//! **flush** pushes out what was queued (one `sendto` a TX batch, none if nothing waits), collects
//! sent frames and refills the fill ring. After it the stamps of answered datagrams go into the
//! `xdp_to_tx` histogram.
//!
//! **housekeeping** beats the heartbeat every turn. At most every [`HOUSEKEEPING_NS`] applications
//! do bounded work (timers, silence of a feed); at most every [`PUBLISH_NS`] totals and counters
//! are published. What applications queue here leaves with the next flush.
//!
//! **sleep** happens only when the policy allows it and the turn found nothing: the end of the
//! sleep is published first, so that nobody takes it for death, and the front knows whom to wake (an
//! eventfd beside the sockets). Then the front's ring is looked at once more. One system call.
//!
//! No phase allocates, locks or logs; errors are counters. The loop ends when the stop flag is
//! raised, which a helper thread does; the loop reads it once a turn.

use std::sync::atomic::{AtomicBool, Ordering};

use nautilus_shm::cells::PollPolicy;

use super::apps::{Apps, Dispatched, dispatch};
use super::report::{Report, Totals};
use crate::port::Port;

/// Time between two housekeepings of the applications. Too low: idle turns cost more than a look at
/// the ring. Too high: timers are late, 100 us being a tenth of the shortest deadline anyone sets.
pub const HOUSEKEEPING_NS: u64 = 100_000;

/// Looking for packets this long, right after a turn that found none, is a stall of the core: it takes less
/// than a microsecond, a burst a few. Too low: cache misses count as stalls; too high: interrupts are missed,
/// which take some 10 us.
pub const STALL_NS_MIN: u64 = 10_000;

/// Time between two publications of totals and counters. Too low: shared cache lines are written
/// for no reader. Too high: `nautilus top` and the watchdog see the past.
pub const PUBLISH_NS: u64 = 1_000_000;

/// What an adaptive worker spins through after the last packet. Too low: a wake-up of 20-90 us
/// (`scoreboard.md`) is paid inside a burst of requests. Too high: idle workers burn shared cores.
pub const ADAPTIVE_SPIN_NS: u64 = 50_000;

/// The longest sleep. Too low: idle nodes wake each other's cores. Too high: timers and the stop
/// flag wait; a silent feed is noticed this much later.
pub const SLEEP_NS_MAX: u64 = 2_000_000;

/// Where the loop gets its time from: nanoseconds that never go back.
pub trait Clock {
    /// Now.
    fn now_ns(&self) -> u64;
}

/// `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Monotonic;

impl Clock for Monotonic {
    #[inline]
    fn now_ns(&self) -> u64 {
        nautilus_shm::clock::monotonic_ns()
    }
}

/// A worker: a port, the applications behind it, and where it reports to.
pub struct Worker<P, A, R, C = Monotonic> {
    /// Source and sink of datagrams.
    pub port: P,
    /// Who handles them.
    pub apps: A,
    /// Where heartbeat and figures go.
    pub report: R,
    clock: C,
    policy: PollPolicy,
    totals: Totals,
    dispatched: Dispatched,
    last_turn_ns: u64,
    last_packet_ns: u64,
    last_housekeeping_ns: u64,
    last_publish_ns: u64,
    /// Nothing was done since the end of the last turn but a look for more to do.
    only_polls: bool,
}

impl<P: Port, A: Apps, R: Report> Worker<P, A, R> {
    /// A worker by the system's clock.
    pub fn new(port: P, apps: A, report: R, policy: PollPolicy) -> Self {
        Self::with_clock(port, apps, report, policy, Monotonic)
    }
}

impl<P: Port, A: Apps, R: Report, C: Clock> Worker<P, A, R, C> {
    /// A worker by a clock of the caller's.
    pub fn with_clock(port: P, apps: A, report: R, policy: PollPolicy, clock: C) -> Self {
        let now_ns = clock.now_ns();
        Self {
            port,
            apps,
            report,
            clock,
            policy,
            totals: Totals::default(),
            dispatched: Dispatched::default(),
            last_turn_ns: now_ns,
            last_packet_ns: now_ns,
            last_housekeeping_ns: now_ns,
            last_publish_ns: now_ns,
            only_polls: false,
        }
    }

    /// What the loop has done so far.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// One turn without the sleep; returns how many datagrams and pieces of other work there were.
    #[inline]
    pub fn turn(&mut self) -> usize {
        // poll
        let received = self.port.receive();
        let now_ns = self.clock.now_ns();
        // Also where packets were found: they came while the core was away.
        let polled_ns = now_ns.saturating_sub(self.last_turn_ns);
        if polled_ns >= STALL_NS_MIN && self.only_polls {
            self.report.stall(polled_ns);
        }

        // handle
        self.dispatched.clear();
        if received != 0 {
            {
                let (burst, tx) = self.port.split();
                self.apps.seen(&burst);
                dispatch(&mut self.apps, now_ns, &burst, tx, &mut self.dispatched);
            }
            self.port.release();
            self.totals.no_application_count += self.dispatched.no_application as u64;
        }
        let (_, tx) = self.port.split();
        let done = received + self.apps.other_work(&self.clock, tx);

        // flush
        self.port.flush();
        let end_ns = if done != 0 { self.clock.now_ns() } else { now_ns };
        for rx_ns in self.dispatched.answered_rx_ns() {
            self.report.xdp_to_tx(end_ns.saturating_sub(*rx_ns));
        }

        // housekeeping
        self.account(done != 0, end_ns);
        self.report.beat(end_ns);
        self.only_polls = done == 0;
        if end_ns.saturating_sub(self.last_housekeeping_ns) >= HOUSEKEEPING_NS {
            self.last_housekeeping_ns = end_ns;
            self.only_polls = false;
            let (_, tx) = self.port.split();
            self.apps.housekeeping(end_ns, tx);
        }
        if end_ns.saturating_sub(self.last_publish_ns) >= PUBLISH_NS {
            self.publish(end_ns);
            self.only_polls = false;
        }
        done
    }

    /// Time since the last turn ended counts as busy if this one had packets, as idle if not.
    #[inline]
    fn account(&mut self, busy: bool, end_ns: u64) {
        let turn_ns = end_ns.saturating_sub(self.last_turn_ns);
        self.last_turn_ns = end_ns;
        self.totals.loops += 1;
        if busy {
            self.totals.busy_ns += turn_ns;
            self.report.busy_turn(turn_ns);
            self.last_packet_ns = end_ns;
        } else {
            self.totals.idle_ns += turn_ns;
            self.totals.idle_loops += 1;
        }
    }

    fn publish(&mut self, now_ns: u64) {
        self.last_publish_ns = now_ns;
        self.totals.frames_lost_count += u64::from(!self.port.frames_add_up());
        self.report.publish(&self.totals, self.port.counters(), self.port.frame_counts());
    }

    /// Sleeps if the policy says so after a turn that found nothing.
    #[inline]
    fn rest(&mut self) {
        let idle_ns = self.last_turn_ns.saturating_sub(self.last_packet_ns);
        let sleeps = match self.policy {
            PollPolicy::Busy => false,
            PollPolicy::Adaptive => idle_ns >= ADAPTIVE_SPIN_NS,
            PollPolicy::Interrupt => true,
        };
        if !sleeps {
            std::hint::spin_loop();
            return;
        }
        self.only_polls = false;
        // What housekeeping queued must not wait for the next packet.
        self.port.flush();
        let until_ns = self.last_turn_ns + SLEEP_NS_MAX;
        self.report.asleep_until(until_ns);
        if self.apps.sleeps(until_ns) {
            self.totals.sleeps += 1;
            self.port.wait(SLEEP_NS_MAX, self.apps.wake_descriptor());
        }
        self.apps.woke();
        self.report.asleep_until(0);
    }
}

/// Runs a worker until `stop` is raised, then flushes and publishes once more.
pub fn run<P: Port, A: Apps, R: Report, C: Clock>(
    worker: &mut Worker<P, A, R, C>,
    stop: &AtomicBool,
) {
    // Pairs with the helper thread that raises it; nothing else is ordered by it.
    while !stop.load(Ordering::Relaxed) {
        if worker.turn() == 0 {
            worker.rest();
        }
    }
    worker.port.flush();
    worker.publish(worker.last_turn_ns);
}
