//! Hot keys of a node of two workers, each of which shows its own: answered in XDP whoever's they are, never
//! older than what was acknowledged or read before, while both change them and both are killed. Needs root.
#![allow(missing_docs)]

#[path = "support/supervised.rs"]
mod supervised;

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use libbpf_rs::query::{ProgInfoIter, ProgInfoQueryOptions};
use libbpf_rs::{MapCore, MapHandle};
use nautilus_ebpf::intf::HOT_SLOTS;
use nautilus_ebpf::{HotArea, HotSlots, PassProgram};
use nautilus_shm::control_region::{ControlReader, SUPERVISOR_PROCESS};
use nautilus_shm::metrics::labels::XdpVerdict;
use nautilus_shm::metrics::table;
use nix::sys::signal::Signal;

use supervised::{CACHE_PORT, CLIENT, SERVER, Supervised, ask, ip, privileged, wait_until};

const EXTRA: &str = "queues = [0, 1]\n[worker]\ncount = 2\n[port]\nframes = 1024\n\
                     [cache]\nid = \"quotes\"\nmax_memory_mb = 64\nhot_set = true\n";
const CLIENTS: usize = 3;
/// Sockets of each client.
const FLOWS: usize = 8;
/// Keys of each client.
const KEYS: usize = 6;

/// What is known of a key: its newest value, and the newest that must be seen from now on.
#[derive(Default)]
struct Known {
    written: AtomicU64,
    seen: AtomicU64,
}

struct Load<'a> {
    node: &'a Supervised,
    keys: Vec<String>,
    known: Vec<Known>,
    stop: AtomicBool,
    rounds: AtomicU64,
}

fn client(node: &Supervised) -> UdpSocket {
    Supervised::inside(&node.client_ns, || {
        let socket = UdpSocket::bind((CLIENT, 0)).unwrap();
        socket.connect((SERVER, CACHE_PORT)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        socket
    })
}

/// Some of them arrive at each worker.
fn flows(node: &Supervised) -> Vec<UdpSocket> {
    (0..FLOWS).map(|_| client(node)).collect()
}

/// The answer, unless it was lost with a worker.
fn try_ask(client: &UdpSocket, text: &str) -> Option<String> {
    static REQUEST: AtomicU16 = AtomicU16::new(0);
    let id = REQUEST.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    client.send(&[&id[..], &[0, 0, 0, 1, 0, 0], text.as_bytes()].concat()).unwrap();
    let mut reply = [0; 1500];
    while let Ok(length) = client.recv(&mut reply) {
        if reply[..2] == id {
            return Some(String::from_utf8_lossy(&reply[8..length]).into_owned());
        }
    }
    None
}

/// Tells the clients to stop, also when an assertion fails: their scope waits for them.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Load<'_> {
    /// One client: changes keys of its own, which nobody else does, and reads everybody's. Changes by one
    /// flow, so that none overtakes another.
    fn run(&self, name: usize) {
        let flows = flows(self.node);
        for turn in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let own = name * KEYS + turn % KEYS;
            let number = self.known[own].written.fetch_add(1, Ordering::SeqCst) + 1;
            let set = format!("set {} 0 0 8\r\n{number:08}\r\n", self.keys[own]);
            match try_ask(&flows[0], &set).as_deref() {
                Some("STORED\r\n") => self.saw(own, number),
                None => {}
                Some(other) if other.starts_with("SERVER_ERROR outcome unknown") => {}
                Some(other) => panic!("{other:?} to {set:?}"),
            }
            for step in 0..8 {
                let key = if step % 2 == 0 { own } else { (own + step + turn) % self.keys.len() };
                self.read(&flows[step % FLOWS], key);
            }
            self.rounds.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn saw(&self, key: usize, number: u64) {
        self.known[key].seen.fetch_max(number, Ordering::SeqCst);
    }

    fn read(&self, client: &UdpSocket, key: usize) {
        let (name, known) = (&self.keys[key], &self.known[key]);
        let seen = known.seen.load(Ordering::SeqCst);
        let Some(said) = try_ask(client, &format!("get {name}\r\n")) else { return };
        if said.starts_with("SERVER_ERROR outcome unknown") {
            return;
        }
        let number = value_in(name, &said);
        let written = known.written.load(Ordering::SeqCst);
        assert!((seen..=written).contains(&number), "{name}: {number}, not {seen} to {written}");
        self.saw(key, number);
    }
}

/// The number a key's value carries, 0 without one.
fn value_in(key: &str, said: &str) -> u64 {
    if said == "END\r\n" {
        return 0;
    }
    let number = said
        .strip_prefix(&format!("VALUE {key} 0 8\r\n"))
        .and_then(|rest| rest.strip_suffix("\r\nEND\r\n")?.parse().ok());
    number.unwrap_or_else(|| panic!("{said:?} is not the value of {key}"))
}

fn hot_hits(region: &ControlReader) -> u64 {
    region.metrics(SUPERVISOR_PROCESS).counter(table::XDP_PACKETS.of(XdpVerdict::HotHit))
}

/// Keys of which one in three has a slot of its own and the others share one, whoever's they are.
fn keys() -> Vec<String> {
    let slot = |key: &str| HotArea::new(0, 2).unwrap().slot_of(0, key.as_bytes()).unwrap();
    let shared = slot("shared");
    let all = (0..).map(|number: u32| format!("k{number}"));
    let mut sharing = all.clone().filter(|key| slot(key) == shared);
    let mut apart = all.filter(|key| slot(key) != shared);
    let next = |place| if place % 3 == 0 { apart.next() } else { sharing.next() };
    (0..CLIENTS * KEYS).filter_map(next).collect()
}

/// Every key becomes hot when it alone is asked for, even by one flow, which arrives at one worker: at
/// another than the key's for about half of them.
fn warm_each(node: &Supervised, keys: &[String], region: &ControlReader) {
    let flow = client(node);
    for key in keys {
        assert_eq!(ask(&flow, &format!("set {key} 0 0 8\r\n00000000\r\n")), "STORED\r\n");
        let before = hot_hits(region);
        wait_until("the key is hot", Duration::from_secs(10), || {
            for _ in 0..50 * FLOWS {
                assert_eq!(value_in(key, &ask(&flow, &format!("get {key}\r\n"))), 0);
            }
            hot_hits(region) > before + 20
        });
    }
}

/// The slots of the program on the node's interface.
fn slots(node: &Supervised) -> HotSlots {
    let link = ["-n", &node.server_ns, "-d", "link", "show", "s0"];
    let said = Command::new("ip").args(link).output().unwrap().stdout;
    let said = String::from_utf8(said).unwrap();
    let id = said.split("prog/xdp id ").nth(1).and_then(|rest| rest.split(' ').next());
    let id: u32 = id.and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("{said}"));
    let options = ProgInfoQueryOptions::default().include_map_ids(true);
    let program = ProgInfoIter::with_query_opts(options).find(|program| program.id == id).unwrap();
    let maps = program.map_ids.into_iter().map(|map| MapHandle::from_map_id(map).unwrap());
    let hot = maps.into_iter().find(|map| map.name() == "hot").unwrap();
    HotSlots::map(hot.as_fd()).unwrap()
}

