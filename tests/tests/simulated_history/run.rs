//! One run: a seed decides what clients ask by which way, what is lost, doubled, reordered and delayed,
//! and at which store the worker dies.

use std::cell::RefCell;
use std::rc::Rc;

use nautilus_dataplane::net::Endpoint;
use nautilus_dataplane::port::sim::{SimFaults, SimWorld};
use nautilus_dataplane::port::{Link, Path as Wire};
use nautilus_dataplane::replay::random::Random;
use nautilus_dataplane::worker::Clock;
use nautilus_tests::coherence::text::is_counter;
use nautilus_tests::coherence::{Answer, Ask, FAR_SECONDS, Form, Path};
use nautilus_tests::history::{Checked, Input, Operation, Output, Returned, check};
use nautilus_tests::memcached::{HEADER_BYTES, frame, header};

use crate::eyes::Eyes;
use crate::node::{Damaged, Node, PORT, SimClock, SimFront};

/// Keys of a run; the fourth is a counter, and the first two share a slot of the hot set.
const KEYS: &[u64] = &[1, 3, 2, 4, 5];

/// Steps of a run.
const STEPS: u32 = 700;

/// Clients over UDP, then over TCP.
const UDP_CLIENTS: usize = 3;
const CLIENTS: usize = UDP_CLIENTS + 2;

/// Steps after which a client gives an answer up.
const PATIENCE: u32 = 60;

/// Longest a worker lives, in stores.
const STORES_MAX: u32 = 3_000;

/// What a run did; equal for equal seeds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub operations: usize,
    pub unanswered: usize,
    pub doubled: u64,
    pub deaths: u64,
    pub repairs_cut_short: u64,
    pub fronts: u64,
    pub looks: u64,
    pub busy: u64,
    pub hot_hits: u64,
    pub digest: u64,
}

struct Waiting {
    ask: Ask,
    invoke_ns: u64,
    id: u16,
    gives_up_at: u32,
}

struct Arriving {
    client: usize,
    ask: Ask,
    invoke_ns: u64,
    datagram: Vec<u8>,
}

struct Simulation {
    world: Rc<RefCell<SimWorld>>,
    clock: SimClock,
    random: Random,
    node: Node,
    front: SimFront,
    eyes: Rc<RefCell<Eyes>>,
    waiting: [Option<Waiting>; CLIENTS],
    /// Versions as clients have read them, for `cas`.
    versions: [u64; 8],
    /// Datagrams that have not reached the driver; their clients may have given up long ago.
    arriving: Vec<Arriving>,
    /// Answers of the driver on their way back.
    leaving: Vec<(usize, Vec<u8>)>,
    next_id: u16,
    next_value: u64,
    loss_permille: u32,
    kills: bool,
    step: u32,
    seen: Seen,
}

fn endpoint(client: usize) -> Endpoint {
    Endpoint::v4([198, 18, 0, 2], 1000 + client as u16)
}

/// Runs a seed; what its history shows, or how the table was damaged.
pub fn simulate(seed: u64) -> Result<(Seen, Checked), Damaged> {
    let mut random = Random::new(seed);
    let kills = !seed.is_multiple_of(3);
    let quiet = seed.is_multiple_of(4);
    let mut permille = |most| if quiet { 0 } else { random.below(most) };
    let faults = SimFaults {
        loss_permille: permille(40) as u16,
        duplicate_permille: permille(40) as u16,
        reorder_permille: permille(200) as u16,
    };
    let world = SimWorld::new(seed, faults);
    let clock = SimClock(world.clone());
    let node = Node::new(clock.clone(), 1 + random.below(3), seed);
    let looked_at = (node.memory.clone(), node.hot.clone());
    let eyes = Eyes::new(looked_at, clock.clone(), KEYS, seed ^ 0xe1e5);
    let front = node.front(CLIENTS - UDP_CLIENTS);
    let mut simulation = Simulation {
        world,
        clock,
        random,
        node,
        front,
        eyes,
        waiting: [const { None }; CLIENTS],
        versions: [0; 8],
        arriving: Vec::new(),
        leaving: Vec::new(),
        next_id: 0,
        next_value: 1,
        loss_permille: faults.loss_permille.into(),
        kills,
        step: 0,
        seen: Seen::default(),
    };
    simulation.run()
}

