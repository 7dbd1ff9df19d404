//! The real run loop over the simulated net: one seed decides what clients send, what is lost,
//! doubled and reordered, and when the worker dies. A failing seed is printed and fails again:
//! `NAUTILUS_SIM_SEED=n cargo test --test simulation`. `NAUTILUS_SIM_SEEDS` says how many to run.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use nautilus_dataplane::app::echo::Echo;
use nautilus_dataplane::net::Endpoint;
use nautilus_dataplane::port::sim::{SIM_PAYLOAD_BYTES_MAX, SimFaults, SimWorld};
use nautilus_dataplane::port::{Link, Path, Port, SimPort};
use nautilus_dataplane::worker::{Clock, Served, Worker};
use nautilus_shm::cells::PollPolicy;

const ECHO_PORTS: [u16; 2] = [7, 77];
const NOBODYS_PORT: u16 = 9;
const STEPS: usize = 400;

struct SimClock(Rc<RefCell<SimWorld>>);

impl Clock for SimClock {
    fn now_ns(&self) -> u64 {
        self.0.borrow().now_ns()
    }
}

type Apps = (Option<Served<Echo>>, (Option<Served<Echo>>, ()));

fn worker(world: &Rc<RefCell<SimWorld>>) -> Worker<SimPort, Apps, (), SimClock> {
    let served = |port| Some(Served { ports: vec![port], app: Echo::default() });
    let apps = (served(ECHO_PORTS[0]), (served(ECHO_PORTS[1]), ()));
    let clock = SimClock(world.clone());
    Worker::with_clock(SimPort::new(world.clone()), apps, (), PollPolicy::Adaptive, clock)
}

/// What one run did; equal for equal seeds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    sent: u64,
    answered: u64,
    kills: u64,
    digest: u64,
}

fn simulate(seed: u64) -> Outcome {
    let quiet = seed.is_multiple_of(4);
    let permille = |shift: u32| if quiet { 0 } else { (seed >> shift) as u16 % 200 };
    let faults = SimFaults {
        loss_permille: permille(3),
        duplicate_permille: permille(13),
        reorder_permille: permille(23),
    };
    let world = SimWorld::new(seed, faults);
    let buffers = world.borrow().free_buffers();
    let mut running = worker(&world);
    let mut outcome = Outcome::default();
    // By number: the path it was sent on and how often it came back.
    let mut expected: HashMap<u64, (Path, Vec<u8>, u32)> = HashMap::new();
    let mut reply = Vec::new();
    let mut killed_with = 0;
    let mut unserved = 0;
    let collect = |outcome: &mut Outcome,
                   expected: &mut HashMap<u64, (Path, Vec<u8>, u32)>,
                   reply: &mut Vec<u8>| {
        while let Some(path) = world.borrow_mut().client_receives(reply) {
            let number = u64::from_le_bytes(reply[..8].try_into().unwrap());
            let (asked, payload, seen) =
                expected.get_mut(&number).expect("an answer nobody asked for");
            assert_eq!((path.from, path.to, path.link), (asked.to, asked.from, asked.link));
            assert_eq!(reply, payload, "answer {number} is not its question");
            *seen += 1;
            outcome.answered += 1;
            outcome.digest = outcome.digest.rotate_left(7) ^ number;
        }
    };
    for _ in 0..STEPS {
        let choice = world.borrow_mut().random();
        match choice % 16 {
            0..8 => {
                for _ in 0..choice >> 8 & 15 {
                    let random = world.borrow_mut().random();
                    let port = match random & 7 {
                        0 => NOBODYS_PORT,
                        other => ECHO_PORTS[usize::from(other & 1 == 0)],
                    };
                    let from = Endpoint::v4([198, 18, 0, 2 + (random >> 8 & 15) as u8], 1000);
                    let to = Endpoint::v4([198, 18, 0, 1], port);
                    let vlans = [(random >> 16 & 3) as u16, 0];
                    let path = Path { from, to, link: Link { interface: 0, vlans } };
                    let length = 8 + (random >> 24) as usize % (SIM_PAYLOAD_BYTES_MAX - 8);
                    let mut payload = outcome.sent.to_le_bytes().to_vec();
                    payload.resize(length, random as u8);
                    world.borrow_mut().client_sends(&path, &payload);
                    unserved += u64::from(port == NOBODYS_PORT);
                    if port != NOBODYS_PORT {
                        expected.insert(outcome.sent, (path, payload, 0));
                    }
                    outcome.sent += 1;
                }
            }
            8..14 => {
                running.turn();
            }
            14 => world.borrow_mut().advance(choice >> 8 & 0xf_ffff),
            _ => {
                // Dies with a burst in hand, or between two turns.
                if choice >> 8 & 1 == 0 {
                    killed_with += running.port.receive() as u64;
                }
                drop(running);
                running = worker(&world);
                outcome.kills += 1;
            }
        }
        collect(&mut outcome, &mut expected, &mut reply);
    }
    while running.turn() > 0 {}
    collect(&mut outcome, &mut expected, &mut reply);
    assert_eq!(world.borrow().waiting(), 0);
    drop(running);
    assert_eq!(world.borrow().free_buffers(), buffers, "a buffer was lost");
    if quiet {
        // Without faults each question has one answer, unless it died with a worker.
        assert!(expected.values().all(|(_, _, seen)| *seen <= 1), "answered twice");
        let missing = outcome.sent - unserved - outcome.answered;
        assert!(missing <= killed_with, "{missing} unanswered, {killed_with} died with workers");
    }
    outcome
}

#[test]
fn every_answer_is_to_its_question_whatever_the_seed() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("NAUTILUS_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("NAUTILUS_SIM_SEEDS").unwrap_or(100),
    };
    let (mut answered, mut kills) = (0, 0);
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| simulate(seed)).unwrap_or_else(|panic| {
            eprintln!("seed {seed} failed; repeat it with NAUTILUS_SIM_SEED={seed}");
            std::panic::resume_unwind(panic)
        });
        answered += outcome.answered;
        kills += outcome.kills;
    }
    assert!(answered > 0);
    println!("{answered} answers, {kills} workers killed");
}

#[test]
fn one_seed_is_one_run() {
    for seed in [1, 2, 0xdead_beef_0000_0007] {
        assert_eq!(simulate(seed), simulate(seed));
    }
    assert_ne!(simulate(1), simulate(2));
}
