//! What a worker counts as a stall of its core: looks for packets that take long, and nothing else.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use nautilus_dataplane::app::echo::Echo;
use nautilus_dataplane::net::Endpoint;
use nautilus_dataplane::port::sim::{SimFaults, SimWorld};
use nautilus_dataplane::port::{Link, Path, PortCounters, SimPort};
use nautilus_dataplane::worker::run_loop::{HOUSEKEEPING_NS, STALL_NS_MIN};
use nautilus_dataplane::worker::{Clock, Report, Served, Totals, Worker, run};
use nautilus_shm::cells::PollPolicy;
use nautilus_shm::ledger::FrameCounts;

const PORT: u16 = 7;

const NONE: [u64; 0] = [];

struct SimClock(Rc<RefCell<SimWorld>>);

impl Clock for SimClock {
    fn now_ns(&self) -> u64 {
        self.0.borrow().now_ns()
    }
}

/// What was said of stalls; raises the flag when the worker has slept this often.
#[derive(Default)]
struct Said {
    stalls_ns: RefCell<Vec<u64>>,
    sleeps: Cell<u32>,
    stop: AtomicBool,
}

impl Report for &Said {
    fn beat(&self, _now_ns: u64) {}
    fn asleep_until(&self, until_ns: u64) {
        self.sleeps.set(self.sleeps.get() + u32::from(until_ns != 0));
        self.stop.store(self.sleeps.get() >= 20, Ordering::Relaxed);
    }
    fn xdp_to_tx(&self, _elapsed_ns: u64) {}
    fn busy_turn(&self, _elapsed_ns: u64) {}
    fn stall(&self, elapsed_ns: u64) {
        self.stalls_ns.borrow_mut().push(elapsed_ns);
    }
    fn publish(&self, _totals: &Totals, _port: &PortCounters, _frames: FrameCounts) {}
}

type World = Rc<RefCell<SimWorld>>;
type Apps = (Option<Served<Echo>>, ());

fn worker<'a>(
    world: &World,
    said: &'a Said,
    policy: PollPolicy,
) -> Worker<SimPort, Apps, &'a Said, SimClock> {
    let apps = (Some(Served { ports: vec![PORT], app: Echo::default() }), ());
    let (port, clock) = (SimPort::new(world.clone()), SimClock(world.clone()));
    Worker::with_clock(port, apps, said, policy, clock)
}

#[test]
fn a_look_for_packets_that_takes_long_is_a_stall() {
    let (world, said) = (SimWorld::new(1, SimFaults::default()), Said::default());
    let mut worker = worker(&world, &said, PollPolicy::Busy);
    let mut turn_after = |time_ns: u64| {
        world.borrow_mut().advance(time_ns);
        worker.turn();
        said.stalls_ns.borrow_mut().split_off(0)
    };
    // What was before the first turn is not known.
    assert_eq!(turn_after(STALL_NS_MIN), NONE);
    assert_eq!(turn_after(STALL_NS_MIN - 1), NONE);
    assert_eq!(turn_after(STALL_NS_MIN), [STALL_NS_MIN]);
    assert_eq!(turn_after(2 * STALL_NS_MIN), [2 * STALL_NS_MIN]);

    // A packet may have come while the core was away; the look behind it may be long by its doing.
    let path = Path {
        from: Endpoint::v4([198, 18, 0, 2], 1000),
        to: Endpoint::v4([198, 18, 0, 1], PORT),
        link: Link { interface: 0, vlans: [0, 0] },
    };
    world.borrow_mut().client_sends(&path, b"question");
    assert_eq!(turn_after(STALL_NS_MIN), [STALL_NS_MIN]);
    assert_eq!(turn_after(STALL_NS_MIN), NONE);
    assert_eq!(turn_after(STALL_NS_MIN), [STALL_NS_MIN]);

    // Housekeeping is work: the stall that made it due counts, the time it takes itself does not.
    assert_eq!(turn_after(HOUSEKEEPING_NS), [HOUSEKEEPING_NS]);
    assert_eq!(turn_after(STALL_NS_MIN), NONE);
    assert_eq!(turn_after(STALL_NS_MIN), [STALL_NS_MIN]);
}

#[test]
fn sleep_is_no_stall() {
    let (world, said) = (SimWorld::new(1, SimFaults::default()), Said::default());
    let mut worker = worker(&world, &said, PollPolicy::Interrupt);
    run(&mut worker, &said.stop);
    assert!(said.sleeps.get() >= 20);
    assert!(worker.totals().idle_ns >= 20 * STALL_NS_MIN, "{:?}", worker.totals());
    assert_eq!(*said.stalls_ns.borrow(), NONE);
}