impl Simulation {
    fn run(&mut self) -> Result<(Seen, Checked), Damaged> {
        while self.step < STEPS {
            self.step += 1;
            match self.random.below(20) {
                0..6 => self.ask(),
                6..9 => self.arrive(),
                9..14 => self.work()?,
                14 | 15 => self.front.step(self.clock.now_ns()),
                16 => {
                    let by_ns = u64::from(self.random.below(300_000));
                    self.world.borrow_mut().advance(by_ns);
                }
                17 => self.eyes.borrow_mut().look(),
                18 if self.kills && self.random.below(12) == 0 => self.die_between_turns(),
                _ => {}
            }
            self.collect();
            self.give_up();
        }
        self.finish()?;
        let mut eyes = self.eyes.borrow_mut();
        let history = std::mem::take(&mut eyes.history);
        let mut seen = std::mem::take(&mut self.seen);
        (seen.looks, seen.busy, seen.hot_hits) =
            (eyes.looks, eyes.busy, eyes.hot_hits + seen.hot_hits);
        seen.operations = history.len();
        seen.unanswered = history.iter().filter(|one| one.returned.is_none()).count();
        for operation in &history {
            let at_ns = operation.returned.map_or(0, |returned| returned.at_ns);
            seen.digest =
                seen.digest.rotate_left(5) ^ operation.key ^ operation.invoke_ns << 8 ^ at_ns;
        }
        Ok((seen, check(&history)))
    }

    /// An idle client asks something.
    fn ask(&mut self) {
        let client = self.random.below(CLIENTS as u32) as usize;
        if self.waiting[client].is_some() {
            return;
        }
        let key = KEYS[self.random.below(KEYS.len() as u32) as usize];
        self.next_value += 1;
        let value = self.next_value << 16;
        let version = self.versions[key as usize];
        let delta = u64::from(self.random.below(9)) + 1;
        let counter = is_counter(key);
        let input = match self.random.below(100) {
            0..45 => Input::Get,
            45..63 => Input::Set { value },
            63..67 => Input::Add { value },
            67..70 => Input::Replace { value },
            70..79 => Input::Cas { value, version },
            79..84 if counter => Input::Incr { delta },
            84..88 if counter => Input::Decr { delta },
            79..84 => Input::Append { piece: value },
            84..88 => Input::Prepend { piece: value },
            88..92 => Input::Touch,
            // A flush of unknown outcome would explain any miss.
            92 if !self.kills && client >= UDP_CLIENTS => Input::Flush,
            _ => Input::Delete,
        };
        let form = match self.random.below(5) {
            0 => Form::Versioned,
            1 if client < UDP_CLIENTS => Form::Meta,
            _ => Form::Classic,
        };
        let bytes = [0, 0, 30, 140, 400][self.random.below(5) as usize];
        let seconds = if self.random.below(3) == 0 { FAR_SECONDS } else { 0 };
        let ask = Ask { key, input, form, bytes, seconds };
        self.next_id += 1;
        let id = self.next_id;
        let invoke_ns = self.clock.stamp();
        if client < UDP_CLIENTS {
            let datagram = frame(id, &ask.request());
            self.arriving.push(Arriving { client, ask, invoke_ns, datagram });
        } else {
            self.front.receive(client - UDP_CLIENTS, &ask.request(), invoke_ns);
        }
        let gives_up_at = self.step + PATIENCE;
        self.waiting[client] = Some(Waiting { ask, invoke_ns, id, gives_up_at });
    }

    /// A datagram reaches the node: the driver answers it, or it goes to the worker's socket.
    fn arrive(&mut self) {
        if self.arriving.is_empty() {
            return;
        }
        let place = self.random.below(self.arriving.len() as u32) as usize;
        let Arriving { client, ask, invoke_ns, datagram } = self.arriving.remove(place);
        let text = &datagram[HEADER_BYTES..];
        let key = text.strip_prefix(b"get ").and_then(|rest| rest.strip_suffix(b"\r\n"));
        let now_ns = self.clock.now_ns();
        if let Some((key, value)) = key.and_then(|key| Some((key, self.node.hot.get(key, now_ns)?)))
        {
            self.seen.hot_hits += 1;
            let line = format!("VALUE {} 0 {}\r\n", String::from_utf8_lossy(key), value.len());
            let text = [line.as_bytes(), &value, b"\r\nEND\r\n"].concat();
            if self.random.below(1000) >= self.loss_permille {
                let id = header(&datagram).expect("our own header")[0];
                self.leaving.push((client, frame(id, &text)));
            }
            return;
        }
        let to = Endpoint::v4([198, 18, 0, 1], PORT);
        let wire = Wire { from: endpoint(client), to, link: Link::default() };
        let before = self.world.borrow().waiting();
        self.world.borrow_mut().client_sends(&wire, &datagram);
        if self.world.borrow().waiting() == before + 2 {
            // Done twice, the second time for nobody.
            self.seen.doubled += 1;
            self.note(client, &ask, invoke_ns, None);
        }
    }