/// Every key that is shown stands where its owner alone writes: once one worker wrote in the other's area,
/// a slot would have two writers. How many keys each shows.
fn shown_by_each(node: &Supervised) -> [usize; 2] {
    let (slots, reader) = (slots(node), node.reader("quotes").unwrap());
    let mut shown = [0; 2];
    for slot in 0..HOT_SLOTS {
        let Some(held) = slots.holds(slot) else { continue };
        let owner = reader.shard_index(held.key());
        let expected = HotArea::new(owner, 2).unwrap().slot_of(held.cache, held.key());
        let key = String::from_utf8_lossy(held.key()).into_owned();
        assert_eq!(Some(slot), expected, "{key} of worker {owner}");
        shown[owner as usize] += 1;
    }
    shown
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn hot_keys_of_two_workers_are_never_behind() {
    if !privileged("hot_keys_of_two_workers_are_never_behind") {
        return;
    }
    let mut node = Supervised::new(EXTRA);
    ip(&format!("-n {} link del s0", node.server_ns));
    node.make_link(0, 2);
    // Without a program on this end too, what XDP sends to it vanishes.
    let _far_end = Supervised::inside(&node.client_ns, || {
        let ifindex = nix::net::if_::if_nametoindex("c0").unwrap();
        PassProgram::load().unwrap().attach(ifindex).unwrap()
    });
    node.start();
    node.await_workers(2);
    let region = node.attach().unwrap();
    let keys = keys();
    warm_each(&node, &keys, &region);
    let shown = shown_by_each(&node);
    assert!(shown.iter().all(|keys| *keys > 0), "shown by each worker: {shown:?}");

    let kills = std::env::var("NAUTILUS_KILLS").ok().and_then(|kills| kills.parse().ok());
    let kills: usize = kills.unwrap_or(12);
    let known = keys.iter().map(|_| Known::default()).collect();
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let load = Load { node: &node, keys, known, stop, rounds };
    let before = hot_hits(&region);
    std::thread::scope(|scope| {
        let load = &load;
        let stop = Stop(&load.stop);
        let clients: Vec<_> =
            (0..CLIENTS).map(|name| scope.spawn(move || load.run(name))).collect();
        for number in 0..kills {
            let rounds = load.rounds.load(Ordering::Relaxed);
            wait_until("clients go on", Duration::from_secs(20), || {
                load.rounds.load(Ordering::Relaxed) > rounds + 500
                    || clients.iter().any(std::thread::ScopedJoinHandle::is_finished)
            });
            // Stopped, so that what is read for a while is read without a worker.
            let victims = node.serving();
            node.signal_supervisor(Signal::SIGSTOP);
            match number % 3 {
                2 => victims.iter().for_each(|pid| Supervised::kill_worker(*pid)),
                turn => Supervised::kill_worker(victims[turn]),
            }
            std::thread::sleep(Duration::from_millis(20));
            node.signal_supervisor(Signal::SIGCONT);
            node.await_workers(2);
        }
        drop(stop);
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
    let answered = hot_hits(&region) - before;
    shown_by_each(&node);
    println!("{kills} kills, {} changes, {answered} answers from XDP", load.rounds.into_inner());
    assert!(answered > 1_000, "{answered} answers");
    node.stop();
}