    /// A turn of the worker, or the next step of its succession.
    fn work(&mut self) -> Result<(), Damaged> {
        let watch = Eyes::watch(&self.eyes);
        if self.node.is_served() {
            if !self.node.turn(watch) {
                self.seen.deaths += 1;
            }
            return Ok(());
        }
        // Now and then the successor dies as well, in the middle of the repair.
        let soon = self.random.below(4) == 0;
        let life = u64::from(self.random.below(if soon { 20 } else { STORES_MAX }));
        self.eyes.borrow_mut().dies_after = self.kills.then_some(life);
        if !self.node.succeed(watch)? {
            self.seen.repairs_cut_short += 1;
        }
        Ok(())
    }

    fn die_between_turns(&mut self) {
        if self.random.below(3) == 0 {
            // The front: its connections and their commands go with it.
            self.front = self.node.front(CLIENTS - UDP_CLIENTS);
            self.seen.fronts += 1;
            for client in UDP_CLIENTS..CLIENTS {
                self.unanswered(client);
            }
        } else {
            let with_burst = self.random.below(2) == 0;
            self.node.kill(with_burst);
            self.seen.deaths += 1;
        }
    }

    /// Answers reach their clients.
    fn collect(&mut self) {
        if !self.leaving.is_empty() && self.random.below(2) == 0 {
            let place = self.random.below(self.leaving.len() as u32) as usize;
            let (client, datagram) = self.leaving.remove(place);
            self.hear(client, &datagram);
        }
        let mut datagram = Vec::new();
        for _ in 0..self.random.below(4) {
            let Some(wire) = self.world.borrow_mut().client_receives(&mut datagram) else { break };
            let client = usize::from(wire.to.port - 1000);
            self.hear(client, &datagram);
        }
        for client in UDP_CLIENTS..CLIENTS {
            if self.waiting[client].is_some()
                && let Some(text) = self.front.answer(client - UDP_CLIENTS)
            {
                self.answered(client, &text);
            }
        }
    }

    fn hear(&mut self, client: usize, datagram: &[u8]) {
        let [id, 0, 1, _] = header(datagram).expect("a frame header") else {
            panic!("an answer in several datagrams");
        };
        if self.waiting[client].as_ref().is_some_and(|waiting| waiting.id == id) {
            self.answered(client, &datagram[HEADER_BYTES..]);
        }
    }

    fn answered(&mut self, client: usize, text: &[u8]) {
        let Some(waiting) = self.waiting[client].take() else { return };
        match waiting.ask.answer(text) {
            Answer::Known(output) => {
                if let Output::Value { version: Some(version), .. }
                | Output::Stored { version: Some(version) } = output
                {
                    self.versions[waiting.ask.key as usize] = version;
                }
                self.note(client, &waiting.ask, waiting.invoke_ns, Some(output));
            }
            Answer::Unknown => self.note(client, &waiting.ask, waiting.invoke_ns, None),
            Answer::Wrong(text) => panic!("{text}"),
        }
    }

    fn unanswered(&mut self, client: usize) {
        if let Some(waiting) = self.waiting[client].take() {
            self.note(client, &waiting.ask, waiting.invoke_ns, None);
        }
    }

    fn note(&mut self, client: usize, ask: &Ask, invoke_ns: u64, output: Option<Output>) {
        let path = match (client < UDP_CLIENTS, ask.input, ask.form) {
            (false, ..) => Path::Front,
            (true, Input::Get, Form::Classic) => Path::Hot,
            _ => Path::Worker,
        } as u8;
        let returned = output.map(|output| Returned { output, at_ns: self.clock.stamp() });
        let &Ask { key, input, .. } = ask;
        let client = client as u32;
        let operation = Operation { client, path, key, input, invoke_ns, returned };
        self.eyes.borrow_mut().history.push(operation);
    }

    /// Datagrams can be lost, so their clients do not wait for ever; connections do not lose anything.
    fn give_up(&mut self) {
        for client in 0..UDP_CLIENTS {
            if self.waiting[client].as_ref().is_some_and(|one| one.gives_up_at < self.step) {
                self.unanswered(client);
            }
        }
    }

    /// No more deaths: everything on its way arrives, and every key is read by every way.
    fn finish(&mut self) -> Result<(), Damaged> {
        self.kills = false;
        self.eyes.borrow_mut().dies_after = None;
        for _ in 0..200 {
            self.step += 1;
            self.arrive();
            self.work()?;
            self.front.step(self.clock.now_ns());
            self.collect();
            self.give_up();
        }
        assert!(
            self.waiting[UDP_CLIENTS..].iter().all(Option::is_none),
            "a stream without an answer"
        );
        for _ in 0..60 {
            self.eyes.borrow_mut().look();
        }
        Ok(())
    }
}
